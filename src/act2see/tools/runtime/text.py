"""Text: cleaning, shortening, numbers of bytes, and the first line or problem of an error.

Text from outside is written to JSON, checkpoints, terminals and file names. Two kinds of characters break
those: lone surrogates, which UTF-8 cannot encode (they come from JSON's `"\\ud800"`, and from file names and
command lines that are not UTF-8), and NUL, which ends a string in C. Control characters and direction
controls are obeyed instead of shown (`CONTROLS`): wherever words of others are shown, they are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""A range of a regular expression: control characters but tabs and newlines, which a terminal obeys, and
Unicode's overrides and isolates, which reorder the text around them. The marks that Arabic and Hebrew are
written with (U+200E, U+200F, U+061C) are not among them: without overrides, text in both directions stays
readable."""
_CONTROL = re.compile(f"[{CONTROLS}]")
_LONE = re.compile("[\ud800-\udfff]")
_MAX_INPUT = 80  # characters of a wrong value that an error repeats


def clean_text(text: str, *, keep_nul: bool = False) -> str:
    """Return the text with lone surrogates replaced by U+FFFD, and without NUL unless it is kept."""
    text = _LONE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text if keep_nul else text.replace("\0", "")


def drop_controls(text: str) -> str:
    """Return a text of others for a terminal or a model: without the characters of `CONTROLS`."""
    return _CONTROL.sub("", text)


def clean_data(data: Any, *, keep_nul: bool = False) -> Any:
    """Return plain data (nested dictionaries, lists, tuples) with every text in it cleaned, keys too."""
    if isinstance(data, str):
        return clean_text(data, keep_nul=keep_nul)
    if isinstance(data, dict):
        cleaned = {}
        for key, value in data.items():
            cleaned[clean_data(key, keep_nul=keep_nul)] = clean_data(value, keep_nul=keep_nul)
        return cleaned
    if type(data) in (list, tuple):
        return type(data)(clean_data(one, keep_nul=keep_nul) for one in data)
    return data


def shorten_text(text: str, max_chars: int) -> str:
    """Return the text, cut at `max_chars` with the number of characters that were left out."""
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]} … ({len(text) - max_chars:,} more characters)"


def quote_text(text: str, max_chars: int = _MAX_INPUT) -> str:
    """Return a text from outside as part of an error: in one line, and cut at `max_chars`."""
    return shorten_text(" ".join(clean_text(text[: 2 * max_chars]).split()), max_chars)


def format_bytes(number: float, *, binary: bool = False) -> str:
    """Return a number of bytes in words: `17.5 GB`, or `16 MiB` with binary units, as limits are set."""
    base = 1024 if binary else 1000
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB") if binary else ("kB", "MB", "GB", "TB"):
        if number < base:
            break
        number /= base
        unit = larger
    is_whole = unit == "bytes" or (binary and number == int(number))
    return f"{number:,.{0 if is_whole else 1}f} {unit}"


def first_line(error: BaseException, max_chars: int = 200) -> str:
    """Return the first line of an error's message, cut at `max_chars`; its class if it has no message."""
    try:
        lines = [line.strip() for line in clean_text(str(error)).splitlines()]
    except Exception:  # an error's own __str__ may fail
        lines = []
    return next((line for line in lines if line), type(error).__name__)[:max_chars]


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Return the first field that failed, as a dotted path (empty for the whole model), and its problem."""
    first = first_error(error)
    # Keys and tags in the message may be a stranger's, of any length.
    path = quote_text(".".join(str(part) for part in first["loc"]))
    if first["type"] in ("model_type", "dict_type", "dataclass_type"):
        return path, "must hold keys and values"
    return path, quote_text(first["msg"].removeprefix("Value error, "), 3 * _MAX_INPUT)


def first_error(error: ValidationError) -> ErrorDetails:
    """Return the error to report. An unknown key comes first: it may be a missing one, misspelled."""
    errors = error.errors()
    return next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])


def explain_problem(error: ValidationError, known: Collection[str]) -> str:
    """Return the first problem in one line; for an unknown key, with the nearest known key or all keys."""
    path, problem = first_problem(error)
    first = first_error(error)
    if first["type"] != "extra_forbidden":
        given = repr(first["input"])
        if len(given) > _MAX_INPUT:
            return f"{path}: {problem}"
        return f"{path}: {problem} (got {given})"
    near = get_close_matches(path.rpartition(".")[2], known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {path!r}; {hint}"


def unfit_for_path(path: str) -> str | None:
    """Return the reason why the operating system or JSON cannot hold a path; None if both can."""
    if "\0" in path:
        return "its name contains a NUL character"
    if _LONE.search(path):
        return "its name is not UTF-8: rename the file, or link to it under another name"
    return None
