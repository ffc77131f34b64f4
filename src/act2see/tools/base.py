"""What a frame tool is, and what it may return.

A tool has a tag, one line that tells the model what it is for, and an async `call` that returns frames, a
note, or both. Three things make one: a class with these, a pydantic model of its options, and a name
(`tools/plugins.py`).

The graph makes one node for each configured tag, and takes what a tool returns through `checked_result`. The
same object serves other agents by `as_langchain_tool`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

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
    """What a call may know: the video, the frames in the model's view, the seed of this call."""

    video: str
    shown: Sequence[FrameRef] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ToolResult:
    """Frames for the model, and a `note` to it: what was read in them, or why there are none."""

    frames: tuple[FrameRef, ...] = ()
    note: str = ""
    curve: Curve | None = None


@runtime_checkable
class FrameTool(Protocol):
    """A tool as the graph sees it."""

    tag: str
    usage: str

    @property
    def version(self) -> str:
        """What a trace keeps of it; may load a model."""
        ...

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        """Frames for `query`. Raise `ToolError` for a failure that the model should hear of."""
        ...


@dataclass(slots=True)
class Resources:
    """What tools share: the frame store, the finder with its encoder, indexes and opened clips, the models of
    the process."""

    store: FrameStore
    finder: Finder
    shared: Shared = field(default_factory=Shared)
    extra: dict[str, Any] = field(default_factory=dict)


class ToolFactory(Protocol):
    """A tool's class: its options, and how one is made."""

    Options: ClassVar[type[BaseModel]]

    def __call__(self, tag: str, options: Any, resources: Resources) -> FrameTool: ...


def checked_result(tag: str, result: Any, store: FrameStore, most: int = MAX_FRAMES) -> ToolResult:
    """What a tool returned, fit to be shown: `most` frames, the others counted in the note; the note not
    endless.

    Raises `ToolError` where it is no `ToolResult` of frames that are in the store.
    """
    if not isinstance(result, ToolResult):
        raise ToolError(
            f"the tool {tag!r} returned {_kind(result)}; it must return a ToolResult of FrameRefs or of a note"
        )
    # Whatever the annotations say: it was made by somebody else's code.
    given: Any = result
    for name, kinds, must in (
        ("frames", (tuple, list), "a tuple of FrameRefs"),
        ("note", str, "text"),
        ("curve", (Curve, type(None)), "a Curve"),
    ):
        if not isinstance(value := getattr(given, name), kinds):
            raise ToolError(
                f"the tool {tag!r} returned a ToolResult whose {name} is {_kind(value)}; it must be {must}"
            )
    frames, note, left = tuple(given.frames[:most]), clean_text(result.note), len(result.frames) - most
    for frame in frames:
        if not isinstance(frame, FrameRef):
            raise ToolError(
                f"the tool {tag!r} returned {_kind(frame)} for a frame; keep pixels by `resources.store.ref`, which gives a FrameRef"
            )
        if frame.digest not in store:
            raise ToolError(
                f"the tool {tag!r} returned a frame whose pixels are not in the store: keep them by `resources.store.ref`"
            )
    frames = tuple(_cleaned(frame) for frame in frames)
    if len(note) > _NOTE:
        note = f"{note[:_NOTE]} (and {len(note) - _NOTE:,} more characters)"
    if left > 0:
        log.warning("the tool %r returned %d frames; the first %d are shown", tag, len(result.frames), most)
        note = " ".join(
            n
            for n in (
                note,
                f"{left:,} more frames were found and not shown; ask for something narrower to see them.",
            )
            if n
        )
    return ToolResult(frames, note, result.curve)


def _cleaned(frame: FrameRef) -> FrameRef:
    """The frame, with text in its provenance that can be kept."""
    data = frame.model_dump()
    cleaned = clean_data(data)
    return frame if cleaned == data else FrameRef.model_validate(cleaned)


def call_seed(seed: int, tag: str, query: str, nth: int) -> int:
    """The seed of one call: the same for the same run, call and place, whatever happened between."""
    digest = hashlib.blake2b(f"{seed}\0{tag}\0{query}\0{nth}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def as_langchain_tool(tool: FrameTool, store: FrameStore) -> Any:
    """The tool for any LangChain agent: takes a video path and a query, returns text and the frames as
    artifact."""
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
