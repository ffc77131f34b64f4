"""The `zoom` tool: a part of a frame that the model has seen, at the video's own resolution.

The model is shown frames that were made smaller; what is small in them may be gone. The part is cut from the
video, not from the stored frame, and keeps where it was cut. Of an imagined frame there is nothing larger
than what is stored.

The query is a place and a frame, in any order: `upper left of 3.7 seconds`, `middle third of the last frame`,
`0.2,0.1,0.6,0.5 of frame 3`. A place is made of upper, lower, left, right, middle (halves; with `third`,
thirds; `whole` is all of it), or is four numbers: left, top, right, bottom, as shares of the frame (0 to 1),
in percent with a `%`, or in thousandths, as vision-language models write boxes. Without a frame it is the
last one. What cannot be read is answered with an example, and is no failure.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Cropped, FrameRef
from act2see.tools.queries import frame_in, times_in
from act2see.tools.video.reader import frames_at

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
HOW = 'Name a place and a frame, as "upper left of 3.7 seconds" or "0.2,0.1,0.6,0.5 of the last frame" (left, top, right, bottom).'
_NUMBER = re.compile(r"(?<![\w.\-])(\d{1,4}(?:\.\d+)?|\.\d+)(?![\w.]*\d)\s*(%?)")
_WORD = re.compile(r"[a-z]+")
_SIDES = {"left": "x0", "right": "x2", "upper": "y0", "top": "y0", "lower": "y2", "bottom": "y2"}
_MIDDLE = {"middle", "center", "centre", "central"}
_ALL = {"whole", "all", "full", "entire", "everything"}
_SAYS_NOTHING = (
    r"(the|an?|of|in|at|on|from|frames?|part|hal(f|ves)|thirds?|quarter|corner|side|edge|region|area|hand|most|and|to|its?|by|box|view|"
    r"image|picture|please|zoom|into|one|shown)"
)


class Zoom:
    """Shows a part of a frame at full resolution."""

    class Options(ToolOptions):
        max_side: Annotated[int, Field(ge=32)] = 2048
        min_side: Annotated[int, Field(ge=1)] = 32
        usage: str = (
            "a part of a frame that you have seen, sharper; the query is a place and a frame: "
            '"upper left of 3.7 seconds", "middle third of the last frame", or left,top,right,bottom: "0.2,0.1,0.6,0.5 of 3.7 seconds"'
        )

    version = "zoom 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        shown = context.shown or self._unseen(query, context.video)
        frame, rest = frame_in(query, shown)
        if isinstance(frame, str):
            return ToolResult(note=frame)
        box = region(rest)
        if box is None:
            return ToolResult(note=HOW)
        if isinstance(part := frame.provenance, Cropped):
            frame, box = part.source, within(part.box, box)
        pixels = self._pixels(frame, context.video)
        left, top, right, bottom = cut(box, pixels.shape[1], pixels.shape[0], self.options.min_side)
        height, width, _ = pixels.shape
        done: Box = (
            round(left / width, 4),
            round(top / height, 4),
            round(right / width, 4),
            round(bottom / height, 4),
        )
        made = Cropped(query=query, source=frame, box=done)
        seen = _at_most(pixels[top:bottom, left:right], self.options.max_side)
        return ToolResult(frames=(self.resources.store.ref(seen, frame.seconds, made),))

    def _unseen(self, query: str, video: str) -> tuple[FrameRef, ...]:
        """Other agents than ours keep no list of what they have seen: for them any time of the video is a
        frame."""
        clips, (times, _) = self.resources.finder.clips, times_in(query)
        return tuple(clips.pictures(video, frames_at(clips.clip(video).seconds, times[:1]))) if times else ()

    def _pixels(self, frame: FrameRef, video: str) -> Pixels:
        """The whole frame as large as there is."""
        clips = self.resources.finder.clips
        if frame.imagined:
            return self.resources.store.get(frame.digest)
        # The frame on the screen at that time, and a time is kept to a tenth of a millisecond.
        [(_, _, pixels)] = clips.decode(video, frames_at(clips.clip(video).seconds, [frame.seconds]), None)
        return pixels


def region(text: str) -> Box | None:
    """The box that a text means, in shares of the frame; None where it cannot be read."""
    if numbers := _NUMBER.findall(text):
        return _numbers([float(n) for n, _ in numbers], any(percent for _, percent in numbers))
    words = _WORD.findall(text.lower())
    known = {*_SIDES, *_MIDDLE, *_ALL}
    if any(w not in known and not re.fullmatch(_SAYS_NOTHING, w) for w in words) or re.search(r"\d", text):
        return None
    sides = {_SIDES[w] for w in words if w in _SIDES}
    middle, parts = bool(_MIDDLE & set(words)), 3 if {"third", "thirds"} & set(words) else 2
    if len(sides) != len({side[0] for side in sides}):
        return None  # both left and right
    if not sides and not middle:
        return WHOLE
    across, down = (_span(axis, sides, middle, parts) for axis in "xy")
    return across[0], down[0], across[1], down[1]


def within(outer: Box, inner: Box) -> Box:
    """A box in shares of `outer`, in shares of what `outer` is in."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    return (
        outer[0] + inner[0] * width,
        outer[1] + inner[1] * height,
        outer[0] + inner[2] * width,
        outer[1] + inner[3] * height,
    )


def cut(box: Box, width: int, height: int, least: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, outwards; no side under `least`, as far as the frame goes."""
    left, right = _side(box[0], box[2], width, least)
    top, bottom = _side(box[1], box[3], height, least)
    return left, top, right, bottom


def _side(start: float, stop: float, size: int, least: int) -> tuple[int, int]:
    # Shares of whole pixels come out a hair off: they are not a reason for one pixel more.
    a, b = int(np.floor(start * size + 1e-6)), int(np.ceil(stop * size - 1e-6))
    least = min(least, size)
    if b - a < least:
        a = min(max(0, round((a + b - least) / 2)), size - least)
        b = a + least
    return a, b


def _numbers(values: list[float], percent: bool) -> Box | None:
    if len(values) != 4:
        return None
    scale = 100.0 if percent else 1.0 if max(values) <= 1 else 1000.0
    left, top, right, bottom = (v / scale for v in values)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        return None
    return left, top, right, bottom


def _span(axis: str, sides: set[str], middle: bool, parts: int) -> tuple[float, float]:
    """From where to where along one axis. `middle` is meant of an axis of which no side is named."""
    if f"{axis}0" in sides:
        return 0.0, 1 / parts
    if f"{axis}2" in sides:
        return 1 - 1 / parts, 1.0
    if middle:
        return (1 / 3, 2 / 3) if parts == 3 else (0.25, 0.75)
    return 0.0, 1.0


def _at_most(pixels: Pixels, side: int) -> Pixels:
    height, width, _ = pixels.shape
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    from PIL import Image

    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))
