"""Requests that arrive apart and are worked on together, in fair turns.

A device does eight frames in much less than eight times one. So requests wait while it is busy, and whatever
then waits and has the same key (the same size, say) goes in one batch, the first in turn first. A lone
request waits `gather` seconds for company.

Turns are those of start-time fair queueing: an owner's requests follow each other, and another owner's first
one comes as soon as what is under way is done, however many the first has waiting. The queue is bounded: who
finds it full waits at the door, in the same turns. A request that is cancelled leaves; once all of a batch
are cancelled, `work` is told so by `stop()` and may end early. Callers may live in any event loop (`submit`)
or thread (`run`). The worker thread lives while there is work.
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


@dataclass(eq=False, slots=True)
class _Request(Generic[K, T, R]):
    key: K
    item: T
    size: int
    turn: tuple[int, int]  # its owner's, then in the order of arrival
    entered: Future[None] = field(default_factory=Future)
    result: Future[R] = field(default_factory=Future)


class MicroBatcher(Generic[K, T, R]):
    """Runs `work(key, items, stop)` on batches of one key, whose sizes (`size` of an item, one unless given)
    sum to `max_size` at most.

    `work` returns one result, or one exception, for each item. An item larger than `max_size` goes alone.
    `batches` has how many items went together so far, the last 1,000.
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
        self._work, self._size, self.max_size, self.waiting, self.gather, self.name = (
            work,
            size,
            max_size,
            max(waiting, 1),
            gather,
            name,
        )
        self.batches: list[int] = []
        self._queue: list[_Request[K, T, R]] = []
        self._door: list[_Request[K, T, R]] = []
        self._now, self._arrived = 0, 0
        self._turns: dict[
            Hashable, int
        ] = {}  # where an owner's next request stands, for owners that are ahead of `_now`
        self._working = False
        self._changed = threading.Condition()
        renew_after_fork(self)

    async def submit(self, key: K, items: Sequence[T], owner: Hashable = None) -> list[R]:
        """The results of `items`, in order. Raises the first that failed; the others are then taken back.

        Who gives no `owner` is one by themselves.
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
        """The result of one item, for a thread that may wait."""
        request = self._enter(key, item, object())
        try:
            return request.result.result()
        finally:
            self._leave([request])

    def renew(self) -> None:
        """In a forked child: an empty queue and no worker. The requests of the parent are answered there."""
        self._changed = threading.Condition()
        self._queue, self._door, self._turns = [], [], {}
        self._now, self._working = 0, False

    def _enter(self, key: K, item: T, owner: Hashable) -> _Request[K, T, R]:
        """Into the queue, or to the door where that is full."""
        with self._changed:
            size, start = self._size(item), max(self._now, self._turns.get(owner, 0))
            self._turns[owner] = start + size
            self._arrived += 1
            request: _Request[K, T, R] = _Request(key, item, size, (start, self._arrived))
            self._door.append(request)
            self._admit()
            if not self._working:
                self._working = True
                threading.Thread(target=self._run, name=self.name, daemon=True).start()
            return request

    def _admit(self) -> None:
        """Whoever there is room for, in turn."""
        while self._door and len(self._queue) < self.waiting:
            request = min(self._door, key=lambda r: r.turn)
            self._door.remove(request)
            if request.entered.set_running_or_notify_cancel():
                request.entered.set_result(None)
                self._queue.append(request)
        self._changed.notify()

    def _leave(self, requests: Sequence[_Request[K, T, R]]) -> None:
        """Take back what is not done: cancelled futures are not begun, and `stop()` sees those that are."""
        for request in requests:
            if not request.result.done():
                request.result.cancel()
        with self._changed:
            self._queue = [r for r in self._queue if not r.result.cancelled()]
            self._door = [r for r in self._door if not r.result.cancelled()]
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
        """The first in turn and those that may go with it; none once the queue is empty, which ends the
        worker."""
        with self._changed:
            end = time.monotonic() + self.gather
            while (
                self._queue
                and sum(r.size for r in self._queue) < self.max_size
                and (left := end - time.monotonic()) > 0
            ):
                self._changed.wait(left)
            if not self._queue:
                self._working, self._now = False, 0
                self._turns.clear()
                return []
            self._queue.sort(key=lambda r: r.turn)
            self._now = self._queue[0].turn[0]
            self._turns = {owner: turn for owner, turn in self._turns.items() if turn > self._now}
            batch: list[_Request[K, T, R]] = []
            size = 0
            for request in self._queue:
                if request.key == self._queue[0].key and (not batch or size + request.size <= self.max_size):
                    batch.append(request)
                    size += request.size
            self._queue = [r for r in self._queue if r not in batch]
            self._admit()
            return batch


def settle(future: Future[R], result: R | Exception) -> None:
    """A result for whoever still waits. A cancellation may come at any moment, so it is tried, not asked."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _all_cancelled(batch: Sequence[_Request[Any, Any, Any]]) -> bool:
    return all(request.result.cancelled() for request in batch)
