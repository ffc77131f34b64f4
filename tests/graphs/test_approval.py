"""Approval of calls by a person: decisions, their effect on the model and the trace, and invalid ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from PIL import Image

from act2see.errors import ConfigError, DecisionError, ToolError, WaitingError
from act2see.graphs.ask import create_act2see
from act2see.graphs.evidence import evidence
from act2see.graphs.run import aask, aresume
from act2see.graphs.state import AskContext
from act2see.tools.frames import Retrieved, Supplied
from act2see.tools.runtime.files import read_file
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.trace.page import trace_html
from act2see.trace.record import Frames, Review
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tests.graphs.parents import DURABILITIES, asked, child_in, parent_of, saver_in, thread

IMAGINE = "Imagine. <generate>it in blue</generate>"
DONE = "So.</think>\n<answer>B</answer>"
ASKED = AskContext(approve=("generate",))


class Waits:
    """A scripted run that has reached its `<generate>` and waits for a person."""

    def __init__(self, folder: Path, *lines: str, **fails: Exception) -> None:
        self.reasoner = Scripted(*(lines or (IMAGINE, DONE)))
        self.config, self.parts = parts_in(folder, self.reasoner, **fails)
        self.graph = create_act2see(self.config, parts=self.parts, checkpointer=InMemorySaver())
        self.clip = clip_in(folder)
        self.generate: Any = self.parts.tools["generate"]

    async def __aenter__(self) -> Waits:
        with pytest.raises(WaitingError, match=r"<generate>it in blue</generate>.*aresume\(graph, 't'"):
            await aask(self.graph, self.clip, "What?", ["red", "blue"], context=ASKED, thread_id="t")
        assert self.generate.queries == []
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def decide(self, **decision: Any) -> tuple[Trace, Frames]:
        trace = await aresume(self.graph, "t", decision=decision)
        return trace, next(s for s in trace.segments if isinstance(s, Frames))


async def test_accept_calls_the_tool_with_the_models_query(tmp_path: Path) -> None:
    async with Waits(tmp_path) as run:
        trace, frames = await run.decide(type="accept", by="Ann")
    assert run.generate.queries == ["it in blue"]
    assert (frames.review, frames.note) == (Review(decision="accept", by="Ann"), "")
    assert (trace.answer, trace.choice) == ("B", "blue")
    assert set(trace.usage.node_seconds) == {"view", "reason", "generate"}


async def test_replace_calls_the_tool_with_the_persons_query(tmp_path: Path) -> None:
    async with Waits(tmp_path) as run:
        trace, frames = await run.decide(type="replace", query="it in green")
    assert run.generate.queries == ["it in green"]
    assert trace.calls[0].query == "it in blue"
    assert trace.text == IMAGINE + DONE
    assert frames.review == Review(decision="replace", by="a person", query="it in green")
    assert frames.frames[0].provenance == Retrieved(query="it in green", score=0.9)
    assert run.reasoner.rollouts[-1].endswith('A person asked for "it in green" instead.</frame>')


async def test_refuse_tells_the_model_the_reason(tmp_path: Path) -> None:
    async with Waits(tmp_path) as run:
        _, frames = await run.decide(type="refuse", reason="It costs too much.", by="Ann")
    assert run.generate.queries == []
    assert frames.note == "A person refused this call: It costs too much. Go on without it."
    assert frames.review == Review(decision="refuse", by="Ann", reason="It costs too much.")
    assert frames.note in run.reasoner.rollouts[-1]


async def test_a_picture_is_stored_and_marked_with_who_supplied_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 600, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    async with Waits(tmp_path) as run:
        trace, frames = await run.decide(type="supply", frame=str(tmp_path / "mine.png"), by="Ann")
    (frame,) = frames.frames
    assert frame.provenance == Supplied(by="Ann", query="it in blue", file="mine.png")
    assert frame.imagined
    assert run.parts.resources.store.get(frame.digest).shape == (
        96,
        192,
        3,
    )  # at most as large as the video's frames
    assert run.reasoner.rollouts[-1].endswith(
        "<imagined><|vision_start|><|image_pad|><|vision_end|>A person supplied this frame.</frame>"
    )
    assert run.generate.queries == []
    assert '- picture that is not in the video, supplied by Ann for "it in blue"' in evidence(trace)
    page = trace_html(trace, run.parts.resources.store)
    for words in (
        "supplied by Ann",
        "A person was asked",
        "Ann supplied a frame instead",
        'class="badge">imagined',
    ):
        assert words in page


async def test_a_frame_of_the_video_can_be_supplied_by_its_time(tmp_path: Path) -> None:
    async with Waits(tmp_path) as run:
        _, frames = await run.decide(type="supply", seconds=1.5)
    (frame,) = frames.frames
    assert (frame.seconds, frame.imagined, frame.provenance) == (
        1.5,
        False,
        Supplied(by="a person", query="it in blue"),
    )


WRONG = [
    ("yes", "must hold keys and values"),
    ({"query": "x"}, "type: Field required"),
    ({"type": "allow"}, "type: Input should be 'accept'"),
    ({"type": "accept", "query": "x"}, "'accept' does not take 'query'"),
    ({"type": "replace"}, "'replace' needs 'query'"),
    ({"type": "replace", "query": "  "}, "'replace' needs 'query'"),
    ({"type": "replace", "query": "x" * 1001}, "query: String should have at most 1000"),
    ({"type": "supply"}, "'supply' needs either"),
    ({"type": "supply", "frame": "a.png", "seconds": 1}, "'supply' needs either"),
    ({"type": "supply", "seconds": -1}, "seconds: Input should be greater"),
    ({"type": "supply", "seconds": float("nan")}, "seconds: Input should be a finite"),
    ({"type": "supply", "frame": "nowhere.png"}, "nowhere.png cannot be read: No such file"),
    ({"type": "supply", "frame": __file__}, "it is not a PNG, JPEG or WebP"),
    ({"type": "refuse", "why": "no"}, "why: Extra inputs"),
    ({"type": "supply", "frame": "a\0.png"}, "'frame' holds a null character"),
    ({"type": "supply", "frame": "\ud800.png"}, "'frame' holds a null character or a lone surrogate"),
    ({"type": "replace", "query": "a\ud800"}, "query: Input should be a valid string"),
    ({"type": "refuse", "reason": "\udfff"}, "reason: Input should be a valid string"),
    ({"type": "accept", "by": "Ann\0"}, "'by' holds"),
]


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
@pytest.mark.parametrize("durability", DURABILITIES)
async def test_an_invalid_decision_raises_and_the_run_still_waits(
    tmp_path: Path, saver: str, durability: Any
) -> None:
    async with saver_in(tmp_path, saver) as checkpointer:
        parent = parent_of(child_in(tmp_path, approve=True), checkpointer)
        await parent.ainvoke(asked(tmp_path), thread(), durability=durability)
        for answer, says in WRONG:
            with pytest.raises(DecisionError) as raised:
                await parent.ainvoke(Command(resume=answer), thread(), durability=durability)
            assert says in str(raised.value)
            assert "\n" not in str(raised.value)
        (waiting,) = (await parent.aget_state(thread())).interrupts
        assert set(waiting.response_schema["properties"]) == {
            "type",
            "query",
            "frame",
            "seconds",
            "reason",
            "by",
        }
        result = await parent.ainvoke(Command(resume={"type": "accept"}), thread(), durability=durability)
        assert result["said"] == "It said B."


async def test_a_pipe_is_not_read_as_a_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    async with Waits(tmp_path) as run:
        for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
            with pytest.raises(
                DecisionError, match=r"cannot be read: (it is not a regular file|Is a directory)"
            ):
                await run.decide(type="supply", frame=str(path))
        await run.decide(type="accept")


async def test_pictures_are_confined_to_the_folders_of_videos(
    tmp_path: Path,
) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside.png"
    inside.mkdir()
    for path in (outside, inside / "mine.png"):
        Image.new("RGB", (40, 30), "red").save(path)
    (inside / "link.png").symlink_to(outside)
    (inside / "text.png").write_text("no picture")
    os.mkfifo(inside / "pipe.png")
    async with Waits(tmp_path) as run:
        finder = run.parts.resources.finder
        finder.library = FencedLibrary(finder.library, Folders([inside]))
        said = set()
        for name in (
            outside,
            "/no/such.png",
            inside / "link.png",
            inside / "pipe.png",
            inside / "none.png",
            "/dev/zero",
            "../outside.png",
            "",
        ):
            with pytest.raises(DecisionError) as e:
                await run.decide(type="supply", frame=str(name))
            said.add(str(e.value))
        assert len(said) == 1
        assert f"only pictures in {inside} may be opened" in said.pop()
        with pytest.raises(DecisionError, match="it is not a PNG, JPEG or WebP picture"):
            await run.decide(type="supply", frame=str(inside / "text.png"))
        _, frames = await run.decide(type="supply", frame=str(inside / "mine.png"))
    assert frames.frames[0].provenance == Supplied(by="a person", query="it in blue", file="mine.png")


async def test_the_picture_that_was_checked_is_the_one_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is read once, so a later change to it has no effect."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "mine.png")
    reads = 0

    def counted(*given: Any, **options: Any) -> bytes:
        nonlocal reads
        reads += 1
        return read_file(*given, **options)

    monkeypatch.setattr("act2see.graphs.approval.read_file", counted)
    async with Waits(tmp_path) as run:
        await run.decide(type="supply", frame=str(tmp_path / "mine.png"))
    assert reads == 1


async def test_a_retried_tool_does_not_ask_again(tmp_path: Path) -> None:
    async with Waits(tmp_path, generate=ToolError("out of memory")) as run:
        _, frames = await run.decide(type="replace", query="it in green")
    assert run.generate.queries == ["it in green", "it in green"]
    assert frames.note == "The tool failed: out of memory. Go on without it."
    assert frames.review == Review(decision="replace", by="a person", query="it in green")


async def test_each_call_waits_and_a_resumed_run_needs_no_approve_setting(tmp_path: Path) -> None:
    async with Waits(
        tmp_path, IMAGINE, "<retrieve>it</retrieve>", "<generate>it in red</generate>", DONE
    ) as run:
        with pytest.raises(WaitingError, match="it in red"):
            await aresume(run.graph, "t", decision={"type": "replace", "query": "other"})
        with pytest.raises(WaitingError, match="it in red"):
            await aresume(run.graph, "t")
        trace, _ = await run.decide(type="accept")
    assert run.generate.queries == ["other", "it in red"]
    said = [s.review and s.review.decision for s in trace.segments if isinstance(s, Frames)]
    assert said == ["replace", None, "accept"]
    with pytest.raises(DecisionError, match="is not waiting for a decision"):
        await aresume(run.graph, "t", decision={"type": "accept"})


async def test_approve_applies_to_one_question_of_a_thread(tmp_path: Path) -> None:
    async with Waits(tmp_path) as run:
        trace = await aask(run.graph, run.clip, "What?", thread_id="t")
    assert trace.answer == "B"
    assert run.generate.queries == ["it in blue"]


async def test_an_unknown_tag_in_approve_is_a_config_error(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, Scripted(IMAGINE, DONE))
    graph = create_act2see(config, parts=parts)
    with pytest.raises(ConfigError, match="approve: there is no tool 'zoom'"):
        await aask(graph, clip_in(tmp_path), "What?", context=AskContext(approve=("zoom",)))
    with pytest.raises(ConfigError, match=r"must be saved.*checkpointer"):
        await aask(graph, clip_in(tmp_path), "What?", context=ASKED)
