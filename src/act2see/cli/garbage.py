"""What in the cache nothing refers to any more, and how it is removed.

References are looked for in the saved runs (`runs.sqlite`), the traces that servers keep, the runs of the
page, and the files and folders that the user names. Traces may lie anywhere else, so age decides too: nothing
is removed that was used in the last days, or since the oldest process began that works with the store
(`tools/video/uses.py`). All of it but uploads and imagined frames can be made again.

Something that comes into use at the last moment is safe. It is moved away first; if it became young, it is
moved back. Whoever uses it in between does not find it, and makes it again.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from act2see.cli.references import find_references
from act2see.errors import StoreError
from act2see.tools.video.uses import ROUGH, oldest_open

_DIGEST = re.compile(r"[0-9a-f]{32}")
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}(-.*)?")  # of a process that was killed while it wrote
KINDS = ("frames", "indexes", "uploads", "downloads", "videos", "unfinished files")
"""What is removed. `videos` are cached facts of videos, never videos."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where frames, indexes and references are."""

    store: Path
    """The folder of the frame store."""
    caches: tuple[Path, ...]
    """The cache of the configuration, and the default cache, which has the saved runs."""
    roots: tuple[Path, ...] = ()
    """More files and folders with references."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that nothing refers to."""

    kind: str
    path: Path
    size: int
    """Bytes."""


def find_garbage(places: Places, days: float) -> list[Garbage]:
    """Return what nothing refers to and nobody used lately.

    Args:
        places: The places to look at.
        days: What was used in the last `days` days stays.

    Raises:
        StoreError: A file cannot be read, so its references are not known.
    """
    before = _limit(places, days)
    used = references_of(places)
    return [
        Garbage(kind, path, _size(path))
        for kind, path, name in _candidates(places)
        if _last_use(path) < before and not (kind != "unfinished files" and name in used)
    ]


def references_of(places: Places) -> set[str]:
    """Return all digests that saved runs, kept traces, runs of the page and the given roots name.

    Raises:
        StoreError: A file cannot be read, or a root does not exist.
    """
    found: set[str] = set()
    for root in places.roots:
        if not root.exists():
            raise StoreError(f"there is no {root}: nothing was removed; check --keep")
        found |= find_references(root)
    for cache in places.caches:
        for root in (cache / "runs.sqlite", cache / "traces", cache / "runs"):
            if root.exists():
                found |= find_references(root, without=(cache / "runs" / "uploads",))
    return found


def remove(garbage: Garbage, places: Places, days: float) -> bool:
    """Remove something, unless it came into use since it was found. Return whether it was removed.

    Raises:
        StoreError: It cannot be removed.
    """
    path = garbage.path
    try:
        if garbage.kind != "indexes":
            return _remove(path, _limit(places, days))
        # A process that builds an index holds this lock.
        name = path.name.removesuffix(".parts")
        with suppress(Timeout), FileLock(path.with_name(f"{name}.lock"), timeout=0):
            return _remove(path, _limit(places, days))
        return False
    except OSError as e:
        raise StoreError(f"cannot remove {path}: {e.strerror or e}; run it as the owner of the cache") from e


def _remove(path: Path, before: float) -> bool:
    away = path.with_name(f".{uuid4().hex}")
    try:
        path.rename(away)
    except FileNotFoundError:
        return False
    if _last_use(away) >= before:
        with suppress(OSError):  # it was made again meanwhile
            away.rename(path)
        return False
    if away.is_dir():
        shutil.rmtree(away)
    else:
        away.unlink(missing_ok=True)
    return True


def _limit(places: Places, days: float) -> float:
    """Return the time before which something must have been used last, to be removed."""
    try:
        return min(time.time() - days * 86_400, oldest_open(places.store) - ROUGH)
    except OSError as e:
        raise StoreError(f"cannot read {e.filename} ({e.strerror}): run it as the owner of the cache") from e


def _candidates(places: Places) -> Iterator[tuple[str, Path, str]]:
    """Yield the kind, the path, and the digest that a reference would have, of all that could be removed."""
    for folder in places.store.glob("[0-9a-f][0-9a-f]"):
        for path in folder.iterdir():
            if path.suffix == ".png" and _DIGEST.fullmatch(path.stem):
                yield "frames", path, path.stem
            elif _TEMPORARY.fullmatch(path.name):
                yield "unfinished files", path, ""
    for cache in places.caches:
        for path in (cache / "indexes").glob("*"):
            # An index is named by the digest of its video first.
            if path.is_dir() and _DIGEST.match(path.name):
                yield "indexes", path, path.name[:32]
            elif path.is_dir() and _TEMPORARY.fullmatch(path.name):
                yield "unfinished files", path, ""
        for path in (cache / "videos").glob("*"):
            if _DIGEST.fullmatch(path.name):
                yield "videos", path, path.name
        for path in (cache / "runs" / "uploads").glob("*"):
            if _DIGEST.fullmatch(path.name):
                yield "uploads", path, path.name
        for path in (cache / "downloads").glob("*.video"):
            yield "downloads", path, path.stem


def _last_use(path: Path) -> float:
    """Return the newest time of a file, or of the files in a folder; the end of time if it is gone."""
    try:
        newest = path.lstat().st_mtime
        if path.is_dir():
            for here, _, files in os.walk(path):
                for name in files:
                    newest = max(newest, Path(here, name).lstat().st_mtime)
    except FileNotFoundError:
        return float("inf")
    return newest


def _size(path: Path) -> int:
    files = (
        [path] if path.is_file() else [Path(here, name) for here, _, names in os.walk(path) for name in names]
    )
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total
