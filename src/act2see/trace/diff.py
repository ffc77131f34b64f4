"""The differences between two traces: in their inputs, their calls and their results, and where they diverge.

Calls are matched by tag and query, as `diff` matches the lines of two texts. A call with another tag or query
in the same place is a changed call. Two pictures are the same if their pixels are. Seconds and tokens are
reported, but never make two traces differ, since no run takes the same time twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from act2see.tools.frames import FrameRef
from act2see.trace.record import Call, Frames, Segment, Text
from act2see.trace.trace import Trace

T = TypeVar("T")
Kind = Literal["same", "changed", "added", "removed"]
_Numbered = tuple[int, tuple[Call, Frames | None]]
"""A call with its number and its result."""


@dataclass(frozen=True, slots=True)
class Fact:
    """An input of both runs that differs."""

    name: str
    a: str
    """The value in the first trace."""
    b: str
    """The value in the second trace."""


@dataclass(frozen=True, slots=True)
class FramePair:
    """The frames in the same place of both traces."""

    kind: Kind
    a: FrameRef | None
    """The first trace's frame, or None if it has none there."""
    b: FrameRef | None
    """The second trace's frame, or None if it has none there."""


@dataclass(frozen=True, slots=True)
class CallPair:
    """The calls in the same place of both traces, and their results."""

    kind: Kind
    """How the calls differ. The results of two calls that are the same may still differ."""
    numbers: tuple[int | None, int | None]
    """The number of the call in each trace, from 1."""
    a: Call | None
    """The first trace's call, or None if it has none there."""
    b: Call | None
    """The second trace's call, or None if it has none there."""
    frames: tuple[FramePair, ...]
    """The returned frames."""
    notes: tuple[str, str]
    """The notes to the model. Empty if there is none."""

    @property
    def same(self) -> bool:
        """Whether the calls and their results are the same."""
        same_notes = self.notes[0] == self.notes[1]
        return self.kind == "same" and same_notes and all(f.kind == "same" for f in self.frames)


@dataclass(frozen=True, slots=True)
class TraceDiff:
    """The result of `diff_traces`. A pair holds a value of the first trace and one of the second."""

    ids: tuple[str, str]
    """The ids of the traces."""
    facts: tuple[Fact, ...]
    """The facts that differ."""
    initial: tuple[FramePair, ...]
    """The initial frames."""
    parted: int | None
    """The index of the first segment that differs, or None if all are the same."""
    calls: tuple[CallPair, ...]
    """The calls with their results, in order."""
    answers: tuple[str | None, str | None]
    """The chosen options. An answer that names no option appears as it is."""
    tokens: tuple[int, int]
    """The number of tokens that the model wrote."""
    seconds: tuple[float, float]
    """The time of all nodes together, in seconds."""

    @property
    def same(self) -> bool:
        """Whether every frame and every word is the same. Versions may differ."""
        return self.parted is None and all(f.kind == "same" for f in self.initial)

    def to_json(self) -> str:
        """Return the differences as JSON."""
        return TypeAdapter(TraceDiff).dump_json(self).decode()


def diff_traces(a: Trace, b: Trace) -> TraceDiff:
    """Compare two traces."""
    return TraceDiff(
        ids=(a.id, b.id),
        facts=tuple(Fact(name, x, y) for name, x, y in _facts(a, b) if x != y),
        initial=_frame_pairs(a.initial, b.initial),
        parted=_first_difference(a.segments, b.segments),
        calls=_call_pairs(a, b),
        answers=(a.choice or a.answer, b.choice or b.answer),
        tokens=(a.usage.tokens, b.usage.tokens),
        seconds=(round(a.usage.seconds, 4), round(b.usage.seconds, 4)),
    )


def _facts(a: Trace, b: Trace) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each input of a run, and its value in both."""
    yield "question", a.question.text, b.question.text
    yield "earlier", _earlier(a), _earlier(b)
    yield "options", "; ".join(a.question.options), "; ".join(b.question.options)
    if a.video.digest != b.video.digest:  # only the content counts: a video can be in two places
        yield "video", f"{a.video.path} ({a.video.digest[:8]})", f"{b.video.path} ({b.video.digest[:8]})"
    v, w = a.versions, b.versions
    yield "act2see", v.act2see, w.act2see
    yield "reasoner", v.reasoner, w.reasoner
    yield "config", v.config, w.config
    yield "seed", str(v.seed), str(w.seed)
    for tag in dict.fromkeys((*v.tools, *w.tools)):
        yield f"tool {tag}", v.tools.get(tag, "none"), w.tools.get(tag, "none")


def _earlier(trace: Trace) -> str:
    return "; ".join(turn.line for turn in trace.question.earlier) or "none"


def _match(
    a: Sequence[T], b: Sequence[T], key: Callable[[T], Hashable]
) -> Iterator[tuple[Kind, T | None, T | None]]:
    """Pair the items of two sequences in order. Items in the same place with different keys have changed."""
    matcher = SequenceMatcher(None, [key(x) for x in a], [key(x) for x in b], autojunk=False)
    for operation, start_a, end_a, start_b, end_b in matcher.get_opcodes():
        for x, y in zip_longest(a[start_a:end_a], b[start_b:end_b]):
            if operation == "equal":
                yield "same", x, y
            elif x is None:
                yield "added", x, y
            elif y is None:
                yield "removed", x, y
            else:
                yield "changed", x, y


def _frame_pairs(a: Sequence[FrameRef], b: Sequence[FrameRef]) -> tuple[FramePair, ...]:
    return tuple(FramePair(kind, x, y) for kind, x, y in _match(a, b, _frame_key))


def _call_pairs(a: Trace, b: Trace) -> tuple[CallPair, ...]:
    numbered_a = list(enumerate(a.looks, start=1))
    numbered_b = list(enumerate(b.looks, start=1))
    pairs = _match(numbered_a, numbered_b, lambda numbered: _call_key(numbered[1][0]))
    return tuple(_call_pair(kind, x, y) for kind, x, y in pairs)


def _call_pair(kind: Kind, a: _Numbered | None, b: _Numbered | None) -> CallPair:
    number_a, (call_a, result_a) = a or (None, (None, None))
    number_b, (call_b, result_b) = b or (None, (None, None))
    return CallPair(
        kind=kind,
        numbers=(number_a, number_b),
        a=call_a,
        b=call_b,
        frames=_frame_pairs(_frames(result_a), _frames(result_b)),
        notes=(result_a.note if result_a else "", result_b.note if result_b else ""),
    )


def _frames(result: Frames | None) -> tuple[FrameRef, ...]:
    return result.frames if result else ()


def _first_difference(a: Sequence[Segment], b: Sequence[Segment]) -> int | None:
    for n, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None or _content(x) != _content(y):
            return n
    return None


def _content(segment: Segment) -> tuple[Any, ...]:
    """Return the words or frames of a segment, without its time and scores."""
    if isinstance(segment, Frames):
        return "frames", segment.tag, segment.note, tuple(_frame_key(f) for f in segment.frames)
    if isinstance(segment, Text):
        return "text", segment.text, segment.author
    return segment.kind, segment.text


def _frame_key(frame: FrameRef) -> tuple[Hashable, ...]:
    return frame.digest, frame.imagined, frame.seconds


def _call_key(call: Call) -> tuple[str, str]:
    return call.tag, call.query.casefold()
