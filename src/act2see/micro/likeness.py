"""How much a picture is like a board: what is read from it is drawn again, and the two are compared.

This needs no model, and fits every board that can be drawn. A picture must first be brought to the world's
light, because a board in other light has other colours. Gaps between tiles and the rims of tiles, where no
shape reaches, have known values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from act2see.micro.world import CELL, GRID, SIZE, Board, Pixels, read_board, render

_SIDE = 48  # of compared pictures
_CELL = _SIDE // GRID
_BLOCK = _CELL // 4
_GAINS = (0.6, 1.8)
_OFFSETS = (-75.0, 45.0)
_ROUNDS = 3
_CLIPPED = 252
Levels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Light:
    """The change of values that brings a picture to the world's light: `gain * value + offset`."""

    gain: float = 1.0
    offset: float = 0.0

    def __call__(self, levels: Any) -> Levels:
        """Return changed values, cut to 0 to 255."""
        changed: Levels = np.clip(levels * np.float32(self.gain) + np.float32(self.offset), 0, 255)
        return changed


@lru_cache(1)
def lattice() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the gaps between tiles are, and the rims of tiles: two masks, `(192, 192)`.

    No shape reaches either. Left out are the outer edges, which the bar of a tipped board covers, and the
    pixels on the border of a tile.
    """
    # The distance of each pixel's centre from the nearest border of its cell.
    place = (np.arange(SIZE) + 0.5) % CELL
    inward = np.minimum(place, CELL - place)
    distance = np.minimum(inward[:, None], inward[None, :])
    inner = np.ones((SIZE, SIZE), np.bool_)
    inner[:, :10] = inner[:, -10:] = inner[:4] = inner[-4:] = False
    # Corners of tiles are round.
    corner = np.maximum(inward[:, None], inward[None, :]) < 12
    return (distance < 2) & inner, (distance > 3.5) & (distance < 7) & inner & ~corner


@lru_cache(1)
def _values() -> tuple[float, float]:
    """Return the values of gaps and of rims in the world's light."""
    empty = render(Board(())).mean(-1)
    gaps, rims = lattice()
    return float(empty[gaps].mean()), float(empty[rims].mean())


def estimate_light(pixels: Pixels) -> Light | None:
    """Return the light of a picture, `(192, 192, 3)` uint8; None if it has no lattice of tiles."""
    gaps, rims = lattice()
    grey = pixels.mean(-1)
    gap, rim = float(np.median(grey[gaps])), float(np.median(grey[rims]))
    dark, tile = _values()
    if rim - gap < 6:
        return None
    gain = float(np.clip((tile - dark) / (rim - gap), *_GAINS))
    light = Light(gain, dark - gain * gap)
    small = shrink(pixels)
    # The first estimate rests on two values near black; shapes and lit tiles give a longer scale.
    for _ in range(_ROUNDS):
        drawn = shrink(render(read_board(light(small).astype(np.uint8))))
        light = _fit(small, drawn, light)
    return light


def _fit(seen: Levels, drawn: Levels, light: Light) -> Light:
    """Return the light that brings `seen` closest to `drawn`, leaving out what does not fit."""
    fits = (np.abs(light(seen) - drawn) < 40) & (seen < _CLIPPED) & (seen > 2)
    if fits.sum() < seen.size // 4:
        return light
    x, y = seen[fits].astype(np.float64), drawn[fits].astype(np.float64)
    spread = float(x.var())
    if spread < 1:
        return light
    gain = float(((x - x.mean()) * (y - y.mean())).mean() / spread)
    gain = float(np.clip(gain, *_GAINS))
    return Light(gain, float(np.clip(y.mean() - gain * x.mean(), *_OFFSETS)))


def shrink(pixels: Pixels) -> Levels:
    """Return a picture at the size at which pictures are compared, `(48, 48, 3)`."""
    image = Image.fromarray(pixels)
    if image.size != (_SIDE, _SIDE):
        image = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


@dataclass(frozen=True, slots=True)
class Likeness:
    """The comparison of a picture with the board read from it."""

    board: Board
    contrast: float
    """Rims of tiles minus gaps, in the light of the world; 21 for a board."""
    error: float
    """The mean absolute difference of the cell that differs most, of 255."""
    worst: float
    """The same of the block that differs most, a sixteenth of a cell."""


def compare(pixels: Pixels) -> Likeness:
    """Compare a picture with the board that is read from it.

    Args:
        pixels: `(height, width, 3)` uint8; the board alone, in the world's light.
    """
    if pixels.shape[:2] != (SIZE, SIZE):
        pixels = np.asarray(Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    gaps, rims = lattice()
    grey = pixels.mean(-1)
    contrast = float(np.median(grey[rims]) - np.median(grey[gaps]))
    board = read_board(pixels)
    # Both are blurred, so that the sharpness of a video does not matter.
    difference = np.abs(_soften(pixels) - _soften(render(board))).mean(-1)
    return Likeness(board, contrast, _worst(difference, _CELL), _worst(difference, _BLOCK))


def _worst(difference: Levels, size: int) -> float:
    """Return the mean of the square of `size` pixels that has the largest."""
    count = _SIDE // size
    return float(difference.reshape(count, size, count, size).mean((1, 3)).max())


def _soften(pixels: Pixels) -> Levels:
    return shrink(np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2))))
