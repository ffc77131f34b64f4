"""The plots of a report, as PNG files: scores, accuracy by the number of calls, and what changed returns do.

By matplotlib. Without it a report has its tables alone: every figure of a plot stands in one of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from act2see.evaluation.comparing import LoadedRun
from act2see.evaluation.paper import list_figures
from act2see.evaluation.statistics import Share

_WIDTH, _HEIGHT = 7.0, 3.0  # inches
_LONGEST = 28  # characters of a label


def draw_plots(runs: Sequence[LoadedRun]) -> dict[str, tuple[bytes, str]]:
    """Return a plot for some sections of the report, by their titles: a PNG and its description.

    Without matplotlib there are none.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return {}
    return {title: (_draw(draw), words) for title, words, draw in _list_plots(runs)}


def _list_plots(runs: Sequence[LoadedRun]) -> Iterator[tuple[str, str, Callable[[Any], None]]]:
    yield "Scores", "accuracy of each run with its interval", lambda axes: _scores(axes, runs)
    called = [loaded for loaded in runs if loaded.diagnostics and len(loaded.diagnostics.by_calls) > 1]
    if called:
        words = "accuracy by the number of calls"
        yield "Active perception", words, lambda axes: _calls(axes, called)
    changed = [loaded for loaded in runs if loaded.changes]
    if changed:
        words = "accuracy with another return, beside the run's on the same questions"
        yield "Asked again, with another return", words, lambda axes: _changes(axes, changed)


def _draw(draw: Callable[[Any], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def _label(text: str) -> str:
    """Return a short label. `$` would begin a formula, and a control character may have no glyph."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text).replace("$", r"\$")
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 3]}..."


def _errors(shares: Sequence[Share]) -> list[list[float]]:
    """Return the distances of the interval's ends, as matplotlib takes them."""
    below = [max(0.0, 100 * (share.share - share.low)) for share in shares]
    above = [max(0.0, 100 * (share.high - share.share)) for share in shares]
    return [below, above]


def _scores(axes: Any, runs: Sequence[LoadedRun]) -> None:
    shown = [loaded for loaded in runs if loaded.run.score]
    shares = [loaded.run.score.accuracy for loaded in shown if loaded.run.score]
    places = range(len(shown))
    axes.barh(places, [100 * share.share for share in shares], xerr=_errors(shares), capsize=3)
    axes.set_yticks(places, [_label(loaded.name) for loaded in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy, %")
    benchmarks = {loaded.run.setting.benchmark for loaded in shown}
    if len(benchmarks) == 1:
        for figure in list_figures(benchmarks.pop()):
            if figure.who == "Act2See":
                axes.axvline(figure.accuracy, linestyle="--", color="grey")
                axes.set_title("dashed: Act2See in the paper", fontsize=9)


def _calls(axes: Any, runs: Sequence[LoadedRun]) -> None:
    for loaded in runs:
        if loaded.diagnostics is not None:
            groups = loaded.diagnostics.by_calls
            shares = [group.accuracy for group in groups]
            axes.errorbar(
                [group.name for group in groups],
                [100 * share.share for share in shares],
                _errors(shares),
                marker="o",
                capsize=3,
                label=_label(loaded.name),
            )
    axes.set_ylim(0, 105)
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel("calls")
    axes.legend(frameon=False)


def _changes(axes: Any, runs: Sequence[LoadedRun]) -> None:
    rows = [(loaded.name, changed) for loaded in runs for changed in loaded.changes]
    places = range(len(rows))
    several = len(runs) > 1
    shares = [changed.changed for _, changed in rows]
    axes.barh(
        places, [100 * share.share for share in shares], xerr=_errors(shares), capsize=3, label="with this"
    )
    axes.plot(
        [100 * changed.plain.share for _, changed in rows], places, "k|", markersize=14, label="as asked for"
    )
    names = [f"{name}: {changed.name}" if several else changed.name for name, changed in rows]
    axes.set_yticks(places, [_label(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 101)
    axes.set_xlabel("accuracy, %")
    axes.legend(frameon=False)
