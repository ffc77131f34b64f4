"""Mending of timestamps: what is odd is mended, what is right stays."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from act2see.tools.video.stamps import straighten

Stamps = list[float | None]
EVEN = [i / 10 for i in range(40)]
# A busy machine draws slowly, which says nothing about the code.
anywhere = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def mend(stamps: Stamps, *, resets: bool = False) -> list[float]:
    line = straighten(stamps, 10, resets=resets)
    assert (np.diff(line.times) > 0).all()
    return line.times.tolist()


def change(stamps: list[float], **at: float | None) -> Stamps:
    """Return the stamps with some of them changed: `f3=1.5` changes number 3."""
    out: Stamps = list(stamps)
    for name, stamp in at.items():
        out[int(name[1:])] = stamp
    return out


@anywhere
@given(st.lists(st.floats(1e-3, 100), min_size=1, max_size=50))
def test_stamps_in_order_stay_as_they_are(steps: list[float]) -> None:
    stamps: Stamps = np.cumsum(steps).tolist()
    line = straighten(stamps, 10, resets=False)
    assert line.times.tolist() == stamps
    assert line.mended == 0


@anywhere
@given(st.lists(st.none() | st.floats(-1e10, 1e10), max_size=60), st.booleans())
def test_any_stamps_give_times_in_order(stamps: Stamps, resets: bool) -> None:
    line = straighten(stamps, 10, resets=resets)
    assert len(line.times) == len(stamps)
    assert np.isfinite(line.times).all()
    assert (np.diff(line.times) >= 0).all()


@pytest.mark.parametrize(
    ("stamps", "odd"),
    [
        (change(EVEN, f20=3760.0), 1),
        (change(EVEN, f20=-5.0), 1),
        (change(EVEN, f20=None, f21=None), 2),
        (change(EVEN, f20=3760.0, f21=3760.1, f30=0.2), 3),
        (change(EVEN, f39=None, f0=None), 2),
        (change(EVEN, f39=376_000.0), 0),  # a jump that is closed
    ],
)
def test_odd_stamps_are_placed_between_their_neighbours(stamps: Stamps, odd: int) -> None:
    first = stamps[0] or 0.0
    assert mend(stamps) == pytest.approx([t - EVEN[0] + first for t in EVEN], abs=1e-6)
    assert straighten(stamps, 10, resets=False).odd == odd


def test_a_repeated_stamp_is_nudged() -> None:
    assert mend(change(EVEN, f20=1.9))[18:23] == pytest.approx([1.8, 1.9, 2.0, 2.1, 2.2])
    inserted = [*EVEN[:20], EVEN[19], *EVEN[20:]]
    assert mend([*inserted])[18:23] == pytest.approx([1.8, 1.9, 1.95, 2.0, 2.1])


def test_a_hole_stays_a_hole() -> None:
    hole = [*EVEN[:20], *(t + 500 for t in EVEN[20:])]
    for resets in (False, True):
        assert mend([*hole], resets=resets) == hole
    slow: Stamps = [n * 7200.0 for n in range(20)]
    assert mend(slow) == slow


@pytest.mark.parametrize("jump", [-1000.0, -3.0, -0.5, 1.7e9])
def test_a_second_recording_follows_the_first(jump: float) -> None:
    stamps: Stamps = [*EVEN, *(4 + jump + t for t in EVEN)]
    for resets in (False, True):
        assert mend(stamps, resets=resets) == pytest.approx([n / 10 for n in range(80)], abs=1e-5)
    late: Stamps = [*EVEN, *(30_000 + t for t in EVEN)]
    assert mend(late, resets=True) == pytest.approx([n / 10 for n in range(80)], abs=1e-5)


def test_recordings_of_two_rates_keep_both() -> None:
    a, b = [n / 25 for n in range(50)], [n / 30 for n in range(60)]
    got = np.diff(mend([*a, *b]))
    assert got[:49] == pytest.approx(1 / 25)
    assert got[50:] == pytest.approx(1 / 30)


def test_stamps_that_say_nothing_are_counted() -> None:
    for stamps in ([None], [None] * 5, [7.0] * 5, [5.0, 4.0, 3.0, 2.0, 1.0]):
        assert np.diff(mend([*stamps])) == pytest.approx(0.1)
    assert straighten([], 10, resets=False).times.tolist() == []


def test_the_time_it_takes_is_bounded() -> None:
    rng = np.random.default_rng(0)
    stamps: Stamps = rng.uniform(0, 1e5, 20_000).tolist()
    before = time.process_time()
    mend(stamps)
    assert time.process_time() - before < 10


def test_a_repeated_last_stamp_is_one_step_later() -> None:
    assert mend(change(EVEN, f39=EVEN[38])) == pytest.approx(EVEN)
