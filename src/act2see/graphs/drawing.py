"""How a compiled graph shows itself in a notebook: as a Mermaid drawing that JupyterLab renders, without a
network.

LangGraph's own picture is made by a website, to which it sends the drawing; offline it ends in an error.
"""

from __future__ import annotations

from typing import Any, TypeVar

from langgraph.graph.state import CompiledStateGraph

G = TypeVar("G", bound=CompiledStateGraph[Any, Any, Any, Any])


class Drawn(CompiledStateGraph[Any, Any, Any, Any]):
    """A compiled graph that draws itself here. It differs in nothing else."""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        mermaid = self.get_graph().draw_mermaid()
        return {"text/vnd.mermaid": mermaid, "text/plain": mermaid}


def drawn(graph: G) -> G:
    """The same graph, drawn locally. LangGraph's builder makes its own class of graph, so the class is set
    afterwards."""
    graph.__class__ = Drawn  # type: ignore[assignment]
    return graph
