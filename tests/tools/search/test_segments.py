"""Segments of scores: curves computed by hand, a slow reference, and the static score of TFVTG's windows."""

from __future__ import annotations

from itertools import groupby, pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from act2see.tools.search.segments import FrameSegment, find_segments

NAN = float("nan")
# A name; scores; the threshold; the segments by hand: start, stop, best, mean inside minus mean outside.
GOLDEN = [
    ("no frame", [], 0.2, []),
    ("all below", [0.1, 0.15, 0.0, -0.3], 0.2, []),
    ("at the threshold", [0.2, 0.2, 0.2], 0.2, []),
    ("all above", [0.5, 0.75, 0.25, 0.5], 0.2, [(0, 4, 1, 0.5)]),
    ("one frame", [0.6], 0.2, [(0, 1, 0, 0.6)]),
    ("one frame below", [0.1], 0.2, []),
    ("one frame of many", [0.1, 0.1, 0.9, 0.1], 0.2, [(2, 3, 2, 0.9)]),
    ("a plateau", [0.1, 0.5, 0.5, 0.5, 0.1], 0.2, [(1, 4, 1, 0.5)]),
    # (0.5 + 0.75) / 2 = 0.625 and (0.25 + 0.5 + 0.75) / 3 = 0.5
    (
        "two runs",
        [0.0, 0.5, 0.75, 0.1, 0.25, 0.5, 0.75, 0.0],
        0.2,
        [(1, 3, 2, 0.125), (4, 7, 6, -0.125)],
    ),
    # Frames that do not pass lower neither mean: 0.5 - 0.25, whatever lies between.
    ("a gap of any depth", [0.5, -0.9, 0.1, 0.25], 0.2, [(0, 1, 0, 0.25), (3, 4, 3, -0.25)]),
    # Means 0.5, 0.25 and 0.75; outside: (0.25 + 0.75 x 2) / 3, (0.5 x 2 + 0.75 x 2) / 4, (0.5 x 2 + 0.25) / 3
    (
        "three runs, two at the ends",
        [0.5, 0.5, 0.0, 0.25, 0.0, 0.75, 0.75],
        0.2,
        [(5, 7, 5, 0.75 - 1.25 / 3), (0, 2, 0, 0.5 - 1.75 / 3), (3, 4, 3, 0.25 - 0.625)],
    ),
    ("ties: the earlier", [0.5, 0.0, 0.5], 0.2, [(0, 1, 0, 0.0), (2, 3, 2, 0.0)]),
    ("ties: the shorter", [0.5, 0.5, 0.0, 0.5], 0.2, [(3, 4, 3, 0.0), (0, 2, 0, 0.0)]),
    # A peak outweighs a longer run, although its run contains weak frames: 0.625 against 0.5.
    ("a peak", [0.25, 1.0, 0.0, 0.5, 0.5, 0.5], 0.2, [(0, 2, 1, 0.125), (3, 6, 3, -0.125)]),
    ("NaN does not pass", [NAN, 0.5, NAN, 0.25, NAN], 0.2, [(1, 2, 1, 0.25), (3, 4, 3, -0.25)]),
    ("only NaN", [NAN, NAN], 0.2, []),
    ("a negative threshold", [-0.5, -0.25, -1.0, -0.75], -0.8, [(0, 2, 1, 0.375), (3, 4, 3, -0.375)]),
    ("frames that are left out", [0.5, -np.inf, 0.5], -1.0, [(0, 1, 0, 0.0), (2, 3, 2, 0.0)]),
]


@pytest.mark.parametrize(
    ("scores", "threshold", "expected"), [g[1:] for g in GOLDEN], ids=[g[0] for g in GOLDEN]
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_curves_computed_by_hand(
    scores: list[float], threshold: float, expected: list[tuple[int, int, int, float]], kind: type
) -> None:
    found = find_segments(np.array(scores, kind), threshold, count=10)
    assert [(s.start, s.stop, s.best) for s in found] == [e[:3] for e in expected]
    assert [s.confidence for s in found] == pytest.approx([e[3] for e in expected], abs=1e-7)


def test_the_number_of_segments_is_limited() -> None:
    curve = np.array([0.3, 0.0, 0.5, 0.0, 0.4])
    assert [s.best for s in find_segments(curve, 0.2, count=2)] == [2, 4]
    assert [s.best for s in find_segments(curve, 0.2)] == [2]


def test_a_long_flat_curve_is_cut_into_equal_parts() -> None:
    found = find_segments(np.full(150, 0.5), 0.2, count=10, longest=60)
    assert [(s.start, s.stop, s.confidence) for s in found] == [(0, 50, 0.0), (50, 100, 0.0), (100, 150, 0.0)]
    # 7 frames in parts of at most 3: 2, 2 and 3. Of equals, the shorter comes first.
    found = find_segments(np.full(7, 0.5), 0.2, count=10, longest=3)
    assert [(s.start, s.stop) for s in found] == [(0, 2), (2, 4), (4, 7)]


def test_the_best_part_of_a_long_run_comes_first() -> None:
    curve = np.full(120, 0.25)
    curve[80] = 0.85
    # (59 x 0.25 + 0.85) / 60 - 0.25 = 0.01
    first, second = find_segments(curve, 0.2, count=2, longest=60)
    assert (first.start, first.stop, first.best) == (60, 120, 80)
    assert first.confidence == pytest.approx(0.01)
    assert (second.start, second.stop, second.confidence) == (0, 60, pytest.approx(-0.01))


def reference(scores: list[float], threshold: float, count: int, longest: int) -> list[FrameSegment]:
    """Do the same frame by frame, without NumPy."""
    numbered = list(enumerate(scores))
    runs = [[i for i, _ in run] for passes, run in groupby(numbered, lambda n: n[1] > threshold) if passes]
    proposals = []
    for run in runs:
        parts = 1
        while len(run) > parts * longest:
            parts += 1
        cuts = [len(run) * part // parts for part in range(parts + 1)]
        proposals += [run[a:b] for a, b in pairwise(cuts)]
    segments = []
    for frames in proposals:
        inside = [scores[i] for i in frames]
        outside = [score for i, score in numbered if score > threshold and i not in frames]
        value = sum(inside) / len(inside) - (sum(outside) / len(outside) if outside else 0.0)
        best = frames[inside.index(max(inside))]
        segments.append(FrameSegment(frames[0], frames[-1] + 1, best, value))
    return sorted(segments, key=lambda s: (-round(s.confidence, 9), s.stop - s.start, s.start))[:count]


# Quarters have exact sums, so equal scores are equal; other values have no ties.
QUARTERS = st.integers(-4, 4).map(lambda n: n / 4)
ANY = st.one_of(QUARTERS, st.floats(-1, 1, width=32), st.just(NAN))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(ANY, max_size=40), st.sampled_from([-1.0, 0.0, 0.25, 0.6]), st.integers(1, 5), st.integers(1, 30)
)
def test_segments_equal_a_slow_reference(
    scores: list[float], threshold: float, count: int, longest: int
) -> None:
    found = find_segments(np.array(scores, np.float64), threshold, count, longest)
    expected = reference(scores, threshold, count, longest)
    assert [(s.start, s.stop, s.best) for s in found] == [(s.start, s.stop, s.best) for s in expected]
    assert [s.confidence for s in found] == pytest.approx([s.confidence for s in expected], abs=1e-9)


def static_score(scores: np.ndarray, threshold: float, start: int, length: int) -> float:
    """Return the score of a window by the formula of TFVTG's released code, NaN where that divides 0 by 0.

    Frames that do not pass are 0. The sum inside is divided by the window's length, the sum outside by the
    number of passing frames there.
    """
    mask = (scores > threshold).astype(float)
    masked = scores * mask
    window = np.zeros(len(scores))
    window[start : start + length] = 1
    with np.errstate(invalid="ignore"):
        outside = np.float64((masked * (1 - window)).sum()) / np.float64((mask * (1 - window)).sum())
    return float((masked * window).sum() / length - outside)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1, 1, width=32)))
def test_the_score_of_a_run_is_that_of_tfvtg_for_the_same_window(scores: np.ndarray) -> None:
    found = find_segments(scores, 0.2, count=len(scores))
    for segment in found:
        published = static_score(scores, 0.2, segment.start, segment.stop - segment.start)
        if len(found) == 1:
            assert np.isnan(published)  # nothing passes outside, so the released code drops the window
        else:
            assert segment.confidence == pytest.approx(published, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 25), elements=st.floats(-1, 1, width=32)),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_segments_do_not_overlap_and_contain_only_passing_frames(
    scores: np.ndarray, count: int, longest: int
) -> None:
    found = find_segments(scores, 0.25, count, longest)
    assert len(found) <= count
    assert bool(found) == bool((scores > 0.25).any())
    taken = [i for s in found for i in range(s.start, s.stop)]
    assert len(taken) == len(set(taken))
    for s in found:
        assert 0 <= s.start <= s.best < s.stop <= len(scores)
        assert s.stop - s.start <= longest
        assert (scores[s.start : s.stop] > 0.25).all()
