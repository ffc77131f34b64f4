"""A tool that interrupts the run to ask a person, with `aask`, `aresume` and parent graphs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, interrupt

from act2see.errors import ConfigError, DecisionError, WaitingError
from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_tool
from act2see.graphs.long_video.graph import create_long_video
from act2see.graphs.run import aask, aresume
from act2see.tools.base import ToolContext, ToolResult
from act2see.trace.record import Frames
from tests.graphs.doubles import Scripted, Shows, clip_in, parts_in
from tests.graphs.parents import parent_of, saver_in, thread

LINES = ("I ask. <retrieve>the circle</retrieve>", "So.</think><answer>B</answer>")


class Asks(Shows):
    """Asks a person for a time, and shows the frame at that time."""

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        second = interrupt(self.question)
        sure = interrupt({"sure": second}) if self.twice else True
        self.frame = round(12 * float(second))
        result = await super().call(query, context)
        return replace(result, note=f"sure: {sure}")

    question: Any = "which second?"
    twice = False


def asking(folder: Path, saver: Any = None, **change: Any) -> Any:
    config, parts = parts_in(folder, Scripted(*LINES))
    tool = Asks("retrieve", parts.resources)
    for name, value in change.items():
        setattr(tool, name, value)
    return create_act2see(config, parts=replace(parts, tools={"retrieve": tool}), checkpointer=saver)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("question", ["which second?", 7, ["a", "b"], {"type": "choose"}, None])
async def test_a_tool_interrupts_and_is_answered(tmp_path: Path, kind: str, question: Any) -> None:
    async with saver_in(tmp_path, kind) as saver:
        graph = asking(tmp_path, saver, question=question)
        with pytest.raises(
            WaitingError, match=r"a tool waits for an answer to .*aresume\(graph, 't', decision=\.\.\.\)"
        ):
            await aask(graph, clip_in(tmp_path), "Which?", thread_id="t")
        with pytest.raises(WaitingError):
            await aresume(graph, "t")
        trace = await aresume(graph, "t", decision=0)
        assert trace.answer == "B"
        assert [f.seconds for s in trace.segments if isinstance(s, Frames) for f in s.frames] == [0.0]


async def test_decisions_that_cannot_be_saved_are_refused_and_the_run_still_waits(tmp_path: Path) -> None:
    graph = asking(tmp_path, InMemorySaver())
    with pytest.raises(WaitingError):
        await aask(graph, clip_in(tmp_path), "Which?", thread_id="t")
    for decision, says in (({}, "decision is empty"), (object(), "cannot be saved")):
        with pytest.raises(DecisionError, match=says):
            await aresume(graph, "t", decision=decision)
    assert (await aresume(graph, "t", decision="0")).answer == "B"


async def test_a_run_paused_by_interrupt_before_raises(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts, checkpointer=InMemorySaver())
    graph.interrupt_before_nodes = ["retrieve"]
    with pytest.raises(WaitingError, match="has paused"):
        await aask(graph, clip_in(tmp_path), "Which?", thread_id="t")
    graph.interrupt_before_nodes = []
    assert (await aresume(graph, "t")).answer == "B"


async def test_a_graph_without_a_trace_is_refused_before_it_runs(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    with pytest.raises(ConfigError, match="returns no trace"):
        await aask(create_long_video(config, parts=parts), clip_in(tmp_path), "Which?")
    assert parts.reasoner.visits == 0  # type: ignore[attr-defined]


def test_a_saver_of_another_loop_is_named(tmp_path: Path) -> None:
    async def saved() -> Any:
        connection = await aiosqlite.connect(str(tmp_path / "runs.sqlite"))
        return AsyncSqliteSaver(connection)

    async def ask(graph: Any, close: bool = False) -> Any:
        try:
            return await aask(graph, clip_in(tmp_path), "Which?")
        finally:
            if close:
                await graph.checkpointer.conn.close()

    config, parts = parts_in(tmp_path, Scripted(LINES[1]))
    graph = create_act2see(config, parts=parts, checkpointer=asyncio.run(saved()))
    assert asyncio.run(ask(graph)).answer == "B"
    with pytest.raises(ConfigError, match="AsyncSqliteSaver belongs to the event loop"):
        asyncio.run(ask(graph, close=True))


async def test_a_tool_may_interrupt_twice(tmp_path: Path) -> None:
    graph = asking(tmp_path, InMemorySaver(), twice=True)
    with pytest.raises(WaitingError, match="which second"):
        await aask(graph, clip_in(tmp_path), "Which?", thread_id="t")
    with pytest.raises(WaitingError, match="sure"):
        await aresume(graph, "t", decision="1")
    trace = await aresume(graph, "t", decision=False)
    (frames,) = (s for s in trace.segments if isinstance(s, Frames))
    assert (frames.note, frames.frames[0].seconds) == ("sure: False", 1.0)


async def test_an_interrupt_without_a_checkpointer_names_the_cause(tmp_path: Path) -> None:
    with pytest.raises(WaitingError, match="cannot continue without a checkpointer"):
        await aask(asking(tmp_path), clip_in(tmp_path), "Which?")
    with pytest.raises(WaitingError, match="from a graph that has a checkpointer"):
        await _by_hand(tmp_path)


async def _by_hand(folder: Path) -> None:
    """The tool for an agent, called without an agent."""
    tool = as_tool(asking(folder))
    tool.handle_tool_error = False
    try:
        await tool.ainvoke({"video": clip_in(folder), "question": "Which?"})
    except Exception as e:
        raise e.__cause__ or e from None


async def test_an_interrupt_of_a_tool_passes_through_a_parent(tmp_path: Path) -> None:
    parent = parent_of(asking(tmp_path), InMemorySaver())
    given: Any = {"video": clip_in(tmp_path), "question": "Which?", "options": []}
    assert (await parent.ainvoke(given, thread()))["__interrupt__"][0].value == "which second?"
    assert (await parent.ainvoke(Command(resume=1), thread()))["answer"] == "B"
    assert (
        parent_of(asking(tmp_path), InMemorySaver()).invoke(given, thread())["__interrupt__"][0].value
        == "which second?"
    )
