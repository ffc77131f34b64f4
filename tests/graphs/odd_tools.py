"""Tools as other packages might write them: one that works, and one for each mistake."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import FrameRef, Taken


class Plain:
    """A working tool with a synchronous `call`: it shows the frame at `at` seconds for any query."""

    class Options(ToolOptions):
        at: float = 1.0
        usage: str = "the frame at a time that was set before"

    version = "plain 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.at, self.usage, self.resources = options.at, options.usage, resources

    def call(self, query: str, context: ToolContext) -> Any:
        [frame] = self.frames(context)
        return ToolResult((frame,))

    def frames(self, context: ToolContext) -> list[FrameRef]:
        library = self.resources.finder.library
        pictures = library.pictures(context.video, [round(12 * self.at)])
        return [p.model_copy(update={"provenance": Taken(query="x")}) for p in pictures]


class Raises(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        raise ZeroDivisionError("division by zero\nand a second line")


class Hangs(Plain):
    async def call(self, query: str, context: ToolContext) -> Any:
        await asyncio.sleep(3600)


class Blocks(Plain):
    """Blocks its event loop, and cannot be cancelled."""

    async def call(self, query: str, context: ToolContext) -> Any:
        if query == "block":
            time.sleep(20)  # noqa: ASYNC251
        return ToolResult(tuple(self.frames(context)))


class Exits(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        sys.exit(1)


class Cancels(Plain):
    async def call(self, query: str, context: ToolContext) -> Any:
        raise asyncio.CancelledError


class ReturnsNothing(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return None


class ReturnsPixels(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return ToolResult(tuple(self.resources.store.get(f.digest) for f in self.frames(context)))  # type: ignore[arg-type]


class ReturnsAFrame(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return ToolResult(self.frames(context)[0])  # type: ignore[arg-type]


class ReturnsUnstored(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return ToolResult((FrameRef(digest="0" * 32, width=9, height=9, seconds=0.0),))


class ReturnsNumbers(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return ToolResult(note=7)  # type: ignore[arg-type]


class ReturnsMany(Plain):
    def call(self, query: str, context: ToolContext) -> Any:
        return ToolResult(tuple(self.frames(context) * 10_000), "x" * 50_000)


class NoOptions:
    usage = version = "none"


class NoCall(Plain):
    call = None


class NoUsage(Plain):
    def __init__(self, tag: str, options: Plain.Options, resources: Resources) -> None:
        super().__init__(tag, options, resources)
        self.usage = ""


class NotMade(Plain):
    def __init__(self, tag: str, options: Plain.Options, resources: Resources) -> None:
        raise KeyError("API_KEY")
