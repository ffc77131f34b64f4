"""Text from outside, made fit to be saved, and the first line of an error.

Text ends up in JSON, in checkpoints, on terminals and in file names. Two kinds of characters break those:
lone surrogates, which no encoding writes (they come from JSON's `"\\ud800"`, and from file names and command
lines that are not UTF-8), and NUL, at which C ends a string.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

_LONE = re.compile("[\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD, and without NUL."""
    return _LONE.sub("\N{REPLACEMENT CHARACTER}", text).replace("\0", "")


def clean_data(data: Any) -> Any:
    """Plain data (nested dictionaries, lists and tuples) with `clean_text` for every text in it, keys too."""
    if isinstance(data, str):
        return clean_text(data)
    if isinstance(data, dict):
        return {clean_data(key): clean_data(value) for key, value in data.items()}
    if type(data) in (list, tuple):
        return type(data)(clean_data(one) for one in data)
    return data


def first_line(error: BaseException, max_chars: int = 200) -> str:
    """Return the first line of an error's message, cut at `max_chars`; its class if it has no message."""
    try:
        lines = [line.strip() for line in clean_text(str(error)).splitlines()]
    except Exception:  # an error's own __str__ may fail
        lines = []
    return next((line for line in lines if line), type(error).__name__)[:max_chars]


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first field that failed, as a dotted path (empty for the whole), and what is wrong with it."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    return path, first["msg"].removeprefix("Value error, ")


def explain_problem(error: ValidationError, known: Collection[str]) -> str:
    """The first problem in one line; for an unknown key, the nearest of the `known` ones, or all of them."""
    path, problem = first_problem(error)
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return f"{path}: {problem} (got {first['input']!r})"
    near = get_close_matches(path.rpartition(".")[2], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {path!r}; {hint}"


def unfit_for_path(path: str) -> str | None:
    """Why no file can have this path, in a few words; None if one can."""
    if "\0" in path:
        return "it holds a NUL character"
    if _LONE.search(path):
        return "its name is not UTF-8: rename the file, or link to it under another name"
    return None
