"""`act2see corpus`: builds, filters, reviews, packs and exports chains of thought for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import (
    ConfigFile,
    Preset,
    QuestionSource,
    Source,
    SourceFile,
    VideoFolder,
    chosen_config,
)
from act2see.cli.output import progress_bar, say
from act2see.cli.samples import draw_samples, report_problems
from act2see.errors import ConfigError

if TYPE_CHECKING:
    from act2see.agent.reasoners.base import Reasoner
    from act2see.graphs.config import Config
    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.card import CorpusMeta
    from act2see.training.corpus.construct import ConstructionStatus
    from act2see.training.corpus.records import Chain

app = typer.Typer(
    no_args_is_help=True,
    help="Make a training corpus: build, filter, review, pack and export chains of thought.",
)

# The paper's teacher, Gemini 2.5 Pro, ends on 2026-12-01; Google keeps this name for its current Flash model.
_TEACHER = "google_genai:gemini-flash-latest"

RunFolder = Annotated[Path, typer.Argument(help="A folder of `corpus build`.")]


class Trainer(StrEnum):
    """The trainers whose formats can be written and read."""

    trl = "trl"
    ms_swift = "ms-swift"
    llama_factory = "llama-factory"


@app.command("build")
def build(
    source: QuestionSource,
    file: SourceFile = None,
    to: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder of the run. An unfinished run continues.")
    ] = Path("chains"),
    videos: VideoFolder = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A LangChain chat model (`provider:model`), `config` for the config's own reasoner, or "
            f"`scripted` for `world`. Default: scripted for `world`, otherwise {_TEACHER}.",
        ),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="The maximum number of questions.")] = None,
    retries: Annotated[int, typer.Option(min=0, help="The number of retries after a wrong answer.")] = 2,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="The temperature of a local teacher. A chat model uses its own."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="The number of questions in progress at once.")] = 4,
    dollars: Annotated[
        float | None,
        typer.Option("--max-dollars", help="Start no question after this cost; needs --prices."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Start no question after this number of tokens.")
    ] = None,
    prices: Annotated[
        tuple[float, float] | None,
        typer.Option(help="The price of a million tokens in dollars: input, output."),
    ] = None,
    hint: Annotated[
        bool,
        typer.Option(
            "--ground-truth-in-prompt", help="Put the right answer into the prompt (the paper's ablation)."
        ),
    ] = False,
    without_chains: Annotated[
        bool, typer.Option("--without-chains", help="Include questions without a human chain.")
    ] = False,
    faults: Annotated[
        tuple[float, float, float, float],
        typer.Option(help="Rates of the scripted teacher, 0 to 1: error, drift, overcall, trust in a hint."),
    ] = (0.15, 0.2, 0.2, 0.9),
    seed: Annotated[int, typer.Option(help="The seed of the run.")] = 0,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Let a teacher write chains of thought by answering questions in the graph, with its tools.

    Needs questions with known answers, and a teacher: for the board world both are built in; other sources
    need a file, and a chat model or a local model. A wrong answer is retried.
    """
    import asyncio

    from act2see.training.corpus.construct import ConstructLimits, ConstructPlan, construct
    from act2see.training.corpus.sources import Tally

    is_scripted = teacher == "scripted" or (teacher is None and source is Source.world)
    reasoner = _scripted_teacher(source, faults, seed) if is_scripted else None
    chosen = _build_config(source, None if is_scripted else teacher or _TEACHER, preset, config)
    tally = Tally()
    samples = draw_samples(source, file, videos, count, without_chains, seed, to, tally)
    plan = ConstructPlan(retries=retries, seed=seed, hint=hint, prices=prices, temperature=temperature)
    limits = ConstructLimits(concurrency=concurrency, dollars=dollars, tokens=tokens)
    with _build_bar(len(samples)) as show_progress:
        run = asyncio.run(
            construct(samples, chosen, to, plan, limits, reasoner=reasoner, on_chain=show_progress)
        )
    report_problems(tally)
    say(str(tally))
    say(f"{run.kept} chains kept, {run.dropped} dropped; {_cost(run)}")
    if run.stopped:
        say(f"stopped: {run.stopped}; to continue, run the same command with a larger limit", "yellow")
    say(f"in {to}; next: act2see corpus filter {to}")


def _build_config(source: Source, teacher: str | None, preset: str | None, config: Path | None) -> Config:
    """Return the configuration. If the teacher is a chat model, it is the reasoner of the configuration."""
    from act2see.graphs.config import load_config

    if preset is None and config is None and source is not Source.world:
        preset = "paper"
    chosen = chosen_config(preset, config)
    if teacher is None or teacher == "config":
        return chosen
    return load_config(chosen, reasoner={"use": "chat", "weights": teacher, "prompt": "paper"})


def _scripted_teacher(source: Source, faults: tuple[float, float, float, float], seed: int) -> Reasoner:
    from act2see.micro.teacher import Faults, ScriptedTeacher

    if source is not Source.world:
        raise ConfigError(
            "the scripted teacher supports only the board world: name a chat model with --teacher"
        )
    if not all(0 <= rate <= 1 for rate in faults):
        raise ConfigError("--faults takes four rates, each from 0 to 1")
    return ScriptedTeacher(Faults(*faults), seed)


@contextmanager
def _build_bar(total: int) -> Iterator[Any]:
    """Show a progress bar, and yield a function that advances it after each chain."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    counts = TextColumn("{task.fields[kept]} kept, {task.fields[dropped]} dropped; {task.fields[cost]}")
    with progress_bar(BarColumn(), MofNCompleteColumn(), counts, TimeRemainingColumn()) as bar:
        task = bar.add_task("chains", total=total, kept=0, dropped=0, cost="")

        def show_progress(_: Chain, run: ConstructionStatus) -> None:
            done = run.kept + run.dropped
            bar.update(task, completed=done, kept=run.kept, dropped=run.dropped, cost=_cost(run))

        yield show_progress


def _cost(run: ConstructionStatus) -> str:
    cost = run.cost
    tokens = f"{cost.requests:,} requests, {cost.read:,} tokens read, {cost.written:,} written"
    return f"{tokens}, ${cost.dollars:.2f}" if cost.dollars else tokens


@app.command("filter")
def filter_(
    run: RunFolder,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A sentence encoder: a hub name, a folder, or `minilm`. Default: BAAI/bge-m3, or minilm for "
            "the board world.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Keep chains with a higher similarity than this. Default: 0.8, as in the paper, or 0.9 for "
            "the board world."
        ),
    ] = None,
    without_chains: Annotated[
        bool, typer.Option("--without-chains", help="Keep chains without a human chain to compare with.")
    ] = False,
    verdicts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Verdicts that were saved on the page of `corpus review`."),
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Reuse the similarities of the last filtering; needs no encoder.")
    ] = False,
) -> None:
    """Keep chains that are well formed and similar to the human chain, and report why others are dropped.

    Needs a folder of [bold]act2see corpus build[/bold], and a sentence encoder. For the board world the
    encoder is in the train extra.
    """
    from itertools import islice

    from act2see.micro.source import THRESHOLD as WORLD_THRESHOLD
    from act2see.training.corpus.files import only_writer
    from act2see.training.corpus.filtering import THRESHOLD, filter_chains
    from act2see.training.corpus.records import read_chains, write_chains
    from act2see.training.corpus.report import make_report, write_report
    from act2see.training.corpus.review import read_verdicts
    from act2see.training.corpus.similarity import BGE_M3, SentenceEncoder

    built = run / "chains.jsonl"
    filtered = run / "filtered.jsonl"
    is_world = all(chain.sample.source == "world" for chain in islice(read_chains(built), 1))
    if threshold is None:
        threshold = WORLD_THRESHOLD if is_world else THRESHOLD
    model = None
    judged = read_verdicts(verdicts) if verdicts else None
    if not stored:
        model = SentenceEncoder(encoder or ("minilm" if is_world else BGE_M3))
    with only_writer(run / ".filter.lock", run):
        chains = filter_chains(
            read_chains(filtered if stored else built),
            model,
            threshold=threshold,
            without_chains=without_chains,
            verdicts=judged,
        )
        write_chains(chains, filtered)
        report = make_report(read_chains(filtered), threshold=threshold, encoder=model)
        folder = write_report(report, run / "report")
    for step in report.steps:
        why = "; ".join(f"{n} {reason}" for reason, n in step.why.items())
        say(f"{step.name}: {step.came} in, {step.fell} dropped" + (f" ({why})" if why else ""))
    say(f"{report.kept} chains kept in {filtered}; report in {folder}")
    say(f"next: act2see corpus review {run} (a person reviews some chains)")
    say(f"then: act2see corpus pack {run} --out corpus")


@app.command("review")
def review(
    run: RunFolder,
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page to write. Default: review.html in the folder."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="The number of chains, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(help="The seed of the draw.")] = 0,
) -> None:
    """Write a page on which a person accepts or rejects some of the kept chains.

    Needs a folder that was filtered. Open the page in a browser; pass the saved verdicts to
    [bold]act2see corpus filter --verdicts[/bold].
    """
    from act2see.training.corpus.records import read_chains
    from act2see.training.corpus.review import export_review

    page = to or run / "review.html"
    n = export_review(read_chains(run / "filtered.jsonl"), page, _store(run), count=count, seed=seed)
    say(f"{n} chains in {page}: open it, accept or reject the chains, and save")
    say(f"next: act2see corpus filter {run} --stored --verdicts FILE")


@app.command("pack")
def pack(
    run: RunFolder,
    to: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="The folder of the corpus, which Hugging Face datasets can open."
        ),
    ] = Path("corpus"),
    files: Annotated[
        bool, typer.Option("--files", help="Write pictures as files beside the table instead of into it.")
    ] = False,
    name: Annotated[str, typer.Option(help="The name of the corpus, for its card.")] = "",
) -> None:
    """Write the kept chains as a data set, with their frames and a card.

    Needs a folder that was filtered.
    """
    from act2see.training.corpus.dataset import write_corpus
    from act2see.training.corpus.records import read_chains

    info = write_corpus(
        read_chains(run / "filtered.jsonl"),
        _store(run),
        to,
        images="reference" if files else "embedded",
        meta=_corpus_meta(run, name),
    )
    say(f"{info.chains} chains in {to}; next: act2see sft {to} --dry-run")


def _corpus_meta(run: Path, name: str) -> CorpusMeta:
    """Return the properties of the run that the card shows."""
    import json

    from act2see.training.corpus.card import CorpusMeta
    from act2see.training.corpus.report import FilterReport

    facts: dict[str, Any] = {"name": name} if name else {}
    try:
        plan = json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"]
        facts |= {"retries": plan["retries"], "ground_truth_in_prompt": plan["hint"]}
        report = FilterReport.model_validate_json(
            (run / "report" / "report.json").read_text(encoding="utf-8")
        )
        facts |= {"threshold": report.threshold, "encoder": report.encoder.name if report.encoder else ""}
    except FileNotFoundError:
        pass  # the chains were imported, or filtered by another program
    return CorpusMeta(**facts)


@app.command("export")
def export(
    corpus: Annotated[Path, typer.Argument(help="A folder of `corpus pack`.")],
    trainer: Annotated[Trainer, typer.Option("--for", help="The trainer whose format to write.")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
) -> None:
    """Write a corpus in the format of another trainer.

    Needs a corpus of [bold]act2see corpus pack[/bold].
    """
    from act2see.training.corpus.exports import export_corpus

    say(f"{export_corpus(corpus, trainer.value, to)}")


@app.command("import")
def import_(
    exported: Annotated[
        Path, typer.Argument(help="A folder of `corpus export`, which may have been edited.")
    ],
    trainer: Annotated[Trainer, typer.Option("--for", help="The trainer whose format the folder has.")],
    to: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new folder, which can be filtered and packed.")
    ],
) -> None:
    """Read an export back into chains, which can be filtered and packed.

    Needs a folder of [bold]act2see corpus export[/bold].
    """
    from act2see.training.corpus.exports import import_corpus
    from act2see.training.corpus.records import write_chains

    n = write_chains(import_corpus(exported, trainer.value, _store(to)), to / "chains.jsonl")
    say(f"{n} chains in {to}; next: act2see corpus filter {to}")


def _store(run: Path) -> FrameStore:
    from act2see.tools.video.store import FrameStore

    return FrameStore(run / "frames")
