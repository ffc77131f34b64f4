"""Finds what saved files refer to: every digest in traces, tables, checkpoints and any other file of text.

Files are not parsed. Whatever looks like a digest, 32 hexadecimal digits in a row, counts as a reference. So
formats of other programs and of other versions count too, and an error is always on the safe side: a picture
stays that could go. Databases are read through SQLite, since a value may be split over its pages.

Files that contain pictures and not references are left out: pictures, videos, weights, indexes, Parquet (a
corpus contains its pictures) and compressed files.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from act2see.errors import StoreError
from act2see.tools.runtime.files import open_regular

_RUN = re.compile(rb"[0-9a-f]{32,}")
_DIGITS = 32
_CHUNK = 8 << 20
_LONGEST = 4096  # a longer row of hexadecimal digits is data
_SQLITE = b"SQLite format 3\x00"
_WITHOUT = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"),
        *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts", ".video"),
        *(".npz", ".npy", ".faiss", ".safetensors", ".gguf", ".bin", ".pt", ".parquet", ".arrow"),
        *(".zip", ".gz", ".xz", ".zst", ".tar", ".lock"),
    )
)


def find_references(root: Path, without: tuple[Path, ...] = ()) -> set[str]:
    """Return all digests in a file, or in the files of a folder and of the folders below it.

    Args:
        root: The file or folder. Links to folders are not followed.
        without: Folders that are left out.

    Raises:
        StoreError: Something cannot be read, so that its references are not known.
    """
    found: set[str] = set()
    for path in _files(root, without):
        try:
            found |= _in_file(path)
        except FileNotFoundError:
            continue  # it was deleted meanwhile
        except (OSError, sqlite3.Error) as e:
            why = getattr(e, "strerror", None) or e
            raise StoreError(
                f"cannot read {path} ({why}), so it is not known what it refers to: nothing was removed; "
                "make it readable, or move it away"
            ) from e
    return found


def _files(root: Path, without: tuple[Path, ...]) -> Iterator[Path]:
    if root.is_file():
        yield root
        return

    def stop(error: OSError) -> None:
        raise StoreError(
            f"cannot read {error.filename} ({error.strerror}): nothing was removed; make it readable"
        )

    for here, folders, files in os.walk(root, onerror=stop):
        folders[:] = [name for name in folders if Path(here, name) not in without]
        for name in files:
            path = Path(here, name)
            if path.suffix.lower() not in _WITHOUT and path.is_file():  # not a pipe, nor a broken link
                yield path


def _in_file(path: Path) -> set[str]:
    found: set[str] = set()
    with open_regular(path) as file:
        head = file.read(len(_SQLITE))
        if head == _SQLITE:
            return _in_database(path)
        rest = head
        while block := file.read(_CHUNK):
            # The end is read again with the next block: a digest may lie on the border.
            data = rest + block
            found |= _in_bytes(data)
            rest = data[-2 * _DIGITS :]
        return found | _in_bytes(rest)


def _in_bytes(data: bytes) -> set[str]:
    found: set[str] = set()
    for match in _RUN.finditer(data):
        digits = match[0].decode()
        # Within a longer row any part may be the digest: a binary format may have digits before it.
        for start in range(min(len(digits), _LONGEST) - _DIGITS + 1):
            found.add(digits[start : start + _DIGITS])
    return found


def _in_database(path: Path) -> set[str]:
    """Return the digests in all values of all tables, with what is still in the journal of the database."""
    found: set[str] = set()
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.text_factory = bytes
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            name = table.decode().replace('"', '""')
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                for value in row:
                    if isinstance(value, bytes):
                        found |= _in_bytes(value)
    return found
