"""The report of a filter run: the chains that each step dropped, with reasons, and counts of the kept chains.

`make_report` counts in one pass over the filtered chains and stores only numbers. `write_report` writes them
to `report.md` and `report.json`, and the plots to `sweep.png` and `lengths.png`.

The sweep gives the number of chains that other thresholds would keep, among the chains that reached the
similarity step and were not rejected by a reviewer. A kept chain without a human chain counts at every
threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.errors import CorpusError
from act2see.tools.frames import Record
from act2see.tools.runtime.markdown import markdown_table
from act2see.trace.record import Frames
from act2see.training.corpus.filtering import STEPS, THRESHOLD, drop_reason
from act2see.training.corpus.records import Chain, Cost
from act2see.training.corpus.similarity import TextEncoder, chain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_VERSION = 1
SWEEP = tuple(x / 100 for x in range(50, 96, 5))
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
_WIDTHS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_BINS = 20

# The paper's corpus: kept chains, kept chains with a frame, frames by tool.
PAPER = {"kept": 3373, "with_frames": 1608, "retrieved": 1026, "generated": 582}

# Colours of the plots.
_INK, _OTHER, _MUTED = "#1d5f93", "#97306f", "#69645a"


class StepCount(Record):
    """The counts of one step of the filter."""

    name: str
    came: int
    """Number of chains that reached the step."""
    fell: int
    """Number of chains that the step dropped."""
    why: dict[str, int]
    """Reason -> number of dropped chains."""


class Bin(Record):
    """The number of values from `start` (inclusive) to `stop` (exclusive)."""

    start: int
    stop: int
    count: int


class SweepPoint(Record):
    """The counts for another threshold."""

    threshold: float
    kept: int
    call_rate: float | None
    """The share of those chains that have a frame; None if there are none."""


class EncoderUsed(Record):
    """The encoder that measured the similarities."""

    name: str
    window: int
    """Maximum number of tokens in one forward pass of a text."""
    longer: int
    """Number of texts that were longer than the window."""


class FilterReport(Record):
    """The numbers of a filter run."""

    report_version: int = REPORT_VERSION
    teachers: dict[str, int]
    """Teacher -> number of its chains, kept or dropped."""
    threshold: float
    encoder: EncoderUsed | None = None
    """The encoder of the filter run; None if it used stored similarities."""
    total: int
    """Number of all chains."""
    steps: tuple[StepCount, ...]
    kept: int
    not_compared: int
    """Number of kept chains without a similarity."""
    with_frames: int
    """Number of kept chains with at least one returned frame."""
    call_rate: float | None
    """The share of the kept chains with at least one returned frame; None if nothing was kept."""
    retrieved: int
    """Number of retrieved frames in kept chains."""
    generated: int
    """Number of generated frames in kept chains."""
    words: tuple[Bin, ...]
    """Histogram of the words of kept chains."""
    calls: dict[int, int]
    """Number of calls -> number of kept chains."""
    attempts: dict[int, int]
    """Number of the teacher's attempts -> number of chains, kept or dropped."""
    cost: Cost
    """Cost of all attempts."""
    seconds: float
    """Duration of all attempts."""
    similarity: dict[int, float]
    """Percentile -> similarity, over all measured similarities."""
    sweep: tuple[SweepPoint, ...]


@dataclass(slots=True)
class _ReportCounter:
    """The counts of the chains read so far. Unless noted otherwise, they are of the kept chains."""

    total: int = 0
    teachers: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: {step: Counter() for step in STEPS})
    """Step -> reason -> number of dropped chains."""
    words: list[int] = field(default_factory=list)
    calls: Counter[int] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    imagined: Counter[bool] = field(default_factory=Counter)
    with_frames: int = 0
    similarity: list[float] = field(default_factory=list)
    swept: list[tuple[float, bool]] = field(default_factory=list)
    """For each chain of the sweep: its similarity (inf if there is none), and whether it has frames."""
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0

    def add(self, chain: Chain) -> None:
        """Count a filtered chain."""
        self.total += 1
        self.teachers[chain.teacher] += 1
        self.attempts[len(chain.attempts)] += 1
        self.cost += chain.cost
        self.seconds += sum(a.seconds for a in chain.attempts)
        step, why = drop_reason(chain) if chain.dropped else ("", "")
        if step:
            self.dropped[step][why] += 1
        # These steps precede the similarity step, so the chain is not part of the sweep.
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
            self.imagined.update(f.imagined for f in frames)
            self.with_frames += bool(frames)


def make_report(
    chains: Iterable[Chain], *, threshold: float = THRESHOLD, encoder: TextEncoder | None = None
) -> FilterReport:
    """Count the chains of a filter run.

    Args:
        chains: All chains that `filter_chains` yielded, including the dropped ones.
        threshold: The threshold of the filter run.
        encoder: The encoder of the filter run.
    """
    counter = _ReportCounter()
    for chain in chains:
        counter.add(chain)
    used = EncoderUsed(name=encoder.name, window=encoder.window, longer=encoder.longer) if encoder else None
    kept = len(counter.words)
    percentiles = np.percentile(counter.similarity, QUANTILES).tolist() if counter.similarity else []
    return FilterReport(
        teachers=dict(sorted(counter.teachers.items())),
        threshold=threshold,
        encoder=used,
        total=counter.total,
        steps=_steps(counter),
        kept=kept,
        not_compared=sum(s == inf for s, _ in counter.swept),
        with_frames=counter.with_frames,
        call_rate=_rate(counter.with_frames, kept),
        retrieved=counter.imagined[False],
        generated=counter.imagined[True],
        words=_bins(counter.words),
        calls=dict(sorted(counter.calls.items())),
        attempts=dict(sorted(counter.attempts.items())),
        cost=counter.cost,
        seconds=round(counter.seconds, 1),
        similarity={q: round(v, 4) for q, v in zip(QUANTILES, percentiles, strict=False)},
        sweep=tuple(_sweep(counter.swept, t) for t in SWEEP),
    )


def _steps(counter: _ReportCounter) -> tuple[StepCount, ...]:
    steps = []
    came = counter.total
    for name in STEPS:
        reasons = counter.dropped[name]
        steps.append(StepCount(name=name, came=came, fell=reasons.total(), why=dict(reasons.most_common())))
        came -= reasons.total()
    return tuple(steps)


def _rate(some: int, all: int) -> float | None:
    return round(some / all, 4) if all else None


def _sweep(swept: Sequence[tuple[float, bool]], threshold: float) -> SweepPoint:
    kept = [has_frames for similarity, has_frames in swept if similarity > threshold]
    return SweepPoint(threshold=threshold, kept=len(kept), call_rate=_rate(sum(kept), len(kept)))


def _bins(values: Sequence[int]) -> tuple[Bin, ...]:
    """Return a histogram from 0 with at most 20 bins of a round width."""
    if not values:
        return ()
    width = next((w for w in _WIDTHS if max(values) < w * _BINS), max(values) // _BINS + 1)
    counts = np.bincount(np.asarray(values) // width)
    return tuple(Bin(start=i * width, stop=(i + 1) * width, count=int(n)) for i, n in enumerate(counts))


def write_report(report: FilterReport, folder: str | Path) -> Path:
    """Write the report and its plots; return the path of `report.md`.

    Raises:
        CorpusError: The folder cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for name, figure in (("sweep.png", _plot_sweep(report)), ("lengths.png", _plot_lengths(report))):
            # Without the version of matplotlib, equal reports are equal files.
            figure.savefig(folder / name, metadata={"Software": None})
        path.write_text(_markdown(report), encoding="utf-8")
    except OSError as e:
        raise CorpusError(
            f"cannot write the report to {folder} ({e}): free some space, or use another folder"
        ) from e
    return path


def _markdown(r: FilterReport) -> str:
    words = {f"{b.start:,}-{b.stop - 1:,}": b.count for b in r.words}
    parts = [
        "# The filtered corpus",
        _summary(r),
        "## Dropped chains",
        _table(("step", "chains", "dropped", "reasons"), _step_rows(r)),
    ]
    if r.not_compared:
        parts.append(f"{r.not_compared:,} kept chains have no human chain and were not compared.")
    parts += [
        "## Kept chains",
        _table(("", "here", "the paper's"), _corpus_rows(r)),
        "## Similarity to the human chain",
        f"A chain had to exceed {r.threshold:g}. Each encoder has its own scale: "
        "the paper's 0.8 is on that of BGE-M3.",
        _percentiles(r),
        _table(("threshold", "kept", "with a frame"), _sweep_rows(r)),
        "![Chains kept, and their share with a frame, by threshold](sweep.png)",
        "## Lengths",
        _table(("words of a kept chain", "chains"), _count_rows(words)),
        _table(("calls of a kept chain", "chains"), _count_rows(r.calls)),
        _table(("attempts of the teacher", "chains, kept or dropped"), _count_rows(r.attempts)),
        "![Words and calls of the kept chains](lengths.png)",
        "## Cost of construction",
        _table(("", "all chains", "per kept chain"), _cost_rows(r)),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _summary(r: FilterReport) -> str:
    teachers = ", ".join(f"{_inline(name or 'unnamed')} ({n:,})" for name, n in r.teachers.items()) or "none"
    text = f"{r.kept:,} of {r.total:,} chains were kept. Teacher: {teachers}."
    if r.encoder is None:
        return f"{text} Encoder: not recorded."
    return (
        f"{text} Encoder: {_inline(r.encoder.name)}, window of {r.encoder.window:,} tokens. "
        f"For {r.encoder.longer:,} longer texts, the mean of their windows was compared."
    )


def _step_rows(r: FilterReport) -> list[tuple[str, str, str, str]]:
    rows = []
    for step in r.steps:
        reasons = "; ".join(f"{_inline(reason)} ({n:,})" for reason, n in step.why.items())
        rows.append((step.name, _n(step.came), _n(step.fell), reasons))
    return rows


def _sweep_rows(r: FilterReport) -> list[tuple[str, str, str]]:
    return [(f"{p.threshold:.2f}", _n(p.kept), _share(p.call_rate)) for p in r.sweep]


def _corpus_rows(r: FilterReport) -> list[tuple[str, str, str]]:
    paper_rate = PAPER["with_frames"] / PAPER["kept"]
    return [
        ("chains", _n(r.kept), _n(PAPER["kept"])),
        ("with a frame", _n(r.with_frames), _n(PAPER["with_frames"])),
        ("share with a frame", _share(r.call_rate), _share(paper_rate)),
        ("frames retrieved", _n(r.retrieved), _n(PAPER["retrieved"])),
        ("frames generated", _n(r.generated), _n(PAPER["generated"])),
    ]


def _percentiles(r: FilterReport) -> str:
    if not r.similarity:
        return "No similarity was measured."
    values = [f"{v:.3f}" for v in r.similarity.values()]
    return _table(("percentile", *map(str, r.similarity)), [("similarity", *values)])


def _cost_rows(r: FilterReport) -> list[tuple[str, str, str]]:
    def row(name: str, value: float, form: str) -> tuple[str, str, str]:
        return name, format(value, form), format(value / r.kept, form) if r.kept else "-"

    return [
        row("tokens read", r.cost.read, ",.0f"),
        row("tokens written", r.cost.written, ",.0f"),
        row("requests", r.cost.requests, ",.1f"),
        row("dollars", r.cost.dollars, ",.4f"),
        row("seconds of attempts", r.seconds, ",.1f"),
    ]


def _count_rows(counts: Mapping[int, int] | Mapping[str, int]) -> list[tuple[str, str]]:
    return [(str(value), _n(chains)) for value, chains in counts.items()]


def _n(value: int) -> str:
    return f"{value:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _inline(text: str) -> str:
    """Return the text as one short line in which Markdown's markup is escaped, except `|`, which the table
    escapes."""
    text = " ".join(text.split())
    text = text if len(text) <= 80 else f"{text[:79]}…"
    for char in "\\`*_[]":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(head, rows) if rows else ""


def _axes(panels: int) -> tuple[Figure, Sequence[Any]]:
    # Without pyplot, which changes global state and selects a display backend.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * panels, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plot_sweep(r: FilterReport) -> Figure:
    figure, (kept, rate) = _axes(2)
    thresholds = [p.threshold for p in r.sweep]
    kept.plot(thresholds, [p.kept for p in r.sweep], "o-", color=_INK)
    kept.set(xlabel="threshold", ylabel="chains kept", ylim=(0, None))
    known = [(p.threshold, 100 * p.call_rate) for p in r.sweep if p.call_rate is not None]
    rate.plot([t for t, _ in known], [share for _, share in known], "o-", color=_OTHER)
    rate.set(xlabel="threshold", ylabel="with a frame, % of the kept", ylim=(0, 100))
    for axis in (kept, rate):
        axis.set_xlim(thresholds[0] - 0.02, thresholds[-1] + 0.02)
        axis.axvline(r.threshold, color=_MUTED, linewidth=1, linestyle="--")
    return figure


def _plot_lengths(r: FilterReport) -> Figure:
    figure, (words, calls) = _axes(2)
    starts = [b.start for b in r.words]
    widths = [0.92 * (b.stop - b.start) for b in r.words]
    words.bar(starts, [b.count for b in r.words], widths, align="edge", color=_INK)
    words.set(xlabel="words of a kept chain", ylabel="chains")
    calls.bar(list(r.calls), list(r.calls.values()), color=_INK)
    calls.set(xlabel="calls of a kept chain", ylabel="chains", xticks=list(r.calls))
    return figure
