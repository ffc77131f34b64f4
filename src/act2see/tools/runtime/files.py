"""Atomic writes of files and folders, and reads of regular files only.

A file or folder is written under a temporary name in the same folder and then renamed, so that other
processes never see it incomplete. It is on disk before it has its name: otherwise a power cut could leave an
empty file of the right name. Only regular files are read, because opening a pipe or a device can block
forever.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from act2see.errors import StoreError
from act2see.tools.runtime.text import format_bytes

_START = 1 << 17  # bytes of a file that are searched for a mark


def check_folder(path: Path, ours: str, others: Collection[str] | None = None) -> None:
    """Check that a folder may be replaced.

    Args:
        path: The folder to write.
        ours: Name of a file that is in every folder that this program writes.
        others: The only other names that such a folder has; None if it may have any.

    Raises:
        StoreError: `path` is a file, or a folder that is not empty and does not contain `ours`, or contains
            a name that is not one of `others`.
    """
    if path.is_dir():
        names = {entry.name for entry in path.iterdir()}
        if names and not (path / ours).is_file():
            raise StoreError(f"the folder {path} is not empty: name a new one")
        if others is not None and (strange := sorted(names - {ours, *others})):
            raise StoreError(
                f"the folder {path} also contains {printable(strange[0])}, which would be lost: "
                "name a new one"
            )
    elif path.exists() or path.is_symlink():
        raise StoreError(f"{path} is a file: name a new folder")


def check_file(path: Path, ours: bytes = b"", *, force: bool = False) -> None:
    """Check that a file may be written.

    Args:
        path: The file.
        ours: Bytes near the start of every such file that this program writes.
        force: Whether a file without them may be replaced.

    Raises:
        StoreError: `path` is a folder, or a file that is not empty and does not contain `ours`.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it")
    if force or not ours or not path.is_file():
        return
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        start = b"?"
    if start and ours not in start:
        raise StoreError(f"{path} was not written by this command: name another file, or add --force")


@contextmanager
def replacing_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new file name with the suffix of `path`. When the block succeeds, that file replaces `path`.

    Args:
        path: The file.
        durable: Wait until the file is on disk. False is for many files that can be made again.

    Raises:
        OSError: The file or its folder cannot be written.
    """
    new = _beside(path)
    try:
        new.parent.mkdir(parents=True, exist_ok=True)
        yield new
        if durable:
            _sync(new)
        new.replace(path)
        if durable:
            _sync_names(new.parent)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder. When the block succeeds, it replaces `path`; else `path` stays as it was.

    Raises:
        OSError: A folder cannot be written or renamed.
    """
    new = _beside(path)
    try:
        new.mkdir(parents=True)
        yield new
        sync_folder(new)
        _take_place(new, path)
        _sync_names(new.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder and all files in it are on disk. Raises `OSError` if they cannot be written."""
    for here, _, files in os.walk(folder):
        for file in files:
            _sync(Path(here, file))
        _sync_names(Path(here))


def _take_place(new: Path, path: Path) -> None:
    """Give the folder `new` the name `path`. A folder of this name is deleted afterwards, never before."""
    old = _beside(path)
    moved = False
    with suppress(FileNotFoundError):
        path.rename(old)
        moved = True
    try:
        new.rename(path)
    except OSError as e:
        if moved:
            try:
                old.rename(path)
            except OSError:
                why = f"{e.strerror or e}; the older folder is now {old}"
                raise OSError(e.errno, why, os.fspath(path)) from e
        raise
    if moved:
        shutil.rmtree(old, ignore_errors=True)


def _sync(file: Path) -> None:
    """Wait until the content of a file is on disk. Raises `OSError` if it cannot be written there."""
    number = os.open(file, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where the system can: Windows opens no folder."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def whole_folder(path: Path, ours: str, others: Collection[str] | None = None) -> Iterator[Path]:
    """Do as `replacing_folder` does, for a folder that a user named.

    Args:
        path: The folder to write.
        ours: Name of a file that is in every folder that this program writes.
        others: The only other names that such a folder has; None if it may have any.

    Raises:
        StoreError: The folder cannot be written, or `check_folder` rejects it.
    """
    check_folder(path, ours, others)
    try:
        with replacing_folder(path.absolute()) as new:
            yield new
    except OSError as e:
        raise StoreError(f"cannot write {path.absolute()}: {e.strerror or e}; choose another folder") from e


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Do as `replacing_file` does, for a file that a user named.

    Raises:
        StoreError: The file cannot be written, or `path` is a folder.
    """
    check_file(path)
    try:
        with replacing_file(path) as new:
            yield new
    except OSError as e:
        raise StoreError(f"cannot write {path}: {e.strerror or e}; choose another location") from e


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises `StoreError` as `whole_file` does."""
    with whole_file(path) as new:
        new.write_text(text, encoding="utf-8", errors="replace")


def _beside(path: Path) -> Path:
    path = path.absolute()
    return path.with_name(f".{uuid4().hex}-{path.name}")


def read_file(path: str | os.PathLike[str], largest: int, *, follow: bool = True) -> bytes:
    """Read a regular file. A pipe, a device or a socket raises `OSError` at once.

    Args:
        path: The file.
        largest: The largest allowed size, in bytes.
        follow: Whether `path` may be a symbolic link.

    Raises:
        OSError: The file cannot be opened, is not a regular file, or is too large.
        ValueError: The name contains a null character or a lone surrogate.
    """
    with open_regular(path, follow=follow) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise OSError(None, f"it is larger than {format_bytes(largest, binary=True)}", os.fspath(path))
    return data


@contextmanager
def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A pipe, a device or a socket raises `OSError` at once.

    Args:
        path: The file.
        follow: Whether `path` may be a symbolic link.

    Raises:
        OSError: The file cannot be opened, or is not a regular file.
        ValueError: The name contains a null character or a lone surrogate.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    # Opening a pipe waits for a writer; opening a terminal may make it the controlling one.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "it is not a regular file", os.fspath(path))
        yield file


def is_text(name: str) -> bool:
    """Return whether a file name is valid Unicode, as JSON and most other formats require."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """Return the name with an escape for each character that UTF-8 cannot encode: `caf\\udce9.mp4`."""
    return name.encode("utf-8", "backslashreplace").decode()
