"""What the nodes of our graphs need of LangGraph beyond its public names: all of it is here.

Nodes are asynchronous. Called synchronously (`graph.invoke`, `stream`, `batch`), a node runs on the process's
background loop while its thread waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINTER
from langgraph._internal._runnable import RunnableCallable

from act2see.tools.runtime.background import run_sync

T = TypeVar("T")
Node = Callable[..., Coroutine[Any, Any, Any]]


def both_ways(node: Node, sync: Callable[..., Any] | None = None) -> Any:
    """A node for asynchronous and for synchronous runs; `sync` is its synchronous form, where it has one of
    its own.

    LangGraph reads from a function's signature whether it wants the configuration and the runtime.
    """

    @wraps(node)
    def wait_for_node(*args: Any, **kwargs: Any) -> Any:
        return run_sync(node(*args, **kwargs))

    return RunnableCallable(sync or wait_for_node, node, name=node.__name__, trace=False)


def is_saved(config: RunnableConfig) -> bool:
    """Whether the run that a node belongs to, or a run around it, has a checkpointer."""
    return bool(config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINTER))


async def in_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of a tool's call. Raises `TimeoutError`, and leaves behind what does not end when it is
    cancelled.

    This is not LangGraph's `TimeoutPolicy`, which synchronous runs refuse.
    """
    call = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({call}, timeout=seconds)
    except asyncio.CancelledError:
        call.cancel()
        raise
    if not done:
        call.cancel()
        raise TimeoutError(f"it took longer than {seconds:g} s")
    return call.result()
