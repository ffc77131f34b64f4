"""Requests that arrive apart and are worked on together.

A device does eight frames in much less than eight times one. So requests wait while it is busy, and whatever then waits
and has the same key (the same size, say) goes in one batch, the oldest first. A lone request waits `gather` seconds for
company.

The queue is bounded: who finds it full waits for room. A request that is cancelled leaves the queue; once all of a batch are
cancelled, `work` is told so by `stop()` and may end early. Callers may live in any event loop or thread.
The worker thread lives while there is work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")
Stop = Callable[[], bool]


@dataclass(eq=False, slots=True)
class _Request(Generic[K, T, R]):
    key: K
    item: T
    future: Future[R] = field(default_factory=Future)


class MicroBatcher(Generic[K, T, R]):
    """Runs `work(key, items, stop)` on batches of at most `most` requests of one key.

    `work` returns one result, or one exception, for each item. `batches` has the size of each batch so far, the last 1,000.
    """

    def __init__(
        self,
        work: Callable[[K, Sequence[T], Stop], Sequence[R | Exception]],
        *,
        most: int,
        waiting: int = 64,
        gather: float = 0.01,
        name: str = "act2see-batch",
    ) -> None:
        self._work, self.most, self.waiting, self.gather, self.name = work, most, max(waiting, 1), gather, name
        self.batches: list[int] = []
        self._queue: list[_Request[K, T, R]] = []
        self._room: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._working = False
        self._changed = threading.Condition()

    async def submit(self, key: K, items: Sequence[T]) -> list[R]:
        """The results of `items`, in order. Raises the first that failed; the others are then taken back."""
        requests: list[_Request[K, T, R]] = []
        try:
            for item in items:
                requests.append(await self._enter(_Request(key, item)))
            return list(await asyncio.gather(*(asyncio.wrap_future(r.future) for r in requests)))
        finally:
            self._leave(requests)

    async def _enter(self, request: _Request[K, T, R]) -> _Request[K, T, R]:
        while True:
            with self._changed:
                if len(self._queue) < self.waiting:
                    self._queue.append(request)
                    self._changed.notify()
                    if not self._working:
                        self._working = True
                        threading.Thread(target=self._run, name=self.name, daemon=True).start()
                    return request
                room = asyncio.Event()
                self._room.append((asyncio.get_running_loop(), room))
            await room.wait()

    def _leave(self, requests: Sequence[_Request[K, T, R]]) -> None:
        """Take back what is not done: cancelled futures are not begun, and `stop()` sees those that are."""
        for request in requests:
            if not request.future.done():
                request.future.cancel()
        with self._changed:
            self._queue = [r for r in self._queue if not r.future.cancelled()]
            self._wake()

    def _wake(self) -> None:
        for loop, room in self._room:
            if not loop.is_closed():
                loop.call_soon_threadsafe(room.set)
        self._room.clear()

    def _run(self) -> None:
        while batch := self._next():
            key, items = batch[0].key, [r.item for r in batch]
            self.batches = [*self.batches[-999:], len(batch)]
            try:
                results = list(self._work(key, items, lambda batch=batch: all(r.future.cancelled() for r in batch)))  # type: ignore[misc]
                if len(results) != len(batch):
                    raise RuntimeError(f"{self.name}: {len(results)} results for {len(batch)} items")
            except Exception as e:
                results = [e] * len(batch)
            for request, result in zip(batch, results, strict=True):
                _settle(request.future, result)

    def _next(self) -> list[_Request[K, T, R]]:
        """The oldest request and those that may go with it; none once the queue is empty, which ends the worker."""
        with self._changed:
            if not self._queue:
                self._working = False
                return []
            end = time.monotonic() + self.gather
            while (left := end - time.monotonic()) > 0 and len(self._queue) < self.most:
                self._changed.wait(left)
            if not self._queue:
                self._working = False
                return []
            batch = [r for r in self._queue if r.key == self._queue[0].key][: self.most]
            self._queue = [r for r in self._queue if r not in batch]
            self._wake()
            return batch


def _settle(future: Future[R], result: R | Exception) -> None:
    """A result for whoever still waits. A cancellation may come at any moment, so it is tried, not asked."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
