"""Long jobs done in turns, so that a short one that comes later does not wait for a long one to end.

A job is a generator: it yields its progress (`done, total`) after each piece of work, and returns its result.
`workers` threads go round the owners and do the next piece of each one's first job; an owner's jobs are done
in order, so that its first is ready early. A job is named by a key: a second request for a job under way
awaits the same job. A job that nobody awaits any more is dropped.

At most `max_begun` jobs are begun, since each holds files open; later ones wait until one ends. Threads live
while there is work.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from act2see.tools.runtime.batching import settle
from act2see.tools.runtime.forks import Lock, leak, renew_after_fork

log = logging.getLogger(__name__)
T = TypeVar("T")
Steps = Generator[tuple[int, int], None, T]
"""Yields the pieces done and all of them, and returns the result."""
Progress = Callable[[int, int], None]
"""Called with the pieces done and all of them."""


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    key: Hashable
    owner: Hashable
    steps: Steps[T]
    waiters: list[tuple[Future[T], Progress | None]] = field(default_factory=list)
    begun: bool = False
    running: bool = False

    @property
    def wanted(self) -> bool:
        """Whether somebody awaits it."""
        return not all(future.cancelled() for future, _ in self.waiters)


class RoundRobin(Generic[T]):
    """Runs jobs in turns. Thread-safe.

    Args:
        workers: How many threads work at the same time.
        max_begun: How many jobs are begun at the same time.
        name: Of the threads.
    """

    def __init__(self, *, workers: int = 2, max_begun: int = 32, name: str = "act2see-rotation") -> None:
        self.workers, self.max_begun, self.name = workers, max_begun, name
        self._jobs: dict[Hashable, _Job[T]] = {}
        self._owners: OrderedDict[Hashable, list[_Job[T]]] = OrderedDict()  # whose turn it is comes first
        self._threads = 0
        self._lock = Lock()
        renew_after_fork(self)

    @property
    def unfinished(self) -> int:
        """How many jobs wait or are under way."""
        return len(self._jobs)

    def join(
        self,
        key: Hashable,
        begin: Callable[[], Steps[T]],
        progress: Progress | None = None,
        owner: Hashable = None,
    ) -> Future[T]:
        """Await the job of this key.

        Args:
            key: Names the job.
            begin: Makes the job, unless it is under way.
            progress: Called after each piece, in another thread.
            owner: Whose turns the job shares; without one it has turns of its own.

        Returns:
            The result to come. Cancelling it withdraws the request.
        """
        future: Future[T] = Future()
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, key if owner is None else owner, begin())
                self._owners.setdefault(job.owner, []).append(job)
            job.waiters.append((future, progress))
            self._start()
        return future

    def renew(self) -> None:
        """In a forked child: no job and no thread. The parent continues its jobs."""
        leak(self._jobs)  # closed here, a job would wait for the decoder's threads, which are the parent's
        self._jobs, self._owners, self._threads = {}, OrderedDict(), 0

    def _start(self) -> None:
        while self._threads < min(self.workers, len(self._jobs)):
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
                    job.running = False
                    self._owners.move_to_end(job.owner)  # behind those that came meanwhile
                continue
            with self._lock:
                self._drop(job)  # from now on its result is found elsewhere
            for future, _ in job.waiters:
                settle(future, made)

    def _next(self) -> _Job[T] | None:
        """The job whose turn it is; None if there is nothing to do, which ends the thread."""
        while True:
            with self._lock:
                job = self._turn()
                if job is None:
                    self._threads -= 1
                    return None
                if job.wanted:
                    job.begun = job.running = True
                    self._owners.move_to_end(job.owner)
                    return job
                self._drop(job)
            try:
                job.steps.close()
            except Exception:
                log.warning("%s was dropped, and closing it failed", job.key, exc_info=True)

    def _turn(self) -> _Job[T] | None:
        room = sum(job.begun for job in self._jobs.values()) < self.max_begun
        for jobs in self._owners.values():
            for job in jobs:
                if not job.running and (job.begun or room or not job.wanted):
                    return job
        return None

    def _drop(self, job: _Job[T]) -> None:
        del self._jobs[job.key]
        jobs = self._owners[job.owner]
        jobs.remove(job)
        if not jobs:
            del self._owners[job.owner]
        self._start()  # there may be room for one that has not begun

    def _tell(self, job: _Job[T], done: int, total: int) -> None:
        with self._lock:
            listeners = [report for future, report in job.waiters if report and not future.cancelled()]
        for report in listeners:
            try:
                report(done, total)
            except Exception:  # a listener's fault must not fail the job, which others await
                log.warning("a listener to the progress of %s failed", job.key, exc_info=True)
