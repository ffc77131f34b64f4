"""The `zoom` tool: a part of a frame that the model has seen, at the video's own resolution.

The model sees frames at a reduced size, in which small things may be lost. A part is cut from the video, not
from the stored frame, and its provenance records the box. A part of an imagined frame is cut from the stored
picture, the largest that exists.

The query is a place and a frame, in any order: `upper left of 3.7 seconds`, `middle third of the last frame`,
`0.2,0.1,0.6,0.5 of frame 3`. A place consists of the words upper, lower, left, right and middle, which mean
halves, or thirds with the word `third`; `whole` means the whole frame. Or it is four numbers: left, top,
right, bottom, as shares of the frame (0 to 1), in percent with a `%`, or in thousandths, as vision-language
models write boxes. Without a frame, the last one is meant. The answer to a query that cannot be parsed is an
example, not a failure.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import numpy as np
from pydantic import Field

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Cropped, FrameRef
from act2see.tools.queries import find_frame, find_times
from act2see.tools.video.reader import frames_at
from act2see.tools.video.store import Pixels

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in shares of a frame's width and height."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
EXAMPLE = (
    'Name a place and a frame, as "upper left of 3.7 seconds" or "0.2,0.1,0.6,0.5 of the last frame" '
    "(left, top, right, bottom)."
)
_NUMBER = re.compile(r"(?<![\w.\-])(\d{1,4}(?:\.\d+)?|\.\d+)(?![\w.]*\d)\s*(%?)")
_WORD = re.compile(r"[a-z]+")
_SIDES = {"left": "x0", "right": "x2", "upper": "y0", "top": "y0", "lower": "y2", "bottom": "y2"}
_MIDDLE = {"middle", "center", "centre", "central"}
_ALL = {"whole", "all", "full", "entire", "everything"}
_FILLER = (
    r"(the|an?|of|in|at|on|from|frames?|part|hal(f|ves)|thirds?|quarter|corner|side|edge|region|area|hand|most|"
    r"and|to|its?|by|box|view|image|picture|please|zoom|into|one|shown)"
)


class Zoom:
    """Shows a part of a frame at full resolution."""

    class Options(ToolOptions):
        max_side: Annotated[int, Field(ge=32)] = 2048
        """Largest side of the result, in pixels."""
        min_side: Annotated[int, Field(ge=1)] = 32
        """Smallest side of the part to cut, in pixels. A smaller box grows to it."""
        usage: str = (
            "a part of a frame that you have seen, sharper; the query is a place and a frame: "
            '"upper left of 3.7 seconds", "middle third of the last frame", or left,top,right,bottom: '
            '"0.2,0.1,0.6,0.5 of 3.7 seconds"'
        )

    version = "zoom 1"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag = tag
        self.options = options
        self.resources = resources
        self.usage = options.usage

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        frame, rest = find_frame(query, context.shown or self._take_frame(query, context.video))
        if isinstance(frame, str):
            return ToolResult(note=frame)
        box = parse_box(rest)
        if box is None:
            return ToolResult(note=EXAMPLE)
        if isinstance(made := frame.provenance, Cropped):
            frame = made.source
            box = box_within(made.box, box)
        pixels = self._full_pixels(frame, context.video)
        height, width, _ = pixels.shape
        left, top, right, bottom = pixel_box(box, width, height, self.options.min_side)
        part = pixels[top:bottom, left:right]
        exact = (
            round(left / width, 4),
            round(top / height, 4),
            round(right / width, 4),
            round(bottom / height, 4),
        )
        provenance = Cropped(query=query, source=frame, box=exact)
        result = self.resources.store.ref(_shrink(part, self.options.max_side), frame.seconds, provenance)
        return ToolResult((result,))

    def _take_frame(self, query: str, video: str) -> tuple[FrameRef, ...]:
        """Return the frame at the time in a query, for agents that do not list the frames they have seen."""
        library = self.resources.finder.library
        times, _ = find_times(query)
        if not times:
            return ()
        return tuple(library.pictures(video, frames_at(library.probe(video).seconds, times[:1])))

    def _full_pixels(self, frame: FrameRef, video: str) -> Pixels:
        """Return the whole frame at its largest available size."""
        if frame.imagined:
            return self.resources.store(frame)
        library = self.resources.finder.library
        # Found by its time, which a reference keeps to a tenth of a millisecond.
        numbers = frames_at(library.probe(video).seconds, [frame.seconds])
        [(_, _, pixels)] = library.decode(video, numbers, None)
        return pixels


def parse_box(text: str) -> Box | None:
    """Return the box that a text means; None if it cannot be parsed."""
    if numbers := _NUMBER.findall(text):
        percent = any(sign for _, sign in numbers)
        return _box_from_numbers([float(number) for number, _ in numbers], percent)
    words = set(_WORD.findall(text.lower()))
    unknown = words - {*_SIDES, *_MIDDLE, *_ALL}
    if any(not re.fullmatch(_FILLER, word) for word in unknown) or re.search(r"\d", text):
        return None
    sides = {_SIDES[word] for word in words if word in _SIDES}
    if {"x0", "x2"} <= sides or {"y0", "y2"} <= sides:
        return None  # both left and right, or upper and lower
    middle = bool(_MIDDLE & words)
    if not sides and not middle:
        return WHOLE
    parts = 3 if {"third", "thirds"} & words else 2
    left, right = _span("x", sides, middle, parts)
    top, bottom = _span("y", sides, middle, parts)
    return left, top, right, bottom


def box_within(outer: Box, inner: Box) -> Box:
    """Convert `inner`, in shares of `outer`, to shares of the frame that `outer` is a part of."""
    width = outer[2] - outer[0]
    height = outer[3] - outer[1]
    return (
        outer[0] + inner[0] * width,
        outer[1] + inner[1] * height,
        outer[0] + inner[2] * width,
        outer[1] + inner[3] * height,
    )


def pixel_box(box: Box, width: int, height: int, min_side: int) -> tuple[int, int, int, int]:
    """Convert a box to whole pixels, rounded outwards.

    Args:
        box: The box, in shares of the frame.
        width: Width of the frame, in pixels.
        height: Height of the frame, in pixels.
        min_side: The smallest side of the result, in pixels. A smaller box grows, within the frame.

    Returns:
        Left, top, right and bottom.
    """
    left, right = _pixel_range(box[0], box[2], width, min_side)
    top, bottom = _pixel_range(box[1], box[3], height, min_side)
    return left, top, right, bottom


def _pixel_range(start: float, stop: float, size: int, least: int) -> tuple[int, int]:
    # The tolerance keeps rounding errors of shares from adding a pixel.
    first = int(np.floor(start * size + 1e-6))
    last = int(np.ceil(stop * size - 1e-6))
    least = min(least, size)
    if last - first < least:
        first = min(max(0, round((first + last - least) / 2)), size - least)
        last = first + least
    return first, last


def _box_from_numbers(values: list[float], percent: bool) -> Box | None:
    """Return a box from four numbers: in percent, in shares up to 1, or in thousandths; None if invalid."""
    if len(values) != 4:
        return None
    whole = 1.0 if max(values) <= 1 else 1000.0
    scale = 100.0 if percent else whole
    left, top, right, bottom = (value / scale for value in values)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        return None
    return left, top, right, bottom


def _span(axis: str, sides: set[str], middle: bool, parts: int) -> tuple[float, float]:
    """Return start and stop along one axis. `middle` applies to an axis without a named side."""
    if f"{axis}0" in sides:
        return 0.0, 1 / parts
    if f"{axis}2" in sides:
        return 1 - 1 / parts, 1.0
    if middle:
        return (1 / 3, 2 / 3) if parts == 3 else (0.25, 0.75)
    return 0.0, 1.0


def _shrink(pixels: Pixels, side: int) -> Pixels:
    """Return the picture with its longer side at most `side`."""
    height, width, _ = pixels.shape
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    from PIL import Image

    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX))
