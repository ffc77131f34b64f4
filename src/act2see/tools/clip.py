"""The `clip` tool: several frames around a time, in their order, for what a single picture cannot show.

The query names a time of the video (`3.7 seconds`, `the last frame`) or a stretch of it (`2 to 5 seconds`),
which the frames then fill evenly. At the ends of the video the frames move inwards, so that there are as
many. The times are those of the frames on the screen then; where two are the same frame, it comes once.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Taken
from act2see.tools.queries import frame_in, times_in
from act2see.tools.video.reader import frames_at

HOW = 'Name a time, as "3.7 seconds" or "the last frame", or two, as "2 to 5 seconds".'


class ClipTool:
    """Shows the frames around a time."""

    class Options(ToolOptions):
        count: Annotated[int, Field(ge=1)] = 4
        spacing: Annotated[float, Field(gt=0)] = 0.5
        usage: str = 'several frames in a row, to see what moves; the query is a time or a stretch: "3.7 seconds", "2 to 5 seconds"'

    version = "clip 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        clips, (times, rest) = self.resources.finder.clips, times_in(query)
        clip = clips.clip(context.video)
        if not times:
            frame, left = frame_in(rest, context.shown)
            if isinstance(frame, str) or left == rest:  # none was named
                return ToolResult(note=frame if isinstance(frame, str) and left != rest else HOW)
            times = [frame.seconds]
        if min(times) >= clip.info.seconds:
            return ToolResult(note=f"The video ends at {clip.info.seconds:.1f} seconds.")
        wanted = self._times(times, clip.info.seconds)
        made = Taken(query=query)
        frames = clips.pictures(context.video, frames_at(clip.seconds, wanted))
        return ToolResult(frames=tuple(f.model_copy(update={"provenance": made}) for f in frames))

    def _times(self, named: list[float], end: float) -> NDArray[np.float64]:
        o = self.options
        if len(named) > 1:
            start, stop = min(named[:2]), min(max(named[:2]), end)
        else:
            reach = (o.count - 1) * o.spacing
            start = max(0.0, min(named[0] - reach / 2, end - reach))
            stop = min(start + reach, end)
        return np.linspace(start, stop, o.count)
