"""What the terminal gets: consoles, errors, and text that cannot do anything to it.

Model output, file names and questions are printed as `Text`, never as markup, and without control characters,
so that nothing in them is read as a style or as an escape sequence. Results go to stdout, everything else to
stderr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from act2see.errors import QuestionError
from act2see.trace.console import plain

INTERRUPTED = 130  # as a shell gives it for SIGINT
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def out(markup: bool = False) -> Console:
    """The console of results. Made when it is used: a test's stdout is not that of the import."""
    return Console(highlight=False, markup=markup)


def err() -> Console:
    """The console of progress and errors."""
    return Console(stderr=True, highlight=False, markup=False)


def say(text: str | Text, style: str = "", *, end: str = "\n", prose: bool = False) -> None:
    """Print a line to stdout. A long one is left to the terminal to break, so that a path or a command can be
    copied; `prose` is broken between words."""
    from act2see.trace.console import break_lines

    console, line = out(), plain(text, style) if isinstance(text, str) else text
    console.print(break_lines(line, console) if prose else line, soft_wrap=True, end=end)


def program() -> str:
    """How this program was started, so that a command which is shown can be pasted: its name where the shell
    finds it by that."""
    import os
    import shlex
    import shutil
    import sys

    started = sys.argv[0]
    if os.path.basename(started) == "__main__.py" and os.path.basename(os.path.dirname(started)) == "act2see":
        return f"{shlex.quote(_from_here(sys.executable))} -m act2see"
    found = shutil.which("act2see")
    if os.path.basename(started) != "act2see" or (
        found and os.path.exists(started) and os.path.samefile(found, started)
    ):
        return "act2see"
    return shlex.quote(_from_here(started))


def _from_here(path: str) -> str:
    """A path below the working folder from there, another one in full."""
    import os

    whole = os.path.abspath(path)
    below = os.path.relpath(whole)
    return whole if below.startswith(os.pardir) else below


def note(text: str) -> None:
    """A line to stderr: what was written where, what is under way."""
    err().print(plain(text), soft_wrap=True)


def writable(text: str) -> bool:
    """Whether stdout's encoding has all of it."""
    import sys

    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_json(text: str) -> None:
    """JSON to stdout. Where its encoding lacks a character, all of them are escaped: a question mark would be
    another answer."""
    import json
    import sys

    if not writable(text):
        text = json.dumps(json.loads(text))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def interrupted(said: str = "interrupted") -> typer.Exit:
    """What a command raises after Ctrl-C: it ends with code 130, and one line."""
    err().print(f"\n{said}" if err().is_terminal else said, soft_wrap=True)  # the terminal has written ^C
    return typer.Exit(INTERRUPTED)


def expect_interruption() -> None:
    """For a process that is ours: after Ctrl-C, threads and callbacks that come too late end without a
    word."""
    import logging
    import signal
    import sys
    import threading

    late = re.compile(
        "Event loop is closed|Task was destroyed but it is pending|coroutine ignored GeneratorExit"
    )

    def told(record: logging.LogRecord) -> bool:
        return not late.search(f"{record.msg} {record.exc_info[1] if record.exc_info else ''}")

    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(told)
    in_threads, dropped = threading.excepthook, sys.unraisablehook

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        if not late.search(str(args.exc_value)):
            in_threads(args)

    def dropped_hook(args: sys.UnraisableHookArgs) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt):
            signal.raise_signal(
                signal.SIGINT
            )  # it came where nothing can be raised: once more, a moment later
        elif not late.search(str(args.exc_value)):
            dropped(args)

    threading.excepthook, sys.unraisablehook = thread_hook, dropped_hook


def check_words(words: Sequence[str]) -> None:
    """Raise `QuestionError` for what came from the command line and is no text: bytes that are not UTF-8, or
    a zero byte.

    Nothing of it could be saved: an answer would be lost after the run.
    """
    for word in words:
        if "\0" in word or any("\ud800" <= c <= "\udfff" for c in word):
            shown = "".join("?" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in word)
            raise QuestionError(
                f"{shown!r} is not text in UTF-8: write it in UTF-8, and give a file with such a name another one"
            )


def complain(message: str) -> None:
    """`error: ...`, in one line, to stderr."""
    line = Text.assemble(("error: ", "bold red"), plain(" ".join(message.split())))
    err().print(line, soft_wrap=True)


def size(number: float) -> str:
    """A number of bytes for people: `17.5 GB`."""
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.0f} {_UNITS[unit]}" if unit == 0 or number >= 100 else f"{number:.1f} {_UNITS[unit]}"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Bars on stderr; where that is no terminal, none."""
    console = err()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def quieten(verbose: bool) -> None:
    """Log to stderr if asked to; else keep the libraries' notes about themselves, and their progress bars,
    off it.

    By variables, because they are read when the libraries are imported, which most commands never do.
    """
    import logging
    import os
    import warnings

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")
    if verbose:
        return
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    for name in ("transformers", "diffusers", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
