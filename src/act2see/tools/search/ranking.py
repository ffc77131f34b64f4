"""Ranking of the frames of an index: single frames, or the best frame of each segment (`segments.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from act2see.tools.frames import Curve
from act2see.tools.search.index import FrameIndex
from act2see.tools.search.segments import find_segments

SAME_FRAME = 1e-3
"""Times closer than this, in seconds, are those of one frame."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A frame that was found."""

    frame: int
    """Number of the frame in the video."""
    seconds: float
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search."""

    hits: tuple[Hit, ...]
    """Hits, best first."""
    curve: Curve
    """Scores over time."""
    index_id: str
    closest: Hit | None = None
    """The best frame that was not left out, whether or not it is a hit; None if all were."""

    @property
    def best(self) -> float:
        """The highest score of a frame that was not left out; -1 if all were."""
        return self.closest.score if self.closest else -1.0


def rank_frames(
    index: FrameIndex,
    phrases: NDArray[np.float32],
    k: int,
    *,
    skip: Sequence[float] = (),
    passing: float | None = None,
    longest: int = 60,
) -> Found:
    """Return the frames of an index that match a query best.

    Args:
        index: The index.
        phrases: `(phrasings, dim)` vectors of the query, of length 1.
        k: The largest number of frames.
        skip: Times of frames to leave out, in seconds.
        passing: The score that frames of a segment exceed; None ranks single frames.
        longest: The largest number of frames in a segment.
    """
    scores = index.scores(phrases, best=k + len(skip), above=passing)
    allowed = np.ones(len(index), bool)
    if len(skip):
        nearest = np.abs(index.seconds[:, None] - np.asarray(skip)[None]).min(1)  # (frames,)
        allowed = nearest > SAME_FRAME
    by_score = [int(i) for i in np.argsort(-scores, kind="stable") if allowed[i]]
    ranked = by_score[:k]
    if passing is not None:
        usable = np.where(allowed, scores, -np.inf)
        ranked = [segment.best for segment in find_segments(usable, passing, k, longest)]

    def hit(i: int) -> Hit:
        return Hit(int(index.frames[i]), float(index.seconds[i]), float(scores[i]))

    closest = hit(by_score[0]) if by_score else None
    return Found(tuple(map(hit, ranked)), index.curve(scores), index.id, closest)
