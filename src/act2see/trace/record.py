"""What a trace holds: what happened while a question was answered.

One data model serves everything: the graph builds it, the checkpoint stores it, the notebook shows it, the
corpus holds it, SFT trains on it and evaluation scores it. Segments stand in the order in which they
happened; the texts of those that the model wrote, joined, are exactly what it wrote. Frames are references.

On disk a trace is one line of JSON. A file of another `schema_version` is refused with an explanation.

This module knows data alone. `Trace` (`trace.py`) adds the ways to show it, so that those may import this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from act2see.errors import TraceError
from act2see.tools.frames import Curve, FrameRef, Record

SCHEMA_VERSION = 1
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SUMMARY = ("answer", "choice", "options")  # what `to_json(summary=True)` says twice
_REPR_CALLS, _REPR_WIDTH = 3, 100

Outcome = Literal[
    "ok", "unclosed", "nested", "empty", "unknown", "over_long", "repeated", "forged", "over_budget"
]
OUTCOMES: dict[Outcome, str] = {
    "ok": "",
    "unclosed": "the tag was never closed",
    "nested": "a tag stood inside the query",
    "empty": "there was no query",
    "unknown": "there is no such tool",
    "over_long": "the query was too long",
    "repeated": "the same call had been made before",
    "forged": "the model wrote a frame of its own",
    "over_budget": "no calls were left",
}
"""Why a call was not run, for people."""


class Video(Record):
    """The video that was asked. `digest` is a content hash; `fps` is an average, never used to place
    frames."""

    path: str
    digest: str
    seconds: float
    width: int
    height: int
    frames: int
    fps: float


class Question(Record):
    """What was asked. With options, the answer is expected to be a letter."""

    text: str
    options: tuple[str, ...] = ()


class Text(Record):
    """Reasoning. `author` is "graph" where the budget closed the thought for the model."""

    kind: Literal["text"] = "text"
    text: str
    author: Literal["model", "graph"] = "model"


class Call(Record):
    """A tool call as written (`text`), its tag and query, and how it was read."""

    kind: Literal["call"] = "call"
    text: str
    tag: str
    query: str
    outcome: Outcome = "ok"


class Review(Record):
    """What a person decided about a call before it was run. `query` is the one that was used in place of the
    call's."""

    decision: Literal["accept", "replace", "supply", "refuse"]
    by: str
    query: str = ""
    reason: str = ""


class Frames(Record):
    """What came back: frames, or a note to the model that says why there are none. `review`: a person was
    asked first."""

    kind: Literal["frames"] = "frames"
    tag: str
    frames: tuple[FrameRef, ...] = ()
    note: str = ""
    curve: Curve | None = None
    seconds: float = 0.0
    review: Review | None = None


class Answer(Record):
    """The answer: `text` as written, tags included, and `body`, what stands in `<answer>`."""

    kind: Literal["answer"] = "answer"
    text: str
    body: str
    forced: bool = False


Segment = Annotated[Text | Call | Frames | Answer, Field(discriminator="kind")]


class Loop(Record):
    """One visit to the reasoning node: tokens by kind, seconds, why it stopped."""

    prefilled: int
    cached: int
    decoded: int
    seconds: float
    stop: str


class Usage(Record):
    loops: tuple[Loop, ...] = ()
    node_seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(loop.decoded for loop in self.loops)


class Versions(Record):
    act2see: str = ""
    reasoner: str = ""
    tools: dict[str, str] = Field(default_factory=dict)
    config: str = ""
    seed: int = 0


class Origin(Record):
    """Of a forked or replayed trace: the trace that it began with, the call that it went back to (0: the
    beginning), and what was put there instead."""

    trace: str
    at: int = 0
    change: Literal["none", "query", "frame", "drop"] = "none"


class TraceRecord(Record):
    """The data of a trace: a question, everything seen and written on the way, and the answer. Use
    `Trace`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    video: Video
    question: Question
    initial: tuple[FrameRef, ...] = ()
    segments: tuple[Segment, ...] = ()
    usage: Usage = Usage()
    versions: Versions = Versions()
    origin: Origin | None = None

    @property
    def answer(self) -> str | None:
        """The body of `<answer>`, or None where the run is not finished."""
        return next((s.body for s in self.segments if isinstance(s, Answer)), None)

    @property
    def choice(self) -> str | None:
        """The chosen option's text, where the answer names one by letter or by its words."""
        return choose(self.answer, self.question.options)

    @property
    def refused(self) -> bool:
        """Whether the video was refused before the model was asked: the answer says why, and no budget was
        spent."""
        only = self.segments[0] if len(self.segments) == 1 else None
        return isinstance(only, Answer) and only.forced and not self.usage.loops

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(s for s in self.segments if isinstance(s, Call))

    @property
    def looks(self) -> tuple[tuple[Call, Frames | None], ...]:
        """Each call with what came back; None where nothing did."""
        pairs = zip_longest(self.segments, self.segments[1:])
        return tuple(
            (s, after if isinstance(after, Frames) else None) for s, after in pairs if isinstance(s, Call)
        )

    @property
    def shown(self) -> tuple[FrameRef, ...]:
        """Every frame in the model's view, the initial ones first."""
        later = (f for s in self.segments if isinstance(s, Frames) for f in s.frames)
        return (*self.initial, *later)

    @property
    def text(self) -> str:
        """Everything written after the prompt, in order; frames and notes left out."""
        return "".join(s.text for s in self.segments if not isinstance(s, Frames))

    def to_json(self, *, summary: bool = False) -> str:
        """In one line. With `summary`, `answer`, `choice` and `options` stand on top, for whoever wants no
        more; `from_json` reads both."""
        whole = self.model_dump_json()
        if not summary:
            return whole
        top = {"answer": self.answer, "choice": self.choice, "options": self.question.options}
        return f"{json.dumps(top, ensure_ascii=False)[:-1]}, {whole[1:]}"

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "trace") -> Self:
        try:
            data: Any = json.loads(text)
        except ValueError as e:
            raise TraceError(f"{where} is not JSON ({e}); a trace is what `act2see ask --save` wrote") from e
        if isinstance(data, dict):
            data = {key: value for key, value in data.items() if key not in _SUMMARY}
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise TraceError(
                f"{where} has schema version {version!r} and this act2see reads {SCHEMA_VERSION}: "
                "open it with the version that wrote it, or ask the question again"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as e:
            first = e.errors()[0]
            raise TraceError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one trace: a file, or a folder that `--save` wrote."""
        path = Path(path)
        if path.is_dir():
            path = path / "trace.json"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as e:
            raise TraceError(f"cannot read the trace {path}: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise TraceError(
                f"{path} is no trace: name the folder or the trace.json that `act2see ask --save` wrote"
            ) from e
        return cls.from_json(text, str(path))

    def __repr__(self) -> str:
        """In at most ten lines: what was asked, looked at and answered. `to_json` has everything."""
        shown = [(call, frames) for call, frames in self.looks if call.outcome == "ok"]
        lines = [f"Trace {self.id}: {self.question.text}"]
        if self.question.options:
            lines.append(
                "  " + ", ".join(f"{a}. {o}" for a, o in zip(LETTERS, self.question.options, strict=False))
            )
        v = self.video
        lines.append(
            f"  {Path(v.path).name}, {v.seconds:.1f} s, {v.width} x {v.height}, {len(self.initial)} frames in view"
        )
        for call, frames in shown[:_REPR_CALLS]:
            lines.append(f"  {call.tag} {call.query!r}: {_came_back(frames)}")
        if len(shown) > _REPR_CALLS:
            lines.append(f"  ... and {len(shown) - _REPR_CALLS} more calls")
        chosen = f" ({self.choice})" if self.choice and self.choice != self.answer else ""
        lines.append("  not finished" if self.answer is None else f"  answer: {self.answer}{chosen}")
        seconds = sum(self.usage.node_seconds.values())
        lines.append(
            f"  calls: {len(self.calls)}, tokens: {self.usage.tokens}, {seconds:.1f} s, {self.versions.reasoner}".rstrip(
                ", "
            )
        )
        return "\n".join(_in_line(line) for line in lines)

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[Any]:
        yield "id", self.id
        yield "question", self.question.text
        yield "answer", self.answer


def _came_back(frames: Frames | None) -> str:
    """What a call brought, in a few words."""
    if frames is None:
        return "nothing"
    seen = ", ".join(f"{'imagined from ' if f.imagined else ''}{f.seconds:.1f} s" for f in frames.frames[:4])
    more = f" and {len(frames.frames) - 4} more" if len(frames.frames) > 4 else ""
    return f"{seen}{more}" or frames.note


def _in_line(text: str) -> str:
    """In one line that fits a screen, with nothing in it that a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= _REPR_WIDTH else f"{shown[: _REPR_WIDTH - 4]} ..."


def choose(answer: str | None, options: tuple[str, ...]) -> str | None:
    """Which option an answer means: by its letter, or by its words; None where it means none or several.

    Only the body of `<answer>` is read, so that "A man walks in" is not taken for option A.
    """
    if answer is None or not options:
        return None
    body = answer.strip()
    letter = body.strip("()[]. ").upper()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return options[LETTERS.index(letter)]
    if (
        len(body) > 1
        and body.strip("( ")[1:2] in (".", ")", ":")
        and body.strip("( ")[0].upper() in LETTERS[: len(options)]
    ):
        return options[LETTERS.index(body.strip("( ")[0].upper())]
    same = [o for o in options if o.casefold().strip(" .") == body.casefold().strip(" .")]
    return same[0] if len(same) == 1 else None
