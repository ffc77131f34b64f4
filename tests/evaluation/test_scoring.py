"""Scores: who knows every answer has 100 on every benchmark, who is always wrong has 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite, load_benchmark
from act2see.evaluation.guide import load_guide
from act2see.evaluation.judging import ChatJudge, judge_answer, judge_chain
from act2see.evaluation.quantities import Quantity
from act2see.evaluation.replies import (
    Reply,
    ask_next,
    make_anti_oracle,
    make_oracle,
    read_reply,
    show_options,
    shuffle_order,
)
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import measure_size, score_groups, score_sample, score_suite, summarise
from act2see.micro.study.board import load_board
from tests.evaluation import records as r


class Literal:
    """A judge that compares words, and finds the reference's steps in the chain."""

    name = "literal-1"

    async def ask(self, prompt: str) -> str:
        fields = dict(line.split(": ", 1) for line in prompt.splitlines() if ": " in line)
        if "Given answer" in fields:
            return json.dumps({"same": fields["Right answer"] == fields["Given answer"]})
        given, _, steps = prompt.partition("Given reasoning: ")[2].partition("Reference steps:\n")
        reference = [line[2:] for line in steps.splitlines() if line.startswith("- ")]
        if "Split" in prompt:
            return json.dumps(
                [{"step": s, "kind": "logic", "judgment": "matched"} for s in given.splitlines() if s]
            )
        judged = ["matched" if step in given else "unmatched" for step in reference]
        return "```json\n" + json.dumps([{"kind": "video", "judgment": j} for j in judged]) + "\n```"


def suite_of(name: str, folder: Path) -> Suite:
    if name == "board":
        return load_board(4, folder)
    path = folder / f"{name}.json"
    rows: dict[str, Callable[[], Any]] = {
        "video-mme": lambda: [r.video_mme(n, "ABCD"[n % 4]) for n in range(12)],
        "video-mme-v2": lambda: (
            r.video_mme_v2(1)
            + r.video_mme_v2(2, "HGFE", "logic")
            + r.video_mme_v2(3, "EFGH", "logic", "[1, [2, 3], 4]")
            + r.video_mme_v2(4, "BBBB", "logic", "[[1, 2], 3, 4]")
        ),
        "video-espresso": lambda: [r.espresso(n) for n in range(4)],
        "egonormia": lambda: [r.egonormia(n, n % 5, tuple({n % 5, 3})) for n in range(10)],
        "vcr-bench": lambda: [
            r.vcr_bench(n, a) for n, a in enumerate(["B", "[90, 150]", "[10, 20, 30, 40]", "Kitchen"])
        ],
        "vitib": lambda: [r.vitib(n, f"task {n % 3}", f"({'ABCD'[n % 4]})") for n in range(12)],
        "minerva": lambda: [r.minerva(n, answer_id=n) for n in range(5)],
        "own": lambda: [
            {"video": "a", "question": "How many?", "kind": "number", "answer": "12"},
            {"video": "a", "question": "How large?", "kind": "size", "answer": "26.4 m²"},
            {
                "video": "a",
                "question": "Which?",
                "kind": "choices",
                "options": ["x", "y", "z"],
                "answer": "AC",
            },
        ],
    }
    if name == "causalvqa":
        path = folder / "c.csv"
        path.write_text(r.CAUSALVQA, encoding="utf-8")
    else:
        r.write_json(path, rows[name]())
    suite = load_benchmark(name, path, missing="leave out")
    return replace(suite, samples=suite.absent, absent=())  # scoring opens no video


NAMES = [
    "video-mme",
    "video-mme-v2",
    "video-espresso",
    "egonormia",
    "vcr-bench",
    "vitib",
    "minerva",
    "causalvqa",
    "own",
    "board",
]


def test_the_oracles_are_asked_about_every_benchmark() -> None:
    assert sorted(NAMES) == sorted(needs.name for needs in load_guide()[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [None, 0, 7])
async def test_oracle_has_100_and_anti_oracle_0(tmp_path: Path, name: str, seed: int | None) -> None:
    suite = suite_of(name, tmp_path)
    assert suite.samples
    chains = name in ("vcr-bench", "minerva")
    best = await score_suite(
        suite, {s.id: make_oracle(s, seed) for s in suite.samples}, Literal(), chains=chains
    )
    assert best.headline == best.accuracy.share * 100 == 100
    assert all(share.share == 1 for field in best.by.values() for share in field.values())
    assert best.measures == dict.fromkeys(best.measures, 100.0)
    assert best.outcomes == {"right": len(suite.samples)}
    assert best.judge == "literal-1"
    worst = await score_suite(
        suite, {s.id: make_anti_oracle(s, seed) for s in suite.samples}, Literal(), chains=chains
    )
    assert worst.headline == worst.accuracy.share == 0
    assert worst.measures == dict.fromkeys(worst.measures, 0.0)
    if name == "egonormia":
        assert set(best.measures) == {"action", "justification", "both", "sensible"}
    if chains:
        assert set(best.measures) == {"recall", "precision", "f1"}


def test_a_shuffle_maps_back_to_the_record_and_not_the_other_way(tmp_path: Path) -> None:
    suite = suite_of("egonormia", tmp_path)
    orders = {shuffle_order(s.options, s.id, 3) for s in suite.samples}
    assert len(orders) > 3
    assert all(order[4] == 4 for order in orders)  # "None of these." keeps its place
    assert any(
        order != tuple(sorted(range(5), key=order.__getitem__)) for order in orders
    )  # not its own inverse
    for sample in suite.samples:
        reply = make_oracle(sample, 3)
        shown = show_options(sample.options, reply.order)
        assert reply.body is not None
        assert shown["ABCDE".index(reply.body)] == sample.options[sample.right]
        by_words = reply.model_copy(update={"body": sample.options[sample.right]})
        assert score_sample(sample, by_words).measures["both"] == 1
        question = ask_next(sample, reply)
        assert question is not None
        assert sample.options[sample.right] in question.question
    assert shuffle_order(("x", "y", "z"), "k", 1) == shuffle_order(("x", "y", "z"), "k", 1)


def test_egonormia_scores_each_call_for_itself(tmp_path: Path) -> None:
    sample = suite_of("egonormia", tmp_path).samples[1]  # right: B; sensible: B, D
    half = score_sample(sample, Reply(body="B", then="C", sensible="A, B"))
    assert half.measures == {"action": 1, "justification": 0, "both": 0, "sensible": pytest.approx(1 / 3)}
    assert half.outcome == "wrong"
    late = score_sample(sample, Reply(body="I do not know", then="B"))
    assert late.measures == {"action": 0, "justification": 1, "both": 0}
    assert late.outcome == "unreadable"
    nothing = ask_next(sample, Reply(body="?"))
    assert nothing is not None
    assert '"nothing"' in nothing.question


def test_vitib_is_the_unweighted_mean_over_tasks(tmp_path: Path) -> None:
    rows = [r.vitib(n, "large", "(A)") for n in range(8)] + [
        r.vitib(9, "small", "(B)"),
        r.vitib(10, "small", "(B)"),
    ]
    suite = load_benchmark("vitib", r.write_lines(tmp_path / "vitib.jsonl", rows), missing="leave out")
    items = [score_sample(s, Reply(body="A")) for s in suite.absent]
    score = summarise("vitib", items)
    assert score.headline == 50
    assert score.accuracy.share == 0.8


def test_an_iou_must_be_larger_than_its_threshold() -> None:
    base = {"id": "x", "benchmark": "own", "video": "v", "question": "?"}
    interval = Sample(kind="interval", answer="[0, 10]", **base)
    assert [
        score_sample(interval, Reply(body=b)).score for b in ("[0, 7.1]", "[0, 7]", "[8, 20]", "soon")
    ] == [1, 0, 0, 0]
    box = Sample(kind="box", answer="[0, 0, 10, 10]", **base)
    assert [score_sample(box, Reply(body=b)).score for b in ("[0,0,10,5.1]", "[0,0,10,5]", "[0,0,10]")] == [
        1,
        0,
        0,
    ]
    assert score_sample(interval, Reply(body="soon")).outcome == "unreadable"
    assert score_sample(interval, Reply(body="[0, 10]", refused=True)).outcome == "refused"
    several = Sample(kind="choice", options=("x", "y"), answer="A", **base)
    assert score_sample(several, Reply(body="A or B")).outcome == "several"


@pytest.mark.parametrize(
    ("given", "score"), [(10, 1.0), (10.4, 1.0), (11, 0.8), (12, 0.6), (15, 0.0), (30, 0.0)]
)
def test_a_size_is_scored_by_its_mean_relative_accuracy(given: float, score: float) -> None:
    assert measure_size(Quantity(given), Quantity(10)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("kind", "structure", "right", "score"),
    [
        ("relevance", "[1,2,3,4]", "1101", 9 / 16),
        ("logic", "[1, 2, 3, 4]", "1101", 4 / 16),
        ("logic", "[1, 2, 3, 4]", "0111", 0),
        ("logic", "[1, [2, 3], 4]", "1011", 4 / 12),
        ("logic", "[1, [2, 3], 4]", "1110", 7 / 12),
        ("logic", "[[1, 2], 3, 4]", "0111", 1 / 10),
        ("logic", "[[1, 2], 3, 4]", "1100", 2 / 10),
        ("logic", "[[1, 2], 3, 4]", "1111", 1),
    ],
)
def test_groups_of_four(tmp_path: Path, kind: str, structure: str, right: str, score: float) -> None:
    path = r.write_json(tmp_path / "t.json", r.video_mme_v2(1, "AAAA", kind, structure))
    samples = load_benchmark("video-mme-v2", path, missing="leave out").absent
    items = [
        score_sample(s, Reply(body="A" if is_right == "1" else "no idea"))
        for s, is_right in zip(samples, right, strict=True)
    ]
    assert score_groups(items) == pytest.approx(100 * score)
    with pytest.raises(BenchmarkError, match="has 3 questions, not 4"):
        score_groups(items[:3])


@pytest.mark.parametrize(("missing", "n", "share"), [("wrong", 3, 2 / 3), ("leave out", 2, 1.0)])
async def test_questions_without_a_video_count_as_it_was_chosen(
    tmp_path: Path, missing: Any, n: int, share: float
) -> None:
    r.touch(tmp_path / "videos" / "v1.mp4", tmp_path / "videos" / "v2.mp4")
    path = r.write_json(tmp_path / "video_mme.json", [r.video_mme(n) for n in (1, 2, 3)])
    suite = load_benchmark("video-mme", path, missing=missing)
    score = await score_suite(suite, {s.id: make_oracle(s) for s in suite.samples})
    assert (score.accuracy.n, score.accuracy.share) == (n, pytest.approx(share))
    assert score.left_out == 3 - n
    assert score.outcomes.get("no video", 0) == n - 2


async def test_what_is_not_answered_stays_in_the_denominator(tmp_path: Path) -> None:
    suite = suite_of("video-mme", tmp_path)
    score = await score_suite(suite, {suite.samples[0].id: make_oracle(suite.samples[0])})
    assert score.outcomes == {"right": 1, "unanswered": 11}
    assert score.accuracy.share == pytest.approx(1 / 12)
    with pytest.raises(BenchmarkError, match="1 replies are to no question"):
        await score_suite(suite, {"gone": Reply()})
    with pytest.raises(BenchmarkError, match=r"needs a judge \(1 free answers\)"):
        await score_suite(suite_of("vcr-bench", tmp_path), {})


def chat(*replies: str) -> ChatJudge:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    return ChatJudge(FakeListChatModel(responses=list(replies)), "listed-1")


FREE = Sample(
    id="f",
    benchmark="vcr-bench",
    video="v",
    question="Where?",
    kind="text",
    answer="Kitchen",
    chain=("he comes", "so"),
)


async def test_malformed_judgments_are_asked_again_and_then_counted() -> None:
    good = await judge_answer(chat("Well...", '{"same": "yes"}', 'Sure: {"same": true}'), FREE, "a kitchen")
    assert (good.right, good.malformed) == (True, 2)
    bad = await judge_answer(chat("Well...", "[", "{}"), FREE, "a kitchen")
    assert (bad.right, bad.malformed) == (None, 3)
    suite = Suite("vcr-bench", (FREE,), (), "wrong", ())
    score = await score_suite(suite, {"f": Reply(body="a kitchen", chain="he comes")}, chat("?"), chains=True)
    assert score.outcomes == {"unjudged": 1, "unjudged chains": 2}
    assert (score.accuracy.n, score.accuracy.share, score.judge, score.malformed) == (1, 0, "listed-1", 9)
    assert score.measures == {"recall": 0, "precision": 0, "f1": 0}


async def test_recall_and_precision_leave_out_background() -> None:
    recall = [{"kind": "video", "judgment": "matched"}, {"kind": "background", "judgment": "unmatched"}]
    steps = [("logic", "matched"), ("video", "wrong"), ("video", "redundant"), ("background", "wrong")]
    precision = [{"kind": kind, "judgment": judgment} for kind, judgment in steps]
    verdict = await judge_chain(chat(json.dumps(recall), json.dumps(precision)), FREE, "he comes")
    assert (verdict.recall, verdict.precision, verdict.malformed) == (1.0, 0.5, 0)
    short = await judge_chain(
        chat(json.dumps(recall[:1]), json.dumps(recall), json.dumps(precision)), FREE, "he comes"
    )
    assert (short.recall, short.malformed) == (1.0, 1)  # one entry for two steps is not what was asked
    assert (await judge_chain(chat("?"), FREE, " ")).recall == 0


def test_an_answer_is_read_in_the_order_that_was_shown() -> None:
    assert read_reply("A", ("x", "y", "z"), (2, 0, 1)).value == 2
    assert read_reply("y", ("x", "y", "z"), (2, 0, 1)).value == 1
    assert read_reply("A, B", ("x", "y", "z"), (2, 0, 1), "choices").value == {2, 0}
