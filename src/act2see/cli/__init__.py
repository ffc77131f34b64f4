"""The command line: `act2see`. Nothing is imported before `main` runs."""

from __future__ import annotations

_INTERRUPTED = 130  # as a shell gives it for SIGINT


def main() -> None:
    """Run the command of `sys.argv` and exit with its code: 0, 1 (doctor: cannot run), 2 (an error), 130
    (Ctrl-C)."""
    import _signal as signal  # type: ignore[import-not-found]  # `signal` itself takes longer to import, and Ctrl-C would show how far that had come
    import os
    import sys

    pressed = False

    def on_interrupt(*_: object) -> None:
        # A library that is being imported may make another exception of a KeyboardInterrupt, or drop it.
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    # Python's own handler, and not a shell's for its background jobs, which ignores it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    code: object = 0
    try:
        from act2see.cli.app import app
        from act2see.cli.output import expect_interruption

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # what a terminal's encoding lacks is shown as "?"
        expect_interruption()
        app(prog_name="act2see")
    except SystemExit as e:
        code = _INTERRUPTED if pressed and e.code else e.code
        if code != _INTERRUPTED and "torch" not in sys.modules:
            raise
    except BaseException as e:
        # Before the commands were there, or a second time while the first was being dealt with.
        if not pressed and not isinstance(e, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = _INTERRUPTED
        try:  # noqa: SIM105 - nothing more is imported than must be
            os.write(2, b"interrupted\n")
        except OSError:
            pass
    # A model at work in a thread would hold an interrupted process for as long as it takes, and taking the
    # model libraries down properly takes seconds. Files are written beside their place and renamed, and
    # finished steps are saved, so nothing is lost by leaving at once.
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()
        except (BrokenPipeError, KeyboardInterrupt):
            pass
    if "multiprocessing.context" in sys.modules:
        _end_processes()
    os._exit(code if isinstance(code, int) else 0)


def _end_processes() -> None:
    """End the processes that were started beside this one, and take away what they shared: leaving at once
    does neither."""
    from contextlib import suppress
    from multiprocessing import active_children, util

    with suppress(Exception, KeyboardInterrupt):
        for process in active_children():
            process.terminate()
        util._exit_function()  # type: ignore[attr-defined]
