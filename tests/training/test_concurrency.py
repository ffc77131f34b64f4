"""The loop over many questions: order, concurrency and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from act2see.training.concurrency import map_concurrently


def test_results_are_in_the_order_of_the_items() -> None:
    async def run() -> list[int]:
        last_is_done = asyncio.Event()

        async def square(item: int) -> int:
            if item == 2:
                last_is_done.set()
            else:
                await last_is_done.wait()
            return item * item

        return await map_concurrently(square, range(3), 3)

    assert asyncio.run(run()) == [0, 1, 4]


def test_items_are_read_when_a_worker_is_free() -> None:
    taken: list[int] = []
    running = 0

    def items() -> Iterator[int]:
        for n in range(10):
            taken.append(n)
            yield n

    async def work(item: int) -> None:
        nonlocal running
        running += 1
        assert running <= 2
        assert len(taken) <= item + 2
        await asyncio.sleep(0)
        running -= 1

    asyncio.run(map_concurrently(work, items(), 2))
    assert taken == list(range(10))


def test_an_error_cancels_the_other_calls() -> None:
    cancelled: list[int] = []

    async def work(item: int) -> None:
        if item == 1:
            raise ValueError("item 1")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(ValueError, match="item 1"):
        asyncio.run(map_concurrently(work, range(10), 3))
    assert cancelled == [0, 2]
