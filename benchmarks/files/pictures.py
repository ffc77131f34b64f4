"""Pictures that carry their number: sixteen blocks, four in a row, that stay readable after lossy coding.

The first row is the same in each picture and says whether it is upright: light, dark, light, light; turned or
mirrored it would read differently. Its first block is yellow, which becomes cyan if red and blue are
exchanged. The other twelve blocks are the number in binary.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
SIDE = 4
"""Blocks in a row and in a column."""
UPRIGHT = 0b1011
"""The first row of an upright picture."""
TURNS = ("90", "180", "270", "hflip", "vflip", "transpose")
"""What can be done to the stored picture; the file says how to undo it."""


@lru_cache(4096)
def draw(number: int, width: int, height: int) -> Pixels:
    """Return the picture of a number below 4096, `(height, width, 3)` RGB."""
    code = UPRIGHT << 12 | number
    bits = [code >> (15 - n) & 1 for n in range(16)]
    blocks = np.array(bits, np.uint8).reshape(SIDE, SIDE, 1).repeat(3, 2) * 255
    blocks[0, 0] = (255, 255, 0)
    rows, columns = _edges(height), _edges(width)
    tall = blocks.repeat(np.diff(rows), 0)
    return np.ascontiguousarray(tall.repeat(np.diff(columns), 1))


def _edges(length: int) -> list[int]:
    return [round(n * length / SIDE) for n in range(SIDE + 1)]


def read(pixels: Pixels) -> int:
    """Return the sixteen blocks of a picture as a number: `UPRIGHT << 12 | number` if it is intact."""
    height, width = pixels.shape[:2]
    code = 0
    for y in range(SIDE):
        top, bottom = _middle(y, height)
        for x in range(SIDE):
            left, right = _middle(x, width)
            code = code << 1 | int(pixels[top:bottom, left:right].mean() > 127)
    return code


def _middle(n: int, length: int) -> tuple[int, int]:
    start = int((n + 0.35) * length / SIDE)
    return start, max(start + 1, int((n + 0.65) * length / SIDE))


def is_yellow(pixels: Pixels) -> bool:
    """Return whether the first block has its colour."""
    height, width = pixels.shape[:2]
    (top, bottom), (left, right) = _middle(0, height), _middle(0, width)
    red, green, blue = pixels[top:bottom, left:right].mean((0, 1))
    return bool(min(red, green) > blue + 50)


def turn(pixels: Pixels, how: str) -> Pixels:
    """Return a picture as it is stored, or itself for an empty `how`."""
    if how in ("90", "180", "270"):
        pixels = np.rot90(pixels, int(how) // 90)
    elif how == "hflip":
        pixels = pixels[:, ::-1]
    elif how == "vflip":
        pixels = pixels[::-1]
    elif how == "transpose":
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def undo(pixels: Pixels, how: str) -> Pixels:
    """Return a stored picture upright."""
    opposite = {"90": "270", "270": "90"}
    return turn(pixels, opposite.get(how, how))


MATRICES = {
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
}
"""The display matrices of mirrored pictures: a, b, c, d of FFmpeg's."""
