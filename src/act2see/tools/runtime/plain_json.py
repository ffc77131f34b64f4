"""Reading JSON from outside within bounds.

A short text can nest until the interpreter's stack ends, hold an integer of thousands of digits, or take 24
times its size in memory (`[[],[],...]`). Each of these is a `ValueError` here, as for any text that is not
JSON, so that a caller handles one error. Integers have at most 64 bits: checkpoints cannot hold larger ones,
and a ratio of two is no float. Texts are cleaned of what cannot be written again (`clean_text`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from act2see.tools.runtime.files import open_regular, read_file
from act2see.tools.runtime.text import clean_data, clean_text, format_bytes

LARGEST = 16 << 20
"""The default limit of a text, in bytes or characters."""
_UNFIT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")  # escapes that may be a lone surrogate, or NUL
_DEEPEST = 100  # trees of this depth can be copied, saved and printed by recursion


def parse_json(text: str | bytes, largest: int = LARGEST, *, keep_nul: bool = False) -> Any:
    """Return the data of a JSON text.

    Args:
        text: The text; bytes are UTF-8.
        largest: Its largest allowed size, in characters or bytes.
        keep_nul: Whether NUL stays in texts: a record of ours is read as it was written.

    Raises:
        ValueError: The text is not JSON, is too large or too deep, or has an integer of more than 64 bits.
    """
    if len(text) > largest:
        raise ValueError(f"it is larger than {format_bytes(largest, binary=True)}")
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))  # `json` itself would let lone surrogates through
    try:
        data = json.loads(clean_text(text), parse_int=_parse_int)
    except RecursionError as e:
        raise ValueError(f"it is nested more than {_DEEPEST} deep") from e
    _check_depth(data)
    return clean_data(data, keep_nul=keep_nul) if _UNFIT.search(text) else data


def _parse_int(digits: str) -> int:
    # 20 characters hold any integer of 64 bits, and Python does not read thousands of digits.
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise ValueError("an integer has more than 64 bits")
    return number


def _check_depth(data: Any) -> None:
    level = [data] if isinstance(data, dict | list) else []
    depth = 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        below: list[Any] = []
        for part in level:
            values = part.values() if isinstance(part, dict) else part
            below += [value for value in values if isinstance(value, dict | list)]
        level = below


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Return the data of a JSON file.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is too large.
        ValueError: It is not JSON within the bounds of `parse_json`.
    """
    return parse_json(read_file(path, largest), largest)


def read_lines(path: Path, longest: int = LARGEST) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, such as JSON Lines, one at a time.

    Raises:
        OSError: The file cannot be read, or is not a regular file.
        ValueError: A line is too long, or not UTF-8.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise ValueError(f"line {number} is longer than {format_bytes(longest, binary=True)}")
            yield line.decode()
