"""Files for people: written beside their place and renamed into it, so that nothing is ever half there.

And files from people: only regular ones are read, since a pipe or a device can wait, or go on, for ever.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from act2see.errors import StoreError


def check_folder(path: Path, ours: str) -> None:
    """Raise `StoreError` unless `path` is new, empty, or holds `ours`, the file by which we know what we
    wrote."""
    if path.is_dir():
        if any(path.iterdir()) and not (path / ours).is_file():
            raise StoreError(f"the folder {path} is not empty: name a new one")
    elif path.exists() or path.is_symlink():
        raise StoreError(f"{path} is a file: name a new folder")


def check_file(path: Path) -> None:
    """Raise `StoreError` where `path` is a folder."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it")


@contextmanager
def whole_folder(path: Path, ours: str) -> Iterator[Path]:
    """A folder to fill; it becomes `path` when the block ends well, and is gone where it does not."""
    check_folder(path, ours)
    path = path.absolute()
    new, old = (path.parent / f".{path.name}-{uuid4().hex}" for _ in range(2))
    try:
        new.mkdir(parents=True)
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror or e}; choose another folder") from e
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file name to write to, with the suffix of `path`; it becomes `path` when the block ends well."""
    check_file(path)
    new = path.absolute().with_name(f".{uuid4().hex}-{path.name}")
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        yield new
        new.replace(path)
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror or e}; choose another place") from e
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The whole text or nothing."""
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8", errors="replace")


def read_file(path: str | os.PathLike[str], largest: int, *, follow: bool = True) -> bytes:
    """The bytes of a regular file; a pipe, a device or a socket in its place is neither waited for nor read.

    Args:
        largest: How many bytes it may have.
        follow: Whether the path may be a symbolic link.

    Raises:
        OSError: It cannot be opened, is no regular file, or is too large.
        ValueError: No file can have this name (a null character, half a surrogate pair).
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    # Opening a pipe waits for a writer, opening a terminal may take it over.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "it is no regular file", os.fspath(path))
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(None, f"it has more than {largest >> 20} MiB", os.fspath(path))
    return data


def is_text(name: str) -> bool:
    """Whether a file's name is Unicode text. Names of any bytes exist, which JSON and most formats cannot
    hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A name in which what is no Unicode text is written as an escape: `caf\\udce9.mp4`."""
    return name.encode("utf-8", "backslashreplace").decode()
