"""Waiting requests are batched: by key, in order, bounded, and withdrawn when they are cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from act2see.tools.runtime.batching import MicroBatcher


class Gate:
    """Work that waits until the gate is open, and records its items."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.seen: list[tuple[str, tuple[int, ...]]] = []
        self.stopped: list[bool] = []

    def __call__(self, key: str, items: Sequence[int], stop: Callable[[], bool]) -> list[int | Exception]:
        self.seen.append((key, tuple(items)))
        self.begun.set()
        assert self.open.wait(30)
        self.stopped.append(stop())
        return [ValueError(f"no {i}") if i < 0 else i * 10 for i in items]


async def begun(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.begun.wait, 30)


async def queued(batcher: MicroBatcher[str, int, int], count: int) -> None:
    async with asyncio.timeout(30):
        while batcher.queued != count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_waiting_requests_are_batched_by_key_and_in_order() -> None:
    gate = Gate()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=3, gather=0)
    first = asyncio.create_task(batcher.submit("a", [0]))
    await begun(gate)
    rest = []
    for n, (key, item) in enumerate([("a", 1), ("b", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 6)]):
        rest.append(asyncio.create_task(batcher.submit(key, [item])))
        await queued(batcher, n + 1)
    gate.open.set()
    assert await first == [0]
    assert [r[0] for r in await asyncio.gather(*rest)] == [10, 20, 30, 40, 50, 60]
    assert gate.seen == [("a", (0,)), ("a", (1, 3, 4)), ("b", (2, 6)), ("a", (5,))]
    assert batcher.batches == [1, 3, 2, 1]


async def test_a_lone_request_waits_for_others_to_share_its_batch() -> None:
    gate = Gate()
    gate.open.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=4, gather=20)
    # Four items fill a batch, so the worker does not wait for 20 seconds.
    results = await asyncio.gather(*(batcher.submit("a", [i]) for i in range(4)))
    assert results == [[0], [10], [20], [30]]
    assert batcher.batches == [4]


async def test_a_full_queue_makes_others_wait_for_room() -> None:
    gate = Gate()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=1, waiting=2, gather=0)
    tasks = [asyncio.create_task(batcher.submit("a", [i])) for i in range(6)]
    await begun(gate)
    await queued(batcher, 2)
    for _ in range(20):
        await asyncio.sleep(0)
    assert batcher.queued == 2
    gate.open.set()
    assert await asyncio.gather(*tasks) == [[i * 10] for i in range(6)]


async def test_a_call_that_is_cancelled_leaves_the_queue_and_stops_its_batch() -> None:
    gate = Gate()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=1, waiting=1, gather=0)
    running = asyncio.create_task(batcher.submit("a", [1]))
    await begun(gate)
    waiting = asyncio.create_task(batcher.submit("a", [2]))
    await queued(batcher, 1)
    blocked = asyncio.create_task(batcher.submit("a", [3]))
    await asyncio.sleep(0)
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.open.set()
    assert await blocked == [30]  # the room that `waiting` left
    assert [items for _, items in gate.seen] == [(1,), (3,)]
    assert gate.stopped == [True, False]


async def test_a_failed_item_fails_only_its_own_caller() -> None:
    gate = Gate()
    gate.open.set()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=3, gather=20)
    good, bad, other = await asyncio.gather(
        *(batcher.submit("a", [i]) for i in (1, -1, 2)), return_exceptions=True
    )
    assert (good, other) == ([10], [20])
    assert isinstance(bad, ValueError)
    assert str(bad) == "no -1"


async def test_work_that_fails_or_miscounts_fails_all_of_its_batch() -> None:
    def fails(key: str, items: Sequence[int], stop: Callable[[], bool]) -> list[int | Exception]:
        if key == "short":
            return []
        raise OSError("gone")

    batcher: MicroBatcher[str, int, int] = MicroBatcher(fails, max_size=2, gather=0)
    with pytest.raises(OSError, match="gone"):
        await batcher.submit("a", [1, 2])
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit("short", [1])


async def test_callers_in_other_loops_are_served_and_the_thread_ends() -> None:
    gate = Gate()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=8, gather=0, name="here-only")
    calls = [
        asyncio.create_task(asyncio.to_thread(lambda i=i: asyncio.run(batcher.submit("a", [i]))))
        for i in range(3)
    ]  # type: ignore[misc]
    await begun(gate)
    gate.open.set()
    assert await asyncio.gather(*calls) == [[0], [10], [20]]
    end = time.monotonic() + 30
    while any(t.name == "here-only" for t in threading.enumerate()) and time.monotonic() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert not any(t.name == "here-only" for t in threading.enumerate())


async def test_an_owner_with_many_requests_does_not_delay_another() -> None:
    gate = Gate()
    batcher: MicroBatcher[str, int, int] = MicroBatcher(gate, max_size=2, waiting=4, gather=0)
    film = [asyncio.create_task(batcher.submit("a", [i], "film")) for i in range(20)]
    await begun(gate)
    await queued(batcher, 4)  # the film's other requests are in the overflow
    clip = asyncio.create_task(batcher.submit("a", [100], "clip"))
    again = asyncio.create_task(batcher.submit("a", [101], "clip"))
    await asyncio.sleep(0)
    assert batcher.queued == 4
    gate.open.set()
    assert await asyncio.gather(clip, again) == [[1000], [1010]]
    assert await asyncio.gather(*film) == [[i * 10] for i in range(20)]
    order = [item for _, items in gate.seen for item in items]
    # After the requests in the queue, and long before those in the overflow.
    assert order.index(100) <= 7
    assert order.index(101) <= 9
    assert [i for i in order if i < 100] == list(range(20))


async def test_item_sizes_limit_a_batch_and_a_large_item_has_its_own() -> None:
    seen: list[list[str]] = []
    gate = threading.Event()

    def work(key: str, items: Sequence[str], stop: Callable[[], bool]) -> list[int | Exception]:
        seen.append(list(items))
        assert gate.wait(30)
        return [len(i) for i in items]

    batcher: MicroBatcher[str, str, int] = MicroBatcher(work, max_size=6, size=len, gather=0)
    first = asyncio.create_task(batcher.submit("a", ["x"]))
    while not seen:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    rest = [
        asyncio.create_task(asyncio.to_thread(batcher.run, "a", text))
        for text in ("abcd", "efghijkl", "mn", "opq")
    ]
    async with asyncio.timeout(30):
        while batcher.queued != 4:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    gate.set()
    assert await first == [1]
    assert await asyncio.gather(*rest) == [4, 8, 2, 3]
    assert all(sum(map(len, items)) <= 6 or len(items) == 1 for items in seen)
    assert ["efghijkl"] in seen
    assert len(seen) == 4
