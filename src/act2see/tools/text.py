"""Text from outside, made fit to be kept: what comes in here ends up in JSON, in checkpoints, on terminals and in file names.

Two kinds of characters break those: lone surrogates, which no encoding writes (JSON's `"\\ud800"` makes them, and so do file
names and command lines that are not UTF-8), and NUL, at which C ends a string.
"""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD, and without NUL."""
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", text).replace("\0", "")


def unfit_for_path(path: str) -> str | None:
    """Why a path cannot be used, in a few words; None where it can."""
    if "\0" in path:
        return "it holds a NUL character"
    if _LONE.search(path):
        return "its name is not UTF-8: rename the file, or link to it under another name"
    return None
