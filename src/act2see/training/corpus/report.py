"""What a filter run left: how many fell at which step and why, and what the chains that were kept look like.

The report is made in one pass over the filtered chains and holds numbers alone; `report_files` writes it. The
sweep says what other thresholds would have kept: it counts the chains that came as far as the similarity step
and that nobody rejected. Chains without a human one are in it at every threshold, where the filter let them
through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

import numpy as np

from act2see.tools.frames import Record
from act2see.trace.record import Frames
from act2see.training.corpus.filtering import STEPS, THRESHOLD, fallen
from act2see.training.corpus.records import Chain, Cost
from act2see.training.corpus.similarity import Encoder, chain_text

REPORT_VERSION = 1
SWEEP = tuple(x / 100 for x in range(50, 96, 5))
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_WIDTHS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_BINS = 20

# The paper's corpus: chains, chains with a frame, frames by tool.
PAPER = {"kept": 3373, "with_frames": 1608, "retrieved": 1026, "generated": 582}


class StepCount(Record):
    """A step of the filter: how many chains came to it, how many fell and why."""

    name: str
    came: int
    fell: int
    why: dict[str, int]


class Bin(Record):
    """How many were at least `start` and below `stop`."""

    start: int
    stop: int
    count: int


class SweepPoint(Record):
    """What a threshold keeps, and the share of it that has a frame."""

    threshold: float
    kept: int
    call_rate: float | None


class EncoderUsed(Record):
    """What measured the similarities; `longer` is how many texts exceeded its `window` of tokens."""

    name: str
    window: int
    longer: int


class FilterReport(Record):
    """A filter run in numbers.

    `attempts`, `cost` and `seconds` are of all chains; what is not said otherwise is of those that were kept.
    `call_rate` is the share with at least one frame. `similarity` is of all chains that were measured:
    percentiles.
    """

    report_version: int = REPORT_VERSION
    teachers: dict[str, int]
    threshold: float
    encoder: EncoderUsed | None = None
    total: int
    steps: tuple[StepCount, ...]
    kept: int
    not_compared: int
    with_frames: int
    call_rate: float | None
    retrieved: int
    generated: int
    words: tuple[Bin, ...]
    calls: dict[int, int]
    attempts: dict[int, int]
    cost: Cost
    seconds: float
    similarity: dict[int, float]
    sweep: tuple[SweepPoint, ...]


@dataclass(slots=True)
class _Tally:
    """What is kept of each chain while they pass: a few numbers."""

    total: int = 0
    teachers: Counter[str] = field(default_factory=Counter)
    fell: dict[str, Counter[str]] = field(default_factory=lambda: {step: Counter() for step in STEPS})
    words: list[int] = field(default_factory=list)
    calls: Counter[int] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    kinds: Counter[bool] = field(default_factory=Counter)
    with_frames: int = 0
    similarity: list[float] = field(default_factory=list)
    swept: list[tuple[float, bool]] = field(
        default_factory=list
    )  # similarity, inf where there is none; whether it has frames
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0

    def add(self, chain: Chain) -> None:
        self.total += 1
        self.teachers[chain.teacher] += 1
        self.attempts[len(chain.attempts)] += 1
        self.cost += chain.cost
        self.seconds += sum(a.seconds for a in chain.attempts)
        step, why = fallen(chain) if chain.dropped else ("", "")
        if step:
            self.fell[step][why] += 1
        if chain.trace is None or step in ("construction", "format"):
            return
        frames = [f for s in chain.trace.segments if isinstance(s, Frames) for f in s.frames]
        if chain.similarity is not None:
            self.similarity.append(chain.similarity)
        if not step or (step == "similarity" and chain.similarity is not None):
            self.swept.append((inf if chain.similarity is None else chain.similarity, bool(frames)))
        if not step:
            self.words.append(len(chain_text(chain.trace).split()))
            self.calls[len(chain.trace.calls)] += 1
            self.kinds.update(f.imagined for f in frames)
            self.with_frames += bool(frames)


def make_report(
    chains: Iterable[Chain], *, threshold: float = THRESHOLD, encoder: Encoder | None = None
) -> FilterReport:
    """The report on chains as `filter_chains` gave them, with that `threshold` and `encoder`, all of them,
    also the dropped."""
    tally = _Tally()
    for chain in chains:
        tally.add(chain)
    kept = len(tally.words)
    marks = np.percentile(tally.similarity, QUANTILES).tolist() if tally.similarity else []
    return FilterReport(
        teachers=dict(sorted(tally.teachers.items())),
        threshold=threshold,
        encoder=EncoderUsed(name=encoder.name, window=encoder.window, longer=encoder.longer)
        if encoder
        else None,
        total=tally.total,
        steps=_steps(tally),
        kept=kept,
        not_compared=sum(s == inf for s, _ in tally.swept),
        with_frames=tally.with_frames,
        call_rate=_rate(tally.with_frames, kept),
        retrieved=tally.kinds[False],
        generated=tally.kinds[True],
        words=_bins(tally.words),
        calls=dict(sorted(tally.calls.items())),
        attempts=dict(sorted(tally.attempts.items())),
        cost=tally.cost,
        seconds=round(tally.seconds, 1),
        similarity={q: round(v, 4) for q, v in zip(QUANTILES, marks, strict=False)},
        sweep=tuple(_sweep(tally.swept, t) for t in SWEEP),
    )


def _steps(tally: _Tally) -> tuple[StepCount, ...]:
    left = [tally.total]
    for step in STEPS:
        left.append(left[-1] - tally.fell[step].total())
    return tuple(
        StepCount(name=step, came=came, fell=came - stayed, why=dict(tally.fell[step].most_common()))
        for step, (came, stayed) in zip(STEPS, pairwise(left), strict=True)
    )


def _rate(some: int, all: int) -> float | None:
    return round(some / all, 4) if all else None


def _sweep(swept: Sequence[tuple[float, bool]], threshold: float) -> SweepPoint:
    kept = [frames for similarity, frames in swept if similarity > threshold]
    return SweepPoint(threshold=threshold, kept=len(kept), call_rate=_rate(sum(kept), len(kept)))


def _bins(values: Sequence[int]) -> tuple[Bin, ...]:
    """At most 20 bins of a round width, from 0."""
    if not values:
        return ()
    width = next((w for w in _WIDTHS if max(values) < w * _BINS), max(values) // _BINS + 1)
    counts = np.bincount(np.asarray(values) // width)
    return tuple(Bin(start=i * width, stop=(i + 1) * width, count=int(n)) for i, n in enumerate(counts))
