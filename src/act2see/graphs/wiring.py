"""Additions to LangGraph: nodes for synchronous and asynchronous runs, a time limit, and drawing offline.

Nodes are asynchronous. In a synchronous run (`graph.invoke`, `stream`, `batch`), a node runs on the process's
background loop while its thread waits. Only this file uses private names of LangGraph.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph._internal._constants import CONFIG_KEY_CHECKPOINTER
from langgraph._internal._runnable import RunnableCallable
from langgraph.graph.state import CompiledStateGraph

from act2see.tools.runtime.background import run_sync

T = TypeVar("T")
G = TypeVar("G", bound=CompiledStateGraph[Any, Any, Any, Any])
Node = Callable[..., Coroutine[Any, Any, Any]]


def both_ways(node: Node, sync: Callable[..., Any] | None = None) -> Any:
    """Return a node for both asynchronous and synchronous runs.

    LangGraph reads from the signature of `node` whether to pass the configuration and the runtime.

    Args:
        node: The asynchronous function of the node.
        sync: The synchronous function; by default the thread waits for `node`.
    """

    @wraps(node)
    def wait_for_node(*args: Any, **kwargs: Any) -> Any:
        return run_sync(node(*args, **kwargs))

    return RunnableCallable(sync or wait_for_node, node, name=node.__name__, trace=False)


def is_saved(config: RunnableConfig) -> bool:
    """Whether the run of a node, or the run of a parent graph, has a checkpointer."""
    return bool(config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINTER))


async def limit_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return the result of `work`, or cancel it after `seconds`.

    Work that ignores its cancellation is abandoned; `asyncio.timeout` would wait for it. LangGraph's
    `TimeoutPolicy` does not support synchronous runs.

    Raises:
        TimeoutError: The work took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise TimeoutError(f"it took longer than {seconds:g} s")
    return task.result()


class DrawableGraph(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that JupyterLab draws as a Mermaid diagram.

    LangGraph's own picture is rendered by a website, and fails offline.
    """

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        mermaid = self.get_graph().draw_mermaid()
        return {"text/vnd.mermaid": mermaid, "text/plain": mermaid}


def make_drawable(graph: G) -> G:
    """Turn a compiled graph into a `DrawableGraph`, and return it. LangGraph's builder sets another class."""
    graph.__class__ = DrawableGraph  # type: ignore[assignment]
    return graph
