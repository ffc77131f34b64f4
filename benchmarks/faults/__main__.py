"""python -m benchmarks.faults: try faults of some boundaries, and print what ended badly and a table.

The figures are written as the run goes on, so that one that is stopped has some.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.faults import COUNT, Table, Trials, add_kills, draw, fast_folder, make_result, silent


def main() -> int:
    """Return 1 if a trial ended badly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("boundaries", nargs="*", help="by default all")
    parser.add_argument("--kind", help="only faults of this kind")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="leave out so many of the draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0, help="interrupt at one in so many events, too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    table, host, started = Table(), machine(), time.perf_counter()

    def save() -> None:
        if arguments.json:
            result = make_result(table, min(arguments.count, COUNT))
            seconds = round(time.perf_counter() - started, 1)
            result |= {"benchmark": "faults", "quick": False, "seconds": seconds, "machine": host}
            text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            arguments.json.write_text(text, encoding="utf-8")

    with fast_folder() as folder, silent():
        trials = Trials(folder)
        if arguments.kills:
            add_kills(table, trials, arguments.kills)
            print(*table.problems, sep="\n", flush=True)
            save()
        known = trials.faults()
        if arguments.boundaries:
            known = [fault for fault in known if fault.boundary in arguments.boundaries]
        if arguments.kind:
            known = [fault for fault in known if fault.kind == arguments.kind]
        drawn = draw(known, arguments.first + arguments.count, arguments.seed)[arguments.first :]
        for number, (fault, ended) in enumerate(trials.try_all(drawn), start=1):
            table.add(fault, ended)
            if ended.problem:
                print(f"{fault}: {ended.problem}", flush=True)
            if number % 20 == 0:
                save()
    Console().print(table.text())
    print(f"{table.injected} faults, {len(table.problems)} ended badly")
    save()
    return int(bool(table.problems))


if __name__ == "__main__":
    sys.exit(main())
