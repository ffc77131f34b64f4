"""The report of the ablations: a table for each, with the paper's figures, and two plots.

It reads only the files that `ablate` has written. Rates are means over seeds; the figure after ± is the
largest distance of a seed from that mean or, with one seed, the half-width of its 95 % interval. Unfinished
arms are omitted from the tables and named below them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from act2see.errors import CorpusError
from act2see.micro.questions import FAMILIES
from act2see.micro.study.evaluate import Rate
from act2see.tools.runtime.markdown import markdown_table

Results = dict[str, list[dict[str, Any]]]
"""The results of each stage, one for each seed."""
Arm = tuple[str, str, float | None]
"""A stage, its label, and the paper's figure."""
TOOLS = (
    ("text", "text only", 71.9),
    ("retrieval", "retrieval only", 72.8),
    ("generation", "generation only", 72.4),
    ("both", "both", 73.7),
)
SOURCES = (
    ("unfiltered", "noisy teacher, unfiltered", 68.6),
    ("filtered", "noisy teacher, filtered", 73.7),
    ("both", "reference chains", None),
)
INSERTION = (
    ("base", "base, tools offered", None),
    ("insertion", "base + a frame by rule", 70.2),
    ("both", "SFT", 74.2),
)
MASKS = (("both", "no loss on frames", None), ("loss-on-frames", "loss on frames", None))
BEYOND = (("both", "SFT", None), ("self-training", "+ self-training", None), ("grpo", "+ GRPO", None))


def read_results(folder: Path) -> Results:
    """Read the results in a folder of `ablate`.

    Raises:
        CorpusError: If the folder has no results.
    """
    found: Results = {}
    for file in sorted(folder.glob("seed-*/*.json")):
        found.setdefault(file.stem, []).append(json.loads(file.read_text(encoding="utf-8")))
    if not found:
        raise CorpusError(f"there are no results in {folder}: run act2see micro ablate --out {folder} first")
    return found


@dataclass(frozen=True, slots=True)
class Mean:
    """A figure over seeds."""

    value: float
    spread: float
    percent: bool = True
    """Whether it is printed as a percentage."""

    def __str__(self) -> str:
        if self.percent:
            return f"{self.value:.1%} ± {100 * self.spread:.1f}"
        return f"{self.value:.2f} ± {self.spread:.2f}"


def rate(results: Sequence[dict[str, Any]], hits: str = "right", n: str = "asked") -> Mean:
    """Return the mean ratio of two counts; by default the accuracy."""
    values = [r[hits] / r[n] for r in results if r[n]]
    if not values:
        return Mean(math.nan, math.nan)
    if len(values) == 1:
        low, high = Rate("", results[0][hits], results[0][n]).interval
        return Mean(values[0], (high - low) / 2)
    return Mean(fmean(values), _spread(values))


def calls(results: Sequence[dict[str, Any]]) -> Mean:
    """Return the mean number of calls for a question."""
    values = [r["calls"] / r["asked"] for r in results]
    return Mean(fmean(values), _spread(values), percent=False)


def _spread(values: Sequence[float]) -> float:
    mean = fmean(values)
    return max(abs(value - mean) for value in values)


def markdown(results: Results, command: str) -> str:
    """Return the report as Markdown. `command` is the command that made the results."""
    parts = [
        "# The paper's ablations on the board world\n",
        _introduction(results, command),
        _arms(
            "Tools (the paper's table 8)",
            results,
            TOOLS,
            "All four are fine-tuned on the matching corpus and asked with these tools.",
        ),
        _families(results),
        _arms(
            "Frames inserted at inference alone (table 4)",
            results,
            INSERTION,
            "The rule retrieves after the model has described its initial frames, with the question as the "
            "query. micro's base has never seen a frame in its own turn and ends the turn there; the paper's "
            "base continues and loses less.",
        ),
        _arms(
            "Where the chains come from (table 7)",
            results,
            SOURCES,
            "The noisy teacher is a script with stated faults (`corpus build world --faults`): their effect "
            "is evidence, their rates are not.",
        ),
        _corpora(results),
        _hint(results),
        _budget(results),
        _arms("Loss on frames", results, MASKS, ""),
        _frame_tokens(results),
        _arms(
            "Beyond the paper", results, BEYOND, "GRPO rewards a right answer and charges 0.1 for each call."
        ),
    ]
    return "\n".join(part for part in parts if part)


def _introduction(results: Results, command: str) -> str:
    seeds = max(len(stage) for stage in results.values())
    asked = next((stage[0]["asked"] for stage in results.values() if "asked" in stage[0]), 0)
    corpora = [results[name] for name in ("corpus-reference", "corpus-noisy") if results.get(name)]
    made = corpora[0][0]["made"] if corpora else 0
    seconds = sum(result["seconds"] for stage in results.values() for result in stage)
    steps = max((stage[0]["steps"] for stage in results.values() if "steps" in stage[0]), default=0)
    return (
        f"`{command}`: {seeds} seed{'s' if seeds > 1 else ''}, {made} questions in a corpus, "
        f"{steps} steps of SFT from the shipped base model, {asked} test questions an arm; "
        f"{seconds / 60:.0f} minutes in all. Rates are means over seeds, ± the largest distance of a seed "
        "from the mean (with one seed: half of its 95 % interval). The paper's figures are for other models "
        "on Video-MME: compare the order, not the size.\n"
    )


def _arms(title: str, results: Results, arms: Sequence[Arm], note: str) -> str:
    rows, missing = [], []
    for stage, label, paper in arms:
        if stage in results:
            done = results[stage]
            rows.append((label, rate(done), calls(done), paper or ""))
        else:
            missing.append(label)
    text = f"## {title}\n\n" + markdown_table(("", "accuracy", "calls a question", "the paper"), rows)
    if note:
        text += f"\n{note}\n"
    if missing:
        text += f"Not done yet: {', '.join(missing)}.\n"
    return text


def _families(results: Results) -> str:
    rows = []
    for stage, label, _ in TOOLS:
        if stage not in results:
            continue
        cells = []
        for family in FAMILIES:
            counts = [result["families"][family] for result in results[stage]]
            cells.append(f"{fmean(right / max(1, asked) for right, asked in counts):.0%}")
        rows.append((label, *cells))
    return markdown_table(("by family", *FAMILIES), rows) if rows else ""


def _corpora(results: Results) -> str:
    rows = []
    for stage, label in (("corpus-reference", "reference"), ("corpus-noisy", "noisy teacher")):
        if done := results.get(stage):
            kept = fmean(result["kept"] / result["made"] for result in done)
            rows.append((label, rate(done, "right", "made"), rate(done, "called", "made"), f"{kept:.0%}"))
    return markdown_table(("chains", "right", "with a frame", "pass the filter"), rows) if rows else ""


def _hint(results: Results) -> str:
    if not {"corpus-noisy", "corpus-hinted"} <= set(results):
        return ""
    rows = [
        ("without", rate(results["corpus-noisy"], "called", "made"), "45.2 %"),
        ("with", rate(results["corpus-hinted"], "called", "made"), "5.3 %"),
    ]
    return (
        "## The right answer in the teacher's prompt (table 6)\n\n"
        + markdown_table(("", "chains with a frame", "the paper"), rows)
        + "\nThe scripted teacher is programmed to trust a hint nine times in ten: this shows that the "
        "machinery works, but is not evidence.\n"
    )


def _results_with_calls(results: Results, calls: int) -> list[dict[str, Any]] | None:
    """Return the results with this number of calls allowed, or None. Every other arm is allowed four."""
    return results.get("both" if calls == 4 else f"budget-{calls}")


def _budget(results: Results) -> str:
    rows = []
    for n in range(5):
        if done := _results_with_calls(results, n):
            tokens = fmean(result["tokens"] / result["asked"] for result in done)
            rows.append((n, rate(done), calls(done), f"{tokens:.0f}"))
    if not rows:
        return ""
    head = ("at most", "accuracy", "calls a question", "tokens a question")
    return "## Calls allowed\n\n" + markdown_table(head, rows)


def _frame_tokens(results: Results) -> str:
    if not (done := results.get("frame-tokens")):
        return ""
    rows = []
    for arm, label in (("both", "no loss on frames"), ("loss-on-frames", "loss on frames")):
        vision = fmean(result[arm]["vision written"] / max(1, result[arm]["vision"]) for result in done)
        opened = fmean(result[arm]["opened itself"] / max(1, result[arm]["opened"]) for result in done)
        rows.append((label, f"{vision:.0%}", f"{opened:.0%}"))
    head = ("", "vision tokens it would write itself", "`<frame>` it would open itself")
    return (
        markdown_table(head, rows)
        + "\nGreedy decoding at the positions of returned frames. In the loop neither can happen: decoding "
        "stops at the call and forbids these tokens.\n"
    )


def plots(results: Results, folder: Path) -> list[Path]:
    """Write `tools.png` and `budget.png` if their stages are done; return their paths."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    made = []

    def save(name: str, draw: Callable[[Any], None]) -> None:
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set_ylabel("accuracy")
        axes.set_ylim(0, 1)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        figure.savefig(folder / name, dpi=120)
        made.append(folder / name)

    arms = [(label, rate(results[a])) for a, label, _ in (*INSERTION[:2], *TOOLS) if a in results]

    def bars(axes: Any) -> None:
        labels = [label.replace(" ", "\n", 1) for label, _ in arms]
        axes.bar(labels, [m.value for _, m in arms], yerr=[m.spread for _, m in arms], capsize=3)
        axes.tick_params(axis="x", labelsize=8)

    def curve(axes: Any) -> None:
        points = {n: rate(done) for n in range(5) if (done := _results_with_calls(results, n))}
        means = points.values()
        axes.errorbar(
            list(points), [m.value for m in means], [m.spread for m in means], marker="o", capsize=3
        )
        axes.set_xlabel("calls allowed")
        axes.set_xticks(list(points))

    if arms:
        save("tools.png", bars)
    if "budget-0" in results:
        save("budget.png", curve)
    return made
