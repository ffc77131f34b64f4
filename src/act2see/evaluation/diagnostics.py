"""Diagnostics of active perception, from what a run has left: when it called, and what came of it.

They are counted from the lines of `questions.jsonl` and, for what only the words show, from the traces that
the lines name. Nothing is asked again; `diagnosis` does that.

*Recall* is the share of the needed calls that were made, *precision* the share of the made calls that were
needed, both over the questions of which it is known; a call of the wrong tool is neither. A frame is
*ignored* if not one word was written between it and the next call or the answer. These are correlations:
questions with more calls may be harder.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from act2see.errors import BenchmarkError
from act2see.evaluation.records import QuestionRecord, load_trace
from act2see.evaluation.statistics import Share, measure_share
from act2see.tools.frames import FrameRef, Generated, Record
from act2see.trace.record import Answer, Call, Frames, Outcome, Segment, Text
from act2see.trace.trace import Trace

_MARKS = re.compile(r"<[^<>]*>")
_MOST = 4  # numbers of calls that have a row of their own; more are in the last one


class Group(Record):
    """Questions of one kind, or with one number of calls."""

    name: str
    accuracy: Share
    calls: float
    """Calls a question, like the three that follow."""
    retrieve: float
    generate: float
    other: float
    called: float
    """Share of the questions with a call."""
    needed: float | None
    """Share of the questions that need one; None where that is not known."""
    tokens: float


class Seen(Record):
    """What the traces show."""

    traces: int = 0
    missing: int = 0
    """Traces that are named and are not there."""
    returned: int = 0
    """Frames that calls returned."""
    ignored: int = 0
    """Of them, those about which not one word was written."""
    known: int = 0
    """Of them, those whose picture was in view already."""
    refused: dict[Outcome, int] = Field(default_factory=dict)
    """Calls that were not run, by the reason."""
    imagined: int = 0
    """Imagined frames."""
    judged: int = 0
    """Of them, those whose likeness to the query was measured, and that of the frame that they were made
    from."""
    closer: int = 0
    """Of those, the ones that are closer to the query than the frame that they were made from."""


class Diagnostics(Record):
    """The diagnostics of a run."""

    n: int
    """Questions that were asked, each with each of its seeds."""
    called: Share
    """Share with at least one call."""
    calls: float
    """Calls a question."""
    recall: Share | None
    """None where it is not known which calls are needed, like the two that follow."""
    precision: Share | None
    needless: Share | None
    """Share of the questions that need no call and had one."""
    by_task: tuple[Group, ...]
    by_calls: tuple[Group, ...]
    points: float | None
    """Points of accuracy for each 1,000 tokens that were written; None if there were none."""
    with_imagined: Share
    """Accuracy of the questions with an imagined frame."""
    without_imagined: Share
    seen: Seen


def make_diagnostics(records: Sequence[QuestionRecord], folder: Path | None = None) -> Diagnostics:
    """Return the diagnostics of a run.

    Args:
        records: Its lines. Those without a video and those that failed do not count.
        folder: The folder of the run, with its traces; None leaves out what only these show.

    Raises:
        BenchmarkError: No question was asked.
    """
    asked = [record for record in records if record.status not in ("missing", "failed")]
    if not asked:
        raise BenchmarkError("no question of this run was asked, so there is nothing to diagnose")
    known = [record for record in asked if record.needed is not None]
    needed, made, met = _count_need(known)
    table = make_table(asked)
    tokens = table["tokens"].mean()
    imagined = table["generate"] > 0
    free = table[table["needs"] == 0]
    return Diagnostics(
        n=len(asked),
        called=_share(table["calls"] > 0),
        calls=table["calls"].mean(),
        recall=_rate(met, needed) if known else None,
        precision=_rate(met, made) if known else None,
        needless=_share(free["calls"] > 0) if known else None,
        by_task=tuple(_list_groups(table, "task")) if table["task"].any() else (),
        by_calls=tuple(_list_groups(table, "bucket")),
        points=float(1000 * 100 * table["score"].mean() / tokens) if tokens else None,
        with_imagined=_share(table["score"][imagined]),
        without_imagined=_share(table["score"][~imagined]),
        seen=read_seen(asked, folder) if folder is not None else Seen(),
    )


def make_table(records: Iterable[QuestionRecord]) -> Any:
    """Return a pandas DataFrame with a row for each line: what was asked, what it cost, what came of it.

    `needs` is 1 if the answer needs a call, 0 if it needs none, and NaN where that is not known.

    Raises:
        BenchmarkError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as e:
        raise BenchmarkError("tables need pandas: pip install 'act2see[eval]'") from e
    rows = []
    for record in records:
        calls = record.calls.all
        row = record.model_dump(
            include={"id", "seed", "task", "status", "score", "tokens", "seconds", "frames"}
        )
        row |= record.calls.model_dump() | {"calls": calls, "refused": record.refused_calls}
        row["bucket"] = str(calls) if calls < _MOST else f"{_MOST} or more"
        row["needs"] = None if record.needed is None else float(bool(record.needed))
        rows.append(row)
    return pandas.DataFrame(rows).astype({"needs": "float64"})


def _list_groups(table: Any, field: str) -> Iterator[Group]:
    for name, part in table.groupby(field, sort=True):
        needs = part["needs"].dropna()
        yield Group(
            name=str(name) or "none",
            accuracy=_share(part["score"]),
            called=float((part["calls"] > 0).mean()),
            needed=float(needs.mean()) if len(needs) else None,
            **{key: float(part[key].mean()) for key in ("calls", "retrieve", "generate", "other", "tokens")},
        )


def _count_need(records: Iterable[QuestionRecord]) -> tuple[int, int, int]:
    """Return how many calls were needed, how many made, and how many of the needed ones were made."""
    needed = made = met = 0
    for record in records:
        wanted = Counter(tag if tag in ("retrieve", "generate") else "other" for tag in record.needed or ())
        had = Counter(record.calls.model_dump())
        needed += wanted.total()
        made += had.total()
        met += (wanted & had).total()
    return needed, made, met


def _share(values: Iterable[float]) -> Share:
    return measure_share([float(value) for value in values])


def _rate(hits: int, n: int) -> Share:
    return measure_share([1.0] * hits + [0.0] * (n - hits))


def read_seen(records: Iterable[QuestionRecord], folder: Path) -> Seen:
    """Return what the traces of a run show. Traces that are gone are counted.

    Args:
        records: The lines of the run.
        folder: The folder of the run.
    """
    sums: Counter[str] = Counter()
    refused: Counter[Outcome] = Counter()
    for record in records:
        for path in (record.trace, *record.more_traces):
            if path is None:
                continue
            if (trace := load_trace(folder, path)) is None:
                sums["missing"] += 1
                continue
            sums["traces"] += 1
            refused.update(call.outcome for call in trace.calls if call.outcome != "ok")
            sums["ignored"] += count_ignored(trace.segments)
            sums.update(_judge_frames(trace))
    return Seen(refused=dict(sorted(refused.items())), **sums)


def count_ignored(segments: Sequence[Segment]) -> int:
    """Return how many returned frames were followed by the next call or the answer without a word."""
    ignored = waiting = 0
    for segment in segments:
        if isinstance(segment, Frames):
            waiting = len(segment.frames)
        elif isinstance(segment, Call | Answer):
            ignored += waiting
            waiting = 0
        elif isinstance(segment, Text) and segment.author == "model" and _says_something(segment.text):
            waiting = 0
    return ignored


def _says_something(text: str) -> bool:
    return any(char.isalnum() for char in _MARKS.sub("", text))


def _judge_frames(trace: Trace) -> Counter[str]:
    """Count the returned frames, those that were in view already, and what is known of imagined ones."""
    sums: Counter[str] = Counter()
    in_view = {frame.digest for frame in trace.initial}
    for frame in trace.returned:
        sums["returned"] += 1
        sums["known"] += frame.digest in in_view
        in_view.add(frame.digest)
        sums["imagined"] += frame.imagined
        if (likeness := _likeness(frame)) is not None:
            sums["judged"] += 1
            sums["closer"] += likeness
    return sums


def _likeness(frame: FrameRef) -> bool | None:
    """Return whether an imagined frame is closer to its query than the real one that it was made from."""
    made = frame.provenance
    if not isinstance(made, Generated) or made.faithfulness is None or made.anchor_score is None:
        return None
    return made.faithfulness > made.anchor_score
