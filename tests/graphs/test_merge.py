"""The verdicts on the parts of a long video, and merging their answers."""

from __future__ import annotations

from typing import Any

import pytest

from act2see.graphs.long_video.merge import (
    NOTHING,
    PartReport,
    evidence_of,
    in_whole_video,
    judge,
    says_absent,
    vote,
)
from act2see.tools.frames import Cropped, Curve, FrameRef, Generated, Retrieved
from act2see.tools.video.parts import Span
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Text, Usage, Video
from act2see.trace.trace import Trace

CURVE = Curve(start=0.0, step=1.0, values=(0.1, 0.2))
NO_MATCH = 0.25


def frame(seconds: float, provenance: Any = None) -> FrameRef:
    ref = FrameRef(digest=f"{round(seconds * 10):032x}", width=48, height=48, seconds=seconds)
    return ref.model_copy(update={"provenance": provenance}) if provenance else ref


def trace(
    answer: str | None, *looks: tuple[str, float | None], thought: str = "So.", options: tuple[str, ...] = ()
) -> Trace:
    """`looks` are searches: a query, and the score of the frame that came back, or None if none did."""
    segments: list[Any] = []
    for query, score in looks:
        found = (frame(3.3, Retrieved(query=query, score=score)),) if score is not None else ()
        segments += [
            Call(text="", tag="retrieve", query=query),
            Frames(tag="retrieve", frames=found, curve=CURVE),
        ]
    segments.append(Text(text=f"{thought}</think>\n"))
    if answer is not None:
        segments.append(Answer(text=f"<answer>{answer}</answer>", body=answer))
    usage = Usage(loops=(Loop(prefilled=1, cached=0, decoded=1, seconds=0.1, stop="until"),))
    video = Video(path="a", digest="b", seconds=9, width=48, height=48, frames=9, fps=1)
    asked = Question(text="Which colour?", options=options)
    return Trace(
        id="t",
        video=video,
        question=asked,
        initial=(frame(0.0), frame(1.0)),
        segments=tuple(segments),
        usage=usage,
    )


def judged(
    *traces: Trace, similarity: Any = lambda frame, query: 0.6
) -> tuple[list[PartReport], dict[int, FrameRef]]:
    parts = [Span(8.0 * n, 8.0 * n + 9) for n in range(len(traces))]
    given = dict(enumerate(traces))
    return judge(
        parts, given, {}, [f"part {n}" for n in given], similarity=similarity, no_match=NO_MATCH, margin=0.5
    )


def verdicts(*traces: Trace, **options: Any) -> list[str]:
    return [r.verdict for r in judged(*traces, **options)[0]]


@pytest.mark.parametrize(
    ("answer", "thought", "absent"),
    [
        ("It is not visible.", "", True),
        ("The ball isn't shown in this clip", "", True),
        ("No triangle can be seen.", "", True),
        ("None", "", True),
        ("I cannot tell: this clip does not show a board.", "", True),
        ("red", "I do not see the triangle. My guess is red.", True),
        ("red", "I can't find it.", True),
        ("red", "It is not on the left there, so it is on the right.", False),
        ("not moving", "", False),
        ("nothing but the red one", "", False),
        ("north", "I notice it at once.", False),
        ("red", "I cannot see it yet." + " I look again: there it is." * 9, False),
    ],
)
def test_says_absent_reads_answer_and_thought(answer: str, thought: str, absent: bool) -> None:
    assert says_absent(trace(answer, thought=thought)) is absent


def test_verdicts_follow_what_a_part_did() -> None:
    found, guessed, empty, nothing = (
        trace("blue", ("it blinks", 0.5)),
        trace("red", ("it blinks", None)),
        trace(" "),
        trace(None),
    )
    assert verdicts(found, guessed, empty, nothing) == ["found", "absent", "silent", "silent"]
    refused = found.model_copy(
        update={"segments": (Answer(text="", body="A forest.", forced=True),), "usage": Usage()}
    )
    assert verdicts(found, refused) == ["found", "silent"]
    # A second search that succeeds counts.
    assert verdicts(trace("blue", ("it", None), ("it blinks", 0.4))) == ["found"]


def test_a_part_without_searches_is_scored_by_the_most_common_query() -> None:
    asked = []

    def similarity(frame: FrameRef, query: str) -> float:
        asked.append((frame.seconds, query))
        return 0.6 if frame.seconds else 0.1

    reports, best = judged(
        trace("blue"),
        trace("red", ("it blinks", 0.3)),
        trace("red", ("it blinks", None)),
        trace("red", ("a ring", None)),
        similarity=similarity,
    )
    assert asked == [(0.0, "it blinks"), (1.0, "it blinks")]
    # 0.3 lies below half of the way from 0.25 to 0.6.
    assert [(r.verdict, r.score) for r in reports] == [
        ("found", 0.6),
        ("faint", 0.3),
        ("absent", None),
        ("absent", None),
    ]
    assert best[0].seconds == 1.0
    assert verdicts(trace("blue"), trace("red", ("it", 0.5)), similarity=lambda *_: 0.1) == ["faint", "found"]
    # No part searched: there are no scores, and the wording decides.
    assert [r.score for r in judged(trace("blue"), trace("red"))[0]] == [None, None]


def said(*traces: Trace) -> tuple[str, bool, list[int]]:
    return vote(judged(*traces)[0], dict(enumerate(traces)))


def test_one_that_found_it_wins_against_many_that_guessed() -> None:
    guesses = [trace("red", ("it", None)) for _ in range(20)]
    assert said(*guesses, trace("Blue.", ("it", 0.5)), trace("blue", ("it", 0.55))) == (
        "blue",
        True,
        [21, 20],
    )


def test_among_those_that_found_it_most_votes_win_then_the_best_score_then_the_first() -> None:
    assert said(trace("red", ("it", 0.6)), trace("blue", ("it", 0.5)), trace("blue", ("it", 0.5))) == (
        "blue",
        True,
        [1, 2],
    )
    assert said(trace("red", ("it", 0.5)), trace("blue", ("it", 0.6))) == ("blue", True, [1])
    assert said(trace("red"), trace("blue")) == ("red", True, [0])
    # A letter and its words are one answer.
    both = ("red", "blue")
    assert said(trace("A", options=both), trace("B", options=both), trace("blue", options=both))[2] == [1, 2]


def test_without_a_finding_there_is_a_guess_or_nothing() -> None:
    assert said(trace("red", ("it", None)), trace("blue", ("it", None))) == (NOTHING, False, [])
    options = ("red", "blue")
    assert said(*(trace(a, ("it", None), options=options) for a in ("A", "B", "B"))) == ("B", False, [1, 2])
    assert said(trace(None), trace("")) == (NOTHING, False, [])


def test_evidence_has_times_of_the_whole_video_and_marks_imagined_frames() -> None:
    imagined = frame(2.0, Generated(prompt="tipped", anchor=frame(2.0), seed=0, strength=0.3, model="m"))
    crop = frame(1.0, Cropped(query="it", source=frame(1.0), box=(0, 0, 1, 1)))
    shown = (
        Call(text="", tag="generate", query="tipped"),
        Frames(tag="generate", frames=(imagined, crop), curve=CURVE),
    )
    before = trace("blue", ("it", 0.5))
    before = before.model_copy(update={"segments": (*before.segments[:2], *shown, *before.segments[2:])})
    whole = in_whole_video(before, 16.0)
    assert [f.seconds for f in whole.shown] == [16.0, 17.0, 19.3, 18.0, 17.0]
    assert whole.shown[3].provenance.anchor.seconds == 18.0  # type: ignore[union-attr]
    assert whole.shown[4].provenance.source.seconds == 17.0  # type: ignore[union-attr]
    assert [f.curve.start for _, f in whole.looks if f and f.curve] == [16.0, 16.0]
    report = PartReport(part=2, start=16.0, stop=25.0, video="v", verdict="found", answer="blue", score=0.5)
    made = evidence_of(report, before, before.initial[1])
    assert [(f["seconds"], f["imagined"]) for f in made.frames] == [
        (17.0, False),
        (19.3, False),
        (18.0, True),
        (17.0, False),
    ]
    assert "imagined from the frame at 18.0 s" in made.text
