"""From the bytes of a subtitle file to its text.

The encoding is that of the byte-order mark, else UTF-8. A file of UTF-8 with a few bad bytes stays UTF-8:
only these bytes are lost. Any other encoding is a guess, by how likely each makes the text (`letters.py`),
and a warning says so, because a wrong guess gives a text that nobody finds. Where two encodings give likely
texts that differ, or none gives a likely one, the guess is a doubt: the warning names what else it may be,
and whoever shows the text says so.
"""

from __future__ import annotations

import codecs
import logging
import re
from contextlib import suppress
from dataclasses import dataclass

from act2see.tools.runtime.files import printable

log = logging.getLogger(__name__)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_LOOKED_AT = 1 << 13  # bytes of the rows that are not ASCII, and as many of the others
_SURE = 5.0  # by how much the guess must be likelier than the next, as a logarithm
_LIKELY = -4.4  # the least mean of the bytes of letters in a text that is read right
_NAMED = 3  # encodings in a warning
_TAG = re.compile(rb"<[^<>]{0,200}>")
_BAD = "\N{REPLACEMENT CHARACTER}"


def decode_text(data: bytes, name: str) -> tuple[str, str]:
    """Return the text of a file, and why it may be wrong: an empty string if there is no reason.

    Args:
        data: Its bytes.
        name: Its name, for warnings.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), ""
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8"), ""
    name = printable(name)
    text = data.decode("utf-8", "replace")
    bad = text.count(_BAD)
    foreign = len(text) - sum(map(str.isascii, text)) - bad
    if foreign >= bad:  # another encoding gives UTF-8 by chance, which is rarely
        before = text[: text.index(_BAD)]
        row = 1 + before.count("\n" if "\n" in text else "\r")
        log.warning("%s: %d characters are not UTF-8, the first in line %d: correct the file", name, bad, row)
        return text, ""
    return _decode_guessed(data, name)


def _decode_guessed(data: bytes, name: str) -> tuple[str, str]:
    reading = _guess(data)
    guess = reading.encoding
    convert = f"convert it (iconv -f ENCODING -t UTF-8 {name})"
    doubt = ""
    if reading.others:
        doubt = f"but it may be {' or '.join(reading.others)}"
    elif reading.is_strange:
        doubt = "but its letters are those of no language that is known here"
    if doubt:
        doubt = f"{name} is not UTF-8 and is read as {guess}, {doubt}, so its text may be wrong: {convert}"
        log.warning("%s", doubt)
    else:
        given = "%s is not UTF-8 and is read as %s, which is a guess: if its text looks wrong, %s"
        log.warning(given, name, guess, convert)
    return data.decode(guess, "replace"), doubt


@dataclass(frozen=True, slots=True)
class _Guess:
    encoding: str
    others: tuple[str, ...]
    """Encodings that are nearly as likely, and give another text."""
    is_strange: bool
    """Whether the text is likely in no language."""


def _guess(data: bytes) -> _Guess:
    """Return the encoding of a text that is not UTF-8."""
    from act2see.tools.video.letters import KINDS, read_as

    sample = _cut(data)
    best, *rest = sorted((read_as(kind, sample) for kind in KINDS), key=lambda one: -one.likelihood)
    others = [one for one in rest if one.likelihood > best.likelihood - _SURE and one.text != best.text]
    letters = sum(byte >= 0x80 or chr(byte).isalpha() for byte in sample)
    names = tuple(one.kind.encoding for one in others[:_NAMED])
    return _Guess(best.kind.encoding, names, best.likelihood < _LIKELY * letters)


def _cut(data: bytes) -> bytes:
    """Return the first rows with letters beyond ASCII, and as much of others.

    The rows are whole, so that no letter is cut.
    """
    rows = _TAG.sub(b"", data.replace(b"\r", b"\n")).split(b"\n")
    sample: list[bytes] = []
    for wanted in (False, True):
        size = 0
        for row in rows:
            if row.isascii() is not wanted or b"-->" in row:
                continue
            size += len(row) + 1
            if sample and size > _LOOKED_AT:
                break
            sample.append(row[:_LOOKED_AT])
    return b"\n".join(sample)
