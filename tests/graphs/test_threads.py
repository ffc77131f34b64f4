"""Several questions in one thread: each run has its own input, output and id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from act2see.errors import QuestionError, VideoError
from act2see.graphs.ask import create_act2see
from act2see.graphs.long_video.graph import create_long_video
from act2see.graphs.run import aresume
from act2see.graphs.state import AskContext
from act2see.micro.world import Clip, write_clip
from tests.graphs.doubles import BOARD, Scripted, clip_in, parts_in
from tests.graphs.parents import child_in, parent_of, saver_in, thread

ANSWER = "It is so.</think><answer>A</answer>"
LOOK = "<retrieve>it</retrieve>"
OPTIONS = ["red", "blue"]


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_second_question_has_its_own_options_and_id(tmp_path: Path, kind: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(ANSWER))
    clip = clip_in(tmp_path)
    async with saver_in(tmp_path, kind) as saver:
        graph: Any = create_act2see(config, parts=parts, checkpointer=saver)
        first = await graph.ainvoke({"video": clip, "question": "One?", "options": OPTIONS}, thread())
        states = [
            s
            async for s in graph.astream({"video": clip, "question": "Two?"}, thread(), stream_mode="values")
        ]
        third = await graph.ainvoke({"video": clip, "question": "Three?", "options": ["a", "b"]}, thread())
        asked = [r["trace"]["question"] for r in (first, states[-1], third)]
        assert [q["options"] for q in asked] == [OPTIONS, [], ["a", "b"]]
        assert [q["text"] for q in asked] == ["One?", "Two?", "Three?"]
        assert all("answer" not in s and "trace" not in s for s in states[:-1])
        ids = [r["trace"]["id"] for r in (first, states[-1], third)]
        assert len(set(ids)) == 3
        assert ids[0] == "t"
        assert all(id.startswith("t-") for id in ids[1:])
        assert (await aresume(graph, "t")).id == ids[2]


@pytest.mark.parametrize(
    "given", [{"question": "Two?"}, {"video": "clip.mp4"}, {"options": ["a"], "question": "Two?"}]
)
async def test_a_second_question_inherits_neither_video_nor_question(tmp_path: Path, given: Any) -> None:
    async with saver_in(tmp_path, "memory") as saver:
        config, parts = parts_in(tmp_path, Scripted(ANSWER))
        clip = clip_in(tmp_path)
        for graph in (
            create_act2see(config, parts=parts, checkpointer=saver),
            create_long_video(config, {"seconds": 4}, parts=parts, checkpointer=InMemorySaver()),
        ):
            await graph.ainvoke({"video": clip, "question": "One?", "options": OPTIONS}, thread())
            with pytest.raises(QuestionError, match=r"missing|empty"):
                await graph.ainvoke(
                    {key: clip if key == "video" else value for key, value in given.items()}, thread()
                )


async def test_runs_from_one_earlier_checkpoint_have_different_ids(tmp_path: Path, kind: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(ANSWER))
    given: Any = {"video": clip_in(tmp_path), "question": "One?", "options": OPTIONS}
    async with saver_in(tmp_path, kind) as saver:
        graph: Any = create_act2see(config, parts=parts, checkpointer=saver)
        first = await graph.ainvoke(given, thread())
        after = (await graph.aget_state(thread())).config
        second = await graph.ainvoke({**given, "question": "Two?"}, thread())
        third = await graph.ainvoke({**given, "question": "Three?"}, after)
        assert len({r["trace"]["id"] for r in (first, second, third)}) == 3


async def test_a_waiting_second_question_shows_no_earlier_answer(tmp_path: Path, kind: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(LOOK, ANSWER))
    given: Any = {"video": clip_in(tmp_path), "question": "One?", "options": OPTIONS}
    async with saver_in(tmp_path, kind) as saver:
        graph: Any = create_act2see(config, parts=parts, checkpointer=saver)
        await graph.ainvoke(given, thread())
        waiting = await graph.ainvoke(
            {**given, "question": "Two?"}, thread(), context=AskContext(approve=("retrieve",))
        )
        values = (await graph.aget_state(thread())).values
        assert waiting["__interrupt__"][0].value["question"] == "Two?"
        for held in (waiting, values):
            assert "answer" not in held
            assert "trace" not in held
        trace = await aresume(graph, "t", decision={"type": "accept"})
        assert (trace.question.text, trace.question.options) == ("Two?", tuple(OPTIONS))
        assert trace.id == waiting["__interrupt__"][0].value["run"]


async def test_a_failed_second_question_shows_no_earlier_answer(tmp_path: Path, kind: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(ANSWER))
    async with saver_in(tmp_path, kind) as saver:
        graph: Any = create_act2see(config, parts=parts, checkpointer=saver)
        await graph.ainvoke({"video": clip_in(tmp_path), "question": "One?"}, thread())
        with pytest.raises(VideoError):
            await graph.ainvoke({"video": "none.mp4", "question": "Two?"}, thread())
        values = (await graph.aget_state(thread())).values
        assert "answer" not in values
        assert "trace" not in values
        with pytest.raises(VideoError):
            await aresume(graph, "t")


async def test_the_long_video_graph_does_the_same(tmp_path: Path, kind: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(ANSWER))
    clip = str(write_clip(Clip(12 * 6, ((0, BOARD),)), tmp_path / "long.mp4"))
    async with saver_in(tmp_path, kind) as saver:
        graph: Any = create_long_video(config, {"seconds": 4}, parts=parts, checkpointer=saver)
        first = await graph.ainvoke({"video": clip, "question": "One?", "options": OPTIONS}, thread())
        assert len(first["traces"]) == 2
        states = [
            s
            async for s in graph.astream({"video": clip, "question": "Two?"}, thread(), stream_mode="values")
        ]
        assert all(not {"answer", "found", "evidence", "parts", "traces"} & set(s) for s in states[:-1])
        told = {"text": "Two?", "options": [], "earlier": [{"question": "One?", "answer": "red"}]}
        assert [t["question"] for t in states[-1]["traces"]] == [told] * 2
        assert not {t["id"] for t in first["traces"]} & {t["id"] for t in states[-1]["traces"]}
        with pytest.raises(VideoError):
            await graph.ainvoke({"video": "none.mp4", "question": "Three?"}, thread())
        assert not {"answer", "found", "evidence", "parts", "traces"} & set(
            (await graph.aget_state(thread())).values
        )


async def test_turns_of_a_parent_have_runs_of_their_own(tmp_path: Path, kind: str) -> None:
    given: Any = {"video": clip_in(tmp_path), "question": "One?", "options": OPTIONS}
    async with saver_in(tmp_path, kind) as saver:
        parent = parent_of(child_in(tmp_path, ANSWER), saver)
        first = await parent.ainvoke(given, thread())
        second = await parent.ainvoke({**given, "question": "Two?"}, thread())
        assert first["trace"]["id"] != second["trace"]["id"]
        assert second["trace"]["question"]["text"] == "Two?"
