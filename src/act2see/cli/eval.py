"""`act2see eval`: runs a benchmark, and prints the score with what a reader needs in order to believe it.

It chooses the benchmark, the configuration and the folder; `evaluation` does the rest, with inspect_ai. The
same command continues a run that was interrupted or killed.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import interrupted, note, progress_bar, say

if TYPE_CHECKING:
    from act2see.evaluation.benchmarks import Suite
    from act2see.evaluation.harness import Evaluation, Options
    from act2see.evaluation.judging import Judge
    from act2see.evaluation.records import RunRecord
    from act2see.graphs.config import Config

_BOARD = "board"


class Missing(StrEnum):
    """What becomes of questions without a video."""

    wrong = "wrong"
    skip = "skip"


def evaluate(
    benchmark: Annotated[
        str | None,
        typer.Argument(
            help="A benchmark, such as board or video-mme, or your own .jsonl or .csv file.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Its download: a folder, a file, a URL, or hf://datasets/OWNER/NAME."
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder of the videos. Default: that of the data."),
    ] = None,
    preset: Preset = None,
    config: ConfigFile = None,
    way: Annotated[
        str | None,
        typer.Option(
            metavar="WAY",
            help="Another way of working: cited-frames, uniform-frames, ... (docs/evaluation.md).",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask only so many questions, drawn evenly from all.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="RUN", help="The folder of the run. Default: runs/BENCHMARK-PRESET-WAY."
        ),
    ] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(help="Questions without a video: count them as wrong, or leave them out."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of the run.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Ask each question so often, with other seeds.")] = 1,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Show options in an order of the seed.")] = False,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of frames at the start.")
    ] = None,
    max_calls: Annotated[int | None, typer.Option(min=0, help="The maximum number of tool calls.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="The maximum number of tokens that the model may write.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A chat model for free answers, as in openai:gpt-4o."),
    ] = None,
    chains: Annotated[
        bool, typer.Option("--chains", help="Let the judge also score the reasoning (VCR-Bench).")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions that are asked at once.")] = 8,
    retries: Annotated[
        int, typer.Option(min=0, help="Ask again so often after a fault of the model or its server.")
    ] = 2,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Show frames in the logs of inspect_ai.")
    ] = True,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write the score and what stands beside it to this file, too."),
    ] = None,
    diagnosis: Annotated[
        bool,
        typer.Option(
            "--diagnose", help="Then ask again without tools, and with other frames than those asked for."
        ),
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Say what each benchmark needs, and do nothing else.")
    ] = False,
) -> None:
    """Run a benchmark and print its score, with its interval, its blind baselines and its cost.

    Needs the eval extra and, for published benchmarks, their download: act2see eval --list. The board
    benchmark needs no download and runs offline. Run the same command again to continue a run.
    """
    from act2see.errors import BenchmarkError
    from act2see.evaluation.harness import Options
    from act2see.evaluation.inspecting import load_inspect
    from act2see.evaluation.peers.arms import name_arm
    from act2see.evaluation.result_page import MARK, make_page
    from act2see.tools.runtime.files import check_file, write_text

    if listing:
        _list_needs(preset or "paper")
        return
    if benchmark is None:
        raise BenchmarkError("name a benchmark: act2see eval board, or see act2see eval --list")
    load_inspect()
    chosen = _change_budgets(chosen_config(preset, config), max_frames, max_calls, max_tokens)
    options = Options(
        seed=chosen.seed if seed is None else seed,
        epochs=epochs,
        shuffle=shuffle,
        limit=limit,
        missing=None if missing is None else missing.value,
        judge=make_judge(judge),
        chains=chains,
        concurrency=concurrency,
        retries=retries,
        pictures=pictures,
    )
    if page is not None:
        check_file(page, MARK)
    if diagnosis and way is not None:
        raise BenchmarkError("only the graph has tools whose frames could be replaced: leave out --way")
    arm_name = name_arm(chosen, way)  # a wrong name is found before the benchmark is read
    found = find_suite(benchmark, data, videos, limit)
    folder = to or Path("runs") / f"{found.suite.benchmark}-{arm_name}"
    run = _run(found, chosen, way, options, folder, diagnosis)
    if page is not None:
        write_text(page, make_page(run, " ".join(("act2see", *map(shlex.quote, sys.argv[1:])))))
        note(f"the page was written to {page}")


@dataclass(frozen=True, slots=True)
class Found:
    """A benchmark and where its file is."""

    suite: Suite
    source: str


def find_suite(benchmark: str, data: str | None, videos: Path | None, limit: int | None) -> Found:
    """Load a benchmark by its name, or one's own file.

    Raises:
        BenchmarkError: There is no such benchmark or file, or it cannot be used.
    """
    from act2see.errors import BenchmarkError
    from act2see.evaluation.benchmarks import BENCHMARKS, load_benchmark
    from act2see.evaluation.tables import ENDINGS
    from act2see.micro.study.board import QUESTIONS, load_board

    if benchmark == _BOARD:
        if data is not None or videos is not None:
            raise BenchmarkError("the board benchmark draws its own clips: leave out --data and --videos")
        return Found(load_board(limit or QUESTIONS), "")
    if benchmark not in BENCHMARKS and (benchmark.endswith(ENDINGS) or Path(benchmark).exists()):
        if data is not None:
            raise BenchmarkError(f"{benchmark} is a file of questions: name its videos with --videos")
        name, source = "own", benchmark
    elif benchmark not in BENCHMARKS:
        known = ", ".join((_BOARD, *BENCHMARKS))
        raise BenchmarkError(
            f"there is no benchmark {benchmark!r} (known: {known}, or a .jsonl or .csv file)"
        )
    elif data is None:
        raise BenchmarkError(
            f"{benchmark} needs its download: name it with --data (act2see eval --list says what to get)"
        )
    else:
        name, source = benchmark, data
    return Found(load_benchmark(name, source, videos, missing="wrong"), source)


def _run(
    found: Found, config: Config, way: str | None, options: Options, folder: Path, diagnosis: bool
) -> RunRecord:
    """Ask all questions, print the table, and diagnose the run if that is wanted."""
    from act2see.evaluation.harness import open_evaluation
    from act2see.evaluation.peers.arms import make_arm
    from act2see.evaluation.summary import describe

    arm = make_arm(config, way, found.suite.benchmark)
    evaluation = open_evaluation(found.suite, arm, options, folder, found.source)
    try:
        _say_missing(evaluation)
        with _one_thread(config):
            _ask(evaluation)
            run = evaluation.finish()
            for line in describe(run):
                say(line)
            if diagnosis and evaluation.samples:
                _diagnose(evaluation)
    except KeyboardInterrupt:
        raise interrupted("interrupted; the same command continues") from None
    finally:
        evaluation.folder.close()
        asyncio.run(arm.close())
    logs = f"; look at answers with: inspect view --log-dir {folder / 'logs'}" if evaluation.samples else ""
    note(f"written to {folder}{logs}")
    return run


def _diagnose(evaluation: Evaluation) -> None:
    """Ask the questions again with other returns, and print what becomes of the score."""
    from act2see.evaluation.diagnosis import describe_changes, diagnose

    def ask(changed: Evaluation) -> None:
        note(changed.arm.name)
        _ask(changed)

    changes = diagnose(evaluation, ask)
    say("asked again, with this returned instead:")
    for line in describe_changes(changes):
        say(line)


def _ask(evaluation: Evaluation) -> None:
    """Ask the questions, with a progress bar."""
    from act2see.evaluation.inspecting import run_tasks

    total = len(evaluation.keys)
    if already := len(evaluation.folder):
        note(f"{already:,} of {total:,} questions have answers already")
    with progress_bar() as bar:
        task = bar.add_task("asking", total=total, completed=already)
        run_tasks(evaluation, lambda done, _: bar.update(task, completed=done))


def _say_missing(evaluation: Evaluation) -> None:
    """Say what was chosen for questions without a video, and what is wrong with the file."""
    missing = evaluation.folder.run.missing
    if missing.questions:
        counted = "count as wrong" if missing.choice == "wrong" else "are left out"
        names = ", ".join(missing.videos[:10])
        note(f"{missing.questions:,} questions {counted} (--missing {missing.choice}); no video: {names}")
    for problem in evaluation.folder.run.problems[:10]:
        note(problem)


def _change_budgets(
    config: Config, max_frames: int | None, max_calls: int | None, max_tokens: int | None
) -> Config:
    """Return the configuration with the limits of the command line, which are then part of its hash."""
    limits = {"calls": max_calls, "tokens": max_tokens}
    budget = {key: limit for key, limit in limits.items() if limit is not None}
    view = {} if max_frames is None else {"max_frames": max_frames}
    if not budget and not view:
        return config
    return config.model_copy(
        update={
            "budget": config.budget.model_copy(update=budget),
            "view": config.view.model_copy(update=view),
        }
    )


def make_judge(name: str | None) -> Judge | None:
    """Return the judge that `--judge` names."""
    if name is None:
        return None
    from act2see.agent.reasoners.chat.setup import chat_model
    from act2see.evaluation.judging import ChatJudge

    return ChatJudge(chat_model(name, {}, "--judge"), name)


def _one_thread(config: Config) -> AbstractContextManager[None]:
    """Return a context in which small models are run by one thread each, which is faster."""
    from act2see.micro.study.evaluate import one_thread

    return one_thread() if config.reasoner.weights.startswith("micro:") else nullcontext()


def _list_needs(preset: str) -> None:
    """Print what each benchmark needs."""
    from act2see.evaluation.guide import load_guide

    needs, speeds = load_guide()
    for benchmark in needs:
        for line in benchmark.lines(speeds.get(preset), preset):
            say(line)
