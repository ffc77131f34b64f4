"""The `clip` tool: several frames around a time, in their order, for what a single picture cannot show.

The query names a time of the video (`3.7 seconds`, `the last frame`) or a stretch of it (`2 to 5 seconds`),
which the frames then fill evenly. At the ends of the video the frames move inwards, so that their number
stays the same. The times are those of the frames on the screen then; a frame that is on the screen at two
of the times comes once.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Taken
from act2see.tools.queries import find_frame, find_times
from act2see.tools.video.reader import frames_at

HOW = 'Name a time, as "3.7 seconds" or "the last frame", or two, as "2 to 5 seconds".'


class ClipTool:
    """Shows the frames around a time."""

    class Options(ToolOptions):
        count: Annotated[int, Field(ge=1)] = 4
        """How many frames."""
        spacing: Annotated[float, Field(gt=0)] = 0.5
        """Seconds between two frames around a single time."""
        usage: str = (
            "several frames in a row, to see what moves; the query is a time or a stretch: "
            '"3.7 seconds", "2 to 5 seconds"'
        )

    version = "clip 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        library = self.resources.finder.library
        clip = library.probe(context.video)
        times, rest = find_times(query)
        if not times:
            frame, left = find_frame(rest, context.shown)
            if left == rest:  # no frame was named either
                return ToolResult(note=HOW)
            if isinstance(frame, str):
                return ToolResult(note=frame)
            times = [frame.seconds]
        if min(times) >= clip.info.seconds:
            return ToolResult(note=f"The video ends at {clip.info.seconds:.1f} seconds.")
        numbers = frames_at(clip.seconds, self._spread(times, clip.info.seconds))
        return ToolResult(tuple(library.pictures(context.video, numbers, Taken(query=query))))

    def _spread(self, named: list[float], end: float) -> NDArray[np.float64]:
        """The times to show: between the first two that were named, or around the only one."""
        count, spacing = self.options.count, self.options.spacing
        if len(named) > 1:
            start, stop = min(named[:2]), min(max(named[:2]), end)
        else:
            length = (count - 1) * spacing
            start = max(0.0, min(named[0] - length / 2, end - length))
            stop = min(start + length, end)
        return np.linspace(start, stop, count)
