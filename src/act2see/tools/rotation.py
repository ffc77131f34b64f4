"""Long jobs done in turns, so that a short one that comes later does not wait for a long one to end.

A job is a generator: it yields how far it is (`done, total`) after each piece of work, and returns what it made. `workers` threads
take the job that waits longest, run it to its next yield, and put it back behind the others. A job is named by a key: who asks for
one that is under way waits for that one. It is given up once nobody waits for it.

At most `most` jobs take turns, since each holds what it works with open; later ones wait until one ends. Threads live while
there is work.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from act2see.tools.batching import settle

log = logging.getLogger(__name__)
T = TypeVar("T")
Job = Generator[tuple[int, int], None, T]
Progress = Callable[[int, int], None]


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    key: Hashable
    steps: Job[T]
    waiters: list[tuple[Future[T], Progress | None]] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        return not all(future.cancelled() for future, _ in self.waiters)


class Rotation(Generic[T]):
    """Runs jobs in turns. Thread-safe."""

    def __init__(self, *, workers: int = 2, most: int = 32, name: str = "act2see-rotation") -> None:
        self.workers, self.most, self.name = workers, most, name
        self._jobs: dict[Hashable, _Job[T]] = {}
        self._turns: deque[_Job[T]] = deque()
        self._later: deque[_Job[T]] = deque()
        self._running = 0
        self._threads = 0
        self._lock = threading.Lock()

    def join(self, key: Hashable, begin: Callable[[], Job[T]], progress: Progress | None = None) -> Future[T]:
        """What the job of this key will have made. Who cancels the future no longer waits for it.

        `progress` is called in a thread of the rotation's own.
        """
        future: Future[T] = Future()
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, begin())
                self._later.append(job)
            job.waiters.append((future, progress))
            self._start()
        return future

    def _start(self) -> None:
        """Let in those that there is room for, and see that somebody works on them."""
        while self._later and len(self._turns) + self._running < self.most:
            self._turns.append(self._later.popleft())
        while self._threads < min(self.workers, len(self._turns) + self._running):
            self._threads += 1
            threading.Thread(target=self._work, name=self.name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            made: T | Exception
            try:
                done, total = next(job.steps)
            except StopIteration as end:
                made = end.value
            except Exception as e:
                made = e
            else:
                self._tell(job, done, total)
                with self._lock:
                    self._running -= 1
                    self._turns.append(job)
                continue
            with self._lock:
                self._running -= 1
                del self._jobs[job.key]  # who comes now finds what it made
                self._start()
            for future, _ in job.waiters:
                settle(future, made)

    def _next(self) -> _Job[T] | None:
        """The job whose turn it is; none once nothing is left, which ends the thread."""
        while True:
            given_up: _Job[T] | None = None
            with self._lock:
                if not self._turns:
                    self._threads -= 1
                    return None
                job = self._turns.popleft()
                if job.wanted:
                    self._running += 1
                    return job
                given_up = job
                del self._jobs[job.key]
                self._start()
            try:
                given_up.steps.close()
            except Exception:
                log.warning("%s was given up, and its end failed", given_up.key, exc_info=True)

    def _tell(self, job: _Job[T], done: int, total: int) -> None:
        with self._lock:
            listeners = [said for future, said in job.waiters if said and not future.cancelled()]
        for said in listeners:
            try:
                said(done, total)
            except Exception:  # a listener's fault is not the job's, which others wait for
                log.warning("what listened to the progress of %s failed", job.key, exc_info=True)
