"""Processes that fork after a question: prefork servers (`gunicorn --preload`), multiprocessing with "fork".

The child has a copy of all memory and a single thread, the one that forked. Five things would hang there, and
each has its remedy here:

- Threads that no longer exist, and locks that they held. An object that owns threads or queues calls
  `renew_after_fork(self)` and makes them anew in the child; a `Lock` or `RLock` of this module is free again
  there. Requests of the parent are answered in the parent alone.
- Imports of other threads, whose modules' locks nobody would release: a fork waits until there are none.
- Native code that was interrupted in the middle: a cache half written. `native()` marks such work, and
  a fork waits until no other thread is in it, for a minute at most.
- Other libraries' locks (of `functools.cached_property`, say) that an event loop holds for a moment. An
object
  that calls `pause_at_fork(self)` stands still between two callbacks while the process forks.
- OpenMP. A thread that had helpers in the parent waits in the child for helpers that do not exist, and the
  thread that forked is the only one that may have had any. A function marked `@natively` that is called there
  runs in a fresh thread, which starts helpers of its own.

No hook is registered before the first of these objects is made, and a process that never forks pays for one
lock a call.
"""

from __future__ import annotations

import concurrent.futures.thread
import ctypes
import importlib
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

import filelock

from act2see.errors import SetupError

# Python calls the fork hook that was registered last first. These modules have hooks that hold a lock during
# the fork, and native work may be waiting for one: so theirs are registered before ours, and ours has
# finished waiting when they are called.
_HOOKED_BEFORE = (concurrent.futures.thread, filelock)
log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_NATIVE_TIMEOUT = 60.0  # seconds that a fork waits for native code
_IMPORT_TIMEOUT = 10.0  # seconds that it waits for other threads' imports


class Renewable(Protocol):
    def renew(self) -> None:
        """Make threads, queues and locks anew, in a child. No other thread runs there yet."""


class Pausable(Protocol):
    def pause(self) -> None:
        """Before a fork, called in the thread that forks: stand still where no lock is held."""

    def go_on(self) -> None:
        """After the fork, in the parent."""


def pause_at_fork(owner: Pausable) -> None:
    """Let `owner` stand still at every fork while it is alive."""
    _process.watch()
    _process.pausables.add(owner)


def renew_after_fork(owner: Renewable) -> None:
    """Call `owner.renew()` in every child that is forked while `owner` is alive."""
    _process.watch()
    _process.owners.add(owner)


@contextmanager
def native() -> Iterator[None]:
    """Work in native code that no fork interrupts.

    While a fork waits, no thread begins such work. So do not wait inside it for another thread's `native()`.
    """
    _process.watch()
    _process.enter()
    try:
        yield
    finally:
        _process.leave()


def natively(work: Callable[P, T]) -> Callable[P, T]:
    """Make a function `native()` work. In a child, the thread that forked runs it in a fresh thread."""

    @wraps(work)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        if threading.get_ident() != _process.survivor:
            with native():
                return work(*args, **keywords)
        done: Future[T] = Future()
        context = copy_context()

        def apart() -> None:
            try:
                with native():
                    done.set_result(context.run(work, *args, **keywords))
            except BaseException as e:  # raised where the result is awaited
                done.set_exception(e)

        threading.Thread(target=apart, name="act2see-apart", daemon=True).start()
        return done.result()

    return call


def check_inherited(what: str, device: str) -> None:
    """In a child: check that a model which the parent loaded can be used.

    Args:
        what: Describes the model.
        device: Where it is.

    Raises:
        SetupError: It is on an accelerator, which the child cannot reach.
    """
    if device != "cpu":
        raise SetupError(
            f"{what} was loaded on {device} by the process that this one was forked from, and only that one "
            'can use it there: fork before the first question, or start processes by "spawn"'
        )


def leak(thing: object) -> None:
    """Never free `thing`: in a child, its destructor may wait for threads that exist in the parent alone."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Lock:
    """A lock for `with`; free in a forked child, unless the thread that forked holds it."""

    _make: Callable[[], Any] = staticmethod(threading.Lock)

    def __init__(self) -> None:
        self._lock = self._make()
        self._holder, self._depth = 0, 0
        renew_after_fork(self)

    def renew(self) -> None:
        if self._holder != threading.get_ident():
            self._lock, self._holder, self._depth = self._make(), 0, 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._holder = 0
        self._lock.release()


class RLock(Lock):
    """A `Lock` that its holder may take again."""

    _make = staticmethod(threading.RLock)


class _Process:
    """The state of this process: threads in native code, forks that wait, objects to renew in a child."""

    def __init__(self) -> None:
        self.owners: weakref.WeakSet[Renewable] = weakref.WeakSet()
        self.pausables: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self.survivor: int | None = None  # in a child: the thread that forked
        self._inside: Counter[int] = Counter()  # threads in native code, with their depth
        self._forks = 0  # forks that wait or are under way
        self._changed = threading.Condition()
        self._watched = False

    def watch(self) -> None:
        """Register the fork hooks, once."""
        with self._changed:
            if self._watched or not hasattr(os, "register_at_fork"):  # Windows has no fork
                return
            self._watched = True
        os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._renew)

    def enter(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while self._forks and not self._inside[me]:
                self._changed.wait()
            self._inside[me] += 1

    def leave(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                self._changed.notify_all()

    def _close(self) -> None:
        """Before a fork: let no thread begin native work, and wait for those in it to come out."""
        me = threading.get_ident()
        with self._changed:
            self._forks += 1
            if not self._changed.wait_for(lambda: not self._inside.keys() - {me}, _NATIVE_TIMEOUT):
                log.warning("forking while a model is at work in another thread: the child may hang")
        for one in list(self.pausables):
            one.pause()
        _wait_for_imports()

    def _open(self) -> None:
        for one in list(self.pausables):
            one.go_on()
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def _renew(self) -> None:
        me = self.survivor = threading.get_ident()
        self._changed = threading.Condition()
        self._inside = Counter({me: self._inside[me]}) if self._inside[me] else Counter()
        self._forks = 0
        for owner in list(self.owners):
            try:
                owner.renew()
            except Exception:  # Python would only print it, and the others must be renewed too
                log.exception("%r cannot be used in a forked process", owner)


def _wait_for_imports() -> None:
    """Wait until no other thread is importing: a child would wait forever for the lock of a module."""
    me, end = threading.get_ident(), time.monotonic() + _IMPORT_TIMEOUT
    while time.monotonic() < end:
        # Python has no public name for these; without them there is no wait.
        references = list(getattr(importlib._bootstrap, "_module_locks", {}).values())
        owners = {getattr(reference(), "owner", None) for reference in references}
        if not owners - {None, me}:
            return
        time.sleep(0.002)


# A fork concerns the whole process, so there is one of these.
_process = _Process()
