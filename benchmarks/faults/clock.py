"""Faults of the clock: it jumps, stands still or runs backwards while a run goes on.

The time of day may do anything. The monotonic clock only jumps ahead, as after a suspended machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from benchmarks.faults.trial import Fault, Place, Reached

_HOUR, _YEARS = 3600.0, 10 * 365 * 86400.0
_KINDS: dict[str, Callable[[float, int], float]] = {
    "an hour back": lambda now, calls: now - _HOUR,
    "an hour ahead": lambda now, calls: now + _HOUR,
    "ten years back": lambda now, calls: now - _YEARS,
    "ten years ahead": lambda now, calls: now + _YEARS,
    "before 1970": lambda now, calls: -1000.0,
    "stands still": lambda now, calls: 1_700_000_000.0,
    "runs backwards": lambda now, calls: now - calls * 60.0,
    "to and fro": lambda now, calls: now + (-1) ** calls * _HOUR,
}


def clock_faults() -> Iterator[Fault]:
    """Yield faults of both clocks at several moments."""
    for kind, change in _KINDS.items():
        for at in (1, 2, 3, 5, 8, 13, 21):
            for warm in (False, True):
                where = f"from reading {at} on{' of a second run' * warm}"
                yield Fault("clock", kind, where, partial(_day, change=change, at=at), warm)
    for seconds in (60.0, _HOUR):
        for at in (1, 5, 20, 60, 120, 200):
            kind = f"suspended for {seconds:g} s"
            yield Fault("clock", kind, f"at reading {at}", partial(_suspended, seconds=seconds, at=at))


@contextmanager
def _day(place: Place, reached: Reached, change: Callable[[float, int], float], at: int) -> Iterator[None]:
    calls = 0
    real, real_ns = time.time, time.time_ns

    def seconds() -> float:
        nonlocal calls
        calls += 1
        if calls < at:
            return real()
        reached()
        return change(real(), calls)

    def nanoseconds() -> int:
        nonlocal calls
        calls += 1
        if calls < at:
            return real_ns()
        reached()
        return int(change(real_ns() / 1e9, calls) * 1e9)

    with patch.object(time, "time", seconds), patch.object(time, "time_ns", nanoseconds):
        yield


@contextmanager
def _suspended(place: Place, reached: Reached, seconds: float, at: int) -> Iterator[None]:
    calls = 0

    def ahead(real: Callable[[], Any], scale: float) -> Callable[[], Any]:
        def now() -> Any:
            nonlocal calls
            calls += 1
            if calls < at:
                return real()
            reached()
            return real() + type(real())(seconds * scale)

        return now

    with ExitStack() as patched:
        for name in ("monotonic", "perf_counter", "time"):
            patched.enter_context(patch.object(time, name, ahead(getattr(time, name), 1.0)))
        yield
