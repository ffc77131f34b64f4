"""A filter report as files: `report.md` and `report.json`, with `sweep.png` and `lengths.png` beside them.

Plots use matplotlib's objects and no pyplot: nothing global is touched, and no display is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.errors import CorpusError
from act2see.training.corpus.report import PAPER, FilterReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#1d5f93"
_OTHER = "#97306f"
_MUTED = "#69645a"


def write_report(report: FilterReport, folder: str | Path) -> Path:
    """Write the four files; returns the path of `report.md`. Raises `CorpusError` where the folder cannot be
    written."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
        for name, figure in (("sweep.png", _sweep(report)), ("lengths.png", _lengths(report))):
            figure.savefig(folder / name, metadata={"Software": None})
        path = folder / "report.md"
        path.write_text(_markdown(report), encoding="utf-8")
    except OSError as e:
        raise CorpusError(
            f"cannot write the report to {folder} ({e}): free some space, or give another folder"
        ) from e
    return path


def _markdown(r: FilterReport) -> str:
    teachers = ", ".join(f"{_cell(name or 'unnamed')} ({n:,})" for name, n in r.teachers.items()) or "none"
    measured = f"{_cell(r.encoder.name)}, {r.encoder.window:,} tokens at once" if r.encoder else "not noted"
    longer = (
        f" {r.encoder.longer:,} texts were longer and were compared by the mean of their windows."
        if r.encoder
        else ""
    )
    parts = [
        "# The filtered corpus",
        f"{r.kept:,} of {r.total:,} chains were kept. Teacher: {teachers}. Encoder: {measured}.{longer}",
        "## What fell, and why",
        _table(
            ["step", "came", "fell", "why"], ([s.name, _n(s.came), _n(s.fell), _why(s.why)] for s in r.steps)
        ),
        f"{r.not_compared:,} kept chains have no human chain and were not compared."
        if r.not_compared
        else "",
        "## What was kept",
        _table(["", "here", "the paper's"], _corpus(r)),
        "## Similarity to the human chain",
        f"A chain had to exceed {r.threshold:g}. Scales differ from encoder to encoder: the paper's 0.8 is on that of BGE-M3.",
        _table(
            ["percentile", *map(str, r.similarity)],
            [["similarity", *(f"{v:.3f}" for v in r.similarity.values())]],
        )
        if r.similarity
        else "No similarity was measured.",
        _table(
            ["threshold", "kept", "with a frame"],
            ([f"{p.threshold:.2f}", _n(p.kept), _share(p.call_rate)] for p in r.sweep),
        ),
        "![Chains kept, and their share with a frame, by threshold](sweep.png)",
        "## Lengths",
        _table(
            ["words of a kept chain", "chains"],
            ([f"{b.start:,}-{b.stop - 1:,}", _n(b.count)] for b in r.words),
        ),
        _table(["calls of a kept chain", "chains"], _counts(r.calls)),
        _table(["attempts of the teacher", "chains, kept or not"], _counts(r.attempts)),
        "![Words and calls of the kept chains](lengths.png)",
        "## Cost of construction",
        _table(["", "all", "for each kept chain"], _cost(r)),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _corpus(r: FilterReport) -> list[list[str]]:
    paper_rate = PAPER["with_frames"] / PAPER["kept"]
    return [
        ["chains", _n(r.kept), _n(PAPER["kept"])],
        ["with a frame", _n(r.with_frames), _n(PAPER["with_frames"])],
        ["share with a frame", _share(r.call_rate), _share(paper_rate)],
        ["frames retrieved", _n(r.retrieved), _n(PAPER["retrieved"])],
        ["frames generated", _n(r.generated), _n(PAPER["generated"])],
    ]


def _cost(r: FilterReport) -> list[list[str]]:
    def row(name: str, value: float, form: str) -> list[str]:
        return [name, format(value, form), format(value / r.kept, form) if r.kept else "-"]

    return [
        row("tokens read", r.cost.read, ",.0f"),
        row("tokens written", r.cost.written, ",.0f"),
        row("requests", r.cost.requests, ",.1f"),
        row("dollars", r.cost.dollars, ",.4f"),
        row("seconds of attempts", r.seconds, ",.1f"),
    ]


def _counts(counts: Mapping[int, int]) -> list[list[str]]:
    return [[str(n), _n(chains)] for n, chains in counts.items()]


def _why(why: Mapping[str, int]) -> str:
    return "; ".join(f"{_cell(reason)} ({n:,})" for reason, n in why.items())


def _n(value: int) -> str:
    return f"{value:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _cell(text: str) -> str:
    """Any text as a part of a table: in one line, short, and nothing in it is markup."""
    text = " ".join(text.split())
    text = text if len(text) <= 80 else f"{text[:79]}…"
    for char in "\\`*_[]|":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:" if h != "why" else "---" for h in head[1:]]], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else ""


def _figure(panels: int) -> tuple[Figure, Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * panels, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots(1, panels)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _sweep(r: FilterReport) -> Figure:
    figure, (kept, rate) = _figure(2)
    at = [p.threshold for p in r.sweep]
    kept.plot(at, [p.kept for p in r.sweep], "o-", color=_INK)
    kept.set(xlabel="threshold", ylabel="chains kept", ylim=(0, None))
    known = [(p.threshold, 100 * p.call_rate) for p in r.sweep if p.call_rate is not None]
    rate.plot([t for t, _ in known], [share for _, share in known], "o-", color=_OTHER)
    rate.set(xlabel="threshold", ylabel="with a frame, % of the kept", ylim=(0, 100))
    for axis in (kept, rate):
        axis.set_xlim(at[0] - 0.02, at[-1] + 0.02)
        axis.axvline(r.threshold, color=_MUTED, linewidth=1, linestyle="--")
    return figure


def _lengths(r: FilterReport) -> Figure:
    figure, (words, calls) = _figure(2)
    words.bar(
        [b.start for b in r.words],
        [b.count for b in r.words],
        [0.92 * (b.stop - b.start) for b in r.words],
        align="edge",
        color=_INK,
    )
    words.set(xlabel="words of a kept chain", ylabel="chains")
    calls.bar(list(r.calls), list(r.calls.values()), color=_INK)
    calls.set(xlabel="calls of a kept chain", ylabel="chains", xticks=list(r.calls))
    return figure
