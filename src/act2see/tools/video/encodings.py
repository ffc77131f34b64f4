"""From the bytes of a subtitle file to its text.

The encoding is that of the byte-order mark, else UTF-8. A file of UTF-8 with a few bad bytes stays UTF-8:
only these bytes are lost. Any other encoding is a guess, and a warning says so, because a wrong guess gives a
text that nobody finds. charset-normalizer guesses, which comes with requests; without it only Chinese (GB
18030) and Windows-1252 are told apart. Windows-1250 is no candidate, since short Western texts look like it.
"""

from __future__ import annotations

import codecs
import logging
from contextlib import suppress

from act2see.tools.runtime.files import printable

log = logging.getLogger(__name__)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CANDIDATES = ("shift_jis", "euc_jp", "euc_kr", "big5", "gb18030", "cp1251", "cp1253", "cp1256", "cp1252")
_LOOKED_AT = 1 << 16  # bytes of the rows that are not ASCII
_FOREIGN = 0.4  # share of bytes beyond ASCII in rows that are written in another alphabet
_BAD = "\N{REPLACEMENT CHARACTER}"


def decode_text(data: bytes, name: str) -> str:
    """Return the text of a file.

    Args:
        data: Its bytes.
        name: Its name, for warnings.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    with suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    name = printable(name)
    text = data.decode("utf-8", "replace")
    bad = text.count(_BAD)
    foreign = len(text) - sum(map(str.isascii, text)) - bad
    if foreign >= bad:  # another encoding gives UTF-8 by chance, which is rarely
        before = text[: text.index(_BAD)]
        row = 1 + before.count("\n" if "\n" in text else "\r")
        log.warning("%s: %d characters are not UTF-8, the first in line %d: correct the file", name, bad, row)
        return text
    guess = _guess(data)
    log.warning(
        "%s is not UTF-8 and is read as %s, which is a guess: if its text looks wrong, "
        "convert it (iconv -f ENCODING -t UTF-8 FILE)",
        name,
        guess,
    )
    return data.decode(guess, "replace")


def _guess(data: bytes) -> str:
    """Return the encoding of a text that is not UTF-8."""
    rows = [row for row in data.replace(b"\r", b"\n").split(b"\n") if not row.isascii()]
    sample = _cut(rows)
    high = sum(byte >= 0x80 for byte in sample)
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    if high >= _FOREIGN * (high + letters):  # else it is of a Latin alphabet, with accents
        with suppress(ImportError):
            from charset_normalizer import from_bytes

            best = from_bytes(sample, cp_isolation=list(_CANDIDATES)).best()
            if best is not None:
                return best.encoding
    return "gb18030" if _is_chinese(sample) else "cp1252"


def _is_chinese(data: bytes) -> bool:
    """Whether nearly all characters are common Chinese ones, if the bytes are GB 18030, as nearly any are."""
    try:
        foreign = [char for char in data.decode("gb18030") if not char.isascii()]
    except UnicodeDecodeError:
        return False
    return len("".join(foreign).encode("gb2312", "ignore")) >= 2 * 0.9 * len(foreign)


def _cut(rows: list[bytes]) -> bytes:
    """Return the first rows, whole, so that no character is cut."""
    sample: list[bytes] = []
    size = 0
    for row in rows:
        size += len(row) + 1
        if sample and size > _LOOKED_AT:
            break
        sample.append(row[:_LOOKED_AT])
    return b"\n".join(sample)
