"""`act2see sft`: fine-tune the reasoner on a corpus, on one machine or under `accelerate launch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import ConfigFile, chosen_config
from act2see.cli.output import err, out, progress_bar, say
from act2see.errors import ConfigError
from act2see.trace.console import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from act2see.training.sft.settings import SftSettings

# The small model learns all its weights, fast, on a processor.
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


def sft(
    ctx: typer.Context,
    corpus: Annotated[Path | None, typer.Argument(help="The folder of `corpus pack`.")] = None,
    to: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Where the adapter or model, its card and its checkpoints go."
        ),
    ] = Path("tuned"),
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Settings to start from: paper, or micro.")
    ] = "paper",
    config: ConfigFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, and how to start it; train nothing.")
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, help="For --dry-run: how many GPUs.")] = 8,
    gpu_gib: Annotated[float, typer.Option(help="For --dry-run: memory of each.")] = 80,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="For --dry-run: ddp, fsdp, deepspeed_zero2 or deepspeed_zero3. Default: what fits.",
        ),
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--settings", help="List the settings, each of which is an option: --learning-rate 1e-5."
        ),
    ] = False,
) -> None:
    """Fine-tune on a corpus: the model's own text is learnt, and nothing of what it was shown."""
    from act2see.training.sft.settings import SftSettings

    if preset not in ("paper", "micro"):
        raise ConfigError(f"there is no preset {preset!r} for fine-tuning: take paper or micro")
    settings = SftSettings.read((MICRO if preset == "micro" else {}) | given(ctx.args))
    if show:
        for name, value in settings.model_dump().items():
            say(f"--{name.replace('_', '-')}  {' '.join(value) if isinstance(value, tuple) else value}")
        return
    if corpus is None:
        raise ConfigError("name a corpus: act2see sft CORPUS (act2see corpus pack makes one)")
    _run(corpus, to, settings, preset, config, resume, (gpus, gpu_gib, launch) if dry else None)


def _run(
    corpus: Path, to: Path, settings: SftSettings, preset: str, config: Path | None, resume: bool, dry: Any
) -> None:
    from tempfile import TemporaryDirectory

    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.dataset import read_corpus

    graph = chosen_config(None if config else preset, config) if settings.eval_samples else None
    if dry:
        from act2see.training.sft.dryrun import dry_run

        gpus, gib, launch = dry
        with TemporaryDirectory() as folder:  # a dry run leaves nothing
            traces = (c.trace for c in read_corpus(corpus, FrameStore(folder)) if c.trace)
            report = dry_run(
                traces,
                settings,
                corpus=str(corpus),
                out=str(to),
                graph=graph,
                gpus=gpus,
                gpu_gib=gib,
                launch=launch,
            )
        out(markup=True).print(report.table())
        say(f"{report.command} --config {config}" if config and graph else report.command)
        return
    store = FrameStore(to / "frames")
    traces = (c.trace for c in read_corpus(corpus, store) if c.trace)
    from act2see.tools.runtime.memory import retain_freed_memory
    from act2see.training.sft.finetune import finetune

    retain_freed_memory()
    with progress_bar() as bar:
        task = bar.add_task("sft", total=None)

        def progress(name: str, step: int, steps: int, loss: float) -> None:
            bar.update(task, description=f"{name}, loss {loss:.3f}", completed=step, total=steps)
            if bar.disable:
                err().print(plain(f"step {step} of {steps}, loss {loss:.3f}"))

        result = finetune(
            traces, store, to, settings, graph=graph, corpus=str(corpus), resume=resume, progress=progress
        )
    for one in result.left_out:
        say(f"left out: {one.id}: {one.why} (it has {one.tokens:,} tokens)", "yellow")
    say(
        f"{result.steps} steps on {result.samples} samples in {result.seconds:.0f} s; loss {result.losses[-1][1]:.3f}"
    )
    for step, accuracy in result.series("eval_accuracy"):
        say(f"step {step}: {accuracy:.1%} of held-out questions right")
    kind = "weights" if settings.mode == "full" else "adapter"
    say(f"in {to}: name it as `reasoner: {{{kind}: {to}}}` in a config file")


def given(words: Sequence[str]) -> dict[str, Any]:
    """Options that name settings: `--key value`, `--key=value`, `--flag`, `--no-flag`; one given again makes
    a list.

    Raises `ConfigError` for a word that is no option.
    """
    from act2see.training.sft.settings import SftSettings

    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(
                f"what is {word!r}? Settings are options: --learning-rate 1e-5 (act2see sft --settings lists them)"
            )
        key, sign, value = word[2:].partition("=")
        key = key.replace("-", "_")
        negated = key.removeprefix("no_")
        field = SftSettings.model_fields.get(key)
        if key not in SftSettings.model_fields and negated in SftSettings.model_fields:
            found[negated] = False
        elif sign or (rest and not rest[0].startswith("--")):
            value = value if sign else rest.pop(0)
            many = field is not None and isinstance(field.default, tuple)
            found[key] = (*found.get(key, ()), value) if many else value
        else:
            found[key] = True
    return found
