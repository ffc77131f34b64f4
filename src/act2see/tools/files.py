"""Files for people: written beside their place and renamed into it, so that nothing is ever half there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from act2see.errors import StoreError


def check_folder(path: Path, ours: str) -> None:
    """Raise `StoreError` unless `path` is new, empty, or holds `ours`, the file by which we know what we wrote."""
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
