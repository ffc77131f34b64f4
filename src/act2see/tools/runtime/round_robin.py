"""Round-robin scheduling of long jobs, so that a short job does not wait for an earlier long one to end.

A job is a generator: it yields its progress (`done, total`) after each step and returns its result. Worker
threads take the owners in turn and run the next step of each owner's first job. An owner's jobs run in order,
so that its first result is ready early. A job has a key: a second request with the key of an unfinished job
shares that job. A job is dropped when all its requests are cancelled.

At most `max_started` jobs are started at a time, because each holds files open; the others wait until one
ends. The threads end when there is no job. When the process ends, jobs are dropped after the step under way,
so that a generator can save its work when it is closed.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from act2see.tools.runtime.batching import settle
from act2see.tools.runtime.forks import Lock, leak, renew_after_fork

log = logging.getLogger(__name__)
T = TypeVar("T")
_EXIT = 60.0
"""Seconds that the end of a process waits for the steps under way. A thread that still computes in native
code when Python ends its threads can abort the process."""
Steps = Generator[tuple[int, int], None, T]
"""Generator of a job: yields the steps done and their total, and returns the result."""
Progress = Callable[[int, int], None]
"""Called with the steps done and their total."""


@dataclass(eq=False, slots=True)
class _Job(Generic[T]):
    key: Hashable
    owner: Hashable
    steps: Steps[T]
    waiters: list[tuple[Future[T], Progress | None]] = field(default_factory=list)
    started: bool = False
    running: bool = False
    """Whether a thread runs a step of it now."""
    progress: tuple[int, int] | None = None
    """The steps done and their total, after the last step."""

    @property
    def wanted(self) -> bool:
        """Whether a request for it is not cancelled."""
        return not all(future.cancelled() for future, _ in self.waiters)


class RoundRobin(Generic[T]):
    """Runs jobs in turns. Thread-safe.

    Args:
        workers: The number of worker threads.
        max_started: The largest number of started jobs.
        name: Name of the threads.
    """

    def __init__(self, *, workers: int = 2, max_started: int = 32, name: str = "act2see-round-robin") -> None:
        self.workers = workers
        self.max_started = max_started
        self.name = name
        self._jobs: dict[Hashable, _Job[T]] = {}
        self._owners: OrderedDict[Hashable, list[_Job[T]]] = OrderedDict()  # the next owner comes first
        self._threads = 0
        self._started: list[threading.Thread] = []  # those that may be alive
        self._lock = Lock()
        renew_after_fork(self)
        if not _rotations:
            atexit.unregister(close_all)  # a process registers it once
            atexit.register(close_all)
        _rotations.add(self)

    @property
    def unfinished(self) -> int:
        """Number of jobs that are waiting or started."""
        return len(self._jobs)

    def join(
        self,
        key: Hashable,
        start: Callable[[], Steps[T]],
        progress: Progress | None = None,
        owner: Hashable = None,
    ) -> Future[T]:
        """Request the result of a job.

        Args:
            key: The key of the job.
            start: Makes the job, unless an unfinished one has this key.
            progress: Called after each step, in another thread; also now, if steps were done before.
            owner: The owner whose turns the job uses; None is an owner of its own.

        Returns:
            A future of the result. Cancelling it withdraws the request.
        """
        future: Future[T] = Future()
        with self._lock:
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, key if owner is None else owner, start())
                self._owners.setdefault(job.owner, []).append(job)
            job.waiters.append((future, progress))
            so_far = job.progress
            self._start_threads()
        if progress and so_far:
            progress(*so_far)
        return future

    def close(self, timeout: float) -> None:
        """Cancel all requests, so that their jobs are dropped, and wait for the steps under way.

        Args:
            timeout: The longest time to wait, in seconds.
        """
        with self._lock:
            futures = [future for job in self._jobs.values() for future, _ in job.waiters]
            threads = [*self._started]
        for future in futures:
            future.cancel()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def renew(self) -> None:
        """In a forked child, start without jobs and threads: the parent continues its jobs."""
        leak(self._jobs)  # closing a job here would wait for the decoder's threads, which the child lacks
        self._jobs = {}
        self._owners = OrderedDict()
        self._threads = 0
        self._started = []

    def _start_threads(self) -> None:
        while self._threads < min(self.workers, len(self._jobs)):
            self._threads += 1
            thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._started = [started for started in self._started if started.is_alive()]
            self._started.append(thread)
            thread.start()

    def _work(self) -> None:
        """Run steps of jobs until there is no job to run."""
        while (job := self._take_job()) is not None:
            result: T | Exception
            try:
                done, total = next(job.steps)
            except StopIteration as end:
                result = end.value
            except Exception as e:
                result = e
            else:
                self._report(job, done, total)
                with self._lock:
                    job.running = False
                    self._owners.move_to_end(job.owner)  # behind owners that arrived during the step
                continue
            with self._lock:
                self._drop(job)  # first, so that a later request starts a new job
            for future, _ in job.waiters:
                settle(future, result)

    def _take_job(self) -> _Job[T] | None:
        """Return the job whose turn it is, marked as running; None ends the thread. Drops unwanted jobs."""
        while True:
            with self._lock:
                job = self._find_job()
                if job is None:
                    self._threads -= 1
                    return None
                if job.wanted:
                    job.started = job.running = True
                    self._owners.move_to_end(job.owner)
                    return job
                self._drop(job)
            try:
                job.steps.close()
            except Exception:
                log.warning("%s was dropped, and closing it failed", job.key, exc_info=True)

    def _find_job(self) -> _Job[T] | None:
        """Return the first job, in order of owners, that can run a step or is unwanted; None without one."""
        room = sum(job.started for job in self._jobs.values()) < self.max_started
        for jobs in self._owners.values():
            for job in jobs:
                if not job.running and (job.started or room or not job.wanted):
                    return job
        return None

    def _drop(self, job: _Job[T]) -> None:
        del self._jobs[job.key]
        jobs = self._owners[job.owner]
        jobs.remove(job)
        if not jobs:
            del self._owners[job.owner]
        self._start_threads()  # a waiting job may now be started

    def _report(self, job: _Job[T], done: int, total: int) -> None:
        """Report the progress of a job to the requests that are not cancelled."""
        with self._lock:
            job.progress = done, total
            listeners = [report for future, report in job.waiters if report and not future.cancelled()]
        for report in listeners:
            try:
                report(done, total)
            except Exception:  # one request's listener must not fail the job of the others
                log.warning("a listener to the progress of %s failed", job.key, exc_info=True)


def close_all(timeout: float = _EXIT) -> None:
    """Close every `RoundRobin` of this process, as at its end.

    Args:
        timeout: The longest time to wait for the steps under way, in seconds.
    """
    end = time.monotonic() + timeout
    for rotation in list(_rotations):
        rotation.close(max(0.0, end - time.monotonic()))


# The end of a process ends all its threads, so this is a global.
_rotations: weakref.WeakSet[RoundRobin[Any]] = weakref.WeakSet()
