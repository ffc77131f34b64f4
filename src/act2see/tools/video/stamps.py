"""Mending of timestamps: one line of strictly increasing times, from stamps that are odd in places.

Containers repeat timestamps, leave them out, jump back, and jump to times that nobody believes. Only what is
odd is mended, and what is right stays as it is:

- A stamp that does not lie between its neighbours, where these fit together without it, is set aside. Its
  frame is placed evenly between them. This holds for repeated stamps and for lone stamps far away.
- Where time jumps back for good, or forward by more than can be believed, two recordings follow each other:
  the second is moved, so that it starts one step after the first. FFmpeg and mpv do so at jumps of 10 s.
- A gap in which nothing was received is a gap: frames after it keep their times.

No frame is lost, so that the number of frames, not their times, bounds all work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AROUND = 32  # largest number of neighbouring stamps that are set aside together
_BEHIND = 4  # how many of them may have been accepted before
_FEW = 2  # so many stamps are odd rather than a recording of their own
_SMOOTH = 2  # usual steps: two stamps of one recording are mostly closer
_ROOM = 0.3  # smallest distance of frames that are placed evenly, in usual steps
_HOUR = 3600.0
_BELIEVED = 30 * _HOUR  # longest gap between frames, in seconds: the limit of FFmpeg's `dts_error_threshold`
_DOMINANT = 100  # a gap longer than an hour is not believed if it is this many times all other time


@dataclass(frozen=True, slots=True)
class Line:
    """Times of frames in presentation order."""

    times: NDArray[np.float64]
    """`(frames,)`, increasing, in seconds."""
    odd: int = 0
    """Number of stamps that are missing or were set aside."""
    joins: int = 0
    """Number of jumps that were closed."""

    @property
    def mended(self) -> int:
        """Number of changes."""
        return self.odd + self.joins


def straighten(stamps: Sequence[float | None], rate: float, *, resets: bool) -> Line:
    """Return the times of frames from their stamps.

    Args:
        stamps: The stamp of each frame in presentation order, in seconds; None if it is missing.
        rate: Frames per second, for files in which no two stamps are in order.
        resets: Whether the container's clock may be set anew within a file, as in MPEG-TS. Gaps longer than
            an hour are then not believed.
    """
    if not stamps:
        return Line(np.zeros(0))
    line = _straighten(stamps, rate, _HOUR if resets else _BELIEVED)
    gaps = np.diff(line.times)
    if len(gaps) and gaps.max() > _HOUR and gaps.max() > _DOMINANT * (gaps.sum() - gaps.max()):
        line = _straighten(stamps, rate, _HOUR)
    return line


def _straighten(stamps: Sequence[float | None], rate: float, longest: float) -> Line:
    """Return times with gaps of up to `longest` seconds."""
    known: NDArray[np.float64] = np.array([s for s in stamps if s is not None], np.float64)
    steps = np.diff(known)
    forward = steps[(steps > 0) & (steps <= longest)]
    if len(known) == len(stamps) and len(forward) == len(steps):
        return Line(known)
    step: float = float(np.median(forward)) if len(forward) else 1 / rate
    kept, joins = _choose(stamps, step, longest)
    if not kept:
        return Line(np.arange(len(stamps), dtype=np.float64) * step, odd=len(stamps))
    times: list[float] = []
    offset = 0.0
    for n, i in enumerate(kept):
        stamp = stamps[i]
        assert stamp is not None
        if i in joins:
            offset = times[-1] + (i - kept[n - 1]) * step - stamp
        times.append(stamp + offset)
    every = np.arange(len(stamps))
    out: NDArray[np.float64] = np.interp(every, kept, times)
    before, after = every < kept[0], every > kept[-1]
    out[before] = times[0] + (every[before] - kept[0]) * step
    out[after] = times[-1] + (every[after] - kept[-1]) * step
    # Steps can be smaller than the digits of the stamps.
    ordered: NDArray[np.float64] = np.maximum.accumulate(out).astype(np.float64)
    return Line(ordered, odd=len(stamps) - len(kept), joins=len(joins))


def _choose(stamps: Sequence[float | None], step: float, longest: float) -> tuple[list[int], set[int]]:
    """Return the frames whose stamps are kept, and those of them at which a new recording starts."""
    given = [i for i, stamp in enumerate(stamps) if stamp is not None]
    values: list[float] = [stamp for stamp in stamps if stamp is not None]
    kept: list[int] = []  # positions in `given`
    joins: set[int] = set()
    at = 0
    while at < len(given):
        if kept and not 0 < values[at] - values[kept[-1]] <= longest:
            dropped = _reconnect(values, kept, joins, at, step, longest)
            if dropped is None:
                joins.add(at)
            else:
                behind, ahead = dropped
                del kept[len(kept) - behind :]
                at += ahead
        if at < len(given):
            kept.append(at)
        at += 1
    return [given[k] for k in kept], {given[k] for k in joins}


def _reconnect(
    values: Sequence[float], kept: Sequence[int], joins: set[int], at: int, step: float, longest: float
) -> tuple[int, int] | None:
    """Return how many stamps to set aside so that the others are in order.

    Args:
        values: The known stamps.
        kept: Positions of those kept so far.
        joins: Positions at which a new recording starts.
        at: Position of the stamp that does not fit.
        step: The usual distance of frames.
        longest: The longest gap.

    Returns:
        The number of the last stamps kept, and of the next stamps; None if time really jumps here.
    """
    for total in range(1, _AROUND + 1):
        for behind in range(min(total, _BEHIND, len(kept) - 1) + 1):
            if behind and kept[-behind] in joins:
                break  # what comes before it is of another recording
            ahead = at + total - behind
            if ahead >= len(values):
                if total == 1 and values[at] == values[kept[-1]]:
                    return 0, 1  # the last one is repeated
                continue
            last = kept[-1 - behind]
            room = values[ahead] - values[last]
            if not _ROOM * step * (ahead - last) <= room <= longest:
                continue
            # More than a few stamps that lead straight on are a recording, which overlaps the other.
            edge = values[kept[-behind]] - values[last] if behind else values[ahead] - values[ahead - 1]
            if total <= _FEW or not 0 < edge <= _SMOOTH * step:
                return behind, total - behind
    return None
