"""What a frame tool is, and how one is found.

A tool has a tag, one line that tells the model what it is for, and an async `call` that returns frames or says
why there are none. Three things make one: a class with these, a pydantic model of its options, and a name: a
short one (entry-point group `act2see.tools`) or, in a local config file, a dotted path `package.module:Class`.

The graph makes one node for each configured tag. The same object serves other agents by `as_langchain_tool`.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from act2see.errors import ConfigError
from act2see.tools.frames import Curve, FrameRef

if TYPE_CHECKING:
    from act2see.tools.finder import Finder
    from act2see.tools.store import FrameStore

log = logging.getLogger(__name__)
GROUP = "act2see.tools"


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
    """Frames for the model, or a `note` to it that says why there are none."""

    frames: tuple[FrameRef, ...] = ()
    note: str = ""
    curve: Curve | None = None


@runtime_checkable
class FrameTool(Protocol):
    """A tool as the graph sees it."""

    tag: str
    usage: str
    version: str

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        """Frames for `query`. Raise `ToolError` for a failure that the model should hear of."""
        ...


@dataclass(slots=True)
class Resources:
    """What tools share: the frame store, and the finder with its encoder, indexes and opened clips."""

    store: FrameStore
    finder: Finder
    extra: dict[str, Any] = field(default_factory=dict)


class ToolFactory(Protocol):
    """A tool's class: its options, and how one is made."""

    Options: ClassVar[type[BaseModel]]

    def __call__(self, tag: str, options: Any, resources: Resources) -> FrameTool: ...


def find_tool(name: str, *, dotted: bool = True) -> Any:
    """The tool class of a short name or dotted path. `dotted=False` where the name comes from elsewhere than a local file."""
    if ":" in name:
        if not dotted:
            raise ConfigError(f"tool {name!r}: a dotted path is allowed in a local config file only; register an entry point in {GROUP!r}")
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as e:
            raise ConfigError(f"tool {name!r} cannot be imported: {e}") from e
    known = {e.name: e for e in entry_points(group=GROUP)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no tool {name!r}{hint} (known: {', '.join(sorted(known)) or 'none, is act2see installed?'})")
    try:
        return known[name].load()
    except Exception as e:
        raise ConfigError(f"tool {name!r} ({known[name].value}) cannot be imported: {e}") from e


def call_seed(seed: int, tag: str, query: str, nth: int) -> int:
    """The seed of one call: the same for the same run, call and place, whatever happened between."""
    digest = hashlib.blake2b(f"{seed}\0{tag}\0{query}\0{nth}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def as_langchain_tool(tool: FrameTool, store: FrameStore) -> Any:
    """The tool for any LangChain agent: takes a video path and a query, returns text and the frames as artifact."""
    from langchain_core.tools import StructuredTool

    async def look(video: str, query: str) -> tuple[str, list[FrameRef]]:
        result = await tool.call(query, ToolContext(video))
        said = [f"{'imagined frame' if f.imagined else f'frame at {f.seconds:.1f} s'} (pixels: {f.digest})" for f in result.frames]
        return "; ".join(said) or result.note, list(result.frames)

    return StructuredTool.from_function(
        coroutine=look, name=tool.tag, description=tool.usage, response_format="content_and_artifact", metadata={"store": str(store)}
    )
