"""The `clip` tool: several frames around a time, in order, for motion that a single picture cannot show.

The query names a time of the video (`3.7 seconds`, `the last frame`) or an interval (`2 to 5 seconds`), over
which the frames are evenly spaced. Near an end of the video the frames move inwards, so that their number
stays the same. A frame that is on screen at two of the chosen times is shown once.
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

EXAMPLE = 'Name a time, such as "3.7 seconds" or "the last frame", or two times: "2 to 5 seconds".'


class ClipTool:
    """Shows the frames around a time."""

    class Options(ToolOptions):
        count: Annotated[int, Field(ge=1)] = 4
        """Number of frames to show."""
        spacing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
        """Seconds between two frames around a single time."""
        usage: str = (
            "several frames in a row, to see motion; the query is a time or an interval: "
            '"3.7 seconds", "2 to 5 seconds"'
        )

    version = "clip 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag = tag
        self.options = options
        self.resources = resources
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
                return ToolResult(note=EXAMPLE)
            if isinstance(frame, str):
                return ToolResult(note=frame)
            times = [frame.seconds]
        if min(times) >= clip.info.seconds:
            return ToolResult(note=f"The video ends at {clip.info.seconds:.1f} seconds.")
        numbers = frames_at(clip.seconds, self._choose_times(times, clip.info.seconds))
        return ToolResult(tuple(library.pictures(context.video, numbers, Taken(query=query))))

    def _choose_times(self, named: list[float], end: float) -> NDArray[np.float64]:
        """Return the times to show: between the first two named times, or around the only one."""
        count, spacing = self.options.count, self.options.spacing
        if len(named) > 1:
            start = min(named[:2])
            stop = min(max(named[:2]), end)
        else:
            length = (count - 1) * spacing
            start = max(0.0, min(named[0] - length / 2, end - length))
            stop = min(start + length, end)
        return np.linspace(start, stop, count)
