"""The lessons of the micro VLM: each batch follows from its number, and teaches what it is for."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from act2see.agent.packing import Packer
from act2see.agent.rollout import Rollout
from act2see.micro.kinds import KINDS
from act2see.micro.questions import EVERYDAY, FAMILIES, Seen, ToolCall, make_item
from act2see.micro.recipe.chain_lessons import Chains, Ends, EvenEnds, Readings, draw_trace
from act2see.micro.recipe.corpus import UNSEEN, Reference, with_lines, with_tools
from act2see.micro.recipe.lessons import Answers, Clips, Facts, Glances, RolloutLesson, facts
from act2see.micro.recipe.rollouts import DrawnFrames
from act2see.micro.words import describe_path, view_of
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.record import Answer, Frames, Text

IGNORED = -100


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:vlm"))


def lessons(packer: Packer) -> list[RolloutLesson]:
    return [
        Glances(packer, 4, 0),
        Clips(packer, 3, 0),
        Facts(packer, 3, 0),
        Answers(packer, 3, 0),
        Answers(packer, 3, 0, shown=False),
        Chains(packer, 3, 0),
        Ends(packer, 3, 0),
        EvenEnds(packer, 3, 0),
        Readings(packer, 4, 0),
    ]


def trained(packer: Packer, batch: dict[str, Any], row: int) -> str:
    """Return the text of a row on which the model is trained."""
    labels = batch["labels"][row]
    return str(packer.codec.tokenizer.decode(labels[labels != IGNORED]))


def test_a_batch_follows_from_its_number(packer: Packer) -> None:
    for lesson, same in zip(lessons(packer), lessons(packer), strict=True):
        assert lesson == same
        first = lesson(3)
        assert first["input_ids"].tolist() == same(3)["input_ids"].tolist()
        assert first["input_ids"].tolist() != lesson(4)["input_ids"].tolist()


def test_readings_train_the_worlds_own_words_alone(packer: Packer) -> None:
    batch = Readings(packer, 16, 0)(0)
    assert "pixel_values" not in batch
    for row in range(16):
        text = trained(packer, batch, row)
        assert text.endswith(("?", ".")), text
        assert "Second" not in text


def test_ends_train_what_follows_the_view(packer: Packer) -> None:
    batch = Ends(packer, 8, 0)(0)
    for row in range(8):
        assert "Second 0" not in trained(packer, batch, row)
        assert "</answer>" in trained(packer, batch, row)


def kind_of(rollout: Rollout) -> str:
    """Return the kind of the world's question that a rollout asks: the one with the most words that fits."""
    for kind, question in sorted(KINDS.items(), key=lambda kind: -len(re.sub("{.*?}", "", kind[1]))):
        pattern = "([a-z ]+|[0-9]+)".join(map(re.escape, re.split("{.*?}", question)))
        if any(re.fullmatch(pattern, line) for line in str(rollout).splitlines()):
            return kind
    raise AssertionError(f"no kind: {rollout}")


def test_even_ends_ask_another_kind_in_each_row(packer: Packer) -> None:
    rollouts = EvenEnds(packer, 20, 0).rollouts(random.Random(5), DrawnFrames(5))
    assert len(rollouts) == 20
    assert len({kind_of(rollout) for rollout in rollouts}) == 20


@pytest.mark.parametrize("family", [*FAMILIES, *EVERYDAY])
def test_drawn_chains_say_what_their_frames_show(family: str) -> None:
    for index in range(12):
        item = make_item(family, index)  # type: ignore[arg-type]
        frames = DrawnFrames(index)
        trace = draw_trace(item, frames)
        assert len(trace.calls) == len(item.needed)
        assert trace.answer == item.answer
        assert trace.text.startswith(item.asked.text)
        returned = [s for s in trace.segments if isinstance(s, Frames)]
        calls = [s for s in item.chain if isinstance(s, ToolCall)]
        for call, result in zip(calls, returned, strict=True):
            if result.frames:
                assert frames.boards[result.frames[0].digest] == call.expect
            else:
                assert call.any_frame
                assert result.note.startswith("No match: nothing else in this video looks like that")


def test_a_search_without_a_match_is_mostly_a_note() -> None:
    notes, shown = 0, 0
    for index in range(60):
        trace = draw_trace(make_item("false", index), DrawnFrames(index))
        for result in (s for s in trace.segments if isinstance(s, Frames) and s.tag == "retrieve"):
            notes += not result.frames
            shown += bool(result.frames)
    assert notes > shown > 0


def test_without_options_a_chain_that_cannot_look_says_so() -> None:
    item = next(i for i in (make_item("when", n) for n in range(40)) if i.needed)
    trace = with_tools(draw_trace(with_lines(item), DrawnFrames(0)), (), random.Random(0))
    *_, thought, answer = trace.segments
    assert isinstance(answer, Answer)
    assert isinstance(thought, Text)
    assert answer.body == UNSEEN
    assert thought.text.endswith("\nTools: none. I cannot look again.</think>\n")


def test_a_path_counts_moves_and_leaves_gaps() -> None:
    item = next(i for i in (make_item("count", n) for n in range(60)) if i.kind == "how_many_moves")
    view = view_of(item.clip)
    path = describe_path(dict(item.asked.slots)["x"], view)
    assert path.count("moved") == int(item.answer)
    events, plain = facts(view, random.Random(0))
    assert any(begin.endswith(":") and " moved " in end for group in events for begin, end in group) or plain


def test_the_reference_describes_the_frame_that_came_back() -> None:
    assert Reference.name == "reference"
    item = next(i for i in (make_item("when", n) for n in range(40)) if i.needed)
    assert any(isinstance(step, Seen) for step in item.chain)
