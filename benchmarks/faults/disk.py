"""Faults of the disk: every operation on files of the cache, with the errors that it can have.

An undisturbed run is recorded first. Each of its operations is then failed in a run of its own: once, or from
then on, as a full disk does; or the process is killed at it. Operations are found again by their kind, the
name of the file and how often it came before, since threads change their order.

Python's own operations are replaced. What C code writes (FAISS, SQLite) is limited by the system: the largest
size of a file, and the number of open files.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import resource
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.scene import make_parts
from benchmarks.faults.trial import Fault, Place, Reached

Step = tuple[str, str, int]
"""The kind of an operation, the name of its file, and its number among those."""
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}-")
_WRITES = ("create", "write", "mkdir", "replace", "rename", "unlink")
_KINDS: dict[str, tuple[str, ...]] = {
    "ENOSPC": ("create", "write", "mkdir", "replace", "rename", "fsync"),
    "EDQUOT": ("write",),
    "EIO": ("open", "create", "read", "write", "mkdir", "replace", "rename", "fsync", "stat", "scandir"),
    "EACCES": ("open", "create", "mkdir", "replace", "rename", "unlink", "stat", "scandir"),
    "EMFILE": ("open", "create", "scandir"),
    "EROFS": _WRITES,
    "ESTALE": ("open", "read", "stat"),
}
"""The errors, and the operations that can have them."""
_SHORT = "short write"
_LASTING = ("ENOSPC", "EIO", "EACCES", "EROFS")  # errors that also last from their first time on


@dataclass
class Disk:
    """Watches the operations on files below a folder, and fails one of them."""

    folder: str
    step: Step | None = None
    error: str = ""
    lasting: bool = False
    reached: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.steps: list[Step] = []
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._failing = False

    def watch(self, kind: str, path: object) -> bool:
        """Record an operation. Returns whether half of it is to be done. Raises its error."""
        if not isinstance(path, str | os.PathLike):
            return False
        name = os.path.abspath(os.fspath(path)) if not isinstance(path, bytes) else ""
        if not name.startswith(self.folder):
            return False
        short = _TEMPORARY.sub("", os.path.relpath(name, self.folder))
        with self._lock:
            key = (kind, short)
            step = (*key, self._seen[key])
            self._seen[key] += 1
            self.steps.append(step)
            here = step == self.step
            suitable = self.lasting and self._failing and kind in _KINDS[self.error]
            self._failing |= here
        if not (here or suitable):
            return False
        self.reached()
        if self.error == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.error == _SHORT:
            return True
        number = getattr(errno, self.error)
        raise OSError(number, os.strerror(number), name)


class _File(io.FileIO):
    """A file whose reads and writes are watched."""

    disk: Disk
    _full = False

    def write(self, data: Any) -> int:
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.name))
        if self.disk.watch("write", self.name):
            self._full = True
            return super().write(bytes(data)[: len(data) // 2]) if len(data) > 1 else 0
        return super().write(data)

    def readinto(self, buffer: Any) -> Any:
        self.disk.watch("read", self.name)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.disk.watch("read", self.name)
        return super().readall()


@contextmanager
def watched(disk: Disk) -> Iterator[Disk]:
    """Watch the operations of this process while the context is open."""
    real_open, real_os_open = builtins.open, os.open
    functions = {
        "mkdir": "mkdir",
        "replace": "replace",
        "rename": "rename",
        "unlink": "unlink",
        "stat": "stat",
        "scandir": "scandir",
    }

    def open_file(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        inside = isinstance(file, str | os.PathLike) and os.path.abspath(file).startswith(disk.folder)
        if not inside:
            return real_open(file, mode, buffering, *rest, **options)
        writes = any(letter in mode for letter in "wxa")
        disk.watch("create" if writes else "open", file)
        raw = _File(os.fspath(file), mode.replace("b", "").replace("t", ""), opener=options.get("opener"))
        raw.disk = disk
        if buffering == 0:
            return raw
        buffered: Any
        if "+" in mode:
            buffered = io.BufferedRandom(raw)
        else:
            buffered = io.BufferedWriter(raw) if writes else io.BufferedReader(raw)
        if "b" in mode:
            return buffered
        encoding, errors = options.get("encoding") or "utf-8", options.get("errors")
        return io.TextIOWrapper(buffered, encoding=encoding, errors=errors)

    def open_number(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        disk.watch("create" if flags & os.O_CREAT else "open", path)
        return real_os_open(path, flags, *rest, **options)

    def fsync(file: int) -> None:
        disk.watch("fsync", os.readlink(f"/proc/self/fd/{file}"))

    def wrap(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *rest: Any, **options: Any) -> Any:
            disk.watch(kind, rest[0] if kind in ("replace", "rename") and rest else path)
            return real(path, *rest, **options)

        return call

    with ExitStack() as patched:
        patched.enter_context(patch.object(builtins, "open", open_file))
        patched.enter_context(patch.object(io, "open", open_file))
        patched.enter_context(patch.object(os, "open", open_number))
        patched.enter_context(patch.object(os, "fsync", fsync))
        for name, kind in functions.items():
            patched.enter_context(patch.object(os, name, wrap(kind, getattr(os, name))))
        yield disk


def record_steps(video: Path, cache: Path) -> list[Step]:
    """Return the operations of an undisturbed run."""
    from act2see import ask, create_act2see
    from benchmarks.faults.scene import OPTIONS, QUESTION

    config, parts = make_parts(cache)
    with watched(Disk(str(cache))) as disk:
        ask(create_act2see(config, parts=parts), video, QUESTION, OPTIONS)
    return list(dict.fromkeys(disk.steps))


def disk_faults(cold: list[Step], warm: list[Step]) -> Iterator[Fault]:
    """Yield the faults of all operations.

    Args:
        cold: The operations of a run without a cache.
        warm: Those of a run with the cache of an earlier one.
    """
    for steps, is_warm in ((cold, False), (warm, True)):
        for step in steps:
            at = f"{step[0]} {step[1]} {step[2] + 1}{' of a second run' if is_warm else ''}"
            for error, operations in _KINDS.items():
                if step[0] not in operations:
                    continue
                yield _fault(error, at, step, is_warm, lasting=False)
                if error in _LASTING and step[2] == 0:
                    yield _fault(error, f"from {at} on", step, is_warm, lasting=True)
            if step[0] == "write":
                yield _fault(_SHORT, at, step, is_warm, lasting=False)
            if step[0] in (*_WRITES, "fsync"):
                yield _fault("SIGKILL", at, step, is_warm, lasting=False)
    for size in (0, 1, 64, 512, 1024, 2048, 4096, 6000, 8192, 12288, 16384, 20000, 24576, 32768, 40960):
        for is_warm in (False, True):
            limit = partial(_limited, kind=resource.RLIMIT_FSIZE, value=size)
            yield Fault("disk", "largest file", f"{size} bytes{' of a second run' * is_warm}", limit, is_warm)
    for spare in range(0, 16):
        for is_warm in (False, True):
            limit = partial(_limited, kind=resource.RLIMIT_NOFILE, value=spare)
            yield Fault("disk", "open files", f"{spare} left{' of a second run' * is_warm}", limit, is_warm)


def _fault(error: str, at: str, step: Step, warm: bool, *, lasting: bool) -> Fault:
    @contextmanager
    def inject(place: Place, reached: Reached) -> Iterator[None]:
        with watched(Disk(str(place.cache), step, error, lasting, reached)):
            yield

    return Fault("disk", error, at, inject, warm, dies=error == "SIGKILL")


@contextmanager
def _limited(place: Place, reached: Reached, kind: int, value: int) -> Iterator[None]:
    """Limit the size of files, or the number of open ones: to `value` more than are open now."""
    reached()
    soft, hard = resource.getrlimit(kind)
    if kind == resource.RLIMIT_NOFILE:
        number = os.dup(0)  # the lowest one that is free
        os.close(number)
        value += number
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
