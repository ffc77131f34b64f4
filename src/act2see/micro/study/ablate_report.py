"""The ablations as a page: a table for each, against the paper's, and two plots. Reads what `ablate` has
written, no more.

Rates are means over seeds; what stands behind ± is the largest distance of a seed from that mean, and with
one seed the half-width of its 95 % interval. Arms that are not done yet are left out, and named.
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

Results = dict[str, list[dict[str, Any]]]
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
    """By stage, one result for each seed. Raises `CorpusError` where there is none."""
    found: Results = {}
    for file in sorted(folder.glob("seed-*/*.json")):
        found.setdefault(file.stem, []).append(json.loads(file.read_text(encoding="utf-8")))
    if not found:
        raise CorpusError(f"there are no results in {folder}: run act2see micro ablate --out {folder} first")
    return found


@dataclass(frozen=True, slots=True)
class Mean:
    """A figure over seeds, with its spread; `percent` for how it is printed."""

    value: float
    spread: float
    percent: bool = True

    def __str__(self) -> str:
        return (
            f"{self.value:.1%} ± {100 * self.spread:.1f}"
            if self.percent
            else f"{self.value:.2f} ± {self.spread:.2f}"
        )


def rate(results: Sequence[dict[str, Any]], hits: str = "right", n: str = "asked") -> Mean:
    values = [r[hits] / r[n] for r in results if r[n]]
    if not values:
        return Mean(math.nan, math.nan)
    if len(values) == 1:
        low, high = Rate("", results[0][hits], results[0][n]).interval
        return Mean(values[0], (high - low) / 2)
    return Mean(fmean(values), max(abs(v - fmean(values)) for v in values))


def calls(results: Sequence[dict[str, Any]]) -> Mean:
    values = [r["calls"] / r["asked"] for r in results]
    return Mean(fmean(values), max(abs(v - fmean(values)) for v in values), percent=False)


def markdown(results: Results, command: str) -> str:
    """The page. `command` is what made the results."""
    seeds = max(len(r) for r in results.values())
    asked = next((r[0]["asked"] for r in results.values() if "asked" in r[0]), 0)
    made = next((r[0]["made"] for s in ("corpus-reference", "corpus-noisy") if (r := results.get(s))), 0)
    seconds = sum(r["seconds"] for stage in results.values() for r in stage)
    steps = max((r[0]["steps"] for r in results.values() if "steps" in r[0]), default=0)
    parts = [
        "# The paper's ablations on the board world\n",
        f"`{command}`: {seeds} seed{'s' if seeds > 1 else ''}, {made} questions in a corpus, "
        f"{steps} steps of SFT from the shipped base model, {asked} test questions an arm; "
        f"{seconds / 60:.0f} minutes in all. Rates are means over seeds, ± the largest distance of a seed "
        "from the mean (with one seed: half of its 95 % interval). The paper's figures are for other models "
        "on Video-MME: compare the order, not the size.\n",
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
    return "\n".join(p for p in parts if p)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(r) + " |" for r in rows),
    ]
    return "\n".join(lines) + "\n"


def _arms(title: str, results: Results, arms: Sequence[tuple[str, str, float | None]], note: str) -> str:
    rows = [
        (label, str(rate(results[a])), str(calls(results[a])), f"{paper}" if paper else "")
        for a, label, paper in arms
        if a in results
    ]
    missing = [label for a, label, _ in arms if a not in results]
    left = f"Not done yet: {', '.join(missing)}.\n" if missing else ""
    return (
        f"## {title}\n\n"
        + _table(("", "accuracy", "calls a question", "the paper"), rows)
        + (f"\n{note}\n" if note else "")
        + left
    )


def _families(results: Results) -> str:
    rows = []
    for arm, label, _ in TOOLS:
        if arm in results:
            values = [
                fmean(r["families"][f][0] / max(1, r["families"][f][1]) for r in results[arm])
                for f in FAMILIES
            ]
            rows.append((label, *(f"{v:.0%}" for v in values)))
    return _table(("by family", *FAMILIES), rows) if rows else ""


def _corpora(results: Results) -> str:
    rows = [
        (
            label,
            str(rate(r, "right", "made")),
            str(rate(r, "called", "made")),
            f"{fmean(x['kept'] / x['made'] for x in r):.0%}",
        )
        for stage, label in (("corpus-reference", "reference"), ("corpus-noisy", "noisy teacher"))
        if (r := results.get(stage))
    ]
    return _table(("chains", "right", "with a frame", "pass the filter"), rows) if rows else ""


def _hint(results: Results) -> str:
    if not {"corpus-noisy", "corpus-hinted"} <= set(results):
        return ""
    rows = [
        ("without", str(rate(results["corpus-noisy"], "called", "made")), "45.2 %"),
        ("with", str(rate(results["corpus-hinted"], "called", "made")), "5.3 %"),
    ]
    said = (
        "The scripted teacher is programmed to trust a hint nine times in ten: this shows that the machinery "
        "works, and is no evidence.\n"
    )
    return (
        "## The right answer in the teacher's prompt (table 6)\n\n"
        + _table(("", "chains with a frame", "the paper"), rows)
        + "\n"
        + said
    )


def _at_most(results: Results, calls: int) -> list[dict[str, Any]] | None:
    """Four calls are what every arm is allowed."""
    return results.get("both" if calls == 4 else f"budget-{calls}")


def _budget(results: Results) -> str:
    rows = [
        (str(n), str(rate(r)), str(calls(r)), f"{fmean(x['tokens'] / x['asked'] for x in r):.0f}")
        for n in range(5)
        if (r := _at_most(results, n))
    ]
    return (
        "## Calls allowed\n\n"
        + _table(("at most", "accuracy", "calls a question", "tokens a question"), rows)
        if rows
        else ""
    )


def _frame_tokens(results: Results) -> str:
    if not (r := results.get("frame-tokens")):
        return ""
    rows = []
    for arm, label in (("both", "no loss on frames"), ("loss-on-frames", "loss on frames")):
        vision = fmean(x[arm]["vision written"] / max(1, x[arm]["vision"]) for x in r)
        opened = fmean(x[arm]["opened itself"] / max(1, x[arm]["opened"]) for x in r)
        rows.append((label, f"{vision:.0%}", f"{opened:.0%}"))
    head = ("", "vision tokens it would write itself", "`<frame>` it would open itself")
    said = (
        "Greedy decoding at the positions of returned frames. In the loop neither can happen: decoding stops "
        "at the call and forbids these tokens.\n"
    )
    return _table(head, rows) + "\n" + said


def plots(results: Results, folder: Path) -> list[Path]:
    """`tools.png` and `budget.png`, where their stages are done."""
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
        axes.bar(
            [label.replace(" ", "\n", 1) for label, _ in arms],
            [m.value for _, m in arms],
            yerr=[m.spread for _, m in arms],
            capsize=3,
        )
        axes.tick_params(axis="x", labelsize=8)

    def curve(axes: Any) -> None:
        points = [(n, rate(r)) for n in range(5) if (r := _at_most(results, n))]
        axes.errorbar(
            [n for n, _ in points],
            [m.value for _, m in points],
            [m.spread for _, m in points],
            marker="o",
            capsize=3,
        )
        axes.set_xlabel("calls allowed")
        axes.set_xticks([n for n, _ in points])

    if arms:
        save("tools.png", bars)
    if "budget-0" in results:
        save("budget.png", curve)
    return made
