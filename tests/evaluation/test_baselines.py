"""Blind baselines, intervals and paired tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.evaluation import InstantArm, make_suite

from act2see.errors import BenchmarkError
from act2see.evaluation.baselines import score_baselines
from act2see.evaluation.benchmarks import load_benchmark
from act2see.evaluation.harness import Options, open_evaluation
from act2see.evaluation.inspecting import run_tasks
from act2see.evaluation.records import read_questions
from act2see.evaluation.replies import shuffle_order
from act2see.evaluation.statistics import compare_runs, measure_share
from tests.evaluation import records as r
from tests.evaluation.test_benchmarks import real


def test_baselines_need_no_video(tmp_path: Path) -> None:
    rows = [r.vitib(1, "a", "(D)"), r.vitib(2, "a", "(B)"), r.vitib(3, "b", "(D)")]
    suite = load_benchmark("vitib", r.write_lines(tmp_path / "vitib.jsonl", rows), missing="wrong")
    scores = score_baselines(suite)
    assert list(scores) == ["longest", "shortest", "always A", "always B", "always C", "always D"]
    assert scores["shortest"].accuracy.share == pytest.approx(2 / 3)
    assert scores["shortest"].headline == 75  # (1/2 + 1) / 2
    assert scores["longest"].accuracy.share == pytest.approx(1 / 3)
    assert scores["always A"].accuracy.share == 0


def test_baselines_answer_both_questions_of_egonormia(tmp_path: Path) -> None:
    rows = [r.egonormia(n, right=1) for n in range(3)]
    suite = load_benchmark("egonormia", r.write_json(tmp_path / "final_data.json", rows), missing="wrong")
    assert score_baselines(suite)["always B"].measures["both"] == 100
    lines = [{"video": "a", "question": "Where?", "answer": "there"}]
    own = load_benchmark("own", r.write_lines(tmp_path / "mine.jsonl", lines), missing="wrong")
    with pytest.raises(BenchmarkError, match="no question with options"):
        score_baselines(own)


def test_baselines_see_the_order_that_was_shown(tmp_path: Path) -> None:
    suite = make_suite(6)
    suite = replace(suite, samples=suite.samples[:4], absent=suite.samples[4:])
    shown = Options(shuffle=True, epochs=2, seed=3, missing="wrong", pictures=False)
    evaluation = open_evaluation(suite, InstantArm(), shown, tmp_path / "run")
    run_tasks(evaluation)
    done = evaluation.finish()
    evaluation.folder.close()
    lines = list(read_questions(tmp_path / "run"))
    assert all(line.order for line in lines)  # those without a video, too
    truths = Counter(line.truth for line in lines)
    assert truths != Counter("ABABAB" * 2)
    found = {baseline.name: baseline.accuracy for baseline in done.baselines}
    for letter in "ABCD":
        assert found[f"always {letter}"] == pytest.approx(100 * truths[letter] / 12)
    longest = [max(line.options, key=len) == line.options["ABCD".index(line.truth)] for line in lines]
    assert found["longest"] == pytest.approx(100 * sum(longest) / 12)


def test_baselines_of_egonormia_see_both_orders(tmp_path: Path) -> None:
    rows = [r.egonormia(n, right=1) for n in range(12)]
    suite = load_benchmark("egonormia", r.write_json(tmp_path / "final_data.json", rows), missing="wrong")
    first = [shuffle_order(s.options, s.id, 5).index(1) == 0 for s in suite.absent]
    second = [shuffle_order(s.options, f"{s.id} then", 5).index(1) == 0 for s in suite.absent]
    measures = score_baselines(suite, [5])["always A"].measures
    assert measures["action"] == pytest.approx(100 * sum(first) / 12)
    assert measures["justification"] == pytest.approx(100 * sum(second) / 12)
    assert 0 < sum(first) < 12 > sum(second) > 0


def test_the_known_baselines_of_the_real_vitib() -> None:
    path = real("vitib.jsonl")
    if len(path.read_text(encoding="utf-8").splitlines()) != 1382:
        pytest.skip("vitib.jsonl is a part: set ACT2SEE_BENCHMARKS to a folder with all 1,382 records")
    scores = score_baselines(load_benchmark("vitib", path, missing="wrong"))
    found = {name: (round(100 * s.accuracy.share, 1), round(s.headline, 1)) for name, s in scores.items()}
    assert found["shortest"] == (55.1, 54.1)
    assert found["always B"] == (40.7, 42.2)


def test_wilson_intervals() -> None:
    share = measure_share([1.0] * 8 + [0.0] * 2)
    assert (share.low, share.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert str(share) == "80.0 % (49.0-94.3, n = 10)"
    partly = measure_share([0.5, 0.25])
    assert partly.low < partly.share == 0.375 < partly.high
    assert (measure_share([]).low, measure_share([]).high) == (0, 1)


def test_mcnemar_by_the_pairs_that_differ() -> None:
    first = {str(n): float(n < 10) for n in range(20)}
    second = {str(n): float(n < 1) for n in range(20)}
    paired = compare_runs(first, second)
    assert (paired.both, paired.first_only, paired.second_only, paired.neither) == (1, 9, 0, 10)
    assert paired.p == pytest.approx(2 * 0.5**9)
    assert compare_runs(first, first).p == 1
    with pytest.raises(BenchmarkError, match="1 questions are in one run only"):
        compare_runs(first, first | {"x": 1.0})
