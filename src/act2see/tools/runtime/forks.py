"""Support for processes that fork after a question: `gunicorn --preload`, multiprocessing with "fork".

The child has a copy of all memory and a single thread, the one that forked. Five things would make it hang:

- Threads that no longer exist, and locks that they held. An object that owns threads or queues calls
  `renew_after_fork(self)`, and its `renew` creates new ones in the child. A `Lock` or `RLock` of this module
  is free again there. Only the parent answers the parent's requests.
- Imports in other threads, whose module locks would never be released. A fork waits for them.
- Native code interrupted in the middle, for example while it writes a cache. `native()` marks such work, and
  a fork waits until no other thread is in it, for at most a minute.
- Locks of other libraries (for example of `functools.cached_property`) that an event loop holds briefly. An
  object that calls `pause_at_fork(self)` is paused between two callbacks while the process forks.
- OpenMP. A thread with helper threads in the parent waits in the child for helpers that do not exist. Only
  the thread that forked can be affected. There, a function marked `@natively` runs in a new thread, which
  starts its own helpers.

Hooks are registered when the first of these objects is created. In a process that never forks, the cost is
one lock per call.
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

# Python calls fork hooks in reverse order of registration. The hooks of these modules take a lock for the
# duration of the fork, and native work may need it to finish. They are imported here, so that their hooks are
# registered first and run after ours has finished waiting.
_HOOKED_BEFORE = (concurrent.futures.thread, filelock)
log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
_NATIVE_TIMEOUT = 60.0  # seconds that a fork waits for native code
_IMPORT_TIMEOUT = 10.0  # seconds that it waits for other threads' imports


class Renewable(Protocol):
    """An object with threads, queues or locks that a forked child cannot use."""

    def renew(self) -> None:
        """Replace them, in the child, before any other thread runs there."""


class Pausable(Protocol):
    """An object with a thread that must hold no lock during a fork."""

    def pause(self) -> None:
        """Stop where no lock is held. Called before a fork, in the thread that forks."""

    def resume(self) -> None:
        """Continue. Called after the fork, in the parent."""


def pause_at_fork(owner: Pausable) -> None:
    """Pause `owner` at every fork while it is alive. It is held by a weak reference."""
    _process.watch()
    _process.pausables.add(owner)


def renew_after_fork(owner: Renewable) -> None:
    """Call `owner.renew()` in every forked child while `owner` is alive. It is held by a weak reference."""
    _process.watch()
    _process.owners.add(owner)


@contextmanager
def native() -> Iterator[None]:
    """Mark native work that a fork must not interrupt.

    While a fork waits, no other thread enters such a block. So do not wait in it for another thread that
    needs one: that would block both.
    """
    _process.watch()
    _process.enter()
    try:
        yield
    finally:
        _process.leave()


def natively(work: Callable[P, T]) -> Callable[P, T]:
    """Run a function as `native()` work. In a child, the thread that forked runs it in a new thread."""

    @wraps(work)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        if threading.get_ident() != _process.survivor:
            with native():
                return work(*args, **keywords)
        done: Future[T] = Future()
        context = copy_context()

        def run() -> None:
            try:
                with native():
                    done.set_result(context.run(work, *args, **keywords))
            except BaseException as e:  # raised where the result is awaited
                done.set_exception(e)

        threading.Thread(target=run, name="act2see-native", daemon=True).start()
        return done.result()

    return call


def check_inherited(what: str, device: str) -> None:
    """Check in a forked child that a model of the parent can be used.

    Args:
        what: A description of the model, for the message.
        device: The device of the model.

    Raises:
        SetupError: The model is on an accelerator, which the child cannot use.
    """
    if device != "cpu":
        raise SetupError(
            f"{what} was loaded on {device} before this process was forked, and a forked process cannot use "
            'it there: fork before the first question, or start processes with "spawn"'
        )


def leak(thing: object) -> None:
    """Never free `thing`: in a child, its destructor may wait for threads that exist only in the parent."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class Lock:
    """A lock for `with` that is free in a forked child, unless the thread that forked holds it."""

    _make: Callable[[], Any] = staticmethod(threading.Lock)

    def __init__(self) -> None:
        self._lock = self._make()
        self._holder, self._depth = 0, 0
        renew_after_fork(self)

    def renew(self) -> None:
        if self._holder != threading.get_ident():
            self._lock = self._make()
            self._holder, self._depth = 0, 0

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
    """The state of this process: threads in native code, pending forks, objects to pause and to renew."""

    def __init__(self) -> None:
        self.owners: weakref.WeakSet[Renewable] = weakref.WeakSet()
        self.pausables: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self.survivor: int | None = None  # in a child: the thread that forked
        self._inside: Counter[int] = Counter()  # threads in native code, with their nesting depth
        self._forks = 0  # forks that wait or are running
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
        """Before a fork: let no thread start native work, and wait until no other thread is in it."""
        me = threading.get_ident()
        with self._changed:
            self._forks += 1
            if not self._changed.wait_for(lambda: not self._inside.keys() - {me}, _NATIVE_TIMEOUT):
                log.warning("forking while a model is running in another thread: the child may hang")
        for one in list(self.pausables):
            one.pause()
        _wait_for_imports()

    def _open(self) -> None:
        """After a fork, in the parent: let all threads continue."""
        for one in list(self.pausables):
            one.resume()
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def _renew(self) -> None:
        """After a fork, in the child: forget the other threads, and renew the objects."""
        me = self.survivor = threading.get_ident()
        self._changed = threading.Condition()
        self._inside = Counter({me: self._inside[me]}) if self._inside[me] else Counter()
        self._forks = 0
        for owner in list(self.owners):
            try:
                owner.renew()
            except Exception:  # Python would print it and skip the objects after this one
                log.exception("%r cannot be used in a forked process", owner)


def _wait_for_imports() -> None:
    """Wait until no other thread is importing: a child would wait forever for the lock of a module."""
    me = threading.get_ident()
    end = time.monotonic() + _IMPORT_TIMEOUT
    while time.monotonic() < end:
        # Python has no public name for these locks. If the private name goes, this does not wait.
        references = list(getattr(importlib._bootstrap, "_module_locks", {}).values())
        owners = {getattr(reference(), "owner", None) for reference in references}
        if not owners - {None, me}:
            return
        time.sleep(0.002)


# A fork affects the whole process, so this is a global.
_process = _Process()
