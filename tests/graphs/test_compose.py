"""The graph behind an adapter: a node with another schema, a tool of an agent, a worker of a supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from act2see.errors import DecisionError, QuestionError
from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_node, as_tool, as_worker, question_in
from act2see.graphs.evidence import evidence
from act2see.trace.events import read_event
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import Agent, asked, child_in, saver_in, thread

EVIDENCE = """Answer: B (red)
Seen at the start: 3 frames, 0.0 s to 2.0 s.
- frame at 0.3 s, found for "the circle" (score 0.90)
- frame at 0.3 s, found for "the circle in blue" (score 0.90)"""


@dataclass
class Case:
    """A state that is not a dictionary, with other names."""

    file: str
    ask: str
    verdict: str = ""


def case_graph(child: Any, **names: Any) -> Any:
    parent = StateGraph(Case)
    parent.add_node(
        "see",
        as_node(
            child,
            **{"video": "file", "question": "ask", "options": None, "answer": "verdict", "trace": None}
            | names,
        ),
    )
    parent.add_edge(START, "see")
    return parent.compile()


async def test_a_node_reads_and_writes_the_parents_own_keys(tmp_path: Path) -> None:
    given = Case(clip_in(tmp_path), "Which colour?")
    assert (await case_graph(child_in(tmp_path)).ainvoke(given))["verdict"] == "B"
    shouting = case_graph(
        child_in(tmp_path), question=lambda case: case.ask.upper(), options=lambda _: ["blue", "red"]
    )
    assert (await shouting.ainvoke(given))["verdict"] == "B"
    with pytest.raises(QuestionError, match=r"no 'film': name .* as_node\(graph, video=\.\.\.\)"):
        await case_graph(child_in(tmp_path), video="film").ainvoke(given)


def test_a_synchronous_parent_takes_the_node(tmp_path: Path) -> None:
    given = Case(clip_in(tmp_path), "Which colour?")
    assert case_graph(child_in(tmp_path)).invoke(given)["verdict"] == "B"
    tool = as_tool(child_in(tmp_path))
    assert tool.invoke({"video": given.file, "question": given.ask, "options": ["blue", "red"]}) == EVIDENCE
    worker = as_worker(child_in(tmp_path))
    assert worker.invoke({"messages": [HumanMessage("Which?")], "video": given.file})["messages"][
        -1
    ].text.startswith("Answer: B")


def test_a_sync_saver_saves_sync_runs(tmp_path: Path) -> None:
    given, lines = Case(clip_in(tmp_path), "Which?"), ("<generate>it</generate>", "<answer>B</answer>")
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        parent = StateGraph(Case)
        parent.add_node(
            "see",
            as_node(
                child_in(tmp_path, *lines, approve=True),
                video="file",
                question="ask",
                options=None,
                answer="verdict",
            ),
        )
        parent.add_edge(START, "see")
        app: Any = parent.compile(checkpointer=saver)
        assert app.invoke(given, thread())["__interrupt__"][0].value["tag"] == "generate"
        assert app.invoke(Command(resume={"type": "accept"}), thread())["verdict"] == "B"


async def test_a_tool_returns_text_for_the_agent_and_the_trace_as_artifact(tmp_path: Path) -> None:
    tool = as_tool(child_in(tmp_path))
    assert (tool.name, sorted(tool.args)) == ("ask_video", ["options", "question", "video"])
    given = asked(tmp_path)
    del given["segments"]
    message = await tool.ainvoke({"type": "tool_call", "id": "1", "name": "ask_video", "args": given})
    assert (message.status, message.content) == ("success", EVIDENCE)
    assert evidence(Trace.model_validate(message.artifact)) == EVIDENCE


@pytest.mark.parametrize(
    ("video", "question", "says"), [("no.mp4", "What?", "no.mp4"), (None, " ", "the question is empty")]
)
async def test_an_error_of_the_tool_is_a_message_to_the_agent(
    tmp_path: Path, video: str | None, question: str, says: str
) -> None:
    args = {"video": video or clip_in(tmp_path), "question": question}
    message = await as_tool(child_in(tmp_path)).ainvoke(
        {"type": "tool_call", "id": "1", "name": "ask_video", "args": args}
    )
    assert message.status == "error"
    assert says in message.content
    reply = await as_worker(child_in(tmp_path)).ainvoke(
        {"messages": [HumanMessage(question)], "video": args["video"]}
    )
    assert says in reply["messages"][-1].text
    assert reply["messages"][-1].response_metadata["act2see"]["error"] in ("VideoError", "QuestionError")


async def test_a_parents_recursion_limit_does_not_end_the_run(tmp_path: Path) -> None:
    config, parts = parts_in(
        tmp_path, Scripted(*(f"<retrieve>look {n}</retrieve>" for n in range(20)), "<answer>A</answer>")
    )
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"calls": 20})})
    result = await case_graph(create_act2see(config, parts=parts)).ainvoke(
        Case(clip_in(tmp_path), "What?"), {"recursion_limit": 5}
    )
    assert result["verdict"] == "A"


async def test_a_tool_of_a_graph_with_its_own_saver_needs_no_thread(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted("<answer>A</answer>"))
    tool = as_tool(create_act2see(config, parts=parts, checkpointer=InMemorySaver()))
    assert (await tool.ainvoke({"video": clip_in(tmp_path), "question": "What?"})).startswith("Answer: A")


def calls(*videos: str) -> AIMessage:
    return AIMessage(
        "",
        tool_calls=[
            {"name": "ask_video", "id": str(n), "args": {"video": v, "question": "Which?"}}
            for n, v in enumerate(videos)
        ],
    )


async def test_an_agent_calls_the_tool_twice_in_parallel_and_sees_errors(tmp_path: Path) -> None:
    clip = clip_in(tmp_path)
    model = Agent(messages=iter([calls(clip, clip), calls("no.mp4"), AIMessage("It is red.")]))
    agent = create_agent(model, [as_tool(child_in(tmp_path))], checkpointer=InMemorySaver())
    runs = set()
    async for part in agent.astream(
        {"messages": [HumanMessage("Look.")]}, thread(), stream_mode="custom", subgraphs=True, version="v2"
    ):
        if event := read_event(part["data"]):
            runs.add(event.run)
    messages = (await agent.aget_state(thread())).values["messages"]
    said = [(m.status, m.content.splitlines()[0]) for m in messages if isinstance(m, ToolMessage)]
    assert [s for s, _ in said] == ["success", "success", "error"]
    assert said[0][1] == "Answer: B"
    assert len(runs) == 2


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
async def test_an_agent_waits_while_a_person_decides(tmp_path: Path, saver: str) -> None:
    async with saver_in(tmp_path, saver) as checkpointer:
        model = Agent(messages=iter([calls(clip_in(tmp_path)), AIMessage("It is red.")]))
        agent = create_agent(model, [as_tool(child_in(tmp_path, approve=True))], checkpointer=checkpointer)
        result = await agent.ainvoke({"messages": [HumanMessage("Look.")]}, thread())
        assert result["__interrupt__"][0].value["tag"] == "generate"
        with pytest.raises(DecisionError):
            await agent.ainvoke(Command(resume="yes"), thread())
        result = await agent.ainvoke(Command(resume={"type": "refuse"}), thread())
        (message,) = [m for m in result["messages"] if isinstance(m, ToolMessage)]
        assert message.content.startswith("Answer: B")
        assert message.artifact["segments"][5]["review"]["decision"] == "refuse"


async def test_a_worker_answers_under_its_name_in_a_conversation(tmp_path: Path) -> None:
    parent = StateGraph(MessagesState)
    parent.add_node("watcher", as_worker(child_in(tmp_path), name="watcher"))
    parent.add_edge(START, "watcher")
    block = {"type": "video", "url": f"file://{clip_in(tmp_path)}"}
    question = HumanMessage(
        [{"type": "text", "text": "Which colour?"}, block], additional_kwargs={"options": ["blue", "red"]}
    )
    async with saver_in(tmp_path, "sqlite") as saver:
        result = await parent.compile(checkpointer=saver).ainvoke(
            {"messages": [question, AIMessage("Let me see.")]}, thread()
        )
    reply = result["messages"][-1]
    assert (reply.type, reply.name, reply.content) == ("ai", "watcher", EVIDENCE)
    references = reply.response_metadata["act2see"]
    assert (references["answer"], references["choice"], [f["imagined"] for f in references["frames"]]) == (
        "B",
        "red",
        [False, False],
    )


async def test_a_workers_trace_is_in_its_state(tmp_path: Path) -> None:
    given: Any = {
        "messages": [HumanMessage("Which?")],
        "video": clip_in(tmp_path),
        "options": ["blue", "red"],
    }
    result = await as_worker(child_in(tmp_path)).ainvoke(given)
    assert Trace.model_validate(result["trace"]).choice == "red"


def test_a_worker_finds_the_video_of_a_conversation() -> None:
    def block(url: str) -> HumanMessage:
        return HumanMessage([{"type": "text", "text": "Q"}, {"type": "video", "url": url}])

    def kwargs(path: str) -> HumanMessage:
        return HumanMessage("Q", additional_kwargs={"video": path})

    plain = HumanMessage("Q")
    found = [
        question_in({"messages": messages, "video": "state.mp4"})["video"]
        for messages in (
            [block("a.mp4"), plain],
            [block("a.mp4"), kwargs("b.mp4")],
            [block("file:///a%20b.mp4#t=1,2")],
            [plain, AIMessage("c.mp4")],
        )
    ]
    assert found == ["a.mp4", "b.mp4", "/a b.mp4#t=1,2", "state.mp4"]
    with pytest.raises(QuestionError, match="no video in this conversation"):
        question_in({"messages": [plain]})
    with pytest.raises(QuestionError, match="no human message"):
        question_in({"messages": [AIMessage("Q")]})
