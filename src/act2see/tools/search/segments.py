"""Segments of matching frames, scored as in TFVTG (Zheng et al., ECCV 2024, arXiv 2408.16219).

Given the scores s_t of the frames, `(frames,)` cosines, and a threshold, the *passing* frames are those with
s_t > threshold. Each run R of consecutive passing frames is a proposal. Its score, without a unit, is

    S(R) = mean of s_t over R - mean of s_t over the passing frames outside R

This is the static score of the released code (`generate_proposal` in `vlm_localizer.py`). The paper also has
a dynamic score, the rise of similarity at the start of an event. The released code multiplies it by zero
where it ranks proposals (`nms`), and otherwise only moves the start of a prediction with it. A hit is one
frame of a segment, so there is no dynamic score here.

Differences from the released code:

- There, proposals are windows: their lengths are multiples of a stride (20 to 50 frames), they start at every
  frame, and windows that overlap a better one are dropped. Frames of a window that do not pass count as 0.
  Here a proposal is a run, which needs no stride. For a window that is a run, both scores are equal.
- Without a passing frame there is no segment. There, it is [0, 0] with confidence 1.
- Without a passing frame outside R, the second mean is 0. There, it is 0 / 0, and the window is dropped. So
  the windows around an event that is shorter than the stride are lost, the others have negative scores, and
  the division by the largest score reverses their order.
- A video can be a single frame. There, its stride is 0, which fails.
- A run that is longer than `longest` is cut into equal parts. There, the longest window is half of the video
  or all of it, depending on the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 9  # sums of equal scores can differ in their last bits


@dataclass(frozen=True, slots=True)
class FrameSegment:
    """A range of frames in an index, from `start` to `stop` (exclusive)."""

    start: int
    stop: int
    best: int
    """The frame with the highest score; of equals, the first."""
    confidence: float
    """The score S(R) of this module's description."""


def find_segments(
    scores: NDArray[np.floating[Any]], threshold: float, count: int = 1, longest: int = 60
) -> list[FrameSegment]:
    """Find segments by the scores of frames.

    Args:
        scores: `(frames,)` scores. NaN does not pass.
        threshold: The score that a frame must exceed to pass.
        count: The largest number of segments.
        longest: The largest number of frames in a segment.

    Returns:
        Segments that do not overlap, best first; none if no frame passes. Of segments with equal scores, the
        shorter comes first, then the earlier.
    """
    passing = scores > threshold  # (frames,)
    passed = np.where(passing, scores, 0).astype(np.float64)
    total, frames = float(passed.sum()), int(passing.sum())
    segments = []
    for start, stop in _runs(passing, longest):
        inside, length = float(passed[start:stop].sum()), stop - start
        others = frames - length
        outside = (total - inside) / others if others else 0.0
        best = start + int(passed[start:stop].argmax())
        segments.append(FrameSegment(start, stop, best, inside / length - outside))
    segments.sort(key=lambda s: (-round(s.confidence, _DECIMALS), s.stop - s.start, s.start))
    return segments[:count]


def _runs(passing: NDArray[np.bool_], longest: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of passing frames; of a long run, those of its equal parts."""
    edges = np.flatnonzero(np.diff(passing, prepend=False, append=False)).tolist()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        length = stop - start
        parts = -(-length // longest)
        for part in range(parts):
            yield start + length * part // parts, start + length * (part + 1) // parts
