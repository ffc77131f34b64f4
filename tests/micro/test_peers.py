"""The comparison with the peers: what Act2See spent, what that buys, and the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from act2see.errors import BenchmarkError
from act2see.micro.questions import items
from act2see.micro.study.evaluate import AnsweredItem
from act2see.micro.study.peers import Arm, bought_frames, compare, compare_arms, frame_cost, spent_tokens
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Usage
from act2see.trace.trace import Trace

MakeFrame = Callable[..., FrameRef]
MakeTrace = Callable[..., Trace]


def make_loop(read: int, written: int) -> Loop:
    return Loop(prefilled=read, cached=0, decoded=written, seconds=0.1, stop="call")


def test_what_came_after_the_first_call_buys_frames(frame: MakeFrame, trace: MakeTrace) -> None:
    usage = Usage(loops=(make_loop(144, 141), make_loop(23, 46)))
    reply = Frames(tag="retrieve", frames=(frame(1),))
    looked = trace(question=Question(text="Where?"), segments=(reply,), usage=usage)
    assert spent_tokens(looked) == 354
    assert frame_cost([looked]) == 23
    assert bought_frames(looked, 23) == 3  # 69 tokens
    plain = trace(question=Question(text="Where?"), usage=Usage(loops=(make_loop(144, 141),)))
    assert bought_frames(plain, 23) == 0
    with pytest.raises(BenchmarkError, match="ask more questions"):
        frame_cost([plain])


def test_the_table_compares_the_same_questions(trace: MakeTrace) -> None:
    asked = list(items(8, "test"))

    def answer(right: int, calls: int) -> list[AnsweredItem]:
        answers = []
        for n, item in enumerate(asked):
            letter = item.correct if n < right else next(x for x in "ABCD" if x != item.correct)
            called = [Call(text="", tag="retrieve", query="it")] * calls
            segments = (*called, Answer(text="", body=letter))
            question = Question(text=item.text, options=item.options)
            usage = Usage(loops=(make_loop(100, 50),))
            answers.append(AnsweredItem(item, trace(question=question, segments=segments, usage=usage)))
        return answers

    table = compare_arms([Arm("act2see", answer(8, 1)), Arm("caption-search", answer(2, 0), [300] * 8)])
    ours, peer = table.splitlines()[2:]
    assert ours.startswith("| act2see | 100.0 % (67.6-100.0, n = 8) |  |  | 150 | 50 |  | 0.0 | 1.00 | 0 |")
    # Six discordant pairs of one kind: 2 / 2**6.
    assert peer.startswith("| caption-search | 25.0 % (7.1-59.1, n = 8) | 6 / 0 | 0.031 | 150 | 50 | 300 |")


async def test_answers_of_other_questions_are_refused(tmp_path: Path, trace: MakeTrace) -> None:
    kept = trace(question=Question(text="Another question?"))
    (tmp_path / "act2see.jsonl").write_text(kept.to_json() + "\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="answers to other questions"):
        await compare(1, tmp_path)
