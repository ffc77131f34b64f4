"""Concurrent work on many questions: the loop that construction, evaluation and GRPO share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_concurrently(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], concurrency: int
) -> list[Result]:
    """Apply `work` to every item, with at most `concurrency` calls at the same time.

    Args:
        work: The call for one item. The first error cancels the other calls and is raised.
        items: The items; each is read when a worker is free.
        concurrency: The number of workers.

    Returns:
        The results, in the order of the items.
    """
    results: dict[int, Result] = {}
    waiting = enumerate(items)

    async def take_items() -> None:
        for index, item in waiting:
            results[index] = await work(item)

    workers = [asyncio.create_task(take_items()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        # Wait for the cancelled workers, so that none still runs when the error is raised.
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in sorted(results)]
