"""Requests that arrive apart and are worked on together, in fair turns.

A device does eight frames in much less than eight times one. So requests wait while it is busy, and those
waiting with the same key (the same size, say) go in one batch, the first in turn first. A lone request waits
`gather` seconds for company.

Turns are those of start-time fair queueing: an owner's requests follow each other, and another owner's first
request comes as soon as the current batch is done, however many the first owner has waiting. The queue is
bounded: requests beyond it overflow, and are admitted in the same turns. A cancelled request leaves; once all
of a batch are cancelled, `stop()` is true for `work`, which may end early. Callers may live in any event loop
(`submit`) or thread (`run`). The worker thread lives while there is work.
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
"""Whether nobody awaits the results any more."""


@dataclass(eq=False, slots=True)
class _Request(Generic[K, T, R]):
    key: K
    item: T
    size: int
    turn: tuple[int, int]
    """Its owner's virtual time, then the order of arrival."""
    entered: Future[None] = field(default_factory=Future)
    """Done when the request is in the queue."""
    result: Future[R] = field(default_factory=Future)


class MicroBatcher(Generic[K, T, R]):
    """Runs `work` on batches of requests. Thread-safe.

    Args:
        work: Called with the key of a batch, its items and `stop`; returns one result, or one exception, for
            each item.
        max_size: The largest batch: the sum of the sizes of its items. A larger item goes alone.
        size: The size of an item.
        waiting: How many requests may be in the queue.
        gather: How many seconds a batch that is not full waits for company.
        name: Of the thread.
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
        self._work, self._size = work, size
        self.max_size, self.waiting, self.gather, self.name = max_size, max(waiting, 1), gather, name
        self.batches: list[int] = []
        """How many items went together, in the last 1,000 batches."""
        self._queue: list[_Request[K, T, R]] = []
        self._overflow: list[_Request[K, T, R]] = []
        self._now, self._arrived = 0, 0
        # The virtual time of an owner's next request, for owners that are ahead of `_now`.
        self._turns: dict[Hashable, int] = {}
        self._working = False
        self._changed = threading.Condition()
        renew_after_fork(self)

    @property
    def queued(self) -> int:
        """How many requests are in the queue: neither begun nor in the overflow."""
        return len(self._queue)

    async def submit(self, key: K, items: Sequence[T], owner: Hashable = None) -> list[R]:
        """The results of some items, in order.

        The first error is raised, and the items that are not done are withdrawn.

        Args:
            key: Only requests of the same key go together.
            items: The items.
            owner: Whose turns they share; without one they have turns of their own.
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
        """The result of one item, or its error, for a thread that may wait."""
        request = self._enter(key, item, object())
        try:
            return request.result.result()
        finally:
            self._leave([request])

    def renew(self) -> None:
        """In a forked child: an empty queue and no worker. The requests of the parent are answered there."""
        self._changed = threading.Condition()
        self._queue, self._overflow, self._turns = [], [], {}
        self._now, self._working = 0, False

    def _enter(self, key: K, item: T, owner: Hashable) -> _Request[K, T, R]:
        """Put an item into the queue, or into the overflow if that is full."""
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
        """Move requests from the overflow to the queue, in turn, while there is room."""
        while self._overflow and len(self._queue) < self.waiting:
            request = min(self._overflow, key=lambda r: r.turn)
            self._overflow.remove(request)
            if request.entered.set_running_or_notify_cancel():
                request.entered.set_result(None)
                self._queue.append(request)
        self._changed.notify()

    def _leave(self, requests: Sequence[_Request[K, T, R]]) -> None:
        """Withdraw what is not done: cancelled requests are not begun, and `stop()` sees those that are."""
        for request in requests:
            if not request.result.done():
                request.result.cancel()
        with self._changed:
            self._queue = [r for r in self._queue if not r.result.cancelled()]
            self._overflow = [r for r in self._overflow if not r.result.cancelled()]
            self._admit()

    def _run(self) -> None:
        while batch := self._next():
            key, items = batch[0].key, [r.item for r in batch]
            self.batches = [*self.batches[-999:], len(batch)]
            try:
                results = list(self._work(key, items, partial(_all_cancelled, batch)))
                if len(results) != len(batch):
                    raise RuntimeError(f"{self.name}: {len(results)} results for {len(batch)} items")
            except Exception as e:
                results = [e] * len(batch)
            for request, result in zip(batch, results, strict=True):
                settle(request.result, result)

    def _next(self) -> list[_Request[K, T, R]]:
        """The first request in turn and those that go with it; none if the queue is empty."""
        with self._changed:
            self._wait_for_company()
            if not self._queue:
                self._working, self._now = False, 0
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

    def _wait_for_company(self) -> None:
        """Wait up to `gather` seconds until the queue fills a batch."""
        end = time.monotonic() + self.gather
        while self._queue and sum(r.size for r in self._queue) < self.max_size:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)


def settle(future: Future[R], result: R | Exception) -> None:
    """Set a future that may have been cancelled."""
    # The cancellation may come at any moment, so this is tried, not asked.
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _all_cancelled(batch: Sequence[_Request[Any, Any, Any]]) -> bool:
    return all(request.result.cancelled() for request in batch)
