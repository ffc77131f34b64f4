"""python -m benchmarks.faults: try faults of some boundaries, and print what ended badly and a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.faults import Table, Trials, _silent, add_kills, draw, fast_folder, make_result


def main() -> int:
    """Return 1 if a trial ended badly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("boundaries", nargs="*", help="by default all")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="leave out so many of the draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0, help="interrupt at one in so many events, too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    table = Table()
    with fast_folder() as folder, _silent():
        trials = Trials(folder)
        known = trials.faults()
        if arguments.boundaries:
            known = [fault for fault in known if fault.boundary in arguments.boundaries]
        drawn = draw(known, arguments.first + arguments.count, arguments.seed)[arguments.first :]
        for number, (fault, ended) in enumerate(trials.try_all(drawn), start=1):
            table.add(fault, ended)
            if ended.problem:
                print(f"{fault}: {ended.problem}", flush=True)
            if arguments.json and (number % 20 == 0 or number == len(drawn)):
                arguments.json.write_text(json.dumps(make_result(table, number)), encoding="utf-8")
        if arguments.kills:
            add_kills(table, trials, arguments.kills)
    Console().print(table.text())
    print(f"{table.injected} faults, {len(table.problems)} ended badly")
    if arguments.json:
        arguments.json.write_text(json.dumps(make_result(table, table.injected)), encoding="utf-8")
    return int(bool(table.problems))


if __name__ == "__main__":
    sys.exit(main())
