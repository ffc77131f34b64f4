"""Cancel a run only once, for callers that are cancelled repeatedly.

anyio (and so Starlette, FastAPI and MCP servers) cancels a task again at every step of the event loop until
the task has left its scope. LangGraph cancels its nodes in a clean-up that the second cancellation would
interrupt: the nodes would then run to their end unnoticed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

log = logging.getLogger(__name__)
T = TypeVar("T")
GRACE = 10.0  # seconds for the clean-up


async def cancel_once(work: Coroutine[Any, Any, T]) -> T:
    """Await work, and cancel it at most once, however often the caller is cancelled.

    The work has ended when this returns, unless it needs more than `GRACE` seconds to end after its
    cancellation: then it is left running, with a warning.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        with anyio.move_on_after(GRACE, shield=True):
            await asyncio.wait([task])
        if not task.done():
            log.warning("a run was cancelled and does not end: %r", task)
        elif not task.cancelled() and (error := task.exception()):
            log.debug("a run was cancelled, and its end failed", exc_info=error)
        raise
