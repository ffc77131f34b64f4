"""`act2see micro`: the board world, and the small models that know it."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.output import err, out, program, progress_bar, say
from act2see.trace.console import plain

if TYPE_CHECKING:
    from rich.progress import TaskID

app = typer.Typer(
    no_args_is_help=True, help="The board world: make clips, train the small models, test them."
)


class Family(StrEnum):
    """What a clip asks for."""

    observe = "observe"
    blink = "blink"
    imagine = "imagine"
    both = "both"


@app.command("clip")
def clip(
    family: Annotated[
        Family, typer.Option(help="What its question needs: looking, looking again, imagining, or both.")
    ] = Family.blink,
    seed: Annotated[int, typer.Option(min=0, help="Which clip of the test split.")] = 0,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it, as MP4.")
    ] = None,
) -> None:
    """Write a clip and print its question, with the true answer."""
    from act2see.errors import StoreError
    from act2see.micro.questions import LETTERS, make_item
    from act2see.micro.world import write_clip
    from act2see.tools.runtime.files import whole_file

    path = to or Path(f"{family.value}-{seed}.mp4")
    if path.suffix != ".mp4":
        raise StoreError(f"clips are written as MP4: name it {path.with_suffix('.mp4').name}")
    item = make_item(family.value, seed, "test")
    with whole_file(path) as new:
        write_clip(item.clip, new)
    say(f"{path}: {item.clip.seconds:.0f} s")
    say(item.text, "bold")
    for letter, option in zip(LETTERS, item.options, strict=False):
        say(f"  {letter}. {option}")
    say(f"answer: {item.correct}. {item.answer}")
    say("ask it:", "dim")
    say(
        f"  {program()} "
        + shlex.join(["ask", str(path), item.text, *(word for o in item.options for word in ("--option", o))])
    )


@app.command("train")
def train(
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the weights go.")] = Path(
        "micro-weights"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of each stage, to see that all runs.")
    ] = False,
    stage: Annotated[
        list[str] | None, typer.Option(help="One stage alone; give it once for each. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of every stage.")] = 0,
) -> None:
    """Train the small models from nothing."""
    from act2see.micro.recipe import train as recipe
    from act2see.tools.runtime.memory import retain_freed_memory

    retain_freed_memory()
    with progress_bar() as bar:
        tasks: dict[str, TaskID] = {}
        tenths: dict[str, int] = {}

        def progress(name: str, step: int, steps: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], description=f"{name}, loss {loss:.3f}", completed=step + 1, total=steps)
            # A log has no bars: a line for each tenth, since this takes an hour.
            if bar.disable and (tenth := 10 * (step + 1) // steps) > tenths.get(name, 0):
                tenths[name] = tenth
                err().print(plain(f"{name}: step {step + 1} of {steps}, loss {loss:.3f}"))

        seconds = recipe.train(to, quick, progress, tuple(stage) if stage else recipe.STAGES, seed)
    for name, spent in seconds.items():
        say(f"{name}: {spent:.0f} s")
    say(f"weights in {to}: name its folders as `weights` in a config file (act2see config show micro)")


@app.command("test")
def measure(
    n: Annotated[int, typer.Option("--n", min=4, help="How many questions, a quarter of each family.")] = 800,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Weights of `micro train`; by default those of the package."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the report as .json or .md.")
    ] = None,
) -> None:
    """Measure the small models on questions that they have not seen."""
    from act2see.errors import StoreError
    from act2see.tools.runtime.files import check_file, write_text

    if to:
        check_file(to)
        if to.suffix not in (".json", ".md"):
            raise StoreError(f"a report is written as .json or .md, not {to.suffix or 'without a suffix'}")
    from act2see.micro.study import evaluate

    with progress_bar() as bar:
        task = bar.add_task("asking", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        report = evaluate.run(n, weights, progress)
    out(markup=True).print(report.table())
    if to:
        write_text(to, report.to_json() if to.suffix == ".json" else report.markdown())
        err().print(plain(f"written to {to}"), soft_wrap=True)


@app.command("ablate")
def ablate(
    to: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Where the results go; what is there is not made again."),
    ] = Path("ablations"),
    quick: Annotated[bool, typer.Option("--quick", help="One seed, small corpora, few steps.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds. Default: 3, and 1 with --quick.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", metavar="FILE", help="The table, as Markdown; its plots go beside it."),
    ] = None,
) -> None:
    """Reproduce the paper's ablations on the board world. An interrupted run goes on."""
    from dataclasses import replace

    from act2see.micro.study import ablate as ablations
    from act2see.micro.study.ablate_report import markdown, plots, read_results
    from act2see.tools.runtime.files import write_text
    from act2see.tools.runtime.memory import retain_freed_memory

    retain_freed_memory()
    sizes = ablations.QUICK if quick else ablations.Sizes()
    sizes = replace(sizes, seeds=seeds or sizes.seeds)
    ablations.ablate(to, sizes, lambda name, seconds: err().print(plain(f"{name}: {seconds:.0f} s")))
    path, results = page or to / "micro.md", read_results(to)
    command = f"act2see micro ablate{' --quick' if quick else ''}{f' --seeds {seeds}' if seeds else ''}"
    pictures = "".join(f"![{p.stem}]({p.name})\n" for p in plots(results, path.parent))
    write_text(path, markdown(results, command) + "\n" + pictures)
    say(f"table and plots in {path}")
