"""The weights in the package: they load, follow the grammar, call the real tools, and are deterministic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act2see import aask, create_act2see, load_config
from act2see.graphs.ask import Graph
from act2see.graphs.parts import build_parts
from act2see.graphs.state import AskContext
from act2see.micro import guard
from act2see.micro.drafts import REFUSAL
from act2see.micro.questions import FAMILIES, ToolCall, make_item
from act2see.micro.recipe import train as recipe
from act2see.micro.recipe.learn_generator import score_edit
from act2see.micro.study.evaluate import ask_all, micro_config
from act2see.micro.study.strangers import strange_questions
from act2see.micro.world import cell_name, write_clip
from act2see.trace.record import Frames, Text, Turn
from act2see.trace.trace import Trace

WEIGHTS = Path(recipe.__file__).parents[1] / "weights"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return create_act2see(load_config("micro", cache=str(tmp_path_factory.mktemp("cache"))))


def test_shipped_weights_are_small() -> None:
    assert sum(f.stat().st_size for f in WEIGHTS.rglob("*") if f.is_file()) <= 20 << 20


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_question_of_each_family_is_answered_in_the_grammar(
    graph: Graph, tmp_path: Path, family: Any
) -> None:
    item = make_item(family, 5, "validation")
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    trace = await aask(graph, clip, item.text, item.options)
    again = await aask(graph, clip, item.text, item.options)
    assert trace.choice in item.options
    assert isinstance(trace.segments[0], Text)
    assert trace.segments[0].text.startswith(f"{item.asked.text} Second 0: ")
    assert (again.text, again.answer) == (trace.text, trace.answer)
    assert all(s.frames or s.note for s in trace.segments if isinstance(s, Frames))
    assert Trace.from_json(trace.to_json()) == trace


async def test_a_run_resumed_by_another_process_answers_the_same(graph: Graph, tmp_path: Path) -> None:
    """The second half runs on new models, without the first half's key cache and index in memory."""
    from langgraph.checkpoint.memory import InMemorySaver

    item = next(i for i in (make_item("both", n, "validation") for n in range(20)) if len(i.needed) == 2)
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    whole = await aask(graph, clip, item.text, item.options)
    config = load_config("micro", cache=str(tmp_path / "cache"))
    given: Any = {"video": str(clip), "question": item.text, "options": list(item.options)}
    saver = InMemorySaver()
    first = create_act2see(config, parts=build_parts(config), checkpointer=saver)
    for node in ("reason", *{c.tag for c in whole.calls}, "answer"):
        run: Any = {"configurable": {"thread_id": node}}
        await first.ainvoke(given, run, interrupt_before=[node])
        resumed = create_act2see(config, parts=build_parts(config), checkpointer=saver)
        result = await resumed.ainvoke(None, run)
        trace = Trace.model_validate(result["trace"])
        assert (trace.text, trace.answer) == (whole.text, whole.answer)
        assert [f.digest for f in trace.shown] == [f.digest for f in whole.shown]


async def test_a_second_loop_prefills_only_new_tokens(graph: Graph, tmp_path: Path) -> None:
    for i in range(12):
        item = make_item("imagine", i, "validation")
        trace = await aask(graph, write_clip(item.clip, tmp_path / f"{i}.mp4"), item.text, item.options)
        if len(trace.usage.loops) > 1:
            first, second = trace.usage.loops[:2]
            assert second.cached == first.prefilled + first.decoded - 1
            return
    pytest.fail("no question of twelve made the model call a tool")


async def test_shipped_tools_return_the_expected_frames(graph: Graph, tmp_path: Path) -> None:
    from act2see.tools.base import ToolContext

    parts = build_parts(load_config("micro", cache=str(tmp_path)))
    right = []
    for family in ("blink", "imagine"):
        for item in (make_item(family, i, "validation") for i in range(16)):
            for call in (s for s in item.chain if isinstance(s, ToolCall)):
                clip = str(write_clip(item.clip, tmp_path / f"{item.seed}.mp4"))
                result = await parts.tools[call.tag].call(call.query, ToolContext(clip))
                frame = result.frames[0]
                board = item.clip.at(frame.seconds)
                if frame.imagined:
                    assert item.clip.edit is not None
                    pixels = parts.resources.store.get(frame.digest)
                    right.append(all(score_edit(board, item.clip.edit, pixels)))
                else:
                    right.append(set(board.pieces) == set(call.expect.pieces))
    assert len(right) >= 8
    assert sum(right) / len(right) >= 0.8


async def test_a_clip_without_a_board_is_refused(graph: Graph, tmp_path: Path) -> None:
    import av
    import numpy as np

    noise = np.random.default_rng(0)
    with av.open(str(tmp_path / "other.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        base = noise.integers(0, 255, (27, 48, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        for _ in range(24):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(base, format="rgb24")))
        container.mux(stream.encode())
    trace = await aask(graph, tmp_path / "other.mp4", "What is this?")
    assert (trace.answer or "").startswith(guard.MESSAGE)
    assert not trace.calls


@pytest.mark.timeout(300)
async def test_strangers_questions_are_mostly_answered(tmp_path: Path) -> None:
    answers, _ = await ask_all(micro_config(None, tmp_path / "cache"), strange_questions(30), tmp_path)
    assert sum(a.right for a in answers) >= 22


async def test_what_is_beyond_the_board_is_declined_with_examples(graph: Graph, tmp_path: Path) -> None:
    clip = write_clip(make_item("observe", 0, "validation").clip, tmp_path / "clip.mp4")
    trace = await aask(graph, clip, "How many people are in this video?")
    assert trace.answer == REFUSAL
    assert REFUSAL.count("?") == 3
    assert not trace.calls


async def test_a_follow_up_is_read_with_the_question_before(graph: Graph, tmp_path: Path) -> None:
    item = next(i for i in (make_item("plain", n, "validation") for n in range(60)) if i.kind == "end")
    x = dict(item.asked.slots)["x"]
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    earlier = (Turn(question="Where does the circle end up at the very end?", answer="north"),)
    trace = await aask(graph, clip, f"and the {x}?", context=AskContext(earlier=earlier))
    assert trace.answer == item.answer


async def test_a_thread_goes_on_after_a_declined_question(tmp_path: Path) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    item = make_item("both", 3, "validation")
    shapes = {p.shape: p for p in item.clip.base(0).pieces}
    x, y = list(shapes)[:2]
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    config = load_config("micro", cache=str(tmp_path / "cache"))
    app = create_act2see(config, checkpointer=InMemorySaver())
    expected = {
        f"What colour is the {x}?": shapes[x].colour,
        f"and the {y}?": shapes[y].colour,
        "where is it at the start?": cell_name(shapes[y].cell),
        "what's the weather like in Paris?": REFUSAL,
        "How many shapes are there?": str(len(shapes)),
        f"Does the {x} move?": "no",
    }
    answers = {question: (await aask(app, clip, question, thread_id="1")).answer for question in expected}
    assert answers == expected
