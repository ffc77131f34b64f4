"""Writing events to LangGraph's custom stream, and the events of long videos and of the assistant.

On the stream, events are dictionaries. Those of a run are in `trace/events.py`. The events here belong to no
single run, so `read_event` returns None for them.
"""

from __future__ import annotations

from typing import Any, Literal

from langgraph.runtime import Runtime

from act2see.tools.frames import Record


def emit(runtime: Runtime[Any], event: Record) -> None:
    """Write an event to the run's custom stream, as JSON data."""
    runtime.stream_writer(event.model_dump(mode="json"))


class SplitEvent(Record):
    """A long video was split into parts."""

    type: Literal["split"] = "split"
    parts: tuple[tuple[float, float], ...]
    """The start and the stop of each part, in seconds."""


class PartEvent(Record):
    """A part of a long video was asked."""

    type: Literal["part"] = "part"
    part: int
    """The part's number, from 0."""
    run: str
    """The id of the part's trace."""
    answer: str | None


class PartFailedEvent(Record):
    """A part of a long video could not be asked."""

    type: Literal["part"] = "part"
    part: int
    """The part's number, from 0."""
    error: str


class SearchEvent(Record):
    """The librarian of the assistant has searched a video."""

    type: Literal["search"] = "search"
    video: str
    """The name of the video."""
    done: int
    """The number of videos searched so far."""
    of: int
    """The number of videos to search."""
