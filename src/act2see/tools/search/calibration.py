"""Calibration: the threshold of "no match", from the scores of queries about other videos.

`retrieve` shows a frame if the best score of a video reaches the threshold. If the query is about another
video, that is a false alarm. For n such queries, L_i(t) is the share of the other videos in which query i
reaches the threshold t. The calibrated threshold for a false-alarm rate r is the lowest t with

    (L_1(t) + ... + L_n(t) + 1) / (n + 1) <= r

which is conformal risk control (Angelopoulos et al., ICLR 2024, arXiv 2208.02814): a new query, if it is like
the others, has an expected share of at most r. No threshold achieves this with fewer than 1 / r - 1 queries,
so a rate that they cannot support is refused.

Thresholds have four decimals, as the scores in a trace. A text that is a query of several videos is about all
of them. The best score of a long video is higher than that of a short one, so a threshold is for videos about
as long as those of the calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, median

import numpy as np

from act2see.errors import CalibrationError
from act2see.tools.runtime.intervals import wilson_interval
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.finder import Finder
from act2see.tools.search.thresholds import Calibration

_STEP = 10_000  # thresholds in a unit
_ROUNDING = 1e-9  # of sums of shares


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the videos that it is about."""

    text: str
    about: frozenset[str]
    """Digests of the videos. Another text stands for a video that is not searched."""


@dataclass(frozen=True, slots=True)
class BestFrame:
    """The best frame of a video for a query."""

    query: str
    video: str
    """Path of the video."""
    seconds: float
    score: float


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    """A query with the best frame of each video."""

    text: str
    own: tuple[BestFrame, ...]
    """Best frames of the videos that it is about."""
    others: tuple[BestFrame, ...]
    """Best frames of the other videos."""


def merge_queries(queries: Sequence[Query]) -> list[Query]:
    """Return each text once, ignoring case and spaces, with all videos that it is about."""
    merged: dict[str, Query] = {}
    for query in queries:
        key = " ".join(query.text.casefold().split())
        known = merged.get(key)
        about = query.about | known.about if known else query.about
        merged[key] = Query(known.text if known else query.text, about)
    return list(merged.values())


def score_queries(
    finder: Finder,
    videos: Mapping[str, str],
    queries: Sequence[Query],
    progress: Callable[[int, int], None] | None = None,
) -> list[ScoredQuery]:
    """Search each video for each query.

    Args:
        finder: The finder. Videos that are not indexed are indexed now.
        videos: The paths of the videos by digest.
        queries: The queries, each text once.
        progress: Called with the number of searched videos and their total.

    Raises:
        StoreError: An index cannot be written, or gives no valid scores.
        VideoError: A video cannot be read.
    """
    # One text in a forward, as in a search, so that the scores are the same to the last bit.
    phrases = [finder.encoder.phrases([clean_text(query.text)]) for query in queries]
    best: list[dict[str, BestFrame]] = [{} for _ in queries]
    for done, (digest, path) in enumerate(videos.items(), start=1):
        index = finder.index(path)
        for query, phrase, frames in zip(queries, phrases, best, strict=True):
            scores = index.scores(phrase)  # (frames,)
            at = int(scores.argmax())
            frames[digest] = BestFrame(query.text, path, float(index.seconds[at]), float(scores[at]))
        if progress:
            progress(done, len(videos))
    scored = []
    for query, frames in zip(queries, best, strict=True):
        own = tuple(frame for digest, frame in frames.items() if digest in query.about)
        others = tuple(frame for digest, frame in frames.items() if digest not in query.about)
        scored.append(ScoredQuery(query.text, own, others))
    return scored


def calibrate(finder: Finder, weights: str, scored: Sequence[ScoredQuery], rate: float) -> Calibration:
    """Return the threshold for a false-alarm rate, with the evidence for it.

    Args:
        finder: The finder that searched.
        weights: The name of the encoder's weights in the configuration.
        scored: The queries with their scores.
        rate: The false-alarm rate, above 0 and below 1.

    Raises:
        CalibrationError: There are too few queries for this rate.
    """
    alarms = [[frame.score for frame in query.others] for query in scored if query.others]
    check_count(len(alarms), rate)
    threshold = choose_threshold(alarms, rate)
    false_alarms = _share_found(alarms, threshold)
    own = [[frame.score for frame in query.own] for query in scored if query.own]
    found = _share_found(own, threshold) if own else None
    searched = {frame.video for query in scored for frame in (*query.own, *query.others)}
    return Calibration(
        encoder=finder.encoder.id,
        weights=weights,
        threshold=threshold,
        rate=rate,
        false_alarms=round(false_alarms, 4),
        interval=_rounded(wilson_interval(false_alarms, len(alarms))),
        queries=len(alarms),
        videos=len(searched),
        fps=finder.fps,
        seconds=round(median(finder.library.probe(video).info.seconds for video in searched), 1),
        found=None if found is None else round(found, 4),
        found_interval=None if found is None else _rounded(wilson_interval(found, len(own))),
        own_queries=len(own),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def choose_threshold(alarms: Sequence[Sequence[float]], rate: float) -> float:
    """Return the lowest threshold with at most this false-alarm rate (see the module's description).

    Args:
        alarms: For each query its scores in the videos that it is not about; at least one.
        rate: The false-alarm rate, above 0 and below 1. `check_count` says whether it can be achieved.
    """
    scores = np.concatenate([np.asarray(row, np.float64) for row in alarms])
    shares = np.concatenate([np.full(len(row), 1 / len(row)) for row in alarms])
    order = np.argsort(-scores, kind="stable")
    allowed = rate * (len(alarms) + 1) - 1  # of the sum of shares
    # The number of the highest scores that may be false alarms. The next one must be below the threshold.
    passing = int((shares[order].cumsum() <= allowed + _ROUNDING).sum())
    return _just_above(float(scores[order[passing]]))


def needed_queries(rate: float) -> int:
    """Return the smallest number of queries that supports a false-alarm rate."""
    return math.ceil(1 / rate - 1 - _ROUNDING)


def check_count(queries: int, rate: float) -> None:
    """Raise `CalibrationError` if there are too few queries about other videos for a false-alarm rate."""
    needed = needed_queries(rate)
    if queries >= needed:
        return
    lowest = math.ceil(1000 / (queries + 1)) / 1000
    instead = f", or allow more with --false-alarms {lowest:g}" if lowest <= 0.5 else ""
    raise CalibrationError(
        f"a false-alarm rate of {100 * rate:g}% needs {needed} queries about other videos, and there are "
        f"{queries}: add queries{instead}"
    )


def _share_found(scores: Sequence[Sequence[float]], threshold: float) -> float:
    """Return the mean over queries of the share of videos in which a frame reaches the threshold."""
    return fmean(fmean(score >= threshold for score in row) for row in scores)


def _just_above(score: float) -> float:
    """Return the lowest multiple of 0.0001 above a score."""
    return (math.floor(score * _STEP) + 1) / _STEP


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    low, high = interval
    return round(low, 4), round(high, 4)
