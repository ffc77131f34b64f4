"""Odd arguments of the MCP server's tools: a result or an error, never a failure of the server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

pytest.importorskip("mcp", reason="the MCP package is not installed")

from mcp import Client
from mcp.shared.exceptions import MCPError
from tests.graphs.doubles import Scripted, clip_in, parts_in

from act2see.serve.mcp.server import build_server
from act2see.tools.video.folders import Folders
from act2see.trace.folder import KeptTraces

DONE = "So.</think>\n<answer>B</answer>"
TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "",
        "\x00",
        "a\nb",
        "../..",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://",
        "clip.mp4#t=5,2",
        "x" * 5000,
    ]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)


def draw_arguments(schema: dict[str, Any], video: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for a tool's arguments. Some have the right type, and any may be missing."""
    fields: dict[str, st.SearchStrategy[Any]] = {"unknown": ANY}
    for name in schema.get("properties", {}):
        fields[name] = TEXTS | ANY | (st.just(video) if name == "video" else TEXTS)
    fields |= {"options": st.lists(TEXTS, max_size=4) | ANY} if "options" in fields else {}
    fields |= {"k": st.integers() | ANY} if "k" in fields else {}
    return st.fixed_dictionaries({}, optional=fields)


def draw(strategy: st.SearchStrategy[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return what a strategy draws, always the same."""
    drawn: list[dict[str, Any]] = []

    @hypothesis.seed(1)
    @hypothesis.settings(max_examples=count, database=None, phases=[hypothesis.Phase.generate])
    @hypothesis.given(strategy)
    def note(value: dict[str, Any]) -> None:
        drawn.append(value)

    note()
    return drawn


async def test_odd_arguments_are_answered_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, parts = parts_in(tmp_path, Scripted(*[DONE] * 1000))
    (tmp_path / "videos").mkdir()
    video = clip_in(tmp_path / "videos")
    traces = KeptTraces(tmp_path / "traces")
    server = build_server(config, Folders([tmp_path / "videos"]), parts=parts, traces=traces)
    calls: list[tuple[str, dict[str, Any]]] = []
    async with Client(server) as client:
        for tool in (await client.list_tools()).tools:
            drawn = draw_arguments(tool.input_schema, str(video))
            calls += [(tool.name, arguments) for arguments in draw(drawn, 40)]
        refused = 0
        for name, arguments in calls:
            try:
                result = await client.call_tool(name, arguments)
            except MCPError:
                refused += 1
                continue
            if result.is_error:
                refused += 1
                text = "".join(part.text for part in result.content if part.type == "text")
                assert "Traceback" not in text, (name, arguments)
                assert "the server failed" not in text, (name, arguments)
    assert len(calls) > 100
    assert refused > 50
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
