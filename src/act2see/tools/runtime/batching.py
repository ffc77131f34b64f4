"""Dynamic batching with fair queueing: requests of concurrent callers share the calls of a model.

A device processes eight frames in much less time than eight times one. While it is busy, requests queue up;
queued requests with the same key (for example the same frame size) then form a batch. If the queue does not
fill a batch, the worker waits `gather` seconds for more requests.

The order is that of start-time fair queueing. Each request gets a virtual start time: the later of the
queue's current virtual time and the finish of its owner's previous request. The smallest is served first, so
an owner with many requests does not delay another owner's first one by more than a batch. The queue is
bounded: further requests wait in an overflow list, and enter the queue in the same order.

A cancelled request leaves the queue. When all requests of a running batch are cancelled, `stop()` returns
true and `work` may return early. Callers may be in any event loop (`submit`) or thread (`run`). The worker
thread ends when the queue is empty.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from act2see.tools.runtime.forks import renew_after_fork

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")
Stop = Callable[[], bool]
"""Returns whether all callers have cancelled, so that the work may end early."""


@dataclass(eq=False, slots=True)
class _Request(Generic[K, T, R]):
    key: K
    item: T
    size: int
    turn: tuple[int, int]
    """Virtual start time, then order of arrival."""
    entered: Future[None] = field(default_factory=Future)
    """Future that is done when the request is in the queue."""
    result: Future[R] = field(default_factory=Future)


class MicroBatcher(Generic[K, T, R]):
    """Runs `work` on batches of requests. Thread-safe.

    Args:
        work: Called with the key of a batch, its items and `stop`. Returns a result or an exception for each
            item.
        max_size: The largest sum of item sizes in a batch. A larger item forms a batch of its own.
        size: Returns the size of an item.
        waiting: The largest number of requests in the queue.
        gather: The time that the worker waits for a full batch, in seconds.
        name: Name of the worker thread.
    """

    def __init__(
        self,
        work: Callable[[K, Sequence[T], Stop], Sequence[R | Exception]],
        *,
        max_size: int,
        size: Callable[[T], int] = lambda _: 1,
        waiting: int = 64,
        gather: float = 0.01,
        name: str = "act2see-batch",
    ) -> None:
        self._work = work
        self._size = size
        self.max_size = max_size
        self.waiting = max(waiting, 1)
        self.gather = gather
        self.name = name
        self.batches: list[int] = []
        """Number of items in each of the last 1,000 batches."""
        self._queue: list[_Request[K, T, R]] = []
        self._overflow: list[_Request[K, T, R]] = []
        self._now = 0  # virtual time: the start of the request served last
        self._arrived = 0
        # Virtual start time of an owner's next request, for owners that are ahead of `_now`.
        self._turns: dict[Hashable, int] = {}
        self._working = False
        self._changed = threading.Condition()
        renew_after_fork(self)

    @property
    def queued(self) -> int:
        """Number of requests in the queue: neither started nor in the overflow."""
        return len(self._queue)

    async def submit(self, key: K, items: Sequence[T], owner: Hashable = None) -> list[R]:
        """Return the results of items, in order.

        The first error is raised, and the items that are not done are withdrawn.

        Args:
            key: Requests with the same key may share a batch.
            items: The items.
            owner: The owner that is charged for the items; None is a new owner.
        """
        requests: list[_Request[K, T, R]] = []
        owner = object() if owner is None else owner
        try:
            for item in items:
                requests.append(self._enter(key, item, owner))
                await asyncio.wrap_future(requests[-1].entered)
            return list(await asyncio.gather(*(asyncio.wrap_future(r.result) for r in requests)))
        finally:
            self._leave(requests)

    def run(self, key: K, item: T) -> R:
        """Return the result of one item, or raise its error. Blocks the calling thread."""
        request = self._enter(key, item, object())
        try:
            return request.result.result()
        finally:
            self._leave([request])

    def renew(self) -> None:
        """In a forked child, start with an empty queue and no worker: the parent answers its own requests."""
        self._changed = threading.Condition()
        self._queue = []
        self._overflow = []
        self._turns = {}
        self._now = 0
        self._working = False

    def _enter(self, key: K, item: T, owner: Hashable) -> _Request[K, T, R]:
        """Put an item into the queue, or into the overflow if the queue is full."""
        with self._changed:
            size = self._size(item)
            start = max(self._now, self._turns.get(owner, 0))
            self._turns[owner] = start + size
            self._arrived += 1
            request: _Request[K, T, R] = _Request(key, item, size, (start, self._arrived))
            self._overflow.append(request)
            self._admit()
            if not self._working:
                self._working = True
                threading.Thread(target=self._run, name=self.name, daemon=True).start()
            return request

    def _admit(self) -> None:
        """Move requests from the overflow to the queue, in order of their turns, while there is room."""
        while self._overflow and len(self._queue) < self.waiting:
            request = min(self._overflow, key=lambda r: r.turn)
            self._overflow.remove(request)
            if request.entered.set_running_or_notify_cancel():
                request.entered.set_result(None)
                self._queue.append(request)
        self._changed.notify()

    def _leave(self, requests: Sequence[_Request[K, T, R]]) -> None:
        """Cancel the requests that are not done. Those that have started are seen by `stop()`."""
        for request in requests:
            if not request.result.done():
                request.result.cancel()
        with self._changed:
            self._queue = [r for r in self._queue if not r.result.cancelled()]
            self._overflow = [r for r in self._overflow if not r.result.cancelled()]
            self._admit()

    def _run(self) -> None:
        """Work on batches until the queue is empty."""
        while batch := self._next_batch():
            self.batches = [*self.batches[-999:], len(batch)]
            items = [request.item for request in batch]
            try:
                results = list(self._work(batch[0].key, items, partial(_all_cancelled, batch)))
                if len(results) != len(batch):
                    raise RuntimeError(f"{self.name}: {len(results)} results for {len(batch)} items")
            except Exception as e:
                results = [e] * len(batch)
            for request, result in zip(batch, results, strict=True):
                settle(request.result, result)

    def _next_batch(self) -> list[_Request[K, T, R]]:
        """Take the first request and others of its key from the queue; none if it is empty."""
        with self._changed:
            self._wait_for_full_batch()
            if not self._queue:
                self._working = False
                self._now = 0
                self._turns.clear()
                return []
            self._queue.sort(key=lambda r: r.turn)
            first = self._queue[0]
            self._now = first.turn[0]
            self._turns = {owner: turn for owner, turn in self._turns.items() if turn > self._now}
            batch = [first]
            size = first.size
            for request in self._queue[1:]:
                if request.key == first.key and size + request.size <= self.max_size:
                    batch.append(request)
                    size += request.size
            self._queue = [r for r in self._queue if r not in batch]
            self._admit()
            return batch

    def _wait_for_full_batch(self) -> None:
        """Wait until the queue fills a batch, for at most `gather` seconds."""
        end = time.monotonic() + self.gather
        while self._queue and sum(r.size for r in self._queue) < self.max_size:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)


def settle(future: Future[R], result: R | Exception) -> None:
    """Set the result or the error of a future, unless it was cancelled."""
    # A check of `cancelled()` could be outdated a moment later; this call decides atomically.
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _all_cancelled(batch: Sequence[_Request[Any, Any, Any]]) -> bool:
    """Return whether every request of a batch was cancelled."""
    return all(request.result.cancelled() for request in batch)
