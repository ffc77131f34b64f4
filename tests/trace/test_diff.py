"""The differences between two traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from act2see.tools.frames import FrameRef, Retrieved
from act2see.trace.diff import diff_traces
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Text, Turn, Usage, Versions
from act2see.trace.trace import Trace

Make = Callable[..., Trace]
Frame = Callable[..., FrameRef]
QUESTION = Question(text="What?")


@pytest.fixture
def trace(trace: Make) -> Make:
    return lambda **fields: trace(**{"question": QUESTION, **fields})


def call(query: str, tag: str = "retrieve") -> Call:
    return Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query)


def result(*frames: FrameRef, note: str = "", **fields: Any) -> Frames:
    return Frames(tag="retrieve", frames=frames, note=note, **fields)


def answer(body: str) -> Answer:
    return Answer(text=f"<answer>{body}</answer>", body=body)


def test_seconds_and_tokens_make_no_difference(trace: Make, frame: Frame) -> None:
    versions = Versions(act2see="0.1", reasoner="m", tools={"retrieve": "1"}, config="abc")
    segments = (Text(text="I look. "), call("the ring"), result(frame(1, 2.0), seconds=0.1), answer("B"))
    loop = Loop(prefilled=9, cached=0, decoded=5, seconds=1.0, stop="call")
    a = trace(
        id="a",
        initial=(frame(0),),
        segments=segments,
        versions=versions,
        usage=Usage(loops=(loop,), node_seconds={"reason": 1.0}),
    )
    slower = (*segments[:2], result(frame(1, 2.0), seconds=0.7), answer("B"))
    b = a.model_copy(
        update={
            "id": "b",
            "segments": slower,
            "usage": Usage(loops=(loop, loop), node_seconds={"reason": 2.5}),
        }
    )
    diff = diff_traces(a, b)
    assert diff.same
    assert (diff.ids, diff.facts, diff.parted) == (("a", "b"), (), None)
    assert (diff.tokens, diff.seconds, diff.answers) == ((5, 10), (1.0, 2.5), ("B", "B"))
    assert diff.calls[0].same


def test_a_different_score_of_the_same_picture_makes_no_difference(trace: Make, frame: Frame) -> None:
    a, b = (frame(1).model_copy(update={"provenance": Retrieved(query="x", score=s)}) for s in (0.4, 0.5))
    assert diff_traces(trace(segments=(call("x"), result(a))), trace(segments=(call("x"), result(b)))).same


def test_parted_is_the_first_segment_that_differs(trace: Make, frame: Frame) -> None:
    same = (Text(text="I look. "), call("the ring"))
    a = trace(segments=(*same, result(frame(1)), answer("A")))
    b = trace(segments=(*same, result(frame(2, 3.0)), answer("B")))
    diff = diff_traces(a, b)
    assert not diff.same
    assert diff.parted == 2
    (pair,) = diff.calls
    assert (pair.kind, pair.same, pair.frames[0].kind) == ("same", False, "changed")
    assert (pair.frames[0].a, pair.frames[0].b) == (frame(1), frame(2, 3.0))
    assert diff.answers == ("A", "B")
    assert diff_traces(a, trace(segments=same)).parted == 2  # one of them ends there
    assert diff_traces(a, trace(segments=(Text(text="I wait."),))).parted == 0


def test_frame_time_and_note_make_a_difference(trace: Make, frame: Frame) -> None:
    real = trace(segments=(call("x"), result(frame(1, 1.0))))
    assert diff_traces(real, trace(segments=(call("x"), result(frame(1, 2.0))))).parted == 1
    diff = diff_traces(real, trace(segments=(call("x"), result(note="No match."))))
    assert diff.calls[0].notes == ("", "No match.")
    assert [f.kind for f in diff.calls[0].frames] == ["removed"]


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (["the ring", "the star"], ["the ring", "the star"], ["same", "same"]),
        (["the ring"], ["The Ring"], ["same"]),
        (["the ring", "the star"], ["the star"], ["removed", "same"]),
        (["the star"], ["the star", "the ring"], ["same", "added"]),
        (["the ring", "the star"], ["the cross", "the star"], ["changed", "same"]),
        (["the ring"], ["the cross", "the star"], ["changed", "added"]),
        ([], ["the ring"], ["added"]),
    ],
)
def test_calls_are_matched_by_tag_and_query(
    trace: Make, first: list[str], second: list[str], kinds: list[str]
) -> None:
    a, b = (trace(segments=tuple(call(q) for q in queries)) for queries in (first, second))
    diff = diff_traces(a, b)
    assert [c.kind for c in diff.calls] == kinds
    assert [c.a.query for c in diff.calls if c.a] == first
    assert [c.b.query for c in diff.calls if c.b] == second
    assert [c.numbers[0] for c in diff.calls if c.a] == list(range(1, len(first) + 1))


def test_a_call_of_another_tool_has_changed(trace: Make) -> None:
    diff = diff_traces(trace(segments=(call("x"),)), trace(segments=(call("x", "generate"),)))
    assert [c.kind for c in diff.calls] == ["changed"]


def test_facts_compare_question_video_and_versions(trace: Make, frame: Frame) -> None:
    a = trace(
        question=Question(text="What?", options=("red", "blue")),
        versions=Versions(tools={"retrieve": "1"}, seed=3),
    )
    video = a.video.model_copy(update={"path": "other.mp4", "digest": "1" * 32})
    b = trace(
        question=Question(text="Which?", options=("red",)),
        versions=Versions(tools={"retrieve": "2", "zoom": "1"}, config="abc"),
        video=video,
        initial=(frame(1),),
    )
    diff = diff_traces(a, b)
    assert [(f.name, f.a, f.b) for f in diff.facts] == [
        ("question", "What?", "Which?"),
        ("options", "red; blue", "red"),
        ("video", "clip.mp4 (00000000)", "other.mp4 (11111111)"),
        ("config", "", "abc"),
        ("seed", "3", "0"),
        ("tool retrieve", "1", "2"),
        ("tool zoom", "none", "1"),
    ]
    assert [f.kind for f in diff.initial] == ["added"]
    assert not diff.same
    moved = diff_traces(
        a, a.model_copy(update={"video": a.video.model_copy(update={"path": "elsewhere.mp4"})})
    )
    assert not moved.facts  # the same video in another place


def test_answers_are_compared_by_the_options_they_name(trace: Make) -> None:
    question = Question(text="What?", options=("red", "blue"))
    a, b = (trace(question=question, segments=(answer(x),)) for x in ("A", "blue"))
    assert diff_traces(a, b).answers == ("red", "blue")
    assert diff_traces(trace(), b).answers == (None, "blue")


def test_diff_as_json(trace: Make, frame: Frame) -> None:
    a, b = trace(segments=(call("x"), result(frame(1)))), trace(segments=(call("y"), result(frame(2))))
    data = json.loads(diff_traces(a, b).to_json())
    assert data["parted"] == 0
    assert data["calls"][0]["kind"] == "changed"
    assert data["calls"][0]["b"]["query"] == "y"
    assert data["calls"][0]["frames"][0]["b"]["digest"] == frame(2).digest


def test_earlier_turns_are_a_fact(trace: Make) -> None:
    alone = trace(question=Question(text="And the ring?"))
    turns = (Turn(question="Which colour?", answer="red"), Turn(question="Sure?", answer="yes"))
    told = trace(question=Question(text="And the ring?", earlier=turns))
    assert [(f.name, f.a, f.b) for f in diff_traces(alone, told).facts] == [
        ("earlier", "none", "Which colour? red; Sure? yes")
    ]
    assert not diff_traces(told, told).facts
