"""`act2see micro`: writes clips of the board world, and trains and tests the small models for it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.output import ask_command, note, out, progress_bar, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer(
    no_args_is_help=True, help="Write clips of the board world; train and test the small models for it."
)


class Family(StrEnum):
    """The families of questions: the first four by what an answer needs, the others by what they ask."""

    observe = "observe"
    blink = "blink"
    imagine = "imagine"
    both = "both"
    plain = "plain"
    when = "when"
    numbers = "count"  # `count` is a method of strings
    exists = "exists"
    first = "first"
    two = "two"
    changes = "changes"
    describe = "describe"
    false = "false"
    beyond = "beyond"


@app.command("clip")
def clip(
    family: Annotated[
        Family,
        typer.Option(
            help="What its question needs (initial frames, a retrieved frame, an imagined frame, or both), "
            "or what it asks: when, how many, is there, which first, about two moments, ..."
        ),
    ] = Family.blink,
    seed: Annotated[int, typer.Option(min=0, help="The number of the clip in the test split.")] = 0,
    to: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The MP4 file to write. Default: FAMILY-SEED.mp4."),
    ] = None,
) -> None:
    """Write a clip of the board world, and print its question with the true answer.

    Needs nothing: clips are drawn from the seed.
    """
    import random
    from dataclasses import replace

    from act2see.errors import StoreError
    from act2see.micro.questions import LETTERS, make_item
    from act2see.micro.wordings import load_wordings
    from act2see.micro.world import write_clip
    from act2see.tools.runtime.files import whole_file

    path = to or Path(f"{family.value}-{seed}.mp4")
    if path.suffix != ".mp4":
        raise StoreError(f"clips are MP4 files: name it {path.with_suffix('.mp4').name}")
    item = make_item(family.value, seed, "test")
    with whole_file(path) as new:
        write_clip(item.clip, new)
    say(f"{path}: {item.clip.seconds:.0f} s")
    if item.kind == "beyond":
        item = replace(item, text=load_wordings().decline(random.Random(seed)))
    say(item.text, "bold")
    for letter, option in zip(LETTERS, item.options, strict=False):
        say(f"  {letter}. {option}")
    say(f"answer: {f'{item.correct}. ' if item.options else ''}{item.answer}")
    say("ask this question:", "dim")
    say(f"  {ask_command(path, item.text, item.options)}")


@app.command("clips")
def clips(
    count: Annotated[int, typer.Option(min=1, help="The number of clips.")] = 20,
    skip: Annotated[
        int, typer.Option(min=0, help="The number of clips to leave out, for a second set of other clips.")
    ] = 0,
    to: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder for the clips.")] = Path(
        "clips"
    ),
) -> None:
    """Write clips of the board world, and a table of what they show, for [bold]act2see calibrate[/bold].

    Needs nothing: clips are drawn from their numbers.
    """
    from act2see.micro.searches import TABLE, write_clips
    from act2see.tools.runtime.files import check_folder

    check_folder(to, TABLE)
    with progress_bar() as bar:
        task = bar.add_task("writing", total=count)
        table = write_clips(
            to, count, skip=skip, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    say(f"{count} clips in {to}; what they show: {table}")


@app.command("train")
def train(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for the weights.")] = Path(
        "micro-weights"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Train each stage for a few steps only, to check that it runs.")
    ] = False,
    stage: Annotated[
        list[str] | None, typer.Option(help="Train only this stage; can be repeated. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of every stage.")] = 0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or auto: a CUDA GPU if there is one, else the CPU.")
    ] = "auto",
) -> None:
    """Train the small models from scratch.

    Takes about three and a half hours on two cores, and less than an hour with a GPU. The training data is
    drawn from the seed.
    """
    from act2see.micro.recipe import train as recipe
    from act2see.tools.runtime.memory import retain_freed_memory

    retain_freed_memory()
    with progress_bar() as bar:
        stages = tuple(stage) if stage else recipe.STAGES
        seconds = recipe.train(to, quick, _StageProgress(bar), stages, seed, device)
    for name, spent in seconds.items():
        say(f"{name}: {spent:.0f} s")
    say(f"weights in {to}: name its folders as `weights` in a config file (act2see config show micro)")


class _StageProgress:
    """Shows a progress bar for each stage. Without a terminal, prints a line for each tenth of a stage."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}
        self._tenths: dict[str, int] = {}

    def __call__(self, name: str, step: int, steps: int, loss: float) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name)
        done = step + 1
        self._bar.update(
            self._tasks[name], description=f"{name}, loss {loss:.3f}", completed=done, total=steps
        )
        tenth = 10 * done // steps
        if self._bar.disable and tenth > self._tenths.get(name, 0):
            self._tenths[name] = tenth
            note(f"{name}: step {done} of {steps}, loss {loss:.3f}")


@app.command("test")
def measure(
    n: Annotated[
        int,
        typer.Option(
            "--n",
            min=4,
            help="The number of questions of the paper's families, everyday ones, and strangers'.",
        ),
    ] = 800,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder of `micro train`. Default: the weights in the package."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the report to a .json or .md file.")
    ] = None,
) -> None:
    """Measure the small models on questions that they were not trained on.

    Needs nothing: without --weights it measures the models in the package, on the CPU.
    """
    from act2see.errors import StoreError
    from act2see.tools.runtime.files import check_file, write_text

    if to:
        check_file(to)
        if to.suffix not in (".json", ".md"):
            raise StoreError(f"a report cannot be written to {to.name}: name a .json or .md file")
    from act2see.micro.study import figures

    with progress_bar() as bar:
        task = bar.add_task("asking", total=None)

        def show_progress(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total)

        report = figures.run(n, weights, show_progress)
    out(markup=True).print(report.table())
    if to:
        write_text(to, report.to_json() if to.suffix == ".json" else report.markdown())
        note(f"written to {to}")


@app.command("ablate")
def ablate(
    to: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The folder for the results; existing results are reused."),
    ] = Path("ablations"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Use one seed, small corpora and few steps.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="The number of seeds. Default: 3, or 1 with --quick.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", metavar="FILE", help="The Markdown file for the table; the plots are written beside it."
        ),
    ] = None,
) -> None:
    """Reproduce the paper's ablations on the board world.

    Needs the train extra, up to 9 GB of memory, and about an hour per seed on two cores. Run it again to
    continue an interrupted run.
    """
    from dataclasses import replace

    from act2see.micro.study import ablate as ablations
    from act2see.micro.study.ablate_report import markdown, plots, read_results
    from act2see.tools.runtime.files import write_text
    from act2see.tools.runtime.memory import retain_freed_memory

    retain_freed_memory()
    sizes = ablations.QUICK if quick else ablations.Sizes()
    sizes = replace(sizes, seeds=seeds or sizes.seeds)
    ablations.ablate(to, sizes, lambda name, seconds: note(f"{name}: {seconds:.0f} s"))
    path = page or to / "micro.md"
    results = read_results(to)
    command = "act2see micro ablate"
    if quick:
        command += " --quick"
    if seeds:
        command += f" --seeds {seeds}"
    images = "".join(f"![{p.stem}]({p.name})\n" for p in plots(results, path.parent))
    write_text(path, markdown(results, command) + "\n" + images)
    say(f"table and plots in {path}")
