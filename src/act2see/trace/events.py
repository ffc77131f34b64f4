"""The events of a run, sent as LangGraph custom stream data while it is in progress.

On the stream an event is a dictionary, which passes through subgraphs, servers and JSON. `read_event` turns
it into a typed event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from act2see.tools.frames import FrameRef, Record
from act2see.trace.record import Answer, Call, Frames, Text, TraceRecord, Video


class ViewEvent(Record):
    """The initial frames are in view."""

    type: Literal["view"] = "view"
    run: str
    """The id of the run, which is also that of its trace."""
    video: Video
    frames: tuple[FrameRef, ...]


class TokenEvent(Record):
    """A piece of the model's text."""

    type: Literal["token"] = "token"
    run: str
    text: str
    author: Literal["model", "graph"] = "model"


class CallEvent(Record):
    """A call is complete; its tool runs next."""

    type: Literal["call"] = "call"
    run: str
    call: Call


class IndexEvent(Record):
    """A call waits for the index of the video. Sent about once a second."""

    type: Literal["index"] = "index"
    run: str
    done: int
    """The number of frames that are indexed."""
    of: int
    """The number of frames to index; 0 while another process indexes the video."""

    def describe(self) -> str:
        """Return the progress in one line."""
        if not self.of:
            return "waiting for the index of another process"
        return f"indexing {self.done:,} of {self.of:,} frames"


class FramesEvent(Record):
    """A tool has returned."""

    type: Literal["frames"] = "frames"
    run: str
    frames: Frames


class AnswerEvent(Record):
    """The run has ended."""

    type: Literal["answer"] = "answer"
    run: str
    answer: str
    """The content of `<answer>`."""
    forced: bool = False
    """Whether the graph made the model answer, or answered for it."""


Event = Annotated[
    ViewEvent | TokenEvent | CallEvent | IndexEvent | FramesEvent | AnswerEvent, Field(discriminator="type")
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
_TYPES = ("view", "token", "call", "index", "frames", "answer")


def read_event(data: Any) -> Event | None:
    """Return the event in a piece of custom stream data, or None if the data is not one of ours."""
    if not isinstance(data, dict) or "run" not in data or data.get("type") not in _TYPES:
        return None
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError:  # a parent graph can send its own events of the same type
        return None


def trace_events(trace: TraceRecord) -> Iterator[Event]:
    """Yield the events of a run from its saved trace. An unfinished trace ends without an `AnswerEvent`."""
    yield ViewEvent(run=trace.id, video=trace.video, frames=trace.initial)
    for segment in trace.segments:
        if isinstance(segment, Frames):
            yield FramesEvent(run=trace.id, frames=segment)
            continue
        author = segment.author if isinstance(segment, Text) else "model"
        yield TokenEvent(run=trace.id, text=segment.text, author=author)
        if isinstance(segment, Call):
            yield CallEvent(run=trace.id, call=segment)
        elif isinstance(segment, Answer):
            yield AnswerEvent(run=trace.id, answer=segment.body, forced=segment.forced)
