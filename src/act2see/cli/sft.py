"""`act2see sft` and `act2see grpo`: trains the reasoner on a corpus, or on its own rollouts.

Fine-tuning runs in one process, or on several GPUs with `accelerate launch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import (
    ConfigFile,
    Preset,
    QuestionSource,
    SourceFile,
    VideoFolder,
    chosen_config,
)
from act2see.cli.output import note, out, progress_bar, say
from act2see.cli.samples import draw_samples, report_problems
from act2see.errors import ConfigError

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.training.grpo import Round
    from act2see.training.sft.settings import SftSettings

# Settings of the preset micro: the small model trains all its weights on a CPU.
MICRO: dict[str, Any] = {
    "base": "micro:base",
    "mode": "full",
    "learning_rate": 1e-3,
    "batch": 32,
    "warmup": 20,
    "weight_decay": 0.01,
    "prompt": "short",
    "device": "cpu",
    "gradient_checkpointing": False,
}


@dataclass(frozen=True, slots=True)
class _Machine:
    """The machine that a dry run assumes."""

    gpus: int
    gpu_gib: float
    """Memory of each GPU, in GiB."""
    launch: Any
    """Launcher of the processes. None to choose one that fits."""


def sft(
    context: typer.Context,
    corpus: Annotated[Path | None, typer.Argument(help="A corpus: a folder of `corpus pack`.")] = None,
    to: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="The folder for the adapter or model, its card and its checkpoints."
        ),
    ] = Path("tuned"),
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="The default settings: paper or micro.")
    ] = "paper",
    config: ConfigFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the last checkpoint in --out.")
    ] = False,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Only estimate tokens and memory, and print the command to run."),
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="For --dry-run: the number of GPUs.")] = 8,
    gpu_gib: Annotated[float, typer.Option(help="For --dry-run: the memory of each GPU, in GiB.")] = 80,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="For --dry-run: ddp, fsdp, deepspeed_zero2 or deepspeed_zero3. Default: one that fits.",
        ),
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--settings", help="List all settings. Each is an option, such as --learning-rate 1e-5."
        ),
    ] = False,
) -> None:
    """Fine-tune the reasoner on a corpus.

    Needs the train extra and a corpus. The preset paper needs GPUs; check with --dry-run. The loss covers the
    text that the model writes, not the frames and notes that it is shown.
    """
    from act2see.training.sft.settings import SftSettings

    if preset not in ("paper", "micro"):
        raise ConfigError(f"unknown preset {preset!r} for fine-tuning: use paper or micro")
    defaults = MICRO if preset == "micro" else {}
    settings = SftSettings.read(defaults | read_settings(context.args))
    if show:
        _list_settings(settings)
        return
    if corpus is None:
        raise ConfigError("name a corpus: act2see sft CORPUS (act2see corpus pack writes one)")
    graph = None
    if settings.eval_samples:
        graph = chosen_config(None if config else preset, config)
    if dry:
        command = _dry_run(corpus, to, settings, graph, _Machine(gpus, gpu_gib, launch))
        say(f"{command} --config {config}" if config and graph else command)
    else:
        _train(corpus, to, settings, graph, resume)


def _list_settings(settings: SftSettings) -> None:
    for name, value in settings.model_dump().items():
        shown = " ".join(value) if isinstance(value, tuple) else value
        say(f"--{name.replace('_', '-')}  {shown}")


def _dry_run(corpus: Path, to: Path, settings: SftSettings, graph: Config | None, machine: _Machine) -> str:
    """Print the tokens and memory that training would need, and return the command that starts it."""
    from tempfile import TemporaryDirectory

    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.dataset import read_corpus
    from act2see.training.sft.dryrun import dry_run

    with TemporaryDirectory() as folder:  # for the frames that reading a corpus unpacks
        report = dry_run(
            (chain.trace for chain in read_corpus(corpus, FrameStore(folder)) if chain.trace),
            settings,
            corpus=str(corpus),
            out=str(to),
            graph=graph,
            gpus=machine.gpus,
            gpu_gib=machine.gpu_gib,
            launch=machine.launch,
        )
    out(markup=True).print(report.table())
    return report.command


def _train(corpus: Path, to: Path, settings: SftSettings, graph: Config | None, resume: bool) -> None:
    from act2see.tools.runtime.memory import retain_freed_memory
    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.dataset import read_corpus
    from act2see.training.sft.finetune import finetune

    store = FrameStore(to / "frames")
    traces = (chain.trace for chain in read_corpus(corpus, store) if chain.trace)
    retain_freed_memory()
    with progress_bar() as bar:
        task = bar.add_task("sft", total=None)

        def show_progress(name: str, step: int, steps: int, loss: float) -> None:
            bar.update(task, description=f"{name}, loss {loss:.3f}", completed=step, total=steps)
            if bar.disable:
                note(f"step {step} of {steps}, loss {loss:.3f}")

        result = finetune(
            traces,
            store,
            to,
            settings,
            graph=graph,
            corpus=str(corpus),
            resume=resume,
            progress=show_progress,
        )
    for sample in result.left_out:
        say(f"left out: {sample.id}: {sample.why} (it has {sample.tokens:,} tokens)", "yellow")
    loss = result.losses[-1][1]
    say(f"{result.steps} steps on {result.samples} samples in {result.seconds:.0f} s; loss {loss:.3f}")
    for step, accuracy in result.series("eval_accuracy"):
        say(f"step {step}: {accuracy:.1%} of held-out questions right")
    kind = "weights" if settings.mode == "full" else "adapter"
    say(f"in {to}: name it as `reasoner: {{{kind}: {to}}}` in a config file")


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Read options that name settings: `--key value`, `--key=value`, `--flag`, `--no-flag`.

    Args:
        words: The words of the command line. A setting with several values is repeated.

    Returns:
        The values by name. Unknown names are included; `SftSettings.read` reports them.

    Raises:
        ConfigError: A word is neither an option nor the value of one.
    """
    from act2see.training.sft.settings import SftSettings

    known = SftSettings.model_fields
    settings: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"unexpected argument {word!r}: settings are options, such as --learning-rate 1e-5 "
                "(act2see sft --settings lists them)"
            )
        option, equals, value = word[2:].partition("=")
        key = option.replace("-", "_")
        positive = key.removeprefix("no_")
        if key not in known and positive in known:
            settings[positive] = False
        elif not equals and (not rest or rest[0].startswith("--")):
            settings[key] = True
        else:
            value = value if equals else rest.pop(0)
            repeatable = key in known and isinstance(known[key].default, tuple)
            settings[key] = (*settings.get(key, ()), value) if repeatable else value
    return settings


def grpo(
    source: QuestionSource,
    file: SourceFile = None,
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for the model.")] = Path(
        "grpo"
    ),
    videos: VideoFolder = None,
    count: Annotated[int | None, typer.Option(min=1, help="The maximum number of questions to read.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="The number of gradient steps.")] = 12,
    questions: Annotated[int, typer.Option(min=1, help="The number of questions per step.")] = 8,
    group: Annotated[int, typer.Option(min=2, help="The number of rollouts per question.")] = 4,
    learning_rate: Annotated[
        float, typer.Option(help="The learning rate; about 1e-6 for the 8B model.")
    ] = 5e-5,
    call_cost: Annotated[
        float, typer.Option(min=0, help="The penalty for each call; a right answer earns a reward of 1.")
    ] = 0.05,
    temperature: Annotated[float, typer.Option(help="The temperature of the rollouts.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The seed of the draws.")] = 0,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Train the config's reasoner by GRPO, which reinforces rollouts with higher rewards.

    Needs a local reasoner without an adapter, and questions with known answers.
    """
    from act2see.tools.runtime.files import check_folder
    from act2see.tools.runtime.memory import retain_freed_memory
    from act2see.training.corpus.sources import Tally
    from act2see.training.grpo import GrpoSettings, Reward, train_folder

    check_folder(to, "config.json")
    chosen = chosen_config(preset, config)
    if chosen.reasoner.use != "transformers" or chosen.reasoner.adapter:
        raise ConfigError(
            "GRPO needs a local model without an adapter: "
            "choose a config with `use: transformers`, and merge its adapter first"
        )
    tally = Tally()
    samples = draw_samples(source, file, videos, count, True, seed, to, tally)
    report_problems(tally)
    settings = GrpoSettings(
        rounds=rounds,
        questions=questions,
        group=group,
        learning_rate=learning_rate,
        temperature=temperature,
        seed=seed,
        reward=Reward(call=call_cost),
    )

    def show_round(round: Round) -> None:
        step = f"round {round.number + 1} of {rounds}"
        result = f"reward {round.reward:.3f}, {round.accuracy:.0%} right, {round.calls:.2f} calls a question"
        say(f"{step}: {result}")

    retain_freed_memory()
    train_folder(to, samples, chosen, settings, show_round)
    say(f"in {to}: name it as `reasoner: {{weights: {to}}}` in a config file")
