"""Cancelling a run so that it ends: for callers whose cancellation comes more than once.

anyio (and so Starlette, FastAPI and MCP servers) cancels what is in a scope again and again, at every step of
the event loop, until it has left the scope. LangGraph cleans up in tasks that the second cancellation hits:
the nodes are then never told, and run on to their end, unseen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

log = logging.getLogger(__name__)
T = TypeVar("T")
GRACE = 10.0  # seconds that work has for its clean-up


async def cancel_once(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work, which is cancelled once, however often the caller is, and has ended when this returns.

    Work that does not end within `GRACE` seconds of its cancellation is left alone, and the log says so.
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
