"""Drawing a compiled graph in a notebook, offline."""

from __future__ import annotations

from pathlib import Path

from langgraph.graph.state import CompiledStateGraph

from act2see.graphs.long_video.graph import create_long_video
from tests.graphs.doubles import Scripted, parts_in
from tests.graphs.parents import child_in


def test_a_graph_draws_itself_in_mermaid(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted("<answer>A</answer>"))
    for graph in (
        child_in(tmp_path),
        child_in(tmp_path).with_config(tags=["x"]),
        create_long_video(config, parts=parts),
    ):
        shown = graph._repr_mimebundle_(include=None, exclude=None)
        assert set(shown) == {"text/vnd.mermaid", "text/plain"}
        assert "graph TD" in shown["text/vnd.mermaid"]
        assert isinstance(graph, CompiledStateGraph)
