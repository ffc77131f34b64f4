"""Two traces side by side: what differs in the question and in what ran, where they part, and what came of
it.

Calls are matched as lines of two texts are, by tag and query; where both called something else in the same
place, the call has changed. Pictures are the same where their pixels are. What a run took (seconds, tokens)
is told and never makes two traces differ: nothing takes the same time twice.
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


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was given to both, and was not the same: its name, and what it was in either."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class FramePair:
    """A frame of either, in the same place; None on the side that has none there."""

    kind: Kind
    a: FrameRef | None
    b: FrameRef | None


@dataclass(frozen=True, slots=True)
class CallPair:
    """A call of either, in the same place, with its number (from 1) and what came back: frames, and notes to
    the model.

    `kind` is that of the call itself; what came back may differ where the call is the same.
    """

    kind: Kind
    numbers: tuple[int | None, int | None]
    a: Call | None
    b: Call | None
    frames: tuple[FramePair, ...]
    notes: tuple[str, str]

    @property
    def same(self) -> bool:
        """The same call, and the same came back."""
        return (
            self.kind == "same"
            and self.notes[0] == self.notes[1]
            and all(f.kind == "same" for f in self.frames)
        )


@dataclass(frozen=True, slots=True)
class TraceDiff:
    """`diff_traces` of two traces. Pairs are of the first and of the second."""

    ids: tuple[str, str]
    facts: tuple[Fact, ...]
    initial: tuple[FramePair, ...]
    parted: int | None
    calls: tuple[CallPair, ...]
    answers: tuple[str | None, str | None]
    tokens: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def same(self) -> bool:
        """Every frame and every word is the same; that other versions gave the same is no difference."""
        return self.parted is None and all(f.kind == "same" for f in self.initial)

    def to_json(self) -> str:
        return TypeAdapter(TraceDiff).dump_json(self).decode()


def diff_traces(a: Trace, b: Trace) -> TraceDiff:
    """What differs between two traces. `parted` is the index of the first segment that differs, None where
    none does."""
    looks = ([*enumerate(a.looks, start=1)], [*enumerate(b.looks, start=1)])
    return TraceDiff(
        ids=(a.id, b.id),
        facts=tuple(Fact(name, x, y) for name, x, y in _facts(a, b) if x != y),
        initial=_frames(a.initial, b.initial),
        parted=_parted(a.segments, b.segments),
        calls=tuple(_look(kind, x, y) for kind, x, y in _pairs(*looks, lambda look: _asked(look[1][0]))),
        answers=(a.choice or a.answer, b.choice or b.answer),
        tokens=(a.usage.tokens, b.usage.tokens),
        seconds=(_seconds(a), _seconds(b)),
    )


def _facts(a: Trace, b: Trace) -> Iterator[tuple[str, str, str]]:
    yield "question", a.question.text, b.question.text
    yield "options", "; ".join(a.question.options), "; ".join(b.question.options)
    if a.video.digest != b.video.digest:  # one video may lie in two places
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
    """Both sequences in order, matched by key; what stands in one place with different keys has changed."""
    matcher = SequenceMatcher(None, [key(x) for x in a], [key(x) for x in b], autojunk=False)
    for what, i, j, m, n in matcher.get_opcodes():
        for x, y in zip_longest(a[i:j], b[m:n]):
            yield (
                (
                    "same"
                    if what == "equal"
                    else "added"
                    if x is None
                    else "removed"
                    if y is None
                    else "changed"
                ),
                x,
                y,
            )


def _frames(a: Sequence[FrameRef], b: Sequence[FrameRef]) -> tuple[FramePair, ...]:
    return tuple(FramePair(kind, x, y) for kind, x, y in _pairs(a, b, _picture))


def _look(
    kind: Kind,
    a: tuple[int, tuple[Call, Frames | None]] | None,
    b: tuple[int, tuple[Call, Frames | None]] | None,
) -> CallPair:
    (m, (x, came)), (n, (y, other)) = a or (None, (None, None)), b or (None, (None, None))
    frames = _frames(came.frames if came else (), other.frames if other else ())
    return CallPair(kind, (m, n), x, y, frames, (came.note if came else "", other.note if other else ""))


def _parted(a: Sequence[Segment], b: Sequence[Segment]) -> int | None:
    for n, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None or _content(x) != _content(y):
            return n
    return None


def _content(segment: Segment) -> tuple[Any, ...]:
    """What a segment says or shows, without what it took and how well it scored."""
    if isinstance(segment, Frames):
        return "frames", segment.tag, segment.note, tuple(_picture(f) for f in segment.frames)
    if isinstance(segment, Text):
        return "text", segment.text, segment.author
    return segment.kind, segment.text


def _picture(frame: FrameRef) -> tuple[Hashable, ...]:
    return frame.digest, frame.imagined, frame.seconds


def _asked(call: Call) -> tuple[str, str]:
    return call.tag, call.query.casefold()


def _seconds(trace: Trace) -> float:
    return round(sum(trace.usage.node_seconds.values()), 4)
