"""Finished runs side by side: each is read with its diagnostics, and pairs are compared question by question.

A folder is read only if it holds one run, whole: lines of another run, or a missing line, would move a score
without a trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean

from act2see.errors import BenchmarkError
from act2see.evaluation.diagnosis import Changed, read_changes
from act2see.evaluation.diagnostics import Diagnostics, make_diagnostics
from act2see.evaluation.records import QuestionRecord, RunRecord, read_questions, read_run
from act2see.evaluation.statistics import Paired, compare_runs


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A finished run."""

    name: str
    """In tables: the name of its folder or, if that is not unique, its path."""
    folder: Path
    run: RunRecord
    records: tuple[QuestionRecord, ...]
    diagnostics: Diagnostics | None
    """None if no question could be asked."""
    changes: tuple[Changed, ...]
    """What `act2see eval --diagnose` found."""

    @property
    def failures(self) -> list[QuestionRecord]:
        """The questions whose answer is not right."""
        return [record for record in self.records if not record.correct]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs over the questions that both were asked."""

    first: str
    second: str
    n: int
    paired: Paired
    corrected: float
    """p for several pairs (Holm)."""


def load_run(folder: Path) -> LoadedRun:
    """Read a finished run.

    Raises:
        BenchmarkError: There is none, it is not finished or not whole, or its lines are of several runs.
    """
    run = read_run(folder)
    if run.state != "finished":
        raise BenchmarkError(f"{folder} is not finished: run its command again, which continues it")
    records = tuple(read_questions(folder, run.setting))
    if len(records) != run.totals.questions:
        raise BenchmarkError(
            f"{folder} has {len(records):,} lines of questions and run.json counts {run.totals.questions:,}: "
            "run its command again"
        )
    was_asked = any(record.status not in ("missing", "failed") for record in records)
    diagnostics = make_diagnostics(records, folder) if was_asked else None
    changes = tuple(read_changes(folder, run, records))
    return LoadedRun(folder.resolve().name, folder, run, records, diagnostics, changes)


def load_runs(folders: Sequence[Path]) -> list[LoadedRun]:
    """Read several runs, in the order given.

    Raises:
        BenchmarkError: None is named or one is named twice, or one cannot be read.
    """
    if not folders:
        raise BenchmarkError("name the folders of one or more runs of act2see eval")
    places = [folder.resolve() for folder in folders]
    for place, folder in zip(places, folders, strict=True):
        if places.count(place) > 1:
            raise BenchmarkError(f"{folder} is named twice: name each run once")
    runs = [load_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [replace(run, name=str(run.folder)) if names.count(run.name) > 1 else run for run in runs]


def compare_pairs(runs: Sequence[LoadedRun]) -> list[Pair]:
    """Compare each two runs that have questions in common."""
    found: list[tuple[LoadedRun, LoadedRun, int, Paired]] = []
    for first, second in combinations(runs, 2):
        one, two = _scores(first), _scores(second)
        common = one.keys() & two.keys()
        if first.run.setting.benchmark == second.run.setting.benchmark and common:
            paired = compare_runs({key: one[key] for key in common}, {key: two[key] for key in common})
            found.append((first, second, len(common), paired))
    corrected = correct_for_many([paired.p for *_, paired in found])
    return [
        Pair(first.name, second.name, n, paired, p)
        for (first, second, n, paired), p in zip(found, corrected, strict=True)
    ]


def _scores(loaded: LoadedRun) -> Mapping[tuple[str, str, frozenset[str]], float]:
    """Return the score of each question, its mean over seeds. A question is the same if its words are."""
    scores: dict[tuple[str, str, frozenset[str]], list[float]] = {}
    for record in loaded.records:
        key = (record.id, record.question, frozenset(record.options))
        scores.setdefault(key, []).append(record.score)
    return {key: fmean(values) for key, values in scores.items()}


def correct_for_many(values: Iterable[float]) -> list[float]:
    """Return the p values of several tests, corrected by Holm's method."""
    given = list(values)
    order = sorted(range(len(given)), key=given.__getitem__)
    corrected = [1.0] * len(given)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, given[place] * (len(given) - rank)))
        corrected[place] = largest
    return corrected
