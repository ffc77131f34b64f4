"""From frame scores to segments, after TFVTG (Zheng et al., ECCV 2024), for events that have a length.

A proposal's static score is the mean similarity inside it minus the mean outside; its dynamic score is how
steeply similarity rises into it. Mended against the released code: a clip without any frame above the
threshold gives no segment (there: [0, 0] with confidence 1), events shorter than the stride are found (there
their confidences are inverted), one frame is enough, and nothing is divided by an empty outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames `start` to `stop` (exclusive) of the index; `best` is the frame to show."""

    start: int
    stop: int
    best: int
    confidence: float


def find_segments(
    scores: NDArray[np.float32], threshold: float, count: int = 1, longest: int = 60
) -> list[Segment]:
    """At most `count` segments that do not overlap, best first; empty where no frame passes `threshold`."""
    n = len(scores)
    passed = np.where(scores > threshold, scores, 0.0).astype(np.float64)
    if not passed.any():
        return []
    total = np.concatenate([[0.0], passed.cumsum()])
    rise = np.diff(passed, prepend=0.0)
    found: list[Segment] = []
    candidates = []
    for length in range(1, min(n, longest) + 1):
        inside = (total[length:] - total[:-length]) / length
        rest = n - length
        outside = (total[-1] - (total[length:] - total[:-length])) / rest if rest else np.zeros_like(inside)
        value = inside - outside + np.maximum(rise[: n - length + 1], 0.0)
        candidates += [(float(v), s, s + length) for s, v in enumerate(value) if passed[s] > 0]
    for value_, start, stop in sorted(candidates, key=lambda c: (-c[0], c[2] - c[1])):
        if all(stop <= f.start or start >= f.stop for f in found):
            found.append(Segment(start, stop, start + int(passed[start:stop].argmax()), value_))
            if len(found) == count:
                break
    return found
