"""The results of `act2see doctor`: the table, and the commands that come next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from act2see.cli.output import out
from act2see.trace.console import plain


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    passed: bool
    subject: str
    """The package, part of the configuration, or resource of the machine that was checked."""
    finding: str
    """The result, as shown in the table."""
    fix: str = ""
    """The commands that fix a failed check, one per line; if empty, the finding says what to do."""


def print_table(checks: Iterable[Check]) -> None:
    """Print the results."""
    from rich import box
    from rich.table import Table

    table = Table("", "", "", box=box.SIMPLE, show_header=False)
    for check in checks:
        mark = plain("ok", "green") if check.passed else plain("no", "bold red")
        table.add_row(mark, plain(check.subject), plain(check.finding))
    out().print(table)


def next_steps(failed: Sequence[Check]) -> list[str]:
    """Return the commands that fix these checks, each once, in the order in which they are needed."""
    if any(check.subject in ("GPU", "memory") for check in failed):
        # The machine is too small for these weights, so do not suggest to download them.
        failed = [check for check in failed if "act2see download" not in check.fix]
    lines = dict.fromkeys(line for check in failed for line in (check.fix or check.finding).splitlines())
    return sorted(lines, key=_order)


def _order(line: str) -> int:
    if line.startswith("act2see serve"):
        return 2  # it serves what was downloaded
    return 1 if line.startswith("act2see download") else 0
