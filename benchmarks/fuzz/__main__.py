"""python -m benchmarks.fuzz NAME ...: run fuzz targets for as long as you like."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz import checks, repeat


def main() -> int:
    """Run the targets that are named, by default all; return 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", help="targets, by default all")
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    failed = False
    with TemporaryDirectory() as folder:
        known = checks(Path(folder))
        if wrong := set(arguments.names) - set(known):
            parser.error(f"there is no {', '.join(sorted(wrong))} (known: {', '.join(known)})")
        for name in arguments.names or known:
            result = repeat(known[name], arguments.executions, arguments.seed)
            failed |= bool(result.failed)
            print(
                f"{name}: {result.executions:,} executions, {result.failed} failed, "
                f"{result.rate:,.0f} a second, slowest {result.slowest:.2f} s, "
                f"{result.grown:.0f} MB more at the peak",
                flush=True,
            )
            for failure in result.failures:
                print(f"  {failure}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
