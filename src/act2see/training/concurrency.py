"""Many questions at once: the loop that construction, evaluation and GRPO share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def map_concurrently(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], concurrency: int
) -> list[Result]:
    """Apply `work` to every item, to at most `concurrency` of them at once.

    Args:
        work: Handles one item. The first error of any call cancels the others and is raised.
        items: Taken one by one, as places become free.
        concurrency: The number of places.

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
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in sorted(results)]
