"""A run of a benchmark: what is asked, the facts that stand beside the score, and the table at the end.

`Evaluation` holds a run; `inspecting.run_tasks` lets inspect_ai ask its questions. Everything that is
counted comes from the lines of `questions.jsonl`, so the table of a run that was killed fifty times is that
of one that was not.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from act2see.errors import BenchmarkError, ContextError, QuestionError, VideoError
from act2see.evaluation.asking import Arm, Told, ask_sample
from act2see.evaluation.baselines import score_baselines
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.judging import Judge
from act2see.evaluation.keeping import Key, RunFolder
from act2see.evaluation.provenance import describe_machine, find_commit, find_revisions
from act2see.evaluation.recording import (
    add_up,
    digest_of,
    make_failed,
    make_missing,
    make_record,
    save_trace,
    trace_name,
)
from act2see.evaluation.records import Baseline, Budgets, MissingVideos, QuestionRecord, RunRecord, Setting
from act2see.evaluation.replies import Order, shuffle_order
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import Scored, merge_epochs, score_reply, summarise
from act2see.tools.runtime.text import first_line
from act2see.trace.trace import Trace

OWN_FAULTS = (VideoError, QuestionError, ContextError)
"""Errors of a question itself: asking again cannot help. It counts as wrong, and is counted as failed."""
_GROUPED = "video-mme-v2"
Missing = Literal["wrong", "skip"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a run asks."""

    seed: int = 0
    epochs: int = 1
    """How often each question is asked, with seeds one after the other."""
    shuffle: bool = False
    limit: int | None = None
    missing: Missing | None = None
    """Whether questions without a video count as wrong or are left out; None if all must have one."""
    judge: Judge | None = None
    chains: bool = False
    """Whether the judge also reads the reasoning."""
    concurrency: int = 8
    retries: int = 2
    """How often a question is asked again after a fault of the model or its server."""
    pictures: bool = True
    """Whether the logs of inspect_ai show frames."""


@dataclass(slots=True)
class Evaluation:
    """One benchmark in one way of working, with the folder of the run."""

    suite: Suite
    arm: Arm
    options: Options
    source: str
    folder: RunFolder
    samples: dict[str, Sample]
    """The questions to ask, in the order of the benchmark."""
    absent: tuple[Sample, ...]
    """Questions that count as wrong, since their video is missing."""
    fatal: BaseException | None = None
    """An error that ends the run, such as weights that are not there."""

    def __str__(self) -> str:
        # inspect_ai keeps it as the argument of the solver, by which it recognises a run
        return f"{self.suite.benchmark} by {self.arm.name}"

    __repr__ = __str__

    @property
    def keys(self) -> list[Key]:
        """All questions with their seeds, in order."""
        asked = (*self.samples.values(), *self.absent)
        return [(sample.id, seed) for sample in asked for seed in self._seeds()]

    @property
    def pending(self) -> bool:
        """Whether questions to ask have no line yet."""
        seeds = self._seeds()
        return any((id, seed) not in self.folder for id in self.samples for seed in seeds)

    async def ask(self, id: str, epoch: int) -> tuple[QuestionRecord, tuple[Trace, ...]]:
        """Return the record of a question, and ask it if it has none. Its traces come with a new one.

        Raises:
            Act2SeeError: The model failed, or cannot be used at all.
        """
        sample, seed = self.samples[id], self.options.seed + epoch - 1
        if (id, seed) in self.folder:
            return self.folder.get((id, seed)), ()
        name = trace_name(id, seed)
        try:
            told = await ask_sample(
                self.arm, sample, seed, name, shuffle=self.options.shuffle, chains=self.options.chains
            )
        except OWN_FAULTS as e:
            record = make_failed(sample, self.arm.name, seed, first_line(e), self._order(sample, seed))
            self.folder.append(record)
            return record, ()
        record = await self._record(sample, seed, told)
        self.folder.append(record)
        return record, told.traces

    async def _record(self, sample: Sample, seed: int, told: Told) -> QuestionRecord:
        scored, malformed = await score_reply(
            sample, told.reply, self.options.judge, self.options.chains and bool(sample.chain)
        )
        paths = []
        for trace in told.traces:
            path = Path("traces") / f"{trace.id}.json"
            save_trace(trace, self.folder.path / path)
            paths.append(path.as_posix())
        return make_record(sample, self.arm.name, seed, told, scored, malformed, paths)

    def finish(self) -> RunRecord:
        """Score the run, and write the final files.

        Raises:
            BenchmarkError: Questions have no answer yet.
        """
        for sample in self.absent:
            for seed in self._seeds():
                self.folder.append(make_missing(sample, self.arm.name, seed, self._order(sample, seed)))
        if lost := [key for key in self.keys if key not in self.folder]:
            raise BenchmarkError(
                f"{len(lost):,} of {len(self.keys):,} questions have no answer yet: "
                f"run the same command again to ask them ({self.folder.path} keeps the others)"
            )
        scores: list[Scored] = []
        totals = add_up(self._read_lines(scores))
        left_out = len(self.suite.absent) if self.options.missing == "skip" else 0
        judge = self.options.judge
        score = summarise(
            self.suite.benchmark,
            self._merge(scores),
            left_out,
            judge.name if judge else None,
            totals.judge_malformed,
        )
        run = self.folder.run.model_copy(
            update={
                "state": "finished",
                "finished": now(),
                "totals": totals,
                "score": score.model_copy(update={"items": ()}),
                "baselines": self._baselines(),
                **self._versions(),
            }
        )
        self.folder.finish(self.keys, run)
        return run

    def _seeds(self) -> range:
        return range(self.options.seed, self.options.seed + self.options.epochs)

    def _order(self, sample: Sample, seed: int) -> Order:
        """Return the order in which the options of a question are shown; empty for that of the file."""
        return shuffle_order(sample.options, sample.id, seed) if self.options.shuffle else ()

    def _read_lines(self, scores: list[Scored]) -> Iterator[QuestionRecord]:
        """Yield the lines in order, and put their scores into a list: reading a line twice would take longer
        than all sums.
        """
        for record in self.folder.records(self.keys):
            scores.append(record.scored)
            yield record

    def _merge(self, scores: list[Scored]) -> list[Scored]:
        """Return one score for each question: the mean over its seeds, since these are not independent."""
        if self.options.epochs == 1:
            return scores
        by: dict[str, list[Scored]] = defaultdict(list)
        for item in scores:
            by[item.id].append(item)
        return [merge_epochs(items) for items in by.values()]

    def _baselines(self) -> tuple[Baseline, ...]:
        asked = Suite(
            self.suite.benchmark, tuple(self.samples.values()), self.absent, "wrong", (), self.suite.ids
        )
        try:
            scores = score_baselines(asked, self._seeds() if self.options.shuffle else (None,))
        except BenchmarkError:  # no question has options
            return ()
        return tuple(
            Baseline(name=name, headline=s.headline, accuracy=100 * s.accuracy.share, n=s.accuracy.n)
            for name, s in scores.items()
        )

    def _versions(self) -> dict[str, object]:
        """Return the versions that the traces name: those of what ran."""
        for record in self.folder.records(self.keys):
            if record.trace and (path := self.folder.path / record.trace).exists():
                versions = Trace.load(path).versions
                return {"reasoner": versions.reasoner or self.folder.run.reasoner, "tools": versions.tools}
        return {}


def open_evaluation(
    suite: Suite,
    arm: Arm,
    options: Options,
    folder: Path,
    source: str = "",
    only: Collection[str] | None = None,
) -> Evaluation:
    """Choose the questions, and open the folder of the run.

    Args:
        suite: The benchmark.
        arm: The way of working.
        options: How to ask.
        folder: The folder of the run, new or of the same run.
        source: Where the benchmark's file is.
        only: The ids of the questions to ask of those that the options choose; None for all of them.

    Raises:
        BenchmarkError: Videos are missing and nothing says what becomes of their questions, a judge is
            needed, or the folder holds another run.
    """
    if suite.absent and options.missing is None:
        names = sorted({sample.video for sample in suite.absent})
        raise BenchmarkError(
            f"{len(suite.absent):,} of {len(suite.absent) + len(suite.samples):,} questions have no video "
            f"({names[0]!r} and {len(names) - 1:,} more are not there): download them, or choose --missing "
            "wrong (they count as wrong) or --missing skip (they are left out)"
        )
    left_out = options.missing == "skip"
    chosen = choose_questions(suite, options.limit, skip=left_out)
    if only is not None:
        chosen &= frozenset(only)
    samples = {sample.id: sample for sample in suite.samples if sample.id in chosen}
    absent = () if left_out else tuple(sample for sample in suite.absent if sample.id in chosen)
    free = sum(sample.kind == "text" for sample in samples.values())
    if free and options.judge is None:
        raise BenchmarkError(f"{free:,} questions have free answers: name a chat model that judges, --judge")
    setting = Setting(
        benchmark=suite.benchmark,
        source=source,
        digest=suite.digest or digest_of((*suite.samples, *suite.absent)),
        arm=arm.name,
        config=arm.config.hash,
        seed=options.seed,
        epochs=options.epochs,
        shuffled=options.shuffle,
        missing=options.missing or "wrong",
        judge=options.judge.name if options.judge else None,
    )
    is_part = options.limit is not None or only is not None
    run = describe_run(setting, suite, arm, len(samples) + len(absent), is_part)
    return Evaluation(suite, arm, options, source, RunFolder(folder, run), samples, absent)


def describe_run(setting: Setting, suite: Suite, arm: Arm, asked: int, is_part: bool) -> RunRecord:
    """Return all that is known of a run before its first question.

    Args:
        setting: What makes it this run.
        suite: The benchmark.
        arm: The way of working.
        asked: The number of questions.
        is_part: Whether they may be fewer than the benchmark's.
    """
    config = arm.config
    budget, view = config.budget, config.view
    total = len(suite.samples) + len(suite.absent)
    return RunRecord(
        setting=setting,
        limit=asked if is_part and asked < total else None,
        of=total,
        started=now(),
        act2see=version("act2see"),
        commit=find_commit(),
        reasoner=config.reasoner.weights,
        weights=find_revisions(config),
        config=config.model_dump(mode="json", exclude_none=True),
        budgets=Budgets(
            fps=view.fps,
            frames=view.frames,
            max_frames=view.max_frames,
            max_side=view.max_side,
            calls=budget.calls,
            tokens=budget.tokens,
            answer_tokens=budget.answer_tokens,
            seconds=budget.seconds,
        ),
        machine=describe_machine(),
        missing=MissingVideos(
            choice=setting.missing,
            questions=len(suite.absent),
            videos=tuple(sorted({sample.video for sample in suite.absent})),
        ),
        problems=tuple(str(problem) for problem in suite.problems),
    )


def choose_questions(suite: Suite, limit: int | None, *, skip: bool) -> frozenset[str]:
    """Return the ids of the questions to ask: all, or so many drawn evenly from the whole file.

    Files are sorted by subject and length, so the first questions would be of one kind. The draw of a
    smaller limit is part of that of a larger one. Groups that are scored as a whole stay whole.

    Raises:
        BenchmarkError: None is left.
    """
    absent = {sample.id for sample in suite.absent}
    samples = [s for s in (*suite.samples, *suite.absent) if not (skip and s.id in absent)]
    if not samples:
        raise BenchmarkError(f"no question of {suite.benchmark} has its video: name their folder, --videos")
    if limit is None or limit >= len(samples):
        return frozenset(sample.id for sample in samples)
    places = {id: place for place, id in enumerate(suite.ids)}
    groups: dict[str, list[str]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: places.get(sample.id, 0)):
        is_grouped = suite.benchmark == _GROUPED
        groups[sample.groups["group"] if is_grouped else sample.id].append(sample.id)
    names = list(groups)
    random.Random("limit").shuffle(names)
    chosen: set[str] = set()
    for name in names:
        if len(chosen) >= limit:
            break
        chosen.update(groups[name])
    return frozenset(chosen)


def now() -> str:
    """Return the time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
