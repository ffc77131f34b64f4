"""Which pictures of a store are in use: those used lately, and those of processes that still run.

A reference to a picture exists only after a process stored the picture or found it intact. Either makes its
file young, so the age of a file is the time since the newest reference to it. A process that works with a
store for longer keeps a file of its own in the folder `.open` of the store, locked until it ends:
`act2see gc` leaves whatever was used since the oldest of them began. The lock is the system's, so that a
killed process holds none. Windows has no such lock: there only the age counts.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from act2see.tools.runtime.forks import Lock, renew_after_fork

MARKS = ".open"
ROUGH = 3600.0
"""Seconds by which the age of a file may be wrong, so that not each use of a picture writes to the disk."""


def use_file(path: str | os.PathLike[str]) -> bool:
    """Make a file young, and return whether it is there. A file that may not be changed stays as it is."""
    try:
        if time.time() - os.stat(path).st_mtime > ROUGH:
            os.utime(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


class OpenMark:
    """Says that this process works with a store. Made at the first use, and removed with the store.

    Args:
        folder: The folder of the store.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder, MARKS)
        self._since = time.time()
        self._made = False
        self._lock = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child, which has the parent's pictures in memory, make a mark of the same age."""
        self._made = False

    def make(self) -> None:
        """Make the mark, unless it exists or the folder cannot be written."""
        with self._lock:
            made, self._made = self._made, True
        if made:
            return
        try:
            import fcntl
        except ImportError:
            return
        path = self._folder / f"{os.getpid()}-{uuid4().hex}"
        with suppress(OSError):
            number = _create(path)
            weakref.finalize(self, _remove, number, path, os.getpid())
            fcntl.flock(number, fcntl.LOCK_SH)
            os.utime(path, (self._since, self._since))


def _create(path: Path) -> int:
    """Create a file and its folder, which another process may be removing. Raises `OSError`."""
    while True:
        path.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)


def _remove(number: int, path: Path, process: int) -> None:
    with suppress(OSError):
        os.close(number)
        if os.getpid() == process:  # a forked child has a copy of the descriptor, and of this duty
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # if it is empty


def oldest_open(folder: Path) -> float:
    """Return when the oldest process that works with a store began, in seconds since the epoch.

    Files that killed processes left are removed. Returns the present time if there are no processes.

    Raises:
        OSError: A file cannot be opened.
    """
    now = oldest = time.time()
    for path in (folder / MARKS).glob("*"):
        try:
            since = path.stat().st_mtime
            # A young file that is not locked may be about to be.
            if now - since > ROUGH and not _is_held(path):
                path.unlink(missing_ok=True)
                continue
        except FileNotFoundError:
            continue
        oldest = min(oldest, since)
    return oldest


def _is_held(path: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    number = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
