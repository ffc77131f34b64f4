"""Intervals of measured shares."""

from __future__ import annotations

import math

_Z = 1.96  # 95 % of a normal distribution


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share; all shares are possible if `n` is 0.

    Args:
        share: The measured share, from 0 to 1. If it is a mean of values between 0 and 1, their variance is
            at most that of hits and misses, so the interval is not too narrow.
        n: The number of independent measurements.
    """
    if not n:
        return 0.0, 1.0
    scale = 1 + _Z * _Z / n
    middle = share + _Z * _Z / (2 * n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    return max(0.0, (middle - half) / scale), (middle + half) / scale
