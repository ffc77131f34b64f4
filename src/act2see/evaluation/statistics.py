"""How sure a score is: Wilson intervals, and whether two runs differ on the same questions (McNemar). By
scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from act2see.errors import BenchmarkError
from act2see.tools.frames import Record
from act2see.tools.runtime.intervals import wilson_interval

K = TypeVar("K")


class Share(Record):
    """A mean of scores from 0 to 1, with its 95 % interval."""

    share: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f}-{100 * self.high:.1f}, n = {self.n})"


class Paired(Record):
    """Two runs on the same questions."""

    both: int
    first_only: int
    second_only: int
    neither: int
    p: float
    """Of McNemar's exact test, two-sided: the chance of so unequal a split if both were equally good."""


def measure_share(scores: Sequence[float]) -> Share:
    """Return the mean of scores with its Wilson interval.

    Scores between 0 and 1 vary less than hits and misses of the same mean, so the interval is not too narrow.
    """
    n, total = len(scores), sum(scores)
    if not n:
        return Share(share=0.0, n=0, low=0.0, high=1.0)
    if total == int(total):
        found = _scipy().binomtest(int(total), n).proportion_ci(0.95, method="wilson")
        return Share(share=total / n, n=n, low=float(found.low), high=float(found.high))
    low, high = wilson_interval(total / n, n)
    return Share(share=total / n, n=n, low=low, high=high)


def compare_runs(first: Mapping[K, float], second: Mapping[K, float]) -> Paired:
    """Compare the scores of two runs by the ids of their questions. A score of 1 is right.

    Raises:
        BenchmarkError: They did not answer the same questions.
    """
    if first.keys() != second.keys():
        alone = len(first.keys() ^ second.keys())
        raise BenchmarkError(f"{alone} questions are in one run only: compare runs on the same questions")
    pairs = [(first[key] == 1, second[key] == 1) for key in first]
    one, two = pairs.count((True, False)), pairs.count((False, True))
    p = float(_scipy().binomtest(one, one + two).pvalue) if one + two else 1.0
    return Paired(
        both=pairs.count((True, True)),
        first_only=one,
        second_only=two,
        neither=pairs.count((False, False)),
        p=p,
    )


def _scipy() -> Any:
    try:
        from scipy import stats
    except ImportError as e:
        raise BenchmarkError("intervals and tests need scipy: pip install 'act2see[eval]'") from e
    return stats
