"""Objects that the graphs of one process share: models, each loaded once, and locks by key.

Configurations that differ in their budget, tools or prompt share the reasoner, the encoder and the diffusion
pipeline, if their weights and loading options are the same.
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
    """Objects by the settings that they were made from. Thread-safe."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}
        self._lock = RLock()  # `make` may call `get`

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the object of a key.

        Args:
            key: The settings.
            make: Makes the object on the first call. It should be quick: other keys wait for it.
        """
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
            made: T = self._made[key]
            return made


class KeyedLocks:
    """Reentrant locks by key: `with locks(key): ...`. A lock exists while a thread holds or awaits it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, threading.RLock] = {}
        self._users: Counter[Hashable] = Counter()
        self._lock = Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child, forget all locks: no thread holds one there."""
        self._locks = {}
        self._users = Counter()

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
