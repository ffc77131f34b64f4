"""The events of a run while it goes on, as LangGraph custom stream data.

On the stream they are dictionaries, which pass through subgraphs, servers and JSON. `read_event` turns a
dictionary into a typed event.
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
    video: Video
    frames: tuple[FrameRef, ...]


class TokenEvent(Record):
    """A piece of the model's text."""

    type: Literal["token"] = "token"
    run: str
    text: str
    author: Literal["model", "graph"] = "model"


class CallEvent(Record):
    """A call is complete and goes to its tool."""

    type: Literal["call"] = "call"
    run: str
    call: Call


class FramesEvent(Record):
    """A tool has returned."""

    type: Literal["frames"] = "frames"
    run: str
    frames: Frames


class AnswerEvent(Record):
    """The run is over."""

    type: Literal["answer"] = "answer"
    run: str
    answer: str
    forced: bool = False


Event = Annotated[ViewEvent | TokenEvent | CallEvent | FramesEvent | AnswerEvent, Field(discriminator="type")]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
_TYPES = ("view", "token", "call", "frames", "answer")


def read_event(data: Any) -> Event | None:
    """Return the event in a piece of custom stream data, or None if the data is not one of ours."""
    if not isinstance(data, dict) or "run" not in data or data.get("type") not in _TYPES:
        return None
    try:
        return _ADAPTER.validate_python(data)
    except ValidationError:  # a parent graph may have tokens and frames of its own
        return None


def trace_events(trace: TraceRecord) -> Iterator[Event]:
    """The events of a trace, as if it were being written; an unfinished trace ends without `answer`."""
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
