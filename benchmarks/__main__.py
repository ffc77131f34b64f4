"""python -m benchmarks [--quick] [NAME ...]: run benchmarks, print a table, write
`benchmarks/results/NAME.json`.

A quick run measures the same with fewer repetitions or a smaller clip; it writes `NAME.quick.json`, so that
it never replaces a full one's figures. A goal that is missed is shown, not an error; a benchmark that fails
is one.
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
)
RESULTS = Path(__file__).parent / "results"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def rows(result: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What, goal, measured, and whether it is reached."""
    out = []
    for what, goal in result["goals"].items():
        lowest = "lowest" in goal
        wanted = "reported" if goal["goal"] is None else f"{'≥' if lowest else '≤'} {number(goal['goal'])}"
        mark = {None: "", True: "[green]reached[/]", False: "[red]not reached[/]"}[goal["met"]]
        out.append((escape(what), wanted, number(goal["lowest" if lowest else "highest"]), mark))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure act2see against its goals."
    )
    parser.add_argument(
        "--quick", action="store_true", help="less of each, in two minutes; written to NAME.quick.json"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ones (default: all of {', '.join(NAMES)})"
    )
    arguments = parser.parse_args()
    if unknown := [n for n in arguments.names if n not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]!r} (known: {', '.join(NAMES)})")
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
            table.add_row(
                name, f"[red]failed:[/] {escape(f'{type(e).__name__}: {e}')}", "", "", "[red]failed[/]"
            )
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
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{name}{'.quick' if arguments.quick else ''}.json"
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
