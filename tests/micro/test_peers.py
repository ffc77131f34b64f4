"""The comparison with the peers: what Act2See spent, what that buys, and the table.

Its runs are tested beside those of the harness.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from act2see.errors import BenchmarkError
from act2see.evaluation.asking import Question as Asked
from act2see.evaluation.records import Calls, QuestionRecord
from act2see.graphs.parts import build_parts
from act2see.micro.questions import make_item
from act2see.micro.study.board import make_sample
from act2see.micro.study.evaluate import micro_config
from act2see.micro.study.peers import BudgetedPeer, bought_frames, budget_frames, frame_cost, spent_tokens
from act2see.micro.study.peers_report import Answers, compare_arms, export_lines, report
from act2see.tools.frames import FrameRef
from act2see.trace.record import Frames, Loop, Question, Usage
from act2see.trace.trace import Trace

MakeFrame = Callable[..., FrameRef]
MakeTrace = Callable[..., Trace]


def make_loop(read: int, written: int) -> Loop:
    return Loop(prefilled=read, cached=0, decoded=written, seconds=0.1, stop="call")


def test_what_came_after_the_first_call_buys_frames(frame: MakeFrame, trace: MakeTrace) -> None:
    usage = Usage(loops=(make_loop(144, 141), make_loop(23, 46)))
    reply = Frames(tag="retrieve", frames=(frame(1),))
    looked = trace(
        id="a", question=Question(text="Where?"), initial=(frame(2),), segments=(reply,), usage=usage
    )
    assert spent_tokens(looked) == 354
    assert frame_cost([looked]) == 23
    assert bought_frames(looked, 23) == 3  # 69 tokens
    plain = trace(id="b", question=Question(text="Where?"), usage=Usage(loops=(make_loop(144, 141),)))
    assert bought_frames(plain, 23) == 0
    assert budget_frames("uniform-frames", [looked, plain]) == {"a": 4, "b": 0}
    assert budget_frames("inserted-frames", [looked, plain]) == {"a": 3, "b": 1}
    assert budget_frames("cited-frames", [plain]) == {}
    with pytest.raises(BenchmarkError, match="ask more questions"):
        frame_cost([plain])


def make_lines(right: int, calls: int) -> list[QuestionRecord]:
    """Return eight answers, of which so many are right."""
    return [
        QuestionRecord(
            id=str(n),
            benchmark="board",
            arm="an arm",
            seed=0,
            task="blink",
            groups={"family": "blink"},
            kind="choice",
            video="clip.mp4",
            question="Which?",
            options=("ring", "cross"),
            order=(),
            truth="A",
            answer="A" if n < right else "B",
            correct=n < right,
            score=float(n < right),
            status="answered",
            outcome="right" if n < right else "wrong",
            read=100,
            tokens=50,
            calls=Calls(retrieve=calls),
        )
        for n in range(8)
    ]


def test_the_table_pairs_the_same_questions() -> None:
    peer = Answers("caption-search", make_lines(2, 0), caption_tokens=[300] * 8)
    arms = [Answers("act2see", make_lines(8, 1), {"reasoner": "micro:vlm@1"}), peer]
    ours, theirs = compare_arms(arms).splitlines()[2:]
    assert ours.startswith("| act2see | 100.0 % (67.6-100.0, n = 8) |  |  | 150 | 50 |  | 0.0 | 1.00 | 0 |")
    # Six discordant pairs of one kind: 2 / 2**6.
    assert theirs.startswith("| caption-search | 25.0 % (7.1-59.1, n = 8) | 6 / 0 | 0.031 | 150 | 50 | 300 |")
    page = report(arms, "peers.jsonl")
    assert "Act2See's interval lies above that of every peer." in page
    assert "| caption-search | 25 % (7-59) |" in page
    assert "reasoner `micro:vlm@1`" in page
    last = json.loads(export_lines(arms).splitlines()[-1])
    assert (last["id"], last["truth"]) == ("7", "A")
    told = {"tokens": 150, "frames": 0}
    assert last["answers"] == {
        "act2see": {"answer": "A", "correct": True, "calls": 1, **told},
        "caption-search": {"answer": "B", "correct": False, "calls": 0, **told},
    }
    behind = [arms[0], Answers("cited-frames", make_lines(7, 0))]
    assert "lies above that of no peer." in report(behind, "peers.jsonl")


async def test_a_peer_shows_the_frames_of_the_budget_of_a_question(tmp_path: Path) -> None:
    config = micro_config(None, tmp_path / "cache")
    config = config.model_copy(update={"budget": config.budget.model_copy(update={"tokens": 20})})
    sample = make_sample(make_item("blink", 0, "test"), tmp_path)
    costs = tmp_path / "captions.jsonl"
    peer = BudgetedPeer("uniform-frames", config, build_parts(config), {"q": 9}, costs)
    assert peer.config.name == "micro, uniform-frames"
    question = Asked(sample.video, sample.question, sample.options, name="q")
    trace = await peer.ask(question)
    # The middles of nine equal parts of 6 s, at the 12 frames a second of the clip.
    assert [round(frame.seconds, 2) for frame in trace.initial] == [
        0.33, 1.0, 1.67, 2.33, 3.0, 3.67, 4.33, 5.0, 5.67
    ]  # fmt: skip
    assert not trace.calls
    assert not costs.exists()
