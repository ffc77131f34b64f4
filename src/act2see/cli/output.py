"""What the terminal gets: consoles, errors, and text that cannot do anything to it.

Model output, file names and questions are printed as `Text`, never as markup, and without control characters, so
that nothing in them is read as a style or as an escape sequence. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

INTERRUPTED = 130  # as a shell gives it for SIGINT
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def out(markup: bool = False) -> Console:
    """The console of results. Made when it is used: a test's stdout is not that of the import."""
    return Console(highlight=False, markup=markup)


def err() -> Console:
    """The console of progress and errors."""
    return Console(stderr=True, highlight=False, markup=False)


def plain(text: str, style: str = "") -> Text:
    """Text as it is: no markup, no control characters but newlines and tabs."""
    return Text(_CONTROL.sub("", text), style)


def say(text: str | Text, style: str = "", *, end: str = "\n") -> None:
    """Print a line to stdout; a long one is left to the terminal to break, so that a path can be copied."""
    out().print(plain(text, style) if isinstance(text, str) else text, soft_wrap=True, end=end)


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
    """Log to stderr if asked to; else keep the libraries' notes about themselves, and their progress bars, off it.

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
