"""The adapters around long videos, graphs with retries or configurations, and invalid graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from act2see.errors import ConfigError, VideoError, WaitingError
from act2see.graphs.ask import build_graph, create_act2see
from act2see.graphs.compose import as_node, as_tool, as_worker
from act2see.graphs.long_video.graph import create_long_video
from act2see.graphs.state import AskContext
from act2see.micro.world import Clip, write_clip
from tests.graphs.doubles import BOARD, Scripted, clip_in, parts_in
from tests.graphs.parents import LINES, child_in, thread

ADAPTERS = [as_node, as_tool, as_worker]


def long_in(folder: Path, *lines: str) -> tuple[Any, str]:
    config, parts = parts_in(
        folder, Scripted(*(lines or ("<retrieve>it</retrieve>", "So.</think><answer>red</answer>")))
    )
    clip = write_clip(Clip(12 * 6, ((0, BOARD),)), folder / "long.mp4")
    return create_long_video(config, {"seconds": 4, "margin": 1}, parts=parts), str(clip)


class State(TypedDict, total=False):
    video: str
    question: str
    answer: str
    trace: dict[str, Any]


def parent_over(node: Any, saver: Any = None) -> Any:
    parent = StateGraph(State)
    parent.add_node("see", node)
    parent.add_edge(START, "see")
    return parent.compile(checkpointer=saver)


def sync_and_async(runnable: Any, given: Any) -> Any:
    import asyncio

    first = runnable.invoke(given)
    second = asyncio.run(runnable.ainvoke(given))
    return first, second


def test_a_long_video_as_a_node(tmp_path: Path) -> None:
    graph, clip = long_in(tmp_path)
    for result in sync_and_async(parent_over(as_node(graph)), {"video": clip, "question": "Which?"}):
        assert result["answer"] == "red"
        assert "trace" not in result


def test_a_long_video_as_a_tool(tmp_path: Path) -> None:
    graph, clip = long_in(tmp_path)
    call = {
        "type": "tool_call",
        "id": "1",
        "name": "ask_video",
        "args": {"video": clip, "question": "Which?"},
    }
    for message in sync_and_async(as_tool(graph), call):
        assert message.status == "success"
        assert message.content.startswith("Answer: red\n- from 0.0 s to 4.0 s of the video:\n  Answer: red\n")
        assert len(message.artifact["traces"]) == 2


def test_a_long_video_as_a_worker(tmp_path: Path) -> None:
    graph, clip = long_in(tmp_path)
    for result in sync_and_async(as_worker(graph), {"messages": [HumanMessage("Which?")], "video": clip}):
        reply = result["messages"][-1]
        assert reply.text.startswith("Answer: red")
        assert reply.response_metadata["act2see"]["answer"] == "red"
        assert reply.response_metadata["act2see"]["frames"]
        assert result["trace"] is None


@pytest.mark.parametrize(("options", "choice"), [(["true", "false"], "false"), (["true"], None), ([], None)])
def test_a_node_writes_the_chosen_option(tmp_path: Path, options: list[str], choice: str | None) -> None:
    class Case(TypedDict):
        clip: str
        claim: str
        verdict: str | None

    see = as_node(
        child_in(tmp_path),
        video="clip",
        question="claim",
        options=lambda case: options,
        answer=None,
        choice="verdict",
        trace=None,
    )
    parent = StateGraph(Case)
    parent.add_node("see", see)
    parent.add_edge(START, "see")
    given: Any = {"clip": clip_in(tmp_path), "claim": "It blinks.", "verdict": "?"}
    assert [r["verdict"] for r in sync_and_async(parent.compile(), given)] == [choice, choice]


@pytest.mark.parametrize(
    "around", [lambda g: g.with_retry(stop_after_attempt=2), lambda g: g.with_config(tags=["x"])]
)
def test_adapters_take_a_graph_with_retries_or_a_configuration(tmp_path: Path, around: Any) -> None:
    given: Any = {"video": clip_in(tmp_path), "question": "Which?"}
    graph = around(child_in(tmp_path))
    assert [r["answer"] for r in sync_and_async(parent_over(as_node(graph)), given)] == ["B", "B"]
    assert [r.splitlines()[0] for r in sync_and_async(as_tool(graph), given)] == ["Answer: B", "Answer: B"]
    said = sync_and_async(
        as_worker(graph, context=AskContext(seed=3)),
        {"messages": [HumanMessage("Which?")], "video": given["video"]},
    )
    assert [r["trace"]["versions"]["seed"] for r in said] == [3, 3]


async def test_a_graph_with_retries_asks_a_person_once(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts).with_retry(
        stop_after_attempt=3, wait_exponential_jitter=False
    )
    parent = parent_over(as_node(graph, context=AskContext(approve=("generate",))), InMemorySaver())
    waiting = await parent.ainvoke({"video": clip_in(tmp_path), "question": "Which?"}, thread())
    assert len(waiting["__interrupt__"]) == 1
    assert (await parent.ainvoke(Command(resume={"type": "accept"}), thread()))["answer"] == "B"
    assert parts.tools["generate"].queries == ["the circle in blue"]  # type: ignore[attr-defined]


async def test_an_error_that_a_retry_cannot_fix_is_not_retried(tmp_path: Path) -> None:
    graph = child_in(tmp_path).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    with pytest.raises(VideoError):
        await parent_over(as_node(graph)).ainvoke({"video": "none.mp4", "question": "Which?"})


def other_graph() -> Any:
    class Other(TypedDict):
        text: str

    graph = StateGraph(Other)
    graph.add_node("nothing", lambda state: {})
    graph.add_edge(START, "nothing")
    return graph.compile()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("what", ["uncompiled", "other", "other with retries", "function", "none"])
def test_adapters_refuse_a_runnable_that_cannot_answer(tmp_path: Path, adapter: Any, what: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    given: Any = {
        "uncompiled": build_graph(parts, config),
        "other": other_graph(),
        "other with retries": other_graph().with_retry(),
        "function": len,
        "none": None,
    }[what]
    with pytest.raises(ConfigError, match="the adapters take a compiled graph"):
        adapter(given)


async def test_a_runnable_without_an_answer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ended without an answer"):
        await parent_over(as_node(RunnableLambda(lambda given: {"text": "hm"}))).ainvoke(
            {"video": "x", "question": "y"}
        )


async def test_a_call_that_waits_without_a_checkpointer_is_an_error(tmp_path: Path) -> None:
    asking = AskContext(approve=("generate",))
    given: Any = {"video": clip_in(tmp_path), "question": "Which?"}
    with pytest.raises(ConfigError, match="checkpointer"):
        await parent_over(as_node(child_in(tmp_path), context=asking)).ainvoke(given)
    message = await as_tool(child_in(tmp_path), context=asking).ainvoke(
        {"type": "tool_call", "id": "1", "name": "ask_video", "args": given}
    )
    assert (message.status, "checkpointer" in message.content) == ("error", True)
    reply = await as_worker(child_in(tmp_path), context=asking).ainvoke(
        {"messages": [HumanMessage("Which?")], "video": given["video"]}
    )
    assert "checkpointer" in reply["messages"][-1].text


async def test_a_tool_called_by_hand_cannot_wait_for_a_person(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts, checkpointer=InMemorySaver())
    tool = as_tool(graph, context=AskContext(approve=("generate",)))
    tool.handle_tool_error = False
    with pytest.raises(Exception, match="a person must decide") as raised:
        await tool.ainvoke({"video": clip_in(tmp_path), "question": "Which?"})
    assert isinstance(raised.value.__cause__, WaitingError)
