"""The command line: `act2see`. Nothing is imported before `main` runs."""

from __future__ import annotations


def main() -> None:
    """Run the command of `sys.argv` and exit with its code: 0, 1 (doctor: cannot run), 2 (an error), 130 (Ctrl-C)."""
    import os
    import sys
    from contextlib import suppress

    from act2see.cli.app import app
    from act2see.cli.output import INTERRUPTED

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # what a terminal's encoding lacks is shown as "?"
    try:
        app(prog_name="act2see")
    except SystemExit as e:
        if e.code != INTERRUPTED and "torch" not in sys.modules:
            raise
        # A model at work in a thread would hold an interrupted process for as long as it takes, and taking the model
        # libraries down properly takes seconds. Files are written beside their place and renamed, and finished steps
        # are saved, so nothing is lost by leaving at once.
        for stream in (sys.stdout, sys.stderr):
            with suppress(BrokenPipeError):
                stream.flush()
        os._exit(e.code if isinstance(e.code, int) else 0)
