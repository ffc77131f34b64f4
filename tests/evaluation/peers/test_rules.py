"""The rules of the peers, with right values: where a stage ends, what is cited, which caption is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from act2see.agent.prompt import Prompt
from act2see.agent.rollout import render
from act2see.evaluation.peers.captions import Caption, rank_captions, read_caption
from act2see.evaluation.peers.rollouts import CITE, cited_frames, cut_stage, number_frames
from act2see.tools.frames import FrameRef
from act2see.trace.record import Question, Text
from act2see.trace.trace import Trace

LONG = "A man in a red coat walks along the platform, and a woman waits beside the second door of a train."
MakeFrame = Callable[..., FrameRef]
MakeTrace = Callable[..., Trace]


@pytest.mark.parametrize(
    ("written", "stage"),
    [
        (f"{LONG} So it is B.", LONG),
        (f"{LONG} 2: the train leaves. So it is B.", f"{LONG} 2: the train leaves."),
        (f"{LONG[:-1]}\n\nSo", LONG[:-1]),
        ("Short. Still the first stage", "Short. Still the first stage"),
        ("Short.</think>\n\n<answer>B</answer>", "Short."),
        ("<answer>B", ""),
        ("", ""),
    ],
)
def test_a_stage_ends_with_a_sentence_and_before_the_answer(written: str, stage: str) -> None:
    assert cut_stage(written) == stage


def test_frames_are_numbered_and_their_citation_is_asked_for(frame: MakeFrame, trace: MakeTrace) -> None:
    asked = trace(question=Question(text="Who waves?"), initial=(frame(1), frame(2, seconds=1.0)))
    rollout = render(asked, Prompt({}, "paper"))
    text = str(number_frames(rollout))
    assert "Frame1: <0.0 seconds><|vision_start|>" in text
    assert "Frame2: <1.0 seconds><|vision_start|>" in text
    assert f"\n{CITE}<|im_end|>" in text
    assert number_frames(rollout).frames == rollout.frames
    assert CITE not in str(number_frames(rollout, cite=False))


def test_only_frames_that_exist_are_cited(frame: MakeFrame, trace: MakeTrace) -> None:
    chain = Text(
        text="In Frame2 he waves, as in frame-1 and frame 2; Frame7 and Frame0 do not exist. Frames 3."
    )
    cited = trace(question=Question(text="Who?"), initial=(frame(1), frame(2)), segments=(chain,))
    assert cited_frames(cited) == (2, 1)


def test_rare_words_rank_a_caption_first() -> None:
    captions = ["the man walks to the door", "the man opens the red door", "the man sits", ""]
    assert rank_captions("when does the man open the RED door", captions)[0] == 1
    assert rank_captions("nothing of it", captions) == [0, 1, 2, 3]
    assert rank_captions("anything", []) == []


def test_a_caption_is_the_answer_or_else_the_thought() -> None:
    assert read_caption("They walk.</think>\n\n<answer>Two men\nwalk.</answer>") == "Two men walk."
    assert read_caption("They walk.</think><answer>Two.", whole=True) == "They walk. Two."
    assert read_caption("They <b>walk") == "They walk"
    assert Caption(2.0, 3.6667, "Two men.").line == "[From 2.0 to 3.7 seconds] Two men."
