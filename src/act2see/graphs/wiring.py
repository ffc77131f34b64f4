"""Our graphs' additions to LangGraph: nodes for synchronous and asynchronous runs, a time limit for calls,
and a drawing that needs no network.

Nodes are asynchronous. Called synchronously (`graph.invoke`, `stream`, `batch`), a node runs on the process's
background loop while its thread waits. Everything that LangGraph has no public name for is used in this file.
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
    """A node for asynchronous and for synchronous runs.

    LangGraph reads from a function's signature whether it takes the configuration and the runtime.

    Args:
        node: The node.
        sync: Its synchronous form; by default the thread waits for `node`.
    """

    @wraps(node)
    def wait_for_node(*args: Any, **kwargs: Any) -> Any:
        return run_sync(node(*args, **kwargs))

    return RunnableCallable(sync or wait_for_node, node, name=node.__name__, trace=False)


def is_saved(config: RunnableConfig) -> bool:
    """Whether the run that a node belongs to, or a run around it, has a checkpointer."""
    return bool(config.get("configurable", {}).get(CONFIG_KEY_CHECKPOINTER))


async def in_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of `work`. Work that does not end when it is cancelled is abandoned.

    This is not LangGraph's `TimeoutPolicy`, which synchronous runs refuse.

    Raises:
        TimeoutError: It took longer.
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


class Drawn(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that JupyterLab draws by itself, as Mermaid.

    LangGraph's own picture is made by a website, to which it sends the drawing; offline it ends in an error.
    """

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        mermaid = self.get_graph().draw_mermaid()
        return {"text/vnd.mermaid": mermaid, "text/plain": mermaid}


def drawn(graph: G) -> G:
    """The same graph, as a `Drawn`. LangGraph's builder chooses the class, so it is set afterwards."""
    graph.__class__ = Drawn  # type: ignore[assignment]
    return graph
