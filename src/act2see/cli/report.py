"""`act2see report`: finished runs of `act2see eval` side by side, as an HTML page and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from act2see.cli.options import Force
from act2see.cli.output import note, say


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders that `act2see eval` wrote.", show_default=False),
    ],
    to: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The HTML file; a .md file lies beside it.")
    ] = Path("report.html"),
    traces: Annotated[
        int, typer.Option(min=0, help="Wrong answers of a run that are shown with their traces.")
    ] = 10,
    force: Force = False,
) -> None:
    """Write a report of finished runs: scores side by side, significance, diagnostics, wrong answers.

    Needs one or more finished runs of act2see eval, and its extra. Runs that were asked with --diagnose also
    show what becomes of the score without tools, and with other frames.
    """
    from act2see.evaluation.comparing import load_runs
    from act2see.evaluation.report_pages import write_report
    from act2see.evaluation.reporting import list_main

    loaded = load_runs(runs)
    twin = write_report(loaded, to, traces, force=force)
    for line in list_main(loaded):
        say(line)
    note(f"written to {to} and {twin}")
