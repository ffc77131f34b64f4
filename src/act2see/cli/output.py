"""Output to the terminal: consoles, errors, JSON, progress bars and logging.

Results go to stdout, everything else to stderr. Model output, file names and questions are printed as `Text`
without control characters, so they cannot contain markup or escape sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from act2see.errors import QuestionError
from act2see.trace.console import plain

if TYPE_CHECKING:
    import logging

    from rich.progress import Progress, ProgressColumn

    from act2see.graphs.config import Config
    from act2see.trace.terminal import ChainPrinter

WAITING = 3
"""The exit code of a question that waits for a person's decision."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell reports SIGINT."""

_NOT_UTF8 = re.compile("[\0\ud800-\udfff]")


def out(markup: bool = False) -> Console:
    """Return a console that prints results to the current `sys.stdout`."""
    return Console(highlight=False, markup=markup)


def err() -> Console:
    """Return a console that prints progress and errors to the current `sys.stderr`."""
    return Console(stderr=True, highlight=False, markup=False)


def say(text: str | Text, style: str = "", *, end: str = "\n", prose: bool = False) -> None:
    """Print a line to stdout.

    Args:
        text: The line. A string is printed without interpreting markup.
        style: The style of a string.
        end: The text after the line.
        prose: Break a long line between words. By default the terminal wraps the line, so that a path or a
            command can be copied.
    """
    from act2see.trace.console import break_lines

    console = out()
    line = plain(text, style) if isinstance(text, str) else text
    if prose:
        line = break_lines(line, console)
    console.print(line, soft_wrap=True, end=end)


def note(text: str, style: str = "") -> None:
    """Print a line about progress or written files to stderr."""
    err().print(plain(text, style), soft_wrap=True)


def complain(message: str, label: str = "error") -> None:
    """Print `error: MESSAGE`, or another label, to stderr, as one line."""
    colour = "bold red" if label == "error" else "bold yellow"
    line = Text.assemble((f"{label}: ", colour), plain(" ".join(message.split())))
    err().print(line, soft_wrap=True)


def interrupted(message: str = "interrupted") -> typer.Exit:
    """Print one line, and return the exception that ends a command after Ctrl-C (code 130)."""
    console = err()
    if console.is_terminal:
        message = f"\n{message}"  # the terminal has printed ^C
    console.print(message, soft_wrap=True)
    return typer.Exit(INTERRUPTED)


def expect_interruption() -> None:
    """Silence the errors that threads and callbacks report after Ctrl-C because their event loop is closed.

    This changes the hooks of the whole process, so only the command line may call it.
    """
    import logging
    import signal
    import sys
    import threading

    late = re.compile(
        "Event loop is closed|Task was destroyed but it is pending|coroutine ignored GeneratorExit"
    )

    def is_relevant(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else ""
        return not late.search(f"{record.msg} {error}")

    for name in ("asyncio", "concurrent.futures"):
        logging.getLogger(name).addFilter(is_relevant)
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def on_thread_error(args: threading.ExceptHookArgs) -> None:
        if not late.search(str(args.exc_value)):
            thread_hook(args)

    def on_unraisable(args: sys.UnraisableHookArgs) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt):
            # Ctrl-C came in a destructor or a callback, which drops exceptions: send the signal again.
            signal.raise_signal(signal.SIGINT)
        elif not late.search(str(args.exc_value)):
            unraisable_hook(args)

    threading.excepthook, sys.unraisablehook = on_thread_error, on_unraisable


def can_print(text: str) -> bool:
    """Return whether the encoding of stdout supports all characters of a text."""
    import sys

    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def print_json(text: str) -> None:
    """Print JSON to stdout.

    If the encoding of stdout does not support a character, all non-ASCII characters are escaped, because a
    question mark in its place would change the answer. Characters that a terminal obeys are always escaped.
    """
    import json
    import sys

    from act2see.tools.runtime.text import CONTROLS

    if not can_print(text):
        text = json.dumps(json.loads(text))
    # Between texts, JSON has none of them: only in texts, where an escape means the same.
    text = re.sub(f"[{CONTROLS}]", lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def chain_printer(config: Config) -> ChainPrinter:
    """Return a printer of one chain of thought. It prints a note while local models are loaded."""
    from act2see.trace.terminal import ChainPrinter

    return ChainPrinter(out(), loads=config.reasoner.use == "transformers")


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress]:
    """Show progress bars on stderr if it is a terminal."""
    from rich.progress import Progress

    console = err()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def program() -> str:
    """Return the command that starts this program, for suggested commands that can be copied.

    This is `act2see` if the shell finds this program under that name, otherwise a path.
    """
    import os
    import shlex
    import shutil
    import sys

    started = sys.argv[0]
    folder, name = os.path.split(started)
    if name == "__main__.py" and os.path.basename(folder) == "act2see":
        return f"{shlex.quote(_shorten_path(sys.executable))} -m act2see"
    if name != "act2see":
        return "act2see"
    found = shutil.which("act2see")
    if found and os.path.exists(started) and os.path.samefile(found, started):
        return "act2see"
    return shlex.quote(_shorten_path(started))


def ask_command(video: Path, question: str, options: Sequence[str]) -> str:
    """Return the command that asks this question, quoted for a shell."""
    import shlex

    words = ["ask", str(video), question]
    for option in options:
        words += ["--option", option]
    return f"{program()} {shlex.join(words)}"


def _shorten_path(path: str) -> str:
    """Return a path below the working folder as a relative path, and any other as an absolute path."""
    import os

    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith(os.pardir) else relative


def check_words(words: Sequence[str]) -> None:
    """Check that the words of the command line are text.

    Bytes that are not UTF-8, and null bytes, cannot be saved: the answer would be lost at the end of a run.

    Raises:
        QuestionError: A word is not text.
    """
    for word in words:
        if _NOT_UTF8.search(word):
            shown = _NOT_UTF8.sub("?", word)
            raise QuestionError(f"{shown!r} is not UTF-8 text: write it in UTF-8, or rename the file")


def log_handler(verbose: bool) -> logging.Handler:
    """Return a handler that prints records to stderr.

    A warning of act2see is printed like an error: one line that begins with `warning:`. Other lines, those
    with a traceback, and with `verbose` all lines begin with the name of their logger. A line that repeats
    the one before is left out: a file may be opened several times.
    """
    import logging

    class Lines(logging.Handler):
        last = ""

        def emit(self, record: logging.LogRecord) -> None:
            try:
                line = self.format(record)
                if line == self.last:
                    return
                self.last = line
                ours = record.name.partition(".")[0] == "act2see"
                if ours and not (verbose or record.exc_info) and record.levelno == logging.WARNING:
                    complain(line, label="warning")
                else:
                    note(f"{record.name}: {line}")
            except Exception:
                self.handleError(record)

    return Lines()


def quieten(verbose: bool) -> None:
    """Set up logging to stderr. Unless `verbose`, log only warnings and hide libraries' progress bars.

    Environment variables are used because the libraries are imported later, or never.
    """
    import logging
    import os
    import warnings

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        handlers=[log_handler(verbose)],
        format="%(message)s",
    )
    if verbose:
        return
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        os.environ.setdefault(name, "1")
    for name in ("transformers", "diffusers", "huggingface_hub", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
