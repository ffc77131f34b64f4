"""Find the board in a video's pictures: the square inside bars of a plain dark colour, and its light.

`micro.yaml` names `BoardCrop` as `view.crop`. The models are trained on the board alone, at 192 pixels and in
one light. Bars are not found by their colour, which may be that of the board's gaps. The lattice of the
board is: gaps of one value between rims of tiles of another, wherever the shapes are. A coarse search over
sizes and places by correlation comes first, then small steps at the full size.

The median over a few pictures is searched, so that blinks, guests and noise do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from act2see.micro.likeness import Levels, Light, compare, estimate_light, lattice
from act2see.micro.world import SIZE, Pixels
from act2see.tools.runtime.forks import natively
from act2see.tools.video.framing import Framing

MAX_ERROR = 22.0
"""The largest error of a board (`likeness.compare`), for finding it; the guard is stricter."""
_COARSE = 160  # the longer side of the picture that is searched
_SMALLEST = 0.3  # the side of the smallest board, as a share of the picture's shorter side
_STEP = 1.025  # between two sizes
_CANDIDATES = 4
_SURE = 4.0  # a score (`_rate`) that only boards reach
_STEPS = (0.02, 0.01, 0.005, 0.0025)  # of the fine search, as shares of the side
_MOVES = tuple(move for move in product((-1, 0, 1), repeat=3) if sum(map(abs, move)) in (1, 3))
_SNAP = 0.012  # a board that nearly fills a square picture fills it
_DARKEST_CONTRAST = 6.0
_PLAIN = 10.0  # the largest deviation of a bar's pixels
_DARK = 90.0  # the largest value of a bar


class Square(NamedTuple):
    """A square in a picture, in pixels."""

    left: float
    top: float
    side: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.side, self.top + self.side


class BoardCrop:
    """The framer of boards."""

    id = "board1"

    @natively
    def find(self, pictures: Sequence[Pixels]) -> Framing | None:
        """Return the framing of the board; None if there is none, or if it is already as drawn."""
        height, width = pictures[0].shape[:2]
        usual: Pixels = np.median(np.stack(pictures), axis=0).astype(np.uint8)
        # Encoders lose the lattice in later frames first: the first is a keyframe.
        square = find_square(usual, pictures[0])
        if square is None:
            return None
        cuts = [cut(picture, square) for picture in pictures]
        lights = [light for light in (estimate_light(picture) for picture in cuts) if light is not None]
        if not lights:
            return None
        light = _settle(lights)
        # Most of the pictures must be boards: the others may be damaged or a title.
        errors = [compare(light(picture).astype(np.uint8)).error for picture in cuts]
        if float(np.median(errors)) > MAX_ERROR:
            return None
        if light == Light() and square == Square(0, 0, SIZE) and width == height == SIZE:
            return None
        left, top, right, bottom = square.box
        shares = (left / width, top / height, right / width, bottom / height)
        inside = [min(1.0, max(0.0, round(share, 5))) for share in shares]
        rounded = (inside[0], inside[1], inside[2], inside[3])
        return Framing(rounded, (SIZE, SIZE), round(light.gain, 3), round(light.offset, 1))


def _settle(lights: Sequence[Light]) -> Light:
    """Return the usual light of several pictures; the world's own if it is nearly that."""
    gain = float(np.median([light.gain for light in lights]))
    offset = float(np.median([light.offset for light in lights]))
    return Light() if abs(gain - 1) < 0.03 and abs(offset) < 3 else Light(gain, offset)


def cut(pixels: Pixels, square: Square) -> Pixels:
    """Return a square of a picture at the size of a board, `(192, 192, 3)` uint8."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = square.box
    box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
    image = Image.fromarray(pixels)
    if box != (0, 0, SIZE, SIZE):
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image)


def find_square(*pictures: Pixels) -> Square | None:
    """Return the square of the board; None without a lattice.

    Args:
        pictures: Pictures of it, `(height, width, 3)` uint8. A later one is searched if needed.
    """
    height, width = pictures[0].shape[:2]
    best, best_score = None, 0.0
    for pixels in pictures:
        grey = pixels.mean(-1).astype(np.float32)
        for start in _candidates(grey):
            square, score = _refine(grey, start)
            if score > best_score:
                best, best_score = square, score
            if best_score > _SURE:
                break
        if best_score > _SURE:
            break
    if best is None:
        return None
    if width == height and abs(best.side / width - 1) < _SNAP and max(map(abs, best[:2])) < _SNAP * width:
        best = Square(0, 0, width)
    return best if _is_alone(pictures[0].mean(-1).astype(np.float32), best) else None


def _candidates(grey: Levels) -> Iterator[Square]:
    """Yield the largest square, and the squares that are most like a lattice at a coarse size."""
    height, width = grey.shape
    shorter = min(width, height)
    yield Square((width - shorter) / 2, (height - shorter) / 2, shorter)
    scale = min(1.0, _COARSE / max(width, height))
    size = (max(16, round(width * scale)), max(16, round(height * scale)))
    small = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    across, down = width / size[0], height / size[1]
    shape = small.shape
    image, squares = np.fft.rfft2(small), np.fft.rfft2(small * small)
    found: list[tuple[float, Square]] = []
    side = min(shape)
    while side >= max(24, _SMALLEST * min(shape)):
        gaps, rims = _small_lattice(side)
        room = (slice(shape[0] - side + 1), slice(shape[1] - side + 1))
        at_gaps, at_rims = _mean_at(image, gaps, shape)[room], _mean_at(image, rims, shape)[room]
        spread = _mean_at(squares, gaps, shape)[room] - at_gaps**2
        spread = spread + _mean_at(squares, rims, shape)[room] - at_rims**2
        score = (at_rims - at_gaps) / (np.sqrt(np.maximum(spread, 0)) + 3)
        top, left = np.unravel_index(int(score.argmax()), score.shape)
        found.append(
            (float(score[top, left]), Square(float(left) * across, float(top) * down, side * across))
        )
        side = min(side - 1, round(side / _STEP))
    found.sort(key=lambda pair: -pair[0])
    for _, square in found[:_CANDIDATES]:
        yield square


@lru_cache(160)
def _small_lattice(side: int) -> tuple[Levels, Levels]:
    """Return the weights of gaps and of rims in a square of `side` pixels, each with the sum 1."""
    weights = []
    for mask in lattice():
        image = Image.fromarray(mask.astype(np.float32))
        small = np.asarray(image.resize((side, side), Image.Resampling.BOX))
        weights.append((small / small.sum()).astype(np.float32))
    return weights[0], weights[1]


def _mean_at(image: NDArray[np.complexfloating], weights: Levels, shape: tuple[int, ...]) -> Levels:
    """Return the weighted mean at each place, from the transformed image."""
    kernel = np.fft.rfft2(weights, shape)
    mean: Levels = np.fft.irfft2(image * np.conj(kernel), shape).astype(np.float32)
    return mean


def _refine(grey: Levels, start: Square) -> tuple[Square, float]:
    """Move and scale a square in small steps, as long as it becomes more like a lattice."""
    image = Image.fromarray(grey)
    height, width = grey.shape

    def rate(square: Square) -> float:
        left, top, right, bottom = square.box
        slack = 0.01 * square.side
        if min(left, top) < -slack or right > width + slack or bottom > height + slack:
            return 0.0
        box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
        return _rate(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)))

    best, best_score = start, rate(start)
    for step in _STEPS:
        moved = True
        tries = 0
        while moved and tries < 6:
            moved, tries = False, tries + 1
            here, move = best, step * best.side
            for right, down, wider in _MOVES:
                wide = wider * move
                # A wider square keeps its centre.
                square = Square(
                    here.left + right * move - wide / 2, here.top + down * move - wide / 2, here.side + wide
                )
                score = rate(square)
                if score > best_score + 1e-4:
                    best, best_score, moved = square, score, True
    return best, best_score


def _rate(grey: Levels) -> float:
    """Return how much a picture, `(192, 192)`, is like a lattice: contrast in units of its deviation."""
    gaps, rims = lattice()
    gap, rim = grey[gaps], grey[rims]
    usual_gap, usual_rim = np.median(gap), np.median(rim)
    contrast = float(usual_rim) - float(usual_gap)
    if contrast < _DARKEST_CONTRAST:
        return 0.0
    # Lit tiles and shapes a little larger than usual are left out by cutting off large deviations.
    spread = _deviation(gap, usual_gap) + _deviation(rim, usual_rim)
    return contrast / (spread + 1.0)


def _deviation(values: Levels, usual: np.floating) -> float:
    return float(np.minimum(np.abs(values - usual), 40).mean())


def _is_alone(grey: Levels, square: Square) -> bool:
    """Whether all around a square is of one plain dark value: a part of a larger board is no board."""
    height, width = grey.shape
    margin = 0.025 * square.side + 1
    outside = np.ones((height, width), np.bool_)
    left, top, right, bottom = square.box
    rows = slice(max(0, round(top - margin)), round(bottom + margin))
    outside[rows, max(0, round(left - margin)) : round(right + margin)] = False
    around = grey[outside]
    if around.size == 0:
        return True
    usual = float(np.median(around))
    return usual < _DARK and float(np.percentile(np.abs(around - usual), 99)) < _PLAIN
