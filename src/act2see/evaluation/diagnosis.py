"""Ask a run's questions again with another return of the calls: `act2see eval --diagnose`.

Each change is a run of its own in `RUN/diagnosis/NAME`, asked by the same harness, so it is continued after a
kill as any run is. A question whose calls returned no frame cannot come out differently when frames are
replaced, so only the others are asked again; without tools all are. The comparison is paired: each question
with itself, by McNemar's exact test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from act2see.errors import BenchmarkError
from act2see.evaluation.asking import GraphArm
from act2see.evaluation.harness import Evaluation, open_evaluation
from act2see.evaluation.inspecting import run_tasks
from act2see.evaluation.records import (
    DIAGNOSIS,
    RUN,
    QuestionRecord,
    RunRecord,
    load_trace,
    read_questions,
    read_run,
)
from act2see.evaluation.replacing import CHANGES, Change, make_changed_arm
from act2see.evaluation.statistics import Paired, Share, compare_runs, measure_share
from act2see.tools.frames import Record

Ask = Callable[[Evaluation], None]
"""A function that asks all questions of a run that have no answer yet."""


class Changed(Record):
    """The answers with another return beside those of the run, on the same questions."""

    name: str
    words: str
    """What was returned."""
    n: int
    plain: Share
    changed: Share
    paired: Paired
    """First the run, second the change."""
    other_answers: int
    """Questions with another answer than in the run."""
    same_words: int
    """Questions of which every word is the same: what was returned was ignored."""
    tokens: float
    """Tokens a question, with the change."""
    plain_tokens: float

    @property
    def points(self) -> float:
        """What the change takes, in points of accuracy; negative if it adds some."""
        return 100 * (self.plain.share - self.changed.share)

    @property
    def points_per_1000(self) -> float | None:
        """Points that the run has more for each 1,000 tokens that it writes more; None if it writes no
        more."""
        more = self.plain_tokens - self.tokens
        return 1000 * self.points / more if more > 0 else None


def diagnose(evaluation: Evaluation, ask: Ask = run_tasks) -> list[Changed]:
    """Ask the questions of a finished run again, with each change.

    Args:
        evaluation: The run; its arm is the graph.
        ask: Asks the questions of one change.

    Raises:
        BenchmarkError: The run is not finished, or its arm is not the graph.
        Act2SeeError: The model cannot be used, or its server fails time and again.
    """
    arm = evaluation.arm
    if not isinstance(arm, GraphArm):
        raise BenchmarkError(f"{arm.name} has no tools whose frames could be replaced: diagnose the graph")
    folder = evaluation.folder.path
    run = evaluation.folder.run
    if run.state != "finished":
        raise BenchmarkError(f"{folder} is not finished: run the same command again before it is diagnosed")
    records = list(evaluation.folder.records(evaluation.keys))
    videos = [sample.clip for sample in evaluation.suite.samples]
    options = replace(evaluation.options, chains=False)
    for change in CHANGES:
        only = _concerned(records, change)
        if not only or (change.name == "other" and len(set(videos)) < 2):
            continue
        changed = open_evaluation(
            evaluation.suite,
            make_changed_arm(arm, change, videos),
            options,
            folder / DIAGNOSIS / change.name,
            evaluation.source,
            only,
        )
        try:
            ask(changed)
            changed.finish()
        finally:
            changed.folder.close()
    return list(read_changes(folder, run, records))


def _concerned(records: Iterable[QuestionRecord], change: Change) -> Collection[str]:
    """Return the ids of the questions that a change can alter."""
    chosen = set()
    for record in records:
        if record.status in ("missing", "failed"):
            continue
        if change.concerns == "imagined":
            is_concerned = record.calls.generate > 0
        elif change.concerns == "frames":
            is_concerned = record.frames > record.initial_frames
        else:
            is_concerned = True
        if is_concerned:
            chosen.add(record.id)
    return chosen


def read_changes(folder: Path, run: RunRecord, records: Iterable[QuestionRecord]) -> Iterator[Changed]:
    """Yield what was found for each change of a run that was diagnosed.

    Args:
        folder: The folder of the run.
        run: The run.
        records: Its questions.

    Raises:
        BenchmarkError: A change is of another run, or cannot be read.
    """
    plain = {record.key: record for record in records}
    for change in CHANGES:
        place = folder / DIAGNOSIS / change.name
        if not (place / RUN).exists():
            continue
        other = read_run(place)
        if other.state != "finished":
            continue
        expected = run.setting.model_copy(update={"arm": f"{run.setting.arm}, {change.name}"})
        for field in type(expected).model_fields:
            had, wanted = getattr(other.setting, field), getattr(expected, field)
            if had != wanted and field != "source":
                raise BenchmarkError(
                    f"{place} is the diagnosis of another run ({field} {had!r}, not {wanted!r}): delete it, "
                    "and run act2see eval --diagnose again"
                )
        again = {record.key: record for record in read_questions(place, other.setting)}
        pairs = [(plain[key], record, place) for key, record in again.items() if key in plain]
        if pairs:
            yield _compare(change, folder, pairs)


def _compare(
    change: Change, folder: Path, pairs: list[tuple[QuestionRecord, QuestionRecord, Path]]
) -> Changed:
    first, second = _mean([a for a, _, _ in pairs]), _mean([b for _, b, _ in pairs])
    return Changed(
        name=change.name,
        words=change.words,
        n=len(first),
        plain=measure_share(list(first.values())),
        changed=measure_share(list(second.values())),
        paired=compare_runs(first, second),
        other_answers=sum(a.answer != b.answer for a, b, _ in pairs),
        same_words=sum(_is_same(folder, a, place, b) for a, b, place in pairs),
        tokens=fmean(b.tokens for _, b, _ in pairs),
        plain_tokens=fmean(a.tokens for a, _, _ in pairs),
    )


def _mean(records: Iterable[QuestionRecord]) -> dict[str, float]:
    """Return the score of each question, its mean over the seeds."""
    scores: dict[str, list[float]] = {}
    for record in records:
        scores.setdefault(record.id, []).append(record.score)
    return {id: fmean(values) for id, values in scores.items()}


def _is_same(folder: Path, a: QuestionRecord, place: Path, b: QuestionRecord) -> bool:
    """Whether two answers have every word in common. Traces that are gone are not compared."""
    if a.answer != b.answer or a.tokens != b.tokens:
        return False
    one, two = load_trace(folder, a.trace), load_trace(place, b.trace)
    return one is not None and two is not None and one.text == two.text


def describe_changes(changes: Iterable[Changed]) -> Iterator[str]:
    """Yield the lines of a table: each change beside the run."""
    for changed in changes:
        yield (
            f"  {changed.words}: {100 * changed.changed.share:.1f} %, not {100 * changed.plain.share:.1f} % "
            f"(n = {changed.n:,}, p = {changed.paired.p:.2g}); {changed.other_answers:,} other answers, "
            f"{changed.same_words:,} the same word for word"
        )
