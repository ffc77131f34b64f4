"""A trace in a few words: its repr, and the answer on top of its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from act2see.tools.frames import FrameRef, Retrieved
from act2see.trace.record import Answer, Call, Frames, Question, Text, Video
from act2see.trace.trace import Trace

VIDEO = Video(path="/videos/clip.mp4", digest="d", seconds=6.0, width=192, height=192, frames=72, fps=12)
FRAME = FrameRef(
    digest="0" * 32, seconds=1.7, width=2, height=2, provenance=Retrieved(query="ring", score=0.4)
)
LOOK = (
    Call(text="<retrieve>ring</retrieve>", tag="retrieve", query="ring"),
    Frames(tag="retrieve", frames=(FRAME,)),
)
LONG = "Which\nof\x1b[31m the shapes is it that blinks? " * 40


def trace(
    calls: int = 1,
    question: str = "Which blinks?",
    answer: str | None = "B",
    options: tuple[str, ...] = ("cross", "ring"),
) -> Trace:
    said = () if answer is None else (Answer(text=f"<answer>{answer}</answer>", body=answer),)
    segments = (Text(text="Hm."), *LOOK * calls, *said)
    return Trace(id="1a2b", video=VIDEO, question=Question(text=question, options=options), segments=segments)


MANY = trace(40, LONG, LONG, tuple(LONG + str(n) for n in range(26)))


@pytest.mark.parametrize("made", [trace(), trace(0), MANY, trace(answer=None, options=())])
def test_a_trace_is_ten_lines(made: Trace) -> None:
    for words in (repr(made), str(made)):
        lines = words.splitlines()
        assert len(lines) <= 10
        assert max(map(len, lines)) <= 100
        assert words.isprintable() or {c for c in words if not c.isprintable()} == {"\n"}
        assert "1a2b" in lines[0]


def test_it_says_what_was_asked_looked_at_and_answered() -> None:
    words = repr(trace())
    for part in (
        "Which blinks?",
        "A. cross, B. ring",
        "clip.mp4, 6.0 s",
        "retrieve 'ring': 1.7 s",
        "answer: B (ring)",
    ):
        assert part in words
    assert "not finished" in repr(trace(answer=None))


def test_the_answer_stands_on_top_of_the_json_and_it_is_still_a_trace(tmp_path: Path) -> None:
    made = trace()
    text = made.to_json(summary=True)
    data = json.loads(text)
    assert list(data)[:3] == ["answer", "choice", "options"]
    assert (data["answer"], data["choice"], data["options"]) == ("B", "ring", ["cross", "ring"])
    assert Trace.from_json(text) == made
    file = tmp_path / "out.json"
    file.write_text(text, encoding="utf-8")
    assert Trace.load(file) == made
    assert {k: v for k, v in data.items() if k in json.loads(made.to_json())} == json.loads(made.to_json())
    unfinished = json.loads(trace(answer=None).to_json(summary=True))
    assert (unfinished["answer"], unfinished["choice"]) == (None, None)
