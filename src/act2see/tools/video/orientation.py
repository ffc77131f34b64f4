"""How a video's pictures are turned: the display matrix of the file, as a transformation of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from act2see.tools.video.sidedata import read_side_data
from act2see.tools.video.store import Pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Upright:
    """The transformation from stored to upright pixels: first `turn`, then mirror."""

    turn: bool = False
    """Whether the axes are exchanged."""
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return upright pixels, `(height, width, 3)` uint8."""
        if self.turn:
            pixels = pixels.transpose(1, 0, 2)
        down = -1 if self.mirror_y else 1
        across = -1 if self.mirror_x else 1
        return np.ascontiguousarray(pixels[::down, ::across])


def orientation(frame: VideoFrame) -> tuple[Upright, bool]:
    """Return the transformation that makes a frame upright, and whether it mirrors the picture.

    Angles other than quarter turns are ignored.
    """
    # The matrix is read from a small copy, which may stay in memory for a while.
    matrix = read_side_data(frame.reformat(16, 16, format="rgb24")).get("DISPLAYMATRIX")
    if matrix is not None and len(matrix) >= 36:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
        if a and d and not (b or c):
            return Upright(False, a < 0, d < 0), (a < 0) != (d < 0)
        if b and c and not (a or d):
            return Upright(True, c < 0, b < 0), (b < 0) == (c < 0)
    return Upright(), False
