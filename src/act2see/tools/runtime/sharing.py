"""What the graphs of one process have in common: models, each loaded once, and locks, each of one thing.

Two configurations that differ in their budget, their tools or their prompt share the reasoner, the encoder
and the diffusion pipeline, as long as the weights and how they are loaded are the same.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from act2see.tools.runtime.forks import Lock, RLock, renew_after_fork

T = TypeVar("T")


class Shared:
    """Holds what several graphs use, by what it was made from. Thread-safe."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._lock = RLock()  # what is made may use what is made

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is there under this key, or what `make` gives; it should be quick, and load models later."""
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made


class KeyedLocks:
    """A lock for each key, kept while somebody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, threading.RLock] = {}
        self._users: Counter[Hashable] = Counter()
        self._lock = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child nobody holds one."""
        self._locks, self._users = {}, Counter()

    @contextmanager
    def __call__(self, key: Hashable) -> Iterator[None]:
        with self._lock:
            self._users[key] += 1
            lock = self._locks.setdefault(key, threading.RLock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._locks[key]
