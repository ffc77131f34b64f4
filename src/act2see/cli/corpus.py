"""`act2see corpus`: make training chains with a teacher, filter them, pack them, hand them to other trainers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.chosen import ConfigFile, Preset, chosen_config
from act2see.cli.output import err, plain, say

if TYPE_CHECKING:
    from act2see.training.records import Chain
    from act2see.training.sources import Sample, Tally

app = typer.Typer(no_args_is_help=True, help="The training corpus: make chains, filter them, pack them, hand them on.")


class Source(StrEnum):
    """Where questions and human chains come from."""

    world = "world"
    minerva = "minerva"
    causalvqa = "causalvqa"
    social_genome = "social-genome"
    jsonl = "jsonl"


@app.command("build")
def build(
    source: Annotated[Source, typer.Argument(help="Whose questions; `world` is the board world, which needs no file.")],
    file: Annotated[Path | None, typer.Argument(help="The data set's own file.")] = None,
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="The run's folder; a run there goes on.")] = Path("chains"),
    videos: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the videos are; by default beside the file.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A LangChain chat model (`provider:model`), or `config` for the config's own reasoner. Default: scripted for `world`, "
            "else google_genai:gemini-2.5-pro.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="At most so many questions.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a wrong answer is asked for again.")] = 2,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 4,
    dollars: Annotated[float | None, typer.Option("--max-dollars", help="Begin no question once so much is spent; needs --prices.")] = None,
    tokens: Annotated[int | None, typer.Option("--max-tokens", help="Begin no question once so many tokens are spent.")] = None,
    prices: Annotated[tuple[float, float] | None, typer.Option(help="Dollars for a million tokens: read, written.")] = None,
    hint: Annotated[bool, typer.Option("--ground-truth-in-prompt", help="The ablation: the right answer stands in the prompt.")] = False,
    without_chains: Annotated[bool, typer.Option("--without-chains", help="Take questions without a human chain, too.")] = False,
    faults: Annotated[
        tuple[float, float, float, float], typer.Option(help="The scripted teacher's rates: error, drift, overcall, trust in a hint.")
    ] = (0.15, 0.2, 0.2, 0.9),
    seed: Annotated[int, typer.Option(help="The seed of the run.")] = 0,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Let a teacher answer questions in the real graph, with the real tools; wrong answers are asked for again."""
    import asyncio

    from act2see.training.construct import Limits, Plan, Run, construct
    from act2see.training.sources import Tally

    chosen, reasoner = _teacher(source, teacher, faults, seed, preset, config)
    tally = Tally()
    samples = _samples(source, file, videos, count, without_chains, seed, to, tally)
    plan = Plan(retries=retries, seed=seed, hint=hint, prices=prices)
    limits = Limits(concurrency=concurrency, dollars=dollars, tokens=tokens)
    with _bar() as bar:
        task = bar.add_task("chains", total=len(samples), kept=0, dropped=0, cost="")

        def on_chain(chain: Chain, run: Run) -> None:
            bar.update(task, completed=run.kept + run.dropped, kept=run.kept, dropped=run.dropped, cost=_cost(run))

        run = asyncio.run(construct(samples, chosen, to, plan, limits, reasoner=reasoner, on_chain=on_chain))
    for problem in tally.problems:
        err().print(plain(str(problem), "yellow"), soft_wrap=True)
    say(str(tally))
    say(f"{run.kept} chains kept, {run.dropped} dropped; {_cost(run)}")
    if run.stopped:
        say(f"stopped: {run.stopped}; the same command with a larger one goes on", "yellow")
    say(f"in {to}; next: act2see corpus filter {to}")


def _teacher(
    source: Source, teacher: str | None, faults: tuple[float, float, float, float], seed: int, preset: str | None, config: Path | None
) -> tuple[Any, Any]:
    """The configuration, with the teacher as its reasoner; and the scripted teacher, where it is that one."""
    from act2see.errors import ConfigError
    from act2see.graphs.config import load_config

    world = source is Source.world
    chosen = chosen_config(preset or (None if config or world else "paper"), config)
    if (teacher is None and world) or teacher == "scripted":
        from act2see.micro.teacher import Faults, ScriptedTeacher

        if not world:
            raise ConfigError("the scripted teacher knows the board world alone: name a chat model with --teacher")
        if not all(0 <= rate <= 1 for rate in faults):
            raise ConfigError("--faults are four rates, each from 0 to 1")
        return chosen, ScriptedTeacher(Faults(*faults), seed)
    if teacher == "config":
        return chosen, None
    return load_config(chosen, reasoner={"use": "chat", "weights": teacher or "google_genai:gemini-2.5-pro", "prompt": "paper"}), None


def _samples(
    source: Source, file: Path | None, videos: Path | None, count: int | None, without_chains: bool, seed: int, to: Path, tally: Tally
) -> list[Sample]:
    from itertools import islice

    from act2see.errors import SourceError
    from act2see.training.sources import LOADERS

    if source is Source.world:
        from act2see.micro.source import load_world

        return list(tally.watch(load_world(count or 100, to / "clips", seed)))
    if file is None:
        raise SourceError(f"{source.value} needs its file: act2see corpus build {source.value} FILE --videos DIR")
    loaded = LOADERS[source.value](file, videos or file.parent, without_chains)
    return list(islice(tally.watch(loaded), count))


def _bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = err()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[kept]} kept, {task.fields[dropped]} dropped; {task.fields[cost]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _cost(run: Any) -> str:
    c = run.cost
    dollars = f", ${c.dollars:.2f}" if c.dollars else ""
    return f"{c.requests:,} requests, {c.read:,} tokens read, {c.written:,} written{dollars}"
