"""`act2see corpus`: make training chains with a teacher, filter them, pack them, hand them to other
trainers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import err, say
from act2see.trace.console import plain

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.card import CorpusMeta
    from act2see.training.corpus.records import Chain
    from act2see.training.corpus.sources import Sample, Tally

app = typer.Typer(
    no_args_is_help=True, help="The training corpus: make chains, filter them, pack them, hand them on."
)


class Source(StrEnum):
    """Where questions and human chains come from."""

    world = "world"
    minerva = "minerva"
    causalvqa = "causalvqa"
    social_genome = "social-genome"
    jsonl = "jsonl"


@app.command("build")
def build(
    source: Annotated[
        Source, typer.Argument(help="Whose questions; `world` is the board world, which needs no file.")
    ],
    file: Annotated[Path | None, typer.Argument(help="The data set's own file.")] = None,
    to: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The run's folder; a run there goes on.")
    ] = Path("chains"),
    videos: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the videos are; by default beside the file.")
    ] = None,
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
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of a local teacher; a chat model has its own.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 4,
    dollars: Annotated[
        float | None,
        typer.Option("--max-dollars", help="Begin no question once so much is spent; needs --prices."),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Begin no question once so many tokens are spent.")
    ] = None,
    prices: Annotated[
        tuple[float, float] | None, typer.Option(help="Dollars for a million tokens: read, written.")
    ] = None,
    hint: Annotated[
        bool,
        typer.Option("--ground-truth-in-prompt", help="The ablation: the right answer stands in the prompt."),
    ] = False,
    without_chains: Annotated[
        bool, typer.Option("--without-chains", help="Take questions without a human chain, too.")
    ] = False,
    faults: Annotated[
        tuple[float, float, float, float],
        typer.Option(help="The scripted teacher's rates: error, drift, overcall, trust in a hint."),
    ] = (0.15, 0.2, 0.2, 0.9),
    seed: Annotated[int, typer.Option(help="The seed of the run.")] = 0,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Let a teacher answer questions in the real graph, with the real tools; wrong answers are asked for
    again."""
    import asyncio

    from act2see.training.corpus.construct import ConstructionStatus, Limits, Plan, construct
    from act2see.training.corpus.sources import Tally

    chosen, reasoner = _teacher(source, teacher, faults, seed, preset, config)
    tally = Tally()
    samples = draw_samples(source, file, videos, count, without_chains, seed, to, tally)
    plan = Plan(retries=retries, seed=seed, hint=hint, prices=prices, temperature=temperature)
    limits = Limits(concurrency=concurrency, dollars=dollars, tokens=tokens)
    with _bar() as bar:
        task = bar.add_task("chains", total=len(samples), kept=0, dropped=0, cost="")

        def on_chain(chain: Chain, run: ConstructionStatus) -> None:
            bar.update(
                task, completed=run.kept + run.dropped, kept=run.kept, dropped=run.dropped, cost=_cost(run)
            )

        run = asyncio.run(construct(samples, chosen, to, plan, limits, reasoner=reasoner, on_chain=on_chain))
    for problem in tally.problems:
        err().print(plain(str(problem), "yellow"), soft_wrap=True)
    say(str(tally))
    say(f"{run.kept} chains kept, {run.dropped} dropped; {_cost(run)}")
    if run.stopped:
        say(f"stopped: {run.stopped}; the same command with a larger one goes on", "yellow")
    say(f"in {to}; next: act2see corpus filter {to}")


def _teacher(
    source: Source,
    teacher: str | None,
    faults: tuple[float, float, float, float],
    seed: int,
    preset: str | None,
    config: Path | None,
) -> tuple[Any, Any]:
    """The configuration, with the teacher as its reasoner; and the scripted teacher, where it is that one."""
    from act2see.errors import ConfigError
    from act2see.graphs.config import load_config

    world = source is Source.world
    chosen = chosen_config(preset or (None if config or world else "paper"), config)
    if (teacher is None and world) or teacher == "scripted":
        from act2see.micro.teacher import Faults, ScriptedTeacher

        if not world:
            raise ConfigError(
                "the scripted teacher knows the board world alone: name a chat model with --teacher"
            )
        if not all(0 <= rate <= 1 for rate in faults):
            raise ConfigError("--faults are four rates, each from 0 to 1")
        return chosen, ScriptedTeacher(Faults(*faults), seed)
    if teacher == "config":
        return chosen, None
    return load_config(
        chosen,
        reasoner={"use": "chat", "weights": teacher or "google_genai:gemini-2.5-pro", "prompt": "paper"},
    ), None


def draw_samples(
    source: Source,
    file: Path | None,
    videos: Path | None,
    count: int | None,
    without_chains: bool,
    seed: int,
    to: Path,
    tally: Tally,
) -> list[Sample]:
    """A source's questions, as many as are wanted; what is wrong with others is in `tally`. The board world's
    clips go below `to`."""
    from itertools import islice

    from act2see.errors import SourceError
    from act2see.training.corpus.sources import LOADERS

    if source is Source.world:
        from act2see.micro.source import load_world

        return list(tally.watch(load_world(count or 100, to / "clips", seed)))
    if file is None:
        raise SourceError(
            f"{source.value} needs its file: act2see corpus build {source.value} FILE --videos DIR"
        )
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


@app.command("filter")
def filter_(
    run: Annotated[Path, typer.Argument(help="The folder of `corpus build`.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A sentence encoder: a hub name, a folder, or `minilm`. Default: BAAI/bge-m3; minilm for the board world.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="What the similarity must exceed. Default: 0.8, the paper's; the board world's is 0.9."
        ),
    ] = None,
    without_chains: Annotated[
        bool, typer.Option("--without-chains", help="Keep chains that have no human one to compare with.")
    ] = False,
    verdicts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What a person said on the page of `corpus review`.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--stored", help="Take the similarities of the last time; needs no encoder.")
    ] = False,
) -> None:
    """Keep chains that are well formed and close to what a person thought; say where the others went."""
    from itertools import islice

    from act2see.micro.source import THRESHOLD as WORLD
    from act2see.training.corpus.filtering import THRESHOLD, filter_chains
    from act2see.training.corpus.records import read_chains, write_chains
    from act2see.training.corpus.report import make_report, write_report
    from act2see.training.corpus.review import read_verdicts
    from act2see.training.corpus.similarity import BGE_M3, SentenceEncoder

    made, filtered = run / "chains.jsonl", run / "filtered.jsonl"
    world = all(c.sample.source == "world" for c in islice(read_chains(made), 1))
    threshold = threshold if threshold is not None else WORLD if world else THRESHOLD
    judged = read_verdicts(verdicts) if verdicts else None
    model = None if again else SentenceEncoder(encoder or ("minilm" if world else BGE_M3))
    chains = filter_chains(
        read_chains(filtered if again else made),
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
        say(f"{step.name}: {step.came} came, {step.fell} fell{f' ({why})' if why else ''}")
    say(f"{report.kept} chains kept in {filtered}; report in {folder}")
    say(
        f"next: act2see corpus review {run} (a person looks at some), then act2see corpus pack {run} --out corpus"
    )


@app.command("review")
def review(
    run: Annotated[Path, typer.Argument(help="The folder of `corpus build`, filtered.")],
    to: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page. Default: review.html in the folder."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many chains, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(help="The seed of the draw.")] = 0,
) -> None:
    """Write a page on which a person accepts or rejects some of the kept chains."""
    from act2see.training.corpus.records import read_chains
    from act2see.training.corpus.review import export_review

    page = to or run / "review.html"
    store = _store(run)
    n = export_review(
        read_chains(run / "filtered.jsonl"), page, lambda ref: store.get(ref.digest), count=count, seed=seed
    )
    say(
        f"{n} chains in {page}: open it, judge, save; then act2see corpus filter {run} --stored --verdicts FILE"
    )


def _meta(run: Path, name: str) -> CorpusMeta:
    """What the run wrote down of itself, for the card."""
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
        pass  # chains that came from elsewhere, or were filtered by hand
    return CorpusMeta(**facts)


class Trainer(StrEnum):
    """Whose format."""

    trl = "trl"
    ms_swift = "ms-swift"
    llama_factory = "llama-factory"


@app.command("pack")
def pack(
    run: Annotated[Path, typer.Argument(help="The folder of `corpus build`, filtered.")],
    to: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The corpus: a folder that Hugging Face datasets opens."),
    ] = Path("corpus"),
    files: Annotated[
        bool, typer.Option("--files", help="Pictures as files beside the table, not in it.")
    ] = False,
    name: Annotated[str, typer.Option(help="Its name, for the card.")] = "",
) -> None:
    """Write the kept chains as a data set, with their frames and a card."""
    from act2see.training.corpus.dataset import write_corpus
    from act2see.training.corpus.records import read_chains

    meta = _meta(run, name)
    info = write_corpus(
        read_chains(run / "filtered.jsonl"),
        _store(run),
        to,
        images="reference" if files else "embedded",
        meta=meta,
    )
    say(f"{info.chains} chains in {to}; next: act2see sft {to} --dry-run")


@app.command("export")
def export(
    corpus: Annotated[Path, typer.Argument(help="The folder of `corpus pack`.")],
    trainer: Annotated[Trainer, typer.Option("--for", help="Whose format.")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
) -> None:
    """Write a corpus in another trainer's format."""
    from act2see.training.corpus.exports import export_corpus

    say(f"{export_corpus(corpus, trainer.value, to)}")


@app.command("import")
def import_(
    exported: Annotated[Path, typer.Argument(help="The folder of `corpus export`, perhaps edited.")],
    trainer: Annotated[Trainer, typer.Option("--for", help="Whose format it is.")],
    to: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new run's folder, to be filtered and packed.")
    ],
) -> None:
    """Read an export back into a run."""
    from act2see.training.corpus.exports import import_corpus
    from act2see.training.corpus.records import write_chains

    n = write_chains(import_corpus(exported, trainer.value, _store(to)), to / "chains.jsonl")
    say(f"{n} chains in {to}; next: act2see corpus filter {to}")


def _store(run: Path) -> FrameStore:
    from act2see.tools.video.store import FrameStore

    return FrameStore(run / "frames")
