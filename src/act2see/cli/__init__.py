"""The command line `act2see`. Importing this module imports nothing else."""

from __future__ import annotations

_INTERRUPTED = 130  # as a shell reports SIGINT
_SAVING = 2.0  # seconds that the end of a command waits until the finished part of an index is saved


def main() -> None:
    """Run the command in `sys.argv`, and exit with its code.

    The codes are 0 (success), 1 (the configuration that `doctor` checked cannot run), 2 (an error) and 130
    (Ctrl-C).
    """
    # Importing `signal` takes longer, and Ctrl-C during that import would print a traceback.
    import _signal as signal  # type: ignore[import-not-found]
    import os
    import sys

    pressed = False

    def on_interrupt(*_: object) -> None:
        # During an import, a library may replace a KeyboardInterrupt with another exception, or drop it.
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    # A shell's background job has another handler, which ignores the signal. Keep it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, on_interrupt)
    code: object = 0
    try:
        from act2see.cli.app import app
        from act2see.cli.output import expect_interruption

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # print "?" for an unsupported character
        expect_interruption()
        app(prog_name="act2see")
    except SystemExit as e:
        code = _INTERRUPTED if pressed and e.code else e.code
        if code != _INTERRUPTED and "torch" not in sys.modules:
            raise
    except BaseException as e:
        # Ctrl-C was pressed before the commands were imported, or again while the first was being handled.
        if not pressed and not isinstance(e, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = _INTERRUPTED
        try:  # noqa: SIM105 - import as little as possible
            os.write(2, b"interrupted\n")
        except OSError:
            pass
    _stop_indexing()
    # Exit at once: a working model's thread would delay the exit, and unloading the model libraries takes
    # seconds. No data is lost, because files are written under a temporary name and then renamed, and
    # finished steps are saved.
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105
            stream.flush()
        except (BrokenPipeError, KeyboardInterrupt):
            pass
    if "multiprocessing.context" in sys.modules:
        _end_processes()
    os._exit(code if isinstance(code, int) else 0)


def _stop_indexing() -> None:
    """Stop the indexes that are being built, so that their finished part is saved."""
    import sys

    rounds = sys.modules.get("act2see.tools.runtime.round_robin")
    try:
        if rounds is not None:
            rounds.close_all(_SAVING)
    except KeyboardInterrupt:
        pass


def _end_processes() -> None:
    """End the child processes and release their shared resources, which `os._exit` does not do."""
    from contextlib import suppress
    from multiprocessing import active_children, util

    with suppress(Exception, KeyboardInterrupt):
        for process in active_children():
            process.terminate()
        util._exit_function()  # type: ignore[attr-defined]
