"""The data of a trace: its JSON, its repr, and the option that an answer names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from act2see.errors import TraceError
from act2see.tools.frames import FrameRef, Retrieved
from act2see.trace.options import choose
from act2see.trace.record import Answer, Call, Frames, Question, Text, Turn, Video
from act2see.trace.trace import Trace, load_traces

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
    end = () if answer is None else (Answer(text=f"<answer>{answer}</answer>", body=answer),)
    segments = (Text(text="Hm."), *LOOK * calls, *end)
    return Trace(id="1a2b", video=VIDEO, question=Question(text=question, options=options), segments=segments)


MANY = trace(40, LONG, LONG, tuple(LONG + str(n) for n in range(26)))
MANY = MANY.model_copy(
    update={"question": MANY.question.model_copy(update={"earlier": (Turn(question=LONG, answer=LONG),) * 3})}
)


@pytest.mark.parametrize("made", [trace(), trace(0), MANY, trace(answer=None, options=())])
def test_repr_is_at_most_ten_printable_lines(made: Trace) -> None:
    for words in (repr(made), str(made)):
        lines = words.splitlines()
        assert len(lines) <= 10
        assert max(map(len, lines)) <= 100
        assert words.isprintable() or {c for c in words if not c.isprintable()} == {"\n"}
        assert "1a2b" in lines[0]


def test_repr_holds_question_calls_and_answer() -> None:
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


def test_json_with_a_summary_is_read_back_as_the_trace(tmp_path: Path) -> None:
    made = trace()
    text = made.to_json(summary=True)
    data = json.loads(text)
    assert list(data)[:4] == ["answer", "choice", "options", "refused"]
    assert (data["answer"], data["choice"], data["options"]) == ("B", "ring", ["cross", "ring"])
    assert data["refused"] is False
    assert Trace.from_json(text) == made
    file = tmp_path / "out.json"
    file.write_text(text, encoding="utf-8")
    assert Trace.load(file) == made
    assert {k: v for k, v in data.items() if k in json.loads(made.to_json())} == json.loads(made.to_json())
    unfinished = json.loads(trace(answer=None).to_json(summary=True))
    assert (unfinished["answer"], unfinished["choice"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "out.json is not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 2}', "schema version 2 and this act2see reads 1"),
        ('{"schema_version": 1, "id": "a", "video": 3}', "out.json: video"),
    ],
)
def test_a_file_that_is_not_a_trace_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "out.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TraceError, match=message):
        Trace.load(file)
    with pytest.raises(TraceError, match=r"out.json, line 1"):
        list(load_traces(file))


def test_traces_are_saved_and_loaded(tmp_path: Path) -> None:
    first, second = trace(), trace(0)
    assert Trace.load(first.save(tmp_path / "new" / "trace.json").parent) == first
    lines = tmp_path / "traces.jsonl"
    lines.write_text(f"{first.to_json()}\n\n{second.to_json()}\n", encoding="utf-8")
    assert list(load_traces(lines)) == [first, second]
    with pytest.raises(TraceError, match="cannot read the trace"):
        Trace.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("answer", "chosen"),
    [
        ("B", "the ring"),
        ("(b)", "the ring"),
        ("[A].", "a man"),
        ("B. the ring", "the ring"),
        ("(A) a man walks in", "a man"),
        ("c: neither", "neither"),
        ("The ring.", "the ring"),
        ("A man walks in", None),
        ("D", None),
        ("", None),
        (None, None),
        ("**B**", "the ring"),
        ("'B'", "the ring"),
        ("B!", "the ring"),
        ("```\nB\n```", "the ring"),
        ("B\nthe ring", "the ring"),
        ("B - the ring", "the ring"),
        ("B, the ring", "the ring"),
        ("**B**: the ring", "the ring"),
        ("[B] the ring", "the ring"),
        ("B\uff1athe ring", "the ring"),
        ("the  ring", "the ring"),
        ('"the ring"', "the ring"),
        ("It turns red.\n\n**Answer: B**", "the ring"),
        ("**Final Answer:** B", "the ring"),
        ("Answer: B. the ring", "the ring"),
        ("The correct answer is **B. the ring**.", "the ring"),
        ("So the answer is B.", "the ring"),
        ("The answer is (c).", "neither"),
        ("The answer is B, not option A.", "the ring"),
        ("option b", "the ring"),
        ("It's B.", "the ring"),
        ("B is correct", "the ring"),
        ("答案是B", "the ring"),
        (r"$\boxed{A}$", "a man"),
        (r"\boxed{\text{B}}", "the ring"),
        ("The answer is D.", None),
        ("My answer: a man walks in", None),
        ("Answer: A man walks in", None),
        ("So it's not option B.", None),
        ("The answer is not option A.", None),
        ("I rule out option A", None),
        ("B fits better than option A", None),
        ("A) or B)", None),
        ("A. or maybe B", None),
        ("c. 1900", None),
        ("a.k.a. the king", None),
    ],
)
def test_choose(answer: str | None, chosen: str | None) -> None:
    assert choose(answer, ("a man", "the ring", "neither")) == chosen


@pytest.mark.parametrize(
    ("answer", "options"),
    [("A.D.", ("B.C.", "A.D.")), ("a.m.", ("p.m.", "a.m.")), ("A.C. Milan", ("Inter", "A.C. Milan"))],
)
def test_the_words_of_an_option_come_before_a_letter(answer: str, options: tuple[str, ...]) -> None:
    assert choose(answer, options) == answer


@pytest.mark.parametrize(
    "answer", ["answer" + "\n" * 100_000 + "x", "answer is" + " " * 100_000, "A. " * 50_000]
)
def test_choose_is_quick_on_long_answers(answer: str) -> None:
    assert choose(answer, ("a man", "the ring")) is None


def test_choose_without_options_or_among_equal_ones() -> None:
    assert choose("A", ()) is None
    assert choose("ring", ("ring", "Ring.")) is None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/videos/clip.mp4", "clip.mp4"),
        ("C:\\videos\\clip.mp4", "clip.mp4"),
        ("https://example.org/clip.mp4?key=secret", "clip.mp4"),
        ("what?.mp4", "what?.mp4"),
        ("", "video"),
    ],
)
def test_a_videos_name_has_no_folders_and_no_query(path: str, name: str) -> None:
    assert VIDEO.model_copy(update={"path": path}).name == name


def test_earlier_turns_are_kept_and_left_out_when_there_are_none() -> None:
    asked = Question(text="And the ring?", earlier=(Turn(question="Which\nis red?", answer="the circle"),))
    made = trace(options=()).model_copy(update={"question": asked})
    assert json.loads(made.to_json())["question"] == {
        "text": "And the ring?",
        "options": [],
        "earlier": [{"question": "Which\nis red?", "answer": "the circle"}],
    }
    assert Trace.from_json(made.to_json()) == made
    assert "asked before: Which is red? the circle" in repr(made)
    old = trace()
    assert json.loads(old.to_json())["question"] == {"text": "Which blinks?", "options": ["cross", "ring"]}
    assert Trace.from_json(old.to_json()).question.earlier == ()
