"""Forks and replays with the real graph, clips, store and checkpoints, and a scripted or a micro model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import StateGraph
from PIL import Image

from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.errors import Act2SeeError, ConfigError, QuestionError, StoreError, VideoError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.fork import DROPPED, afork, areplay, fork, replay
from act2see.graphs.parts import Parts
from act2see.graphs.run import aask, ask
from act2see.graphs.state import AskContext
from act2see.micro.guard import BoardGuard
from act2see.micro.questions import make_item
from act2see.micro.world import render, write_clip
from act2see.tools.base import ToolContext, ToolResult
from act2see.trace.diff import diff_traces
from act2see.trace.events import Event, trace_events
from act2see.trace.record import Frames, Loop
from act2see.trace.trace import Trace
from tests.graphs.doubles import BOARD, Scripted, Shows, clip_in, parts_in

LINES = (
    "Look. <retrieve>second 1</retrieve>",
    "And <generate> second 2 </generate>",
    "It is TIME.</think>\n<answer>TIME</answer>",
)


class Seer(Scripted):
    """Answers with the last reply that it was shown: a time, `imagined`, or a note."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        last = (
            str(request.rollout)
            .rpartition("<frame>")[2]
            .partition("<|")[0]
            .removesuffix("</frame>")
            .strip("<>")
        )
        last = "a note" if "<" in last else last
        seer = Scripted(*(line.replace("TIME", last) for line in self.lines), ends=self.ends)
        async for item in seer.stream(request):
            yield item


class Seconds(Shows):
    """Shows the second that the query ends with."""

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        self.frame = 12 * int(query.split()[-1])
        return await super().call(query, context)


@dataclass
class Place:
    folder: Path
    config: Config
    parts: Parts
    graph: Graph
    trace: Trace


async def place_in(folder: Path, *lines: str, **changes: Any) -> Place:
    config, parts = parts_in(folder, Seer(*lines))
    config = load_config(config, **changes)
    parts = replace(parts, tools={tag: Seconds(tag, parts.resources) for tag in ("retrieve", "generate")})
    graph = create_act2see(config, parts=parts)
    return Place(folder, config, parts, graph, await aask(graph, clip_in(folder, 5), "When?"))


@pytest.fixture
async def place(tmp_path: Path) -> Place:
    return await place_in(tmp_path, *LINES)


def said(trace: Trace) -> list[str]:
    """A summary of the chain: the calls and their replies."""
    return [
        *(s.note or f"{s.frames[0].seconds:g}" if isinstance(s, Frames) else s.text for s in trace.segments)
    ]


async def test_another_query_changes_only_what_follows(place: Place) -> None:
    first = place.trace
    assert first.answer == "2.0 seconds"
    new = await afork(place.graph, first, 2, query=" second   4 ")
    assert new.answer == "4.0 seconds"
    assert new.segments[:4] == first.segments[:4]
    assert new.calls[1].text == "<generate> second 4 </generate>"  # spaced as the model does
    assert new.origin
    assert (new.origin.trace, new.origin.at, new.origin.change) == (first.id, 2, "query")
    assert new.id != first.id
    assert Trace.from_json(new.to_json()) == new
    earlier = await afork(place.graph, first, 1, query="second 3")
    assert [c.query for c in earlier.calls] == ["second 3", "second 2"]
    assert diff_traces(first, earlier).parted == 1


async def test_a_fork_without_a_change_equals_the_trace(place: Place) -> None:
    for at in (0, 1, 2):
        new = await afork(place.graph, place.trace, at)
        assert diff_traces(place.trace, new).same
        assert len(new.usage.loops) == 3
        assert new.versions == place.trace.versions


async def test_the_kept_part_counts_against_the_budget(tmp_path: Path) -> None:
    place = await place_in(tmp_path, *LINES)
    loops = tuple(Loop(prefilled=10 * n, cached=n, decoded=n, seconds=n, stop="call") for n in (1, 2, 3))
    trace = place.trace.model_copy(update={"usage": place.trace.usage.model_copy(update={"loops": loops})})
    new = await afork(place.graph, trace, 2, query="second 4")
    assert new.usage.loops[:2] == loops[:2]
    assert new.usage.node_seconds["reason"] >= 3
    assert set(new.usage.node_seconds) == set(trace.usage.node_seconds)
    spent = await afork(place.graph, trace, 1, context=AskContext(max_calls=1))
    assert [c.outcome for c in spent.calls] == ["ok", "over_budget"]
    allowed = await afork(place.graph, spent, 2, context=AskContext(max_calls=2))  # now it may be made
    assert [c.outcome for c in allowed.calls] == ["ok", "ok"]
    assert diff_traces(trace, allowed).same


async def test_fork_with_another_tool(place: Place) -> None:
    new = await afork(place.graph, place.trace, 1, tag="generate")
    assert [(c.tag, c.query) for c in new.calls] == [("generate", "second 1"), ("generate", "second 2")]
    alone = await aask(
        place.graph, place.trace.video.path, "When?", context=AskContext(tools=("retrieve",), seed=5)
    )
    assert [c.outcome for c in alone.calls] == ["ok", "unknown"]
    kept = await afork(place.graph, alone, 1)  # with the trace's own tools and seed
    assert (kept.versions, diff_traces(alone, kept).same) == (alone.versions, True)
    added = await afork(place.graph, alone, 2, tag="generate", query="second 3")
    assert (set(added.versions.tools), added.answer) == ({"retrieve", "generate"}, "3.0 seconds")


async def test_fork_with_a_dropped_or_a_supplied_frame(place: Place) -> None:
    dropped = await afork(place.graph, place.trace, 2, drop=True)
    assert said(dropped)[5] == DROPPED
    assert dropped.answer == DROPPED
    at_time = await afork(place.graph, place.trace, 1, frame=3.5)
    shown = at_time.shown[len(at_time.initial)]
    assert (shown.seconds, shown.imagined, shown.provenance.kind) == (3.5, False, "supplied")
    file = place.folder / "mine.png"
    Image.fromarray(np.full((900, 300, 3), 200, np.uint8)).save(file)
    given = await afork(place.graph, place.trace, 2, frame=file)
    frames = given.segments[5]
    assert isinstance(frames, Frames)
    assert (frames.note, given.answer) == ("", "imagined")  # a picture proves nothing about the video
    assert (frames.frames[0].width, frames.frames[0].height) == (64, 192)
    assert given.origin
    assert given.origin.change == "frame"


async def test_events_are_those_of_the_whole_chain(place: Place) -> None:
    heard: list[Event] = []
    new = await afork(place.graph, place.trace, 2, query="second 4", on_event=heard.append)
    assert {e.run for e in heard} == {new.id}
    assert [e.type for e in heard if e.type != "token"] == [
        "view",
        "call",
        "frames",
        "call",
        "frames",
        "answer",
    ]
    assert "".join(e.text for e in heard if e.type == "token") == new.text
    again = [e for e in trace_events(new) if e.type != "token"]
    assert again == [e for e in heard if e.type != "token"]


async def test_a_fork_is_saved_and_resumed_as_any_run(tmp_path: Path) -> None:
    place = await place_in(tmp_path, *LINES)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        graph = create_act2see(place.config, parts=place.parts, checkpointer=saver)
        new = await afork(graph, place.trace, 1, query="second 3")
        state = await graph.aget_state({"configurable": {"thread_id": new.id}})
    assert state.values["answer"] == new.answer


def test_fork_and_replay_are_synchronous(tmp_path: Path) -> None:
    place = asyncio.run(place_in(tmp_path, *LINES))
    assert fork(place.graph, place.trace, 2, query="second 4").answer == "4.0 seconds"
    assert diff_traces(place.trace, replay(place.graph, place.trace)).same


@pytest.mark.parametrize(
    ("at", "change", "error", "says"),
    [
        (3, {}, QuestionError, "no call number 3 .*1 <retrieve> second 1; 2 <generate> second 2"),
        (-1, {}, QuestionError, "no call number -1"),
        (0, {"drop": True}, QuestionError, "no call to change at 0"),
        (1, {"drop": True, "query": "x"}, QuestionError, "choose one of"),
        (1, {"tag": "zoom"}, ConfigError, "'zoom'.* retrieve, generate"),
        (1, {"query": " "}, QuestionError, "query was empty"),
        (1, {"query": "x " * 300}, QuestionError, "too long"),
        (1, {"query": "the <generate> x"}, QuestionError, "contained a tag"),
        (1, {"query": "x</retrieve> I know: <answer>A</answer>"}, QuestionError, "cannot be called"),
        (2, {"query": "second 1", "tag": "retrieve"}, QuestionError, "had been made before"),
        (1, {"frame": 99}, QuestionError, "no frame at 99 s"),
        (1, {"frame": "no.png"}, StoreError, "no.png cannot be read"),
        (1, {"frame": __file__}, StoreError, "not a PNG"),
    ],
)
async def test_a_change_that_cannot_be_made_is_an_error(
    place: Place, at: int, change: dict[str, Any], error: type[Act2SeeError], says: str
) -> None:
    with pytest.raises(error, match=says):
        await afork(place.graph, place.trace, at, **change)


async def test_a_missing_frame_tool_or_video_is_an_error(place: Place) -> None:
    first, second, *rest = place.trace.initial
    lost = place.trace.model_copy(
        update={"initial": (first, second.model_copy(update={"digest": "f" * 32}), *rest)}
    )
    with pytest.raises(StoreError, match=r"1 of the 6 frames .* not in .*1\.0 s"):
        await afork(place.graph, lost, 2, query="second 4")
    fewer = create_act2see(
        load_config(place.config),
        parts=replace(place.parts, tools={"generate": place.parts.tools["generate"]}),
    )
    with pytest.raises(ConfigError, match="'retrieve'"):
        await afork(fewer, place.trace, 1)
    clip = Path(place.trace.video.path)
    write_clip(make_item("observe", 0, "test", seconds=6).clip, clip)
    with pytest.raises(VideoError, match="not the video of this trace"):
        await areplay(place.graph, place.trace)
    clip.unlink()
    with pytest.raises(VideoError, match="trace's video is needed"):
        await areplay(place.graph, place.trace)
    other: Any = StateGraph(dict).add_node("x", lambda s: s).set_entry_point("x").compile()
    with pytest.raises(ConfigError, match="made by create_act2see"):
        await areplay(other, place.trace)


async def test_a_malformed_call_is_repeated_or_repaired(tmp_path: Path) -> None:
    place = await place_in(
        tmp_path, "Look. <retrieve>second 1", "<zoom>x</zoom>", "It is TIME.</think><answer>TIME</answer>"
    )
    assert [c.outcome for c in place.trace.calls] == ["unclosed", "unknown"]
    assert diff_traces(place.trace, await afork(place.graph, place.trace, 2)).same
    repaired = await afork(place.graph, place.trace, 1, query="second 3")
    assert [c.outcome for c in repaired.calls] == ["ok", "unknown"]
    with pytest.raises(ConfigError, match="<zoom>, and this run has retrieve, generate"):
        await afork(place.graph, place.trace, 2, query="y")


async def test_calls_that_wait_for_a_person_need_a_checkpointer(tmp_path: Path) -> None:
    place = await place_in(tmp_path, *LINES)
    with pytest.raises(ConfigError, match="checkpointer"):
        await afork(place.graph, place.trace, 1, context=AskContext(approve=("generate",)))


def test_micro_forks_and_replays(tmp_path: Path) -> None:
    item = next(
        i for n in range(20) if (i := make_item("blink", n, "test", seconds=6)).needed == ("retrieve",)
    )
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    graph = create_act2see(load_config("micro"))
    trace = ask(graph, clip, item.text, item.options)
    assert trace.calls
    assert diff_traces(trace, replay(graph, trace)).same
    assert diff_traces(trace, fork(graph, trace, 1)).same
    dropped = fork(graph, trace, 1, drop=True)
    diff = diff_traces(trace, dropped)
    assert (diff.parted, diff.calls[0].kind) == (2, "same")
    assert dropped.answer is not None


async def test_a_picture_that_the_guard_refuses_is_not_shown(tmp_path: Path) -> None:
    place = await place_in(tmp_path, *LINES)
    graph = create_act2see(place.config, parts=replace(place.parts, guard=BoardGuard()))
    file = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "grey").save(file)
    with pytest.raises(QuestionError, match=r"photo\.png is refused, as a video of it would be: I cannot"):
        await afork(graph, place.trace, 2, frame=file)
    Image.fromarray(render(BOARD)).save(file)
    given = await afork(graph, place.trace, 2, frame=file)
    assert given.origin
    assert given.origin.change == "frame"
