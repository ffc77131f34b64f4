"""Mutated files of twelve containers: act2see reads each, or says in one line why not.

`python -m benchmarks.containers --first 0 --files 500 --seed 1` reads a slice of a longer run; file `i` of a
seed is always the same.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import at_least, at_most, reported
from benchmarks.fuzz.container_files import FORMATS
from benchmarks.fuzz.containers import MEMORY, SECONDS, Tally, fuzz_containers

_FILES, _QUICK = 3600, 240


def run(quick: bool = False) -> dict[str, Any]:
    """Read mutated files, 300 of each format; a quick run 20 of each."""
    files = _QUICK if quick else _FILES
    with TemporaryDirectory() as folder:
        return make_result(fuzz_containers(Path(folder), files, seed=1), files)


def make_result(tally: Tally, files: int) -> dict[str, Any]:
    """Return the figures and goals of a run."""
    goals = {
        "mutated files": at_least(tally.files, files),
        "formats": at_least(len(FORMATS), 11),
        **{
            f"of these: {kind}": at_most(tally.failed[kind], 0)
            for kind in ("crash", "hang", "memory", "error")
        },
        "read": reported(tally.read.total()),
        "refused in one line": reported(tally.refused.total()),
        "slowest, s": at_most(tally.slowest, SECONDS),
        "most memory, MB": at_most(tally.largest, MEMORY / 1e6),
    }
    return {
        "goals": goals,
        "failures": tally.failures,
        "read": dict(tally.read),
        "refused": dict(tally.refused),
    }


def main() -> int:
    """Read a slice and print what became of it; return 1 if a file failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.containers", description=__doc__)
    parser.add_argument("--files", type=int, default=_QUICK)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        tally = fuzz_containers(Path(folder), arguments.files, arguments.seed, first=arguments.first)
    print(tally)
    return int(bool(tally.failed))


if __name__ == "__main__":
    sys.exit(main())
