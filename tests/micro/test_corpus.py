"""Variants of a chain in the corpus: with fewer tools, and without its view."""

from __future__ import annotations

import random

import pytest

from act2see.micro.questions import TAGS, ToolCall, make_item
from act2see.micro.recipe.corpus import after_view, tools_line, with_lines, with_tools
from act2see.trace.record import Answer, Call, Frames, Question, Text, Versions, Video
from act2see.trace.trace import Trace

LINE = tools_line(TAGS)
FRAMES = Frames(tag="retrieve", note="nothing")


def chain(*segments: Text | Call | Frames | Answer) -> Trace:
    return Trace(
        id="x",
        video=Video(path="", digest="", seconds=2.0, width=48, height=48, frames=24, fps=12.0),
        question=Question(text="Where?", options=("north", "south", "west")),
        segments=segments,
        versions=Versions(tools=dict.fromkeys(TAGS, "1")),
    )


BOTH = chain(
    Text(text=f"Second 0: north ring red. A ring blinks in these frames: no.{LINE}"),
    Call(text="<retrieve>the ring blinks</retrieve>", tag="retrieve", query="the ring blinks"),
    FRAMES,
    Text(text=f"north lit ring glowing red. A tipped board in these frames: no.{LINE}"),
    Call(text="<generate>the board tipped</generate>", tag="generate", query="the board tipped"),
    FRAMES,
    Text(text="tipped to the left: west ring red. On the tipped board the ring is at west.</think>\n"),
    Answer(text="<answer>west</answer>", body="west"),
)


def test_with_all_tools_a_trace_is_unchanged() -> None:
    assert with_tools(BOTH, TAGS, random.Random(0)) == BOTH


@pytest.mark.parametrize("tags", [(), ("generate",)])
def test_without_retrieve_a_chain_guesses(tags: tuple[str, ...]) -> None:
    guesses = set()
    for seed in range(20):
        trace = with_tools(BOTH, tags, random.Random(seed))
        assert trace.calls == ()
        assert tuple(trace.versions.tools) == tags
        thought, answer = trace.segments
        assert isinstance(thought, Text)
        assert isinstance(answer, Answer)
        end = (
            f" A ring blinks in these frames: no.{tools_line(tags)} I cannot look again. "
            f"My guess is {answer.body}.</think>\n"
        )
        assert thought.text.endswith(end)
        guesses.add(answer.body)
    assert guesses == {"north", "south", "west"}


def test_without_generate_a_chain_concludes_from_text() -> None:
    trace = with_tools(BOTH, ("retrieve",), random.Random(0))
    assert [c.tag for c in trace.calls] == ["retrieve"]
    assert trace.text.endswith(
        "\nTools: retrieve. I cannot imagine it. On the tipped board the ring is at west.</think>\n"
        "<answer>west</answer>"
    )
    assert "generate" not in trace.text
    assert LINE not in trace.text


def test_an_unused_tool_is_only_removed_from_the_tools_line() -> None:
    plain = chain(
        Text(text="Second 0: north ring red. At the start the ring is at north.</think>\n"), BOTH.segments[-1]
    )
    assert with_tools(plain, (), random.Random(0)).segments == plain.segments


def test_every_call_of_an_item_follows_the_line_of_tools() -> None:
    item = next(i for i in (make_item("both", n) for n in range(20)) if len(i.needed) == 2)
    steps = with_lines(item).chain
    before = [steps[i - 1] for i, s in enumerate(steps) if isinstance(s, ToolCall)]
    assert before == [LINE, LINE]
    assert item.needed == with_lines(item).needed


def test_after_view_masks_the_description_of_the_view() -> None:
    initial = [{"digest": f"d{n}", "width": 48, "height": 48, "seconds": float(n)} for n in range(2)]
    description = "Second 0: north ring red. 1: north ring red."
    conclusion = " A ring in these frames: yes. The ring is red.</think>\n"
    whole = chain(Text(text=description + conclusion), BOTH.segments[-1])
    trace = Trace.model_validate({**whole.model_dump(), "initial": initial})
    masked, trained, answer = after_view(trace).segments
    assert isinstance(masked, Text)
    assert isinstance(trained, Text)
    assert (masked.text, masked.author) == (description, "graph")
    assert (trained.text, trained.author) == (conclusion, "model")
    assert masked.text + trained.text + answer.text == trace.text  # type: ignore[union-attr]
    assert not after_view(trace).initial
