"""The data of a trace: everything that happened while a question was answered.

One data model serves all parts: the graph builds it, the checkpoint stores it, the notebook shows it, the
corpus consists of it, SFT trains on it and evaluation scores it. Segments are in order of time. Joined, the
texts of the model are exactly its output. Frames are references.

On disk a trace is one line of JSON. A file of another `schema_version` is rejected with an explanation.

This module contains only data. `Trace` (`trace.py`) adds the ways to show it, which import this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from act2see.errors import TraceError
from act2see.tools.frames import FROM_FILE, Curve, FrameRef, Number, Record, Seconds, Video as Video
from act2see.tools.runtime.files import read_file, write_text
from act2see.tools.runtime.plain_json import LARGEST, parse_json
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.trace.options import LETTERS, choose
from act2see.trace.question import Question as Question, Turn as Turn

SCHEMA_VERSION = 1

_SUMMARY = ("answer", "choice", "options", "refused")
"""Keys that `to_json(summary=True)` puts in front of the trace's own fields."""
_REPR_CALLS = 3  # calls that `repr` lists
_REPR_FRAMES = 4  # frames that it lists for a call
_REPR_WIDTH = 100  # characters of a line

Outcome = Literal[
    "ok", "unclosed", "nested", "empty", "unknown", "over_long", "repeated", "forged", "over_budget"
]
OUTCOMES: dict[Outcome, str] = {
    "ok": "",
    "unclosed": "the tag was never closed",
    "nested": "the query contained a tag",
    "empty": "the query was empty",
    "unknown": "there is no such tool",
    "over_long": "the query was too long",
    "repeated": "the same call had been made before",
    "forged": "the model wrote a frame itself",
    "over_budget": "no calls were left",
}
"""The reason why a call was not run, in words for people."""


class Text(Record):
    """Reasoning."""

    kind: Literal["text"] = "text"
    text: str
    author: Literal["model", "graph"] = "model"
    """The graph is the author if it closed the thought because the budget was spent."""


class Call(Record):
    """A tool call."""

    kind: Literal["call"] = "call"
    text: str
    """The call as the model wrote it, tags included."""
    tag: str
    query: str
    outcome: Outcome = "ok"
    """The reason why the call was not run; "ok" if it was."""


class Review(Record):
    """A person's decision about a call before it was run."""

    decision: Literal["accept", "replace", "supply", "refuse"]
    by: str
    """The name of the person."""
    query: str = ""
    """The query that replaced the call's."""
    reason: str = ""


class Frames(Record):
    """The result of a call: frames, or a note to the model that says why there are none."""

    kind: Literal["frames"] = "frames"
    tag: str
    frames: tuple[FrameRef, ...] = ()
    note: str = ""
    curve: Curve | None = None
    seconds: Seconds = 0.0
    """The time that the tool took."""
    review: Review | None = None
    """The decision about the call, if a person was asked."""


class Answer(Record):
    """The answer."""

    kind: Literal["answer"] = "answer"
    text: str
    """The answer as the model wrote it, tags included."""
    body: str
    """The content of `<answer>`."""
    forced: bool = False
    """Whether the graph made the model answer, or answered for it."""


Segment = Annotated[Text | Call | Frames | Answer, Field(discriminator="kind")]


class Loop(Record):
    """One visit to the reasoning node."""

    prefilled: int
    """Tokens that the model read."""
    cached: int
    """Tokens of the prefix that were in the cache, so that the model did not read them again."""
    decoded: int
    """Tokens that the model wrote."""
    seconds: Seconds
    stop: str
    """The reason why the visit ended, or the stop string."""
    thinking: int = 0
    """Tokens that a chat model thought without showing them. `decoded` does not include them."""


class Usage(Record):
    """The cost of a run."""

    loops: tuple[Loop, ...] = ()
    node_seconds: dict[str, Seconds] = Field(default_factory=dict)
    """Seconds by node of the graph."""

    @property
    def tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(loop.decoded for loop in self.loops)

    @property
    def thinking(self) -> int:
        """Tokens that a chat model thought without showing them."""
        return sum(loop.thinking for loop in self.loops)

    @property
    def seconds(self) -> float:
        """Seconds of all nodes."""
        return sum(self.node_seconds.values())


class Versions(Record):
    """The versions and the seed of a run, needed to repeat it."""

    act2see: str = ""
    reasoner: str = ""
    """The name and version of the reasoner."""
    tools: dict[str, str] = Field(default_factory=dict)
    """The version of each tool, by its tag."""
    config: str = ""
    """A hash of the configuration."""
    seed: int = 0
    sampling: dict[str, Number] = Field(default_factory=dict)
    """How tokens were drawn, by the names of the configuration; empty if that was left to a chat model."""


class Origin(Record):
    """The origin of a forked or replayed trace."""

    trace: str
    """The id of the trace that it started from."""
    at: int = 0
    """The number of the call that was changed, from 1; 0 for a replay from the beginning."""
    change: Literal["none", "query", "frame", "drop"] = "none"
    """The change to that call."""


class TraceRecord(Record):
    """The data of a trace: the question, everything seen and written, and the answer. Use `Trace`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    video: Video
    question: Question
    initial: tuple[FrameRef, ...] = ()
    """The frames that the model is given at the start."""
    segments: tuple[Segment, ...] = ()
    usage: Usage = Usage()
    versions: Versions = Versions()
    origin: Origin | None = None
    """The origin of a fork or a replay; None for any other trace."""

    @property
    def answer(self) -> str | None:
        """The content of `<answer>`, or None if the run is not finished."""
        return next((s.body for s in self.segments if isinstance(s, Answer)), None)

    @property
    def choice(self) -> str | None:
        """The text of the chosen option, or None if the answer names no option by its letter or words."""
        return choose(self.answer, self.question.options)

    @property
    def forced(self) -> bool:
        """Whether the answer was forced: the budget was spent, or the video was refused."""
        return any(isinstance(s, Answer) and s.forced for s in self.segments)

    @property
    def forced_because(self) -> str:
        """Why the model was made to answer, as words that follow a colon; empty if it was not."""
        if not self.forced or self.refused:
            return ""
        stops = [loop.stop for loop in self.usage.loops]
        is_cut = bool(stops) and stops[-1] == "length"
        return self._forced_reason(stops) + (
            ", and its answer was cut at the limit of tokens" if is_cut else ""
        )

    def _forced_reason(self, stops: list[str]) -> str:
        if "loop" in stops:
            return "it repeated itself"
        refused = [call for call in self.calls if call.outcome == "over_budget"]
        if any(call.tag not in self.versions.tools for call in refused):
            return "it wrote too many calls that are none"
        if refused:
            return "no calls were left"
        if "thinking" in stops[:-1]:
            return "no tokens of hidden thinking were left"
        if "length" in stops[:-1]:
            return "no tokens were left"
        return "its turn ended without an answer, or its time was over"

    @property
    def refused(self) -> bool:
        """Whether the video was refused before the model was asked: the answer says why."""
        only = self.segments[0] if len(self.segments) == 1 else None
        return isinstance(only, Answer) and only.forced and not self.usage.loops

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call in order, including those that were not run."""
        return tuple(s for s in self.segments if isinstance(s, Call))

    @property
    def looks(self) -> tuple[tuple[Call, Frames | None], ...]:
        """Each call with its result, or None if it has no result yet."""
        looks: list[tuple[Call, Frames | None]] = []
        for segment, after in zip_longest(self.segments, self.segments[1:]):
            if isinstance(segment, Call):
                looks.append((segment, after if isinstance(after, Frames) else None))
        return tuple(looks)

    @property
    def returned(self) -> tuple[FrameRef, ...]:
        """Every frame that a tool returned, in order."""
        return tuple(f for s in self.segments if isinstance(s, Frames) for f in s.frames)

    @property
    def shown(self) -> tuple[FrameRef, ...]:
        """Every frame in the model's view, the initial ones first."""
        return (*self.initial, *self.returned)

    @property
    def text(self) -> str:
        """Everything written after the prompt, in order, without frames and notes."""
        return "".join(s.text for s in self.segments if not isinstance(s, Frames))

    def to_json(self, *, summary: bool = False) -> str:
        """Return the trace as one line of JSON.

        Args:
            summary: Put `answer`, `choice`, `options` and `refused` first, for scripts that need only these.
                `from_json` reads both forms.

        Raises:
            ValueError: A text contains a lone surrogate, which JSON cannot contain.
        """
        whole = self.model_dump_json()
        if not summary:
            return whole
        values = (self.answer, self.choice, self.question.options, self.refused)
        top = dict(zip(_SUMMARY, values, strict=True))
        return f"{json.dumps(top, ensure_ascii=False)[:-1]}, {whole[1:]}"

    def save(self, path: str | Path) -> Path:
        """Write the trace to a file, whole or not at all.

        Raises:
            StoreError: The file cannot be written.
            ValueError: A text contains a lone surrogate, which JSON cannot contain.
        """
        path = Path(path)
        write_text(path, self.to_json() + "\n")
        return path

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "trace") -> Self:
        """Read the output of `to_json`.

        Args:
            text: JSON.
            where: The source of the text, for error messages.

        Raises:
            TraceError: The text is not JSON (`parse_json` has the limits), not a trace, or of another schema
                version.
        """
        try:
            data: Any = parse_json(text, keep_nul=True)
        except ValueError as e:
            raise TraceError(f"{where} is not JSON ({e}): name a trace of `act2see ask --save`") from e
        if isinstance(data, dict):
            data = {key: value for key, value in data.items() if key not in _SUMMARY}
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise TraceError(
                f"{where} has schema version {quote_text(repr(version))} and this act2see reads "
                f"{SCHEMA_VERSION}: open it with the version that wrote it, or ask the question again"
            )
        try:
            return cls.model_validate(data, context=FROM_FILE)
        except ValidationError as e:
            field, problem = first_problem(e)
            raise TraceError(f"{where}: {field}: {problem}") from e

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read one trace from a file, or from a folder that `--save` wrote.

        Raises:
            TraceError: The file cannot be read, or is not a trace.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "trace.json"
        try:
            text = read_file(path, LARGEST).decode()
        except OSError as e:
            raise TraceError(f"cannot read the trace {path}: {e.strerror}") from e
        except ValueError as e:  # not UTF-8, or a name that no file can have
            raise TraceError(
                f"{path} is not a trace: name the folder or the trace.json that `act2see ask --save` wrote"
            ) from e
        return cls.from_json(text, str(path))

    def __repr__(self) -> str:
        """Return a summary of at most ten lines. `to_json` is complete."""
        video = self.video
        lines = [f"Trace {self.id}: {self.question.text}"]
        if self.question.options:
            named = zip(LETTERS, self.question.options, strict=False)
            lines.append("  " + ", ".join(f"{letter}. {option}" for letter, option in named))
        if self.question.earlier:
            lines.append("  asked before: " + "; ".join(turn.line for turn in self.question.earlier))
        size = f"{video.seconds:.1f} s, {video.width} x {video.height}"
        lines.append(f"  {video.name}, {size}, {len(self.initial)} frames in view")
        run = [(call, frames) for call, frames in self.looks if call.outcome == "ok"]
        for call, frames in run[:_REPR_CALLS]:
            lines.append(f"  {call.tag} {call.query!r}: {_result(frames)}")
        if len(run) > _REPR_CALLS:
            lines.append(f"  ... and {len(run) - _REPR_CALLS} more calls")
        if self.answer is None:
            lines.append("  not finished")
        else:
            chosen = f" ({self.choice})" if self.choice and self.choice != self.answer else ""
            lines.append(f"  answer: {self.answer}{chosen}")
        cost = [f"calls: {len(self.calls)}", f"tokens: {self.usage.tokens}", f"{self.usage.seconds:.1f} s"]
        if self.versions.reasoner:
            cost.append(self.versions.reasoner)
        lines.append("  " + ", ".join(cost))
        return "\n".join(_printable_line(line) for line in lines)

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[Any]:
        yield "id", self.id
        yield "question", self.question.text
        yield "answer", self.answer


def _result(frames: Frames | None) -> str:
    """Return the result of a call in a few words."""
    if frames is None:
        return "nothing"
    if not frames.frames:
        return frames.note
    shown = [frame.place() for frame in frames.frames[:_REPR_FRAMES]]
    more = len(frames.frames) - _REPR_FRAMES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _printable_line(text: str) -> str:
    """Return one line that fits a screen, without characters that control a terminal."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return shown if len(shown) <= _REPR_WIDTH else f"{shown[: _REPR_WIDTH - 4]} ..."
