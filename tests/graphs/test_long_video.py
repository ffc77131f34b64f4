"""The graph for long videos, with the micro models and with scripted models."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from pydantic import Field
from typing_extensions import TypedDict

from act2see.errors import ConfigError, QuestionError, ReasonerError, RefusedError, SetupError, VideoError
from act2see.graphs.config import load_config
from act2see.graphs.long_video.graph import LongVideoContext, create_long_video
from act2see.micro.draws import draw_board
from act2see.micro.world import (
    COLOURS,
    FPS,
    HELD_OUT,
    Board,
    Clip,
    Piece,
    Short,
    read_board,
    write_clip,
)
from act2see.trace.events import read_event
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, parts_in
from tests.graphs.parents import saver_in, thread

NOT = "<answer>It is not visible here.</answer>"
SECONDS, BLINK = (
    41,
    27.35,
)  # five parts of nine seconds; only the fourth has the blink, between two seconds


@pytest.mark.timeout(300)  # loads models, which is slow on a busy machine
async def test_one_part_that_found_it_is_not_outvoted(tmp_path: Path) -> None:
    rng = random.Random(5)
    board = draw_board(rng)
    shape = board.pieces[1]
    colour = next(c for c in COLOURS if c != shape.colour and (shape.shape, c) not in HELD_OUT)
    hops = [(0, board)]
    for second in (13, 22, 37):
        hops.append(
            (second * FPS, hops[-1][1].change(board.pieces[2].shape, cell=rng.choice(hops[-1][1].free)))
        )
    start = int(BLINK * FPS)
    blink = Short("blink", Piece(shape.shape, colour, (0, 0), True), start, start + 6)
    clip = str(write_clip(Clip(SECONDS * FPS, tuple(hops), (blink,)), tmp_path / "clip.mp4"))

    config = load_config("micro", cache=str(tmp_path / "cache"), budget={"seconds": 3600.0})
    question = {"video": clip, "question": f"What colour does the {shape.shape} turn when it blinks?"}
    result = await create_long_video(config).ainvoke(question)

    assert (result["answer"], result["found"]) == (colour, True)
    assert [p["verdict"] for p in result["parts"]] == ["absent"] * 3 + ["found", "absent"]
    assert len({p["answer"] for p in result["parts"]}) > 1  # the other parts have answered too
    (seen,) = result["evidence"]
    (frame,) = seen["frames"]
    assert blink.start / FPS - 1e-3 <= frame["seconds"] < blink.stop / FPS
    assert not frame["imagined"]
    assert f"frame at {frame['seconds']:.1f} s, found for" in seen["text"]
    trace = Trace.model_validate(result["traces"][3])
    assert trace.video.path == f"{clip}#t=24,33"
    assert trace.shown[-1].seconds == pytest.approx(frame["seconds"] - 24)


class Watches(Scripted):
    """Recognises a part by the circle's cell in its first frame, and writes or raises its entry in `says`."""

    def __init__(self, says: dict[int, Any], otherwise: Any = NOT, together: int = 1) -> None:
        super().__init__("")
        self.says, self.otherwise, self.together = says, otherwise, together
        self.asked: list[int] = []
        self.now = self.most = 0
        self.store: Any = None

    async def stream(self, request: Any) -> Any:
        row, column = read_board(self.store.get(request.rollout.frames[0].digest)).piece("circle").cell
        self.asked.append(number := 3 * row + column)
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(300):  # wait briefly for other parts
            if self.most >= self.together:
                break
            await asyncio.sleep(0.01)
        self.now -= 1
        if isinstance(said := self.says.get(number, self.otherwise), Exception):
            raise said
        if callable(said):
            await said()
        async for item in Scripted(*([said] if isinstance(said, str) else said)).stream(request):
            yield item


def hopping(folder: Path, parts: int = 9) -> dict[str, Any]:
    """A question about a clip with parts of three seconds, each with the circle in another cell."""
    clip = Clip(
        3 * FPS * parts,
        tuple((3 * FPS * n, Board((Piece("circle", "red", divmod(n, 3)),))) for n in range(parts)),
    )
    return {"video": str(write_clip(clip, folder / "clip.mp4")), "question": "Which colour?"}


def watched(folder: Path, reasoner: Watches, *, saver: Any = None, model: Any = None, **settings: Any) -> Any:
    config, parts = parts_in(folder, reasoner)
    reasoner.store = parts.resources.store
    given = {"seconds": 3, "overlap": 0, **settings}
    return create_long_video(config, given, parts=parts, checkpointer=saver, model=model)


async def test_parts_are_asked_concurrently_and_their_events_pass_through(tmp_path: Path) -> None:
    reasoner = Watches({4: "<answer>red</answer>", 5: "<answer>Red.</answer>"}, together=3)
    graph, events, final = watched(tmp_path, reasoner, concurrency=3), [], {}
    async for part in graph.astream(
        hopping(tmp_path), stream_mode=["custom", "values"], subgraphs=True, version="v2"
    ):
        if part["type"] == "custom":
            events.append(part["data"])
        elif not part["ns"]:
            final = part["data"]
    assert (final["answer"], final["found"], [e["part"] for e in final["evidence"]]) == ("red", True, [4, 5])
    assert reasoner.most == 3
    assert sorted(reasoner.asked) == list(range(9))
    assert [len(e["parts"]) for e in events if e["type"] == "split"] == [9]
    ends = [e for e in events if e["type"] == "part"]
    assert {e["part"] for e in ends} == set(range(9))
    assert all(list(e) == ["type", "part", "run", "answer"] for e in ends)
    # The events of a part are those of its run.
    views = {e.run for e in map(read_event, events) if e and e.type == "view"}
    assert views == {e["run"] for e in ends} == {t["id"] for t in final["traces"]}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_resumed_run_asks_no_part_again(tmp_path: Path, kind: str) -> None:
    given = hopping(tmp_path)
    async with saver_in(tmp_path, kind) as saver:
        saved: list[int] = []

        async def fails() -> None:
            """Check that all finished parts are saved at this point."""
            state = await saver.aget_tuple(thread())
            saved.append(sum(channel == "answered" for _, channel, _ in state.pending_writes))
            raise RuntimeError("the power failed")

        first = Watches({2: "<answer>red</answer>", 4: fails})
        with pytest.raises(RuntimeError, match="power"):
            await watched(tmp_path, first, saver=saver, at_once=1).ainvoke(given, thread(), durability="sync")
        assert (first.asked, saved) == ([0, 1, 2, 3, 4], [4])
        second = Watches({})
        result = await watched(tmp_path, second, saver=saver, at_once=1).ainvoke(None, thread())
        assert second.asked == [4, 5, 6, 7, 8]
        assert (result["answer"], [e["part"] for e in result["evidence"]]) == ("red", [2])
        # Another question in the same thread starts from the beginning.
        third = Watches({7: "<answer>blue</answer>"})
        result = await watched(tmp_path, third, saver=saver).ainvoke(given, thread())
        assert (result["answer"], len(result["traces"]), sorted(third.asked)) == ("blue", 9, list(range(9)))


async def test_a_failed_part_is_reported_and_the_others_continue(tmp_path: Path) -> None:
    reasoner = Watches({1: RefusedError("it refused"), 2: "<answer>red</answer>"})
    result = await watched(tmp_path, reasoner).ainvoke(hopping(tmp_path, 3))
    assert [(p["verdict"], p["error"]) for p in result["parts"]] == [
        ("absent", ""),
        ("failed", "it refused"),
        ("found", ""),
    ]
    assert (result["answer"], len(result["traces"])) == ("red", 2)
    with pytest.raises(
        ReasonerError, match=r"none of the 3 parts of .*clip\.mp4 could be asked; the first: it refused"
    ):
        await watched(tmp_path, Watches(dict.fromkeys(range(3), RefusedError("it refused")))).ainvoke(
            hopping(tmp_path, 3)
        )
    with pytest.raises(SetupError, match="no key"):
        await watched(tmp_path, Watches({1: SetupError("no key")})).ainvoke(hopping(tmp_path, 3))


async def test_errors_are_raised_before_any_part_is_asked(tmp_path: Path) -> None:
    given, reasoner = hopping(tmp_path, 3), Watches({})
    graph = watched(tmp_path, reasoner, max_parts=2)
    for change, error, says in (
        ({"question": " "}, QuestionError, "empty"),
        ({"video": "none.mp4"}, VideoError, "no file none.mp4"),
        ({}, ConfigError, "splits into 3 parts, and at most 2 are allowed: raise `seconds`"),
    ):
        with pytest.raises(error, match=says):
            await graph.ainvoke(given | change)
    with pytest.raises(ConfigError, match="cannot overlap by 3 s"):
        await graph.ainvoke(given, context=LongVideoContext(overlap=3))
    with pytest.raises(ConfigError, match=r"long video: by: .*'time' or 'scene'"):
        await graph.ainvoke(given, {"configurable": {"act2see": {"by": "colour"}}})
    with pytest.raises(ConfigError, match="long video: unknown key 'second'; did you mean 'seconds'"):
        create_long_video("micro", {"second": 4})
    assert reasoner.asked == []


async def test_a_run_chooses_how_to_split_and_its_context_reaches_the_parts(tmp_path: Path) -> None:
    reasoner = Watches({0: "<answer>red</answer>"})
    graph = watched(tmp_path, reasoner)
    result = await graph.ainvoke(
        hopping(tmp_path, 3), context=LongVideoContext(seconds=6.0, overlap=1.0, tools=("retrieve",), seed=3)
    )
    assert [(p["start"], p["stop"]) for p in result["parts"]] == [(0, 6), (3, 9)]
    assert {(t["versions"]["seed"], *t["versions"]["tools"]) for t in result["traces"]} == {(3, "retrieve")}


async def test_a_person_decides_for_each_part(tmp_path: Path) -> None:
    reasoner = Watches({}, ["I imagine. <generate>it in blue</generate>", "<answer>red</answer>"])
    graph = watched(tmp_path, reasoner, saver=InMemorySaver())
    context = LongVideoContext(approve=("generate",))
    waiting = (await graph.ainvoke(hopping(tmp_path, 2), thread(), context=context))["__interrupt__"]
    assert [w.value["query"] for w in waiting] == ["it in blue"] * 2
    decisions = {w.id: {"type": "refuse", "reason": "no"} for w in waiting}
    result = await graph.ainvoke(Command(resume=decisions), thread(), context=context)
    assert result["answer"] == "red"
    assert [Trace.model_validate(t).looks[0][1].review.decision for t in result["traces"]] == ["refuse"] * 2  # type: ignore[union-attr]


class Reads(GenericFakeChatModel):
    """A chat model with a script. It records its prompts."""

    asked: list[str] = Field(default_factory=list)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(messages[-1].text)
        return super()._generate(messages, *args, **kwargs)


async def test_a_chat_model_merges_what_was_found(tmp_path: Path) -> None:
    says = {1: "<answer>red</answer>", 2: "<answer>blue</answer>", 3: "<answer>green</answer>"}
    replies = [
        "First red, then blue.<answer>red, then blue</answer> <parts>1, 2, 0, 77</parts>",
        "<answer></answer>",
    ]
    model = Reads(messages=iter(map(AIMessage, replies)))
    graph = watched(tmp_path, Watches(says), model=model)
    result = await graph.ainvoke(hopping(tmp_path, 5))
    assert (result["answer"], [e["part"] for e in result["evidence"]]) == ("red, then blue", [1, 2])
    assert "Part 3, 9.0 s to 12.0 s\nAnswer: green" in model.asked[0]
    assert "Part 4" not in model.asked[0]
    assert "Of 5 parts, 2 are not listed" in model.asked[0]
    # The second reply has no answer, so the rule's answer is returned.
    assert (await graph.ainvoke(hopping(tmp_path, 5)))["answer"] == "red"


class Case(TypedDict, total=False):
    video: str
    question: str
    answer: str
    found: bool
    report: str


async def test_the_long_video_graph_is_a_node_of_a_parent(tmp_path: Path) -> None:
    parent = StateGraph(Case)
    parent.add_node("see", watched(tmp_path, Watches({2: "<answer>red</answer>"})))
    parent.add_node("report", lambda case: {"report": f"{case['answer']}, {case['found']}"})
    parent.add_edge(START, "see")
    parent.add_edge("see", "report")
    assert (await parent.compile().ainvoke(hopping(tmp_path, 3)))["report"] == "red, True"


async def test_scenes_are_parts_too(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    full = Board(
        tuple(Piece("square", "yellow", (r, c)) for r in range(3) for c in range(3) if (r, c) != (2, 2))
    )
    slow = (
        (0, Board((Piece("circle", "red", (0, 0)),))),
        (4 * FPS, Board((*full.pieces, Piece("circle", "red", (2, 2))))),
    )
    clip = str(write_clip(Clip(7 * FPS, slow), tmp_path / "clip.mp4"))
    reasoner = Watches({8: "<answer>red</answer>"})
    result = await watched(tmp_path, reasoner, by="scene", seconds=5).ainvoke(
        {"video": clip, "question": "Which colour?"}
    )
    assert [(p["verdict"], pytest.approx(p["start"], abs=0.1)) for p in result["parts"]] == [
        ("absent", 0),
        ("found", 4),
    ]
