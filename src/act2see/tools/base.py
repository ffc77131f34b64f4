"""The protocol of frame tools, and what they may return.

A tool has a tag, one line that tells the model what it is for, and an async `call` that returns frames, a
note, or both. Three things make one: a class with these, a pydantic model of its options, and a name
(`tools/plugins.py`).

The graph makes one node for each configured tag, and takes a tool's result through `checked_result`. The same
object serves other agents by `as_langchain_tool`. Nothing here knows of graphs or traces.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from act2see.errors import ToolError
from act2see.tools.frames import Curve, FrameRef
from act2see.tools.runtime.sharing import Shared
from act2see.tools.runtime.text import clean_data, clean_text

if TYPE_CHECKING:
    from act2see.tools.search.finder import Finder
    from act2see.tools.video.store import FrameStore

log = logging.getLogger(__name__)
MAX_FRAMES = 16
_NOTE = 4_000  # characters of a note that reach the model


class ToolOptions(BaseModel):
    """Base of tool options: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a call may know."""

    video: str
    """The path of the video, or of a part of one."""
    shown: Sequence[FrameRef] = ()
    """The frames in the model's view, in the order in which they were shown."""
    seed: int = 0
    """The seed of this call."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call."""

    frames: tuple[FrameRef, ...] = ()
    """Frames for the model, whose pixels are in the store."""
    note: str = ""
    """Words for the model: what was read in the frames, or why there are none."""
    curve: Curve | None = None
    """How similar the video is to the query over time, if that was measured."""


@runtime_checkable
class FrameTool(Protocol):
    """A tool as the graph sees it."""

    tag: str
    """Names it in the chain of thought: `<tag> query </tag>`."""
    usage: str
    """Tells the model, in a line, what it is for."""

    @property
    def version(self) -> str:
        """Identifies the tool and its models in a trace; may load a model."""
        ...

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        """Find or make frames for a query.

        Raises:
            ToolError: The call failed, and the model should hear of it.
        """
        ...


@dataclass(slots=True)
class Resources:
    """What tools share."""

    store: FrameStore
    finder: Finder
    """With its encoder, its indexes and the opened videos."""
    shared: Shared = field(default_factory=Shared)
    """The models of the process."""


def checked_result(tag: str, result: Any, store: FrameStore, max_frames: int = MAX_FRAMES) -> ToolResult:
    """The result of a tool, fit to be shown.

    Frames beyond `max_frames` are counted in the note, a long note is cut, and text is cleaned.

    Args:
        tag: The tool's tag, for messages.
        result: What the tool returned.
        store: Must hold the frames' pixels.
        max_frames: How many frames are shown.

    Raises:
        ToolError: It is not a `ToolResult` of frames that are in the store.
    """
    _check_types(tag, result)
    for frame in result.frames[:max_frames]:
        if not isinstance(frame, FrameRef):
            raise ToolError(
                f"the tool {tag!r} returned {_kind(frame)} for a frame; "
                "keep pixels by `resources.store.ref`, which gives a FrameRef"
            )
        if frame.digest not in store:
            raise ToolError(
                f"the tool {tag!r} returned a frame whose pixels are not in the store: keep them by "
                "`resources.store.ref`"
            )
    frames = tuple(_cleaned(frame) for frame in result.frames[:max_frames])
    note = clean_text(result.note)
    if len(note) > _NOTE:
        note = f"{note[:_NOTE]} (and {len(note) - _NOTE:,} more characters)"
    left = len(result.frames) - max_frames
    if left > 0:
        log.warning(
            "the tool %r returned %d frames; the first %d are shown", tag, len(result.frames), max_frames
        )
        more = f"{left:,} more frames were found and not shown; ask for something narrower to see them."
        note = f"{note} {more}" if note else more
    return ToolResult(frames, note, result.curve)


def _check_types(tag: str, result: Any) -> None:
    """Raise `ToolError` unless the fields hold what the annotations say: a third party's tool may differ."""
    if not isinstance(result, ToolResult):
        raise ToolError(
            f"the tool {tag!r} returned {_kind(result)}; "
            "it must return a ToolResult of FrameRefs or of a note"
        )
    for name, types, expected in (
        ("frames", (tuple, list), "a tuple of FrameRefs"),
        ("note", str, "text"),
        ("curve", (Curve, type(None)), "a Curve"),
    ):
        value = getattr(result, name)
        if not isinstance(value, types):
            raise ToolError(
                f"the tool {tag!r} returned a ToolResult whose {name} is {_kind(value)}; "
                f"it must be {expected}"
            )


def _cleaned(frame: FrameRef) -> FrameRef:
    """The frame, with text in its provenance that can be saved."""
    data = frame.model_dump()
    cleaned = clean_data(data)
    return frame if cleaned == data else FrameRef.model_validate(cleaned)


def call_seed(seed: int, tag: str, query: str, nth: int) -> int:
    """The seed of one call: the same whenever the run, the call and its place are the same.

    Args:
        seed: The seed of the run.
        tag: The tool's tag.
        query: The query of the call.
        nth: How many calls came before.
    """
    digest = hashlib.blake2b(f"{seed}\0{tag}\0{query}\0{nth}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def as_langchain_tool(tool: FrameTool, store: FrameStore) -> Any:
    """The tool for any LangChain agent.

    It takes the path of a video and a query, and returns text, with the frames as its artifact.
    """
    from langchain_core.tools import StructuredTool

    async def look(video: str, query: str) -> tuple[str, list[FrameRef]]:
        result = checked_result(tool.tag, await tool.call(clean_text(query), ToolContext(video)), store)
        lines = [f"{frame.describe()} (pixels: {frame.digest})" for frame in result.frames]
        if result.note:
            lines.append(result.note)
        return "; ".join(lines), list(result.frames)

    return StructuredTool.from_function(
        coroutine=look,
        name=tool.tag,
        description=tool.usage,
        response_format="content_and_artifact",
        metadata={"store": str(store)},
    )


def _kind(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__qualname__}"
