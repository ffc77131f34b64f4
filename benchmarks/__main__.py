"""python -m benchmarks [--quick] [NAME ...]: run benchmarks, print a table, write
`benchmarks/results/NAME.json`.

A quick run measures the same with fewer repetitions or a smaller clip. It writes `NAME.quick.json`, so that
it never replaces the figures of a full run. The exit code is 1 if a benchmark fails; a missed goal is only
shown.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from act2see.cli.output import quieten
from benchmarks import Skipped, machine

NAMES = (
    "start",
    "loop",
    "batch",
    "generate",
    "query",
    "second",
    "decode",
    "checkpoint",
    "interruptions",
    "corpus",
    "subgraph",
    "long_video",
    "notebook",
    "page",
    "http",
    "sharing",
    "indexing",
    "token",
    "lengths",
    "isolation",
    "fuzz",
    "containers",
    "faults",
    "load",
    "load_langgraph",
    "chunks",
    "files",
    "evaluation",
)
RESULTS = Path(__file__).parent / "results"


def format_number(value: float) -> str:
    """Return a number with three significant digits, or as an integer."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: the name of the figure, the goal, the figure, and whether the goal is
    met."""
    marks = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}
    out = []
    for what, goal in result["goals"].items():
        figure, sign = ("lowest", "≥") if "lowest" in goal else ("highest", "≤")
        wanted = "reported" if goal["goal"] is None else f"{sign} {format_number(goal['goal'])}"
        out.append((escape(what), wanted, format_number(goal[figure]), marks[goal["met"]]))
    return out


def save(name: str, result: dict[str, Any], quick: bool) -> None:
    """Write a result to `benchmarks/results`."""
    RESULTS.mkdir(exist_ok=True)
    suffix = ".quick.json" if quick else ".json"
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"{name}{suffix}").write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure act2see against its goals."
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure less, in about two minutes; writes NAME.quick.json"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run (default: all of {', '.join(NAMES)})"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r} (known: {', '.join(NAMES)})")
    quieten(verbose=False)
    console, err = Console(highlight=False), Console(stderr=True, highlight=False)
    table = Table("benchmark", "what", "goal", "measured", "")
    failed = False
    for name in arguments.names or NAMES:
        host, started = machine(), time.perf_counter()
        err.print(f"{name} ...", end=" ")
        try:
            result: dict[str, Any] = importlib.import_module(f"benchmarks.{name}").run(arguments.quick)
        except Skipped as e:
            err.print(f"skipped: {escape(str(e))}")
            table.add_row(name, f"[yellow]skipped:[/] {escape(str(e))}", "", "", "")
            continue
        except Exception as e:
            err.print_exception()
            error = escape(f"{type(e).__name__}: {e}")
            table.add_row(name, f"[red]failed:[/] {error}", "", "", "[red]failed[/]")
            failed = True
            continue
        seconds = time.perf_counter() - started
        err.print(f"{seconds:.0f} s")
        for i, row in enumerate(rows(result)):
            table.add_row(name if i == 0 else "", *row)
        if "skipped" in result:
            table.add_row("", f"[yellow]skipped:[/] {escape(result['skipped'])}", "", "", "")
        result |= {"benchmark": name, "quick": arguments.quick, "seconds": round(seconds, 1)}
        result["machine"] = {**result.get("machine", {}), **host}
        save(name, result, arguments.quick)
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
