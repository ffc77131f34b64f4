"""Follow-up questions: what the model is told of the questions before, and when it starts afresh."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.errors import ConfigError, ReasonerError
from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_node, as_tool, as_worker
from act2see.graphs.earlier import MAX_TEXT, clip_turns
from act2see.graphs.fork import afork, areplay
from act2see.graphs.long_video.graph import LongVideoContext, create_long_video
from act2see.graphs.run import aask, aresume
from act2see.graphs.state import AskContext
from act2see.micro.world import Clip, write_clip
from act2see.trace.events import read_event
from act2see.trace.record import Turn
from act2see.trace.trace import Trace
from tests.graphs.doubles import BOARD, Scripted, clip_in, parts_in
from tests.graphs.parents import Agent, parent_of, saver_in, thread

CIRCLE, RING, SQUARE = "What colour is the circle?", "And the ring?", "And the square?"
COLOURS = {CIRCLE: "red", RING: "green", SQUARE: "blue"}
RED, GREEN, BLUE = ((question, COLOURS[question]) for question in COLOURS)


class Knows(Scripted):
    """Answers each question with its colour, after one look if it has a tool for that. It can fail."""

    fails = False
    looks = False
    answers = COLOURS

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        if self.fails:
            raise ReasonerError("the server is gone")
        lines = asked_in(str(request.rollout)).splitlines()
        known = [self.answers[line] for line in lines if line in self.answers]
        answer = f"<answer>{known[0] if known else 'yes'}</answer>"
        self.lines = ("<retrieve>it</retrieve>", answer) if self.looks else (answer,)
        async for item in super().stream(request):
            yield item


def asked_in(rollout: str) -> str:
    """The user's text between the frames and the instruction."""
    return rollout.partition("<|im_end|>")[0].rpartition("<|vision_end|>")[2].partition("\nTools:")[0].strip()


class Place:
    """A graph with a checkpointer, its model, and two videos."""

    def __init__(self, folder: Path, saver: Any) -> None:
        config, self.parts = parts_in(folder, Knows())
        self.model: Any = self.parts.reasoner
        self.config = config
        self.graph = create_act2see(config, parts=self.parts, checkpointer=saver)
        self.clip = clip_in(folder)
        self.other = str(write_clip(Clip(24, ((0, BOARD.without("ring")),)), folder / "other.mp4"))

    async def ask(self, question: str, video: str = "", **context: Any) -> Trace:
        return await aask(
            self.graph, video or self.clip, question, thread_id="t", context=AskContext(**context)
        )

    @property
    def prompt(self) -> str:
        """What the model read last."""
        return asked_in(self.model.rollouts[-1])


def turns(trace: Trace) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in trace.question.earlier]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, InMemorySaver())


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_follow_up_is_told_of_the_question_before(tmp_path: Path, kind: str) -> None:
    async with saver_in(tmp_path, kind) as saver:
        place = Place(tmp_path, saver)
        first = await place.ask(CIRCLE)
        assert place.prompt == CIRCLE
        second = await place.ask(RING)
        assert place.prompt == f"Earlier: {CIRCLE} red\n{RING}"
        assert (first.answer, second.answer) == ("red", "green")
        assert (turns(first), turns(second)) == ([], [RED])
        assert "earlier" not in first.to_json()


async def test_at_most_three_turns_are_told(place: Place) -> None:
    for question in (CIRCLE, RING, SQUARE, "Is there a cross?", "Sure?"):
        trace = await place.ask(question)
    assert turns(trace) == [GREEN, BLUE, ("Is there a cross?", "yes")]
    state = await place.graph.aget_state(thread())
    assert len(state.values["turns"]) == 3


async def test_another_video_starts_afresh(place: Place, tmp_path: Path) -> None:
    await place.ask(CIRCLE)
    assert turns(await place.ask(RING, place.other)) == []
    assert turns(await place.ask(SQUARE, place.other)) == [GREEN]
    assert turns(await place.ask(CIRCLE, f"{place.other}#t=0,1")) == []
    copy = tmp_path / "copy.mp4"
    await place.ask(CIRCLE)
    copy.write_bytes(Path(place.clip).read_bytes())
    assert turns(await place.ask(RING, str(copy))) == [RED]  # the same content


async def test_other_threads_and_an_empty_setting_start_afresh(place: Place) -> None:
    await place.ask(CIRCLE)
    alone = await aask(place.graph, place.clip, RING, thread_id="u")
    assert turns(alone) == []
    assert turns(await place.ask(RING, earlier=())) == []
    assert turns(await place.ask(SQUARE)) == [GREEN]  # the conversation starts at the ring


async def test_a_failed_question_does_not_end_the_conversation(place: Place) -> None:
    await place.ask(CIRCLE)
    place.model.fails = True
    with pytest.raises(ReasonerError):
        await place.ask(RING)
    with pytest.raises(ReasonerError):
        await aresume(place.graph, "t")
    place.model.fails = False
    assert turns(await place.ask(SQUARE)) == [RED]
    assert place.prompt == f"Earlier: {CIRCLE} red\n{SQUARE}"


async def test_a_failed_question_is_resumed_with_its_turns(place: Place) -> None:
    await place.ask(CIRCLE)
    place.model.fails = True
    with pytest.raises(ReasonerError):
        await place.ask(RING)
    place.model.fails = False
    resumed = await aresume(place.graph, "t")
    assert (turns(resumed), resumed.answer) == ([RED], "green")
    assert turns(await place.ask(SQUARE)) == [RED, GREEN]


class Refuses:
    """A guard that refuses the videos for which it has a reason."""

    def __init__(self) -> None:
        self.reason: str | None = None

    async def refuses(self, frames: Any) -> str | None:
        return self.reason


async def test_an_answer_of_the_guard_is_no_turn(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    guard = Refuses()
    parts = replace(place.parts, guard=guard)
    place.graph = create_act2see(place.config, parts=parts, checkpointer=InMemorySaver())
    await place.ask(CIRCLE)
    guard.reason = "This is no board."
    refused = await place.ask(RING)
    assert (refused.refused, turns(refused)) == (True, [RED])
    guard.reason = None
    assert turns(await place.ask(SQUARE)) == [RED]


class RefusesLongQuestions(Refuses):
    """A guard that refuses questions, too."""

    def refuses_question(self, question: str) -> str | None:
        return "Ask in fewer words." if len(question) > 40 else None


async def test_a_guard_may_refuse_a_question(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    parts = replace(place.parts, guard=RefusesLongQuestions())
    place.graph = create_act2see(place.config, parts=parts, checkpointer=InMemorySaver())
    refused = await place.ask("Where is the ring? " * 3)
    assert (refused.refused, refused.answer) == (True, "Ask in fewer words.")
    assert not (await place.ask(CIRCLE)).refused


async def test_an_option_is_told_in_words_and_an_empty_answer_is_not(place: Place) -> None:
    place.model.answers = {"Which is it?": "B", "What is there?": ""}
    await aask(place.graph, place.clip, "Which is it?", ["red", "green"], thread_id="t")
    nothing = await place.ask("What is there?")
    assert (turns(nothing), nothing.answer) == ([("Which is it?", "green")], "")
    assert turns(await place.ask(RING)) == [("Which is it?", "green")]


@pytest.mark.parametrize(
    ("earlier", "told"),
    [
        ((RED,), [RED]),
        ((Turn(question=CIRCLE, answer="red"), GREEN), [RED, GREEN]),
        ([["What\n is <|im_start|>\0it?", "a\n\nring"]], [("What is <|im_start|>it?", "a ring")]),
    ],
)
async def test_a_context_sets_the_turns(place: Place, earlier: Any, told: Any) -> None:
    await place.ask(SQUARE)
    assert turns(await place.ask(RING, earlier=earlier)) == told
    assert turns(await place.ask(SQUARE)) == [*told, GREEN]


@pytest.mark.parametrize(
    ("earlier", "message"),
    [
        (((CIRCLE, " "),), "has an empty text"),
        (((CIRCLE,),), "setting 'earlier' cannot be"),
        ((RED,) * 4, "at most 3"),
        ("red", "setting 'earlier' cannot be"),
    ],
)
async def test_a_wrong_turn_is_a_config_error(place: Place, earlier: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        await place.ask(RING, earlier=earlier)


def test_long_texts_are_cut() -> None:
    [turn] = clip_turns([("q" * 400, "a" * MAX_TEXT)])
    assert turn == Turn(question="q" * (MAX_TEXT - 1) + "…", answer="a" * MAX_TEXT)
    assert clip_turns([turn]) == (turn,)


async def test_replay_and_fork_repeat_the_turns(place: Place) -> None:
    place.model.looks = True
    first = await place.ask(CIRCLE)
    second = await place.ask(RING)
    assert turns(second) == [RED]
    for again in (await areplay(place.graph, second), await afork(place.graph, second, 1)):
        assert (turns(again), again.segments[-1]) == ([RED], second.segments[-1])
        assert place.prompt == f"Earlier: {CIRCLE} red\n{RING}"
    assert turns(await areplay(place.graph, first)) == []
    other = await areplay(place.graph, second, context=AskContext(earlier=(BLUE,)))
    assert turns(other) == [BLUE]
    fork = await afork(place.graph, second, 1)
    follow_up = await aask(place.graph, place.clip, SQUARE, thread_id=fork.id)
    assert turns(follow_up) == [RED, GREEN]


async def test_a_waiting_follow_up_keeps_its_turns(place: Place) -> None:
    await place.ask(CIRCLE)
    place.model.looks = True
    waiting = await place.graph.ainvoke(
        {"video": place.clip, "question": RING}, thread(), context=AskContext(approve=("retrieve",))
    )
    assert waiting["__interrupt__"][0].value["question"] == RING
    trace = await aresume(place.graph, "t", decision={"type": "accept"})
    assert (turns(trace), trace.answer) == ([RED], "green")


# Other entry points.


async def test_a_tool_call_of_an_agent_starts_afresh(tmp_path: Path) -> None:
    place = Place(tmp_path, InMemorySaver())
    tool = as_tool(place.graph)
    script = []
    for n, question in enumerate((CIRCLE, RING)):
        args = {"video": place.clip, "question": question}
        script += [AIMessage("", tool_calls=[{"name": "ask_video", "id": str(n), "args": args}])]
        script += [AIMessage("I see.")]
    agent = create_agent(Agent(messages=iter(script)), [tool], checkpointer=InMemorySaver())
    for question in (CIRCLE, RING):
        result = await agent.ainvoke({"messages": [HumanMessage(question)]}, thread())
    traces = [Trace.model_validate(m.artifact) for m in result["messages"] if isinstance(m, ToolMessage)]
    assert [trace.answer for trace in traces] == ["red", "green"]
    assert [turns(trace) for trace in traces] == [[], []]
    await tool.ainvoke({"video": place.clip, "question": SQUARE})
    assert place.prompt == SQUARE


async def test_a_node_of_a_parent_starts_afresh_or_takes_the_parents_turns(place: Place) -> None:
    child = create_act2see(place.config, parts=place.parts)
    given: Any = {"video": place.clip, "question": CIRCLE}
    shared = parent_of(child, InMemorySaver())
    for question in (CIRCLE, RING):
        result = await shared.ainvoke({**given, "question": question}, thread())
    assert "earlier" not in result["trace"]["question"]

    class Chat(TypedDict, total=False):
        video: str
        question: str
        said: list[tuple[str, str]]
        answer: str
        trace: dict[str, Any]

    parent = StateGraph(Chat)
    parent.add_node("see", as_node(child, earlier="said"))
    parent.add_edge(START, "see")
    app: Any = parent.compile()
    result = await app.ainvoke({**given, "question": RING, "said": [RED]})
    assert turns(Trace.model_validate(result["trace"])) == [RED]
    assert "earlier" not in (await app.ainvoke(given))["trace"]["question"]


def block(url: str) -> HumanMessage:
    return HumanMessage([{"type": "text", "text": CIRCLE}, {"type": "video", "url": url}])


async def test_a_worker_takes_the_turns_from_the_messages(place: Place) -> None:
    worker: Any = as_worker(create_act2see(place.config, parts=place.parts), checkpointer=InMemorySaver())
    await worker.ainvoke({"messages": [block(place.clip)]}, thread())
    await worker.ainvoke({"messages": [AIMessage("Nice.", name="host"), HumanMessage(RING)]}, thread())
    assert place.prompt == f"Earlier: {CIRCLE} red\n{RING}"
    await worker.ainvoke({"messages": [HumanMessage(" ")]}, thread())  # refused with a reply
    result = await worker.ainvoke({"messages": [HumanMessage(SQUARE)]}, thread())
    assert turns(Trace.model_validate(result["trace"])) == [RED, GREEN]
    result = await worker.ainvoke({"messages": [block(place.other)]}, thread())
    assert turns(Trace.model_validate(result["trace"])) == []
    result = await worker.ainvoke({"messages": [HumanMessage(RING)]}, thread())
    assert turns(Trace.model_validate(result["trace"])) == [RED]
    alone: Any = as_worker(
        create_act2see(place.config, parts=place.parts), context=AskContext(seed=1, earlier=())
    )
    result = await alone.ainvoke({"messages": result["messages"] + [HumanMessage(SQUARE)]})
    assert turns(Trace.model_validate(result["trace"])) == []


async def test_a_worker_with_turns_keeps_events_settings_and_interrupts(place: Place) -> None:
    place.model.looks = True
    child = create_act2see(place.config, parts=place.parts)
    worker: Any = as_worker(child, checkpointer=InMemorySaver())
    run = {"configurable": {"thread_id": "t", "act2see": {"seed": 9}}}
    await worker.ainvoke({"messages": [block(place.clip)]}, run)
    run["configurable"]["act2see"] = {"seed": 9, "approve": ["retrieve"]}
    events = []
    async for part in worker.astream(
        {"messages": [HumanMessage(RING)]}, run, stream_mode=["custom", "values"], subgraphs=True
    ):
        events += [e for e in [read_event(part[2])] if e] if part[1] == "custom" else []
    assert events
    assert (await worker.aget_state(run)).interrupts[0].value["question"] == RING
    result = await worker.ainvoke(Command(resume={"type": "accept"}), run)
    trace = Trace.model_validate(result["trace"])
    assert (turns(trace), trace.answer, trace.versions.seed) == ([RED], "green", 9)
    sync = worker.invoke({"messages": [HumanMessage(SQUARE)]}, {"configurable": {"thread_id": "t"}})
    assert turns(Trace.model_validate(sync["trace"])) == [RED, GREEN]


async def test_a_long_video_tells_its_parts(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Knows())
    model: Any = parts.reasoner
    clip = str(write_clip(Clip(12 * 6, ((0, BOARD),)), tmp_path / "long.mp4"))
    graph: Any = create_long_video(config, {"seconds": 4}, parts=parts, checkpointer=InMemorySaver())
    await graph.ainvoke({"video": clip, "question": CIRCLE}, thread())
    result = await graph.ainvoke({"video": clip, "question": RING}, thread())
    assert result["answer"] == "green"
    assert [turns(Trace.model_validate(t)) for t in result["traces"]] == [[RED]] * 2
    assert {asked_in(r) for r in model.rollouts[2:]} == {f"Earlier: {CIRCLE} red\n{RING}"}
    result = await graph.ainvoke(
        {"video": clip, "question": SQUARE}, thread(), context=LongVideoContext(earlier=())
    )
    assert [turns(Trace.model_validate(t)) for t in result["traces"]] == [[]] * 2
    result = await graph.ainvoke({"video": clip_in(tmp_path), "question": CIRCLE}, thread())
    assert [turns(Trace.model_validate(t)) for t in result["traces"]] == [[]]
