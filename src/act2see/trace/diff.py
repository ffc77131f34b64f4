"""Two traces side by side: the facts that differ, where the traces part, and how the results differ.

Calls are matched as the lines of two texts are, by tag and query. If both traces made a call in the same
place but with another tag or query, the call has changed. Pictures are the same if their pixels are. Seconds
and tokens are reported and never make two traces differ, since no run takes the same time twice.
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
    """Something that was given to both runs and differs."""

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
    """How the calls differ. The results of the same call may differ as well."""
    numbers: tuple[int | None, int | None]
    """The number of the call in either trace, from 1."""
    a: Call | None
    b: Call | None
    frames: tuple[FramePair, ...]
    """The frames that came back."""
    notes: tuple[str, str]
    """The notes to the model that came back."""

    @property
    def same(self) -> bool:
        """Whether the calls and their results are the same."""
        same_notes = self.notes[0] == self.notes[1]
        return self.kind == "same" and same_notes and all(f.kind == "same" for f in self.frames)


@dataclass(frozen=True, slots=True)
class TraceDiff:
    """The result of `diff_traces`. Pairs are of the first and of the second trace."""

    ids: tuple[str, str]
    facts: tuple[Fact, ...]
    """The facts that differ."""
    initial: tuple[FramePair, ...]
    """The initial frames."""
    parted: int | None
    """The index of the first segment that differs, or None if all are the same."""
    calls: tuple[CallPair, ...]
    answers: tuple[str | None, str | None]
    """The chosen options, or the answers if they name none."""
    tokens: tuple[int, int]
    """Tokens that the model wrote."""
    seconds: tuple[float, float]
    """Seconds of all nodes."""

    @property
    def same(self) -> bool:
        """Whether every frame and every word is the same, by whatever versions they were made."""
        return self.parted is None and all(f.kind == "same" for f in self.initial)

    def to_json(self) -> str:
        """The differences as JSON."""
        return TypeAdapter(TraceDiff).dump_json(self).decode()


def diff_traces(a: Trace, b: Trace) -> TraceDiff:
    """Compare two traces."""
    looks_a, looks_b = list(enumerate(a.looks, start=1)), list(enumerate(b.looks, start=1))
    pairs = _pairs(looks_a, looks_b, lambda look: _call_key(look[1][0]))
    return TraceDiff(
        ids=(a.id, b.id),
        facts=tuple(Fact(name, x, y) for name, x, y in _facts(a, b) if x != y),
        initial=_frame_pairs(a.initial, b.initial),
        parted=_parted(a.segments, b.segments),
        calls=tuple(_call_pair(kind, x, y) for kind, x, y in pairs),
        answers=(a.choice or a.answer, b.choice or b.answer),
        tokens=(a.usage.tokens, b.usage.tokens),
        seconds=(round(a.usage.seconds, 4), round(b.usage.seconds, 4)),
    )


def _facts(a: Trace, b: Trace) -> Iterator[tuple[str, str, str]]:
    """Everything that was given to the runs: its name and both values."""
    yield "question", a.question.text, b.question.text
    yield "options", "; ".join(a.question.options), "; ".join(b.question.options)
    if a.video.digest != b.video.digest:  # the same video may be in two places
        yield "video", f"{a.video.path} ({a.video.digest[:8]})", f"{b.video.path} ({b.video.digest[:8]})"
    v, w = a.versions, b.versions
    yield "act2see", v.act2see, w.act2see
    yield "reasoner", v.reasoner, w.reasoner
    yield "config", v.config, w.config
    yield "seed", str(v.seed), str(w.seed)
    for tag in dict.fromkeys((*v.tools, *w.tools)):
        yield f"tool {tag}", v.tools.get(tag, "none"), w.tools.get(tag, "none")


def _pairs(
    a: Sequence[T], b: Sequence[T], key: Callable[[T], Hashable]
) -> Iterator[tuple[Kind, T | None, T | None]]:
    """Both sequences in order, matched by key. Items in the same place with different keys have changed."""
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
    return tuple(FramePair(kind, x, y) for kind, x, y in _pairs(a, b, _frame_key))


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


def _parted(a: Sequence[Segment], b: Sequence[Segment]) -> int | None:
    for n, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None or _content(x) != _content(y):
            return n
    return None


def _content(segment: Segment) -> tuple[Any, ...]:
    """The words or frames of a segment, without its time and scores."""
    if isinstance(segment, Frames):
        return "frames", segment.tag, segment.note, tuple(_frame_key(f) for f in segment.frames)
    if isinstance(segment, Text):
        return "text", segment.text, segment.author
    return segment.kind, segment.text


def _frame_key(frame: FrameRef) -> tuple[Hashable, ...]:
    return frame.digest, frame.imagined, frame.seconds


def _call_key(call: Call) -> tuple[str, str]:
    return call.tag, call.query.casefold()
