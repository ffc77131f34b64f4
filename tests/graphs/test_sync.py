"""The graph in synchronous code: `invoke`, `stream`, `batch`, and synchronous checkpointers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from act2see.errors import ConfigError, StoreError, ToolError, VideoError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask, aresume, ask, resume
from act2see.graphs.state import AskContext
from act2see.trace.events import read_event
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import LINES, child_in, seen, thread


class Child:
    """The parts of a graph, to build it with different checkpointers."""

    def __init__(self, folder: Path) -> None:
        self.config, self.parts = parts_in(folder, Scripted(*LINES))

    def graph(self, saver: Any = None) -> Any:
        return create_act2see(self.config, parts=self.parts, checkpointer=saver)


def question(folder: Path) -> Any:
    return {"video": clip_in(folder), "question": "Which colour?", "options": ["blue", "red"]}


def test_invoke_stream_and_batch_give_what_ainvoke_gives(tmp_path: Path) -> None:
    graph, given = child_in(tmp_path), question(tmp_path)
    wanted = seen(asyncio.run(graph.ainvoke(given))["trace"])
    assert seen(graph.invoke(given)["trace"]) == wanted
    events = [read_event(part) for part in graph.stream(given, stream_mode="custom")]
    assert [e.type for e in events if e and e.type != "token"] == [
        "view",
        "call",
        "frames",
        "call",
        "frames",
        "answer",
    ]
    assert [seen(r["trace"]) for r in graph.batch([given, given, given])] == [wanted] * 3


async def test_invoke_works_where_a_loop_is_running(tmp_path: Path) -> None:
    assert child_in(tmp_path).invoke(question(tmp_path))["answer"] == "B"


def test_errors_and_failed_tools_are_those_of_asynchronous_runs(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no file none\.mp4"):
        child_in(tmp_path).invoke({"video": "none.mp4", "question": "What?"})
    trace = child_in(tmp_path, retrieve=ToolError("out of order")).invoke(question(tmp_path))["trace"]
    assert trace["segments"][2]["note"] == "The tool failed: out of order. Go on without it."


def test_a_call_has_its_time_limit(tmp_path: Path) -> None:
    class Slow:
        tag, version, usage = "retrieve", "slow 1", "a frame"

        async def call(self, query: str, context: Any) -> Any:
            await asyncio.sleep(600)

    config, parts = parts_in(tmp_path, Scripted(LINES[0], LINES[2]))
    tool = config.tools["retrieve"].model_copy(update={"timeout": 0.2})
    config = config.model_copy(update={"tools": {"retrieve": tool}})
    parts = type(parts)(parts.reasoner, {"retrieve": Slow()}, parts.resources)
    trace = create_act2see(config, parts=parts).invoke(question(tmp_path))["trace"]
    assert trace["segments"][2]["note"] == "The tool failed: it took longer than 0.2 s. Go on without it."


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
def test_a_run_waits_and_continues_with_a_synchronous_saver(tmp_path: Path, saver: str) -> None:
    def run(checkpointer: Any) -> None:
        graph = child.graph(checkpointer)
        given = question(tmp_path)
        waiting = graph.invoke(given, thread(), context=AskContext(approve=("generate",)))
        assert waiting["__interrupt__"][0].value["tag"] == "generate"
        assert graph.invoke(Command(resume={"type": "accept"}), thread())["answer"] == "B"

    child = Child(tmp_path)
    if saver == "memory":
        run(InMemorySaver())
        return
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as checkpointer:
        run(checkpointer)


def test_a_synchronous_saver_in_an_asynchronous_run_is_an_error(tmp_path: Path) -> None:
    child = Child(tmp_path)
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as checkpointer:
        graph = child.graph(checkpointer)
        for entry in (
            lambda: ask(graph, clip_in(tmp_path), "What?"),
            lambda: asyncio.run(aask(graph, clip_in(tmp_path), "What?")),
            lambda: resume(graph, "t"),
        ):
            with pytest.raises(ConfigError, match=r"SqliteSaver is synchronous: use graph\.invoke"):
                entry()


async def test_resuming_without_a_saver_or_a_run_is_an_error(tmp_path: Path) -> None:
    child = Child(tmp_path)
    with pytest.raises(ConfigError, match="can only be resumed with a checkpointer"):
        await aresume(child.graph(), "t")
    with pytest.raises(StoreError, match="no saved run 't'"):
        await aresume(child.graph(InMemorySaver()), "t")


def test_ask_and_resume_report_events_in_the_callers_thread(tmp_path: Path) -> None:
    child = Child(tmp_path)
    graph = child.graph(InMemorySaver())
    heard: list[tuple[str, int]] = []

    def listen(event: Any) -> None:
        heard.append((event.type, threading.get_ident()))

    trace = ask(graph, clip_in(tmp_path), "Which?", thread_id="t", on_event=listen)
    assert {ident for _, ident in heard} == {threading.get_ident()}
    assert (heard[0][0], heard[-1][0]) == ("view", "answer")
    assert resume(graph, "t") == trace
