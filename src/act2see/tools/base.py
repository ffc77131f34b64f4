"""The protocol of frame tools, their context and their results.

A tool has a tag, one line of usage for the model, a version, and a `call`, async or not, that returns frames,
a note, or both. To add one, write a class with a nested pydantic model `Options` and
`__init__(self, tag, options, resources)`, and name it in a config: `use: "module:Class"` (docs/tools.md).

The graph makes one node for each configured tag and passes each result through `checked_result`.
`as_langchain_tool` offers the same object to other agents. This module does not depend on graphs or traces.
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
from act2see.tools.runtime.outside import quote_tags
from act2see.tools.runtime.sharing import Shared
from act2see.tools.runtime.text import clean_data, clean_text, shorten_text

if TYPE_CHECKING:
    from act2see.tools.search.finder import Finder
    from act2see.tools.video.store import FrameStore

log = logging.getLogger(__name__)
MAX_FRAMES = 16  # of one call, unless the config sets another limit
_NOTE = 4_000  # characters of a note that reach the model


class ToolOptions(BaseModel):
    """Base of tool options: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The video, the frames shown so far and the seed of a call."""

    video: str
    """Path of the video, or of a part of one."""
    shown: Sequence[FrameRef] = ()
    """Frames in the model's context, in the order in which they were shown."""
    seed: int = 0
    """Seed of this call."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call."""

    frames: tuple[FrameRef, ...] = ()
    """Frames for the model. Their pixels are in the store."""
    note: str = ""
    """Text for the model, such as the words read in the frames, or the reason why there are no frames."""
    curve: Curve | None = None
    """Similarity of the video to the query over time, if it was measured."""


@runtime_checkable
class FrameTool(Protocol):
    """A tool as the graph uses it. A tool that has models to load may implement `LoadsModels` too."""

    tag: str
    """Name of the tool in the chain of thought: `<tag> query </tag>`."""
    usage: str
    """One line that tells the model what the tool is for."""

    @property
    def version(self) -> str:
        """Name of the tool and its models in a trace. Reading it may load a model."""
        ...

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        """Find or make frames for a query.

        Raises:
            ToolError: The call failed, and the model should see the reason.
        """
        ...


@runtime_checkable
class LoadsModels(Protocol):
    """An optional part of a tool: the time for loading its models does not count as time of a call."""

    def load_models(self) -> None:
        """Load the models, unless they are loaded. The graph calls it in a thread, before `call`."""


@runtime_checkable
class NeedsIndex(Protocol):
    """An optional part of a tool: the index of the video that a call needs.

    The graph begins it when the question arrives. The time for it does not count as time of a call.
    """

    @property
    def index_of(self) -> Finder:
        """The finder whose index of the video a call needs."""
        ...


@dataclass(slots=True)
class Resources:
    """The objects that tools share."""

    store: FrameStore
    """Store of all pictures."""
    finder: Finder
    """Search in videos, with its encoder, its indexes and the opened videos."""
    shared: Shared = field(default_factory=Shared)
    """Models of the process."""


def checked_result(tag: str, result: Any, store: FrameStore, max_frames: int = MAX_FRAMES) -> ToolResult:
    """Check the result of a tool, and prepare it for the model.

    Frames beyond `max_frames` are counted in the note, a long note is cut, and text is cleaned.

    Args:
        tag: The tool's tag, for messages.
        result: The object that the tool returned.
        store: The store that must hold the frames' pixels.
        max_frames: The largest number of frames to show.

    Raises:
        ToolError: The result is not a `ToolResult` of frames that are in the store.
    """
    _check_types(tag, result)
    for frame in result.frames[:max_frames]:
        if not isinstance(frame, FrameRef):
            raise ToolError(
                f"the tool {tag!r} returned {_describe_type(frame)} for a frame; "
                "store the pixels with `resources.store.ref`, which returns a FrameRef"
            )
        if frame.digest not in store:
            raise ToolError(
                f"the tool {tag!r} returned a frame whose pixels are not in the store: store them with "
                "`resources.store.ref`"
            )
    frames = tuple(_clean_frame(frame) for frame in result.frames[:max_frames])
    note = shorten_text(clean_text(result.note), _NOTE)
    left = len(result.frames) - max_frames
    if left > 0:
        log.warning(
            "the tool %r returned %d frames; only the first %d are shown", tag, len(result.frames), max_frames
        )
        more = f"{left:,} more frames were found and not shown; ask for something narrower to see them."
        note = f"{note} {more}" if note else more
    return ToolResult(frames, note, result.curve)


def _check_types(tag: str, result: Any) -> None:
    """Raise `ToolError` unless the fields have their annotated types, which another package may ignore."""
    if not isinstance(result, ToolResult):
        raise ToolError(
            f"the tool {tag!r} returned {_describe_type(result)}; "
            "it must return a ToolResult with FrameRefs or a note"
        )
    for name, types, expected in (
        ("frames", (tuple, list), "a tuple of FrameRefs"),
        ("note", str, "text"),
        ("curve", (Curve, type(None)), "a Curve"),
    ):
        value = getattr(result, name)
        if not isinstance(value, types):
            raise ToolError(
                f"the tool {tag!r} returned a ToolResult whose {name} is {_describe_type(value)}; "
                f"it must be {expected}"
            )


def _clean_frame(frame: FrameRef) -> FrameRef:
    """Return the frame with `clean_data` applied to its provenance, so that it can be saved."""
    data = frame.model_dump()
    cleaned = clean_data(data)
    return frame if cleaned == data else FrameRef.model_validate(cleaned)


def call_seed(seed: int, tag: str, query: str, nth: int) -> int:
    """Return the seed of one call. The same arguments give the same seed in every process.

    Args:
        seed: The seed of the run.
        tag: The tool's tag.
        query: The query of the call.
        nth: A number that tells apart calls with the same query.
    """
    digest = hashlib.blake2b(f"{seed}\0{tag}\0{query}\0{nth}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def as_langchain_tool(tool: FrameTool, store: FrameStore) -> Any:
    """Wrap a tool for any LangChain agent.

    The wrapped tool takes the path of a video and a query, and returns text, with the frames as its artifact.
    """
    from langchain_core.tools import StructuredTool

    async def look(video: str, query: str) -> tuple[str, list[FrameRef]]:
        result = checked_result(tool.tag, await tool.call(clean_text(query), ToolContext(video)), store)
        lines = [f"{quote_tags(frame.describe())} (pixels: {frame.digest})" for frame in result.frames]
        if result.note:
            lines.append(quote_tags(result.note))
        return "; ".join(lines), list(result.frames)

    return StructuredTool.from_function(
        coroutine=look,
        name=tool.tag,
        description=tool.usage,
        response_format="content_and_artifact",
        metadata={"store": str(store)},
    )


def _describe_type(value: object) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__qualname__}"
