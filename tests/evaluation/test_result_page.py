"""The page of one run, and the weights that a folder's answers are of."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.evaluation import make_suite, run_instant

from act2see.errors import BenchmarkError
from act2see.evaluation.keeping import RunFolder
from act2see.evaluation.result_page import MARK, make_page
from act2see.evaluation.summary import describe


def test_a_page_has_the_score_and_what_stands_beside_it(tmp_path: Path) -> None:
    run = run_instant(make_suite(6), tmp_path / "run")
    page = make_page(run, "act2see eval instant")
    assert page.startswith("# instant: 50.0 % accuracy\n\nWritten by act2see: `act2see eval instant`\n")
    assert MARK in page.encode()
    rows = dict(line[2:-2].split(" | ") for line in page.splitlines() if line.count(" | ") == 1)
    assert rows["accuracy"] == "50.0 % (18.8-81.2, n = 6)"
    assert (rows["tokens a question"], rows["tokens read"], rows["unanswered"]) == ("5.00", "9.00", "0")
    assert rows["config"] == run.setting.config
    assert rows["weights"].startswith("reasoner micro:vlm@")
    assert "| always A | 50.0 % | 6 |" in page
    assert "| task | Counting | 50.0 % (9.5-90.5, n = 2) |" in page
    with pytest.raises(BenchmarkError, match="not finished has no score"):
        make_page(run.model_copy(update={"score": None}), "")


def test_a_run_that_continues_names_the_commits_of_its_answers(tmp_path: Path) -> None:
    run = run_instant(make_suite(2), tmp_path / "run")
    for commit in ("b" * 40, "c" * 40, "c" * 40):
        folder = RunFolder(tmp_path / "run", run.model_copy(update={"commit": commit}))
        folder.close()
    of = [f"earlier answers are of commit {commit}" for commit in (run.commit, "b" * 40)]
    assert folder.run.notes == tuple(of if run.commit else of[1:])
    assert any(of[1] in line for line in describe(folder.run))


def test_answers_of_other_weights_are_refused(tmp_path: Path) -> None:
    run = run_instant(make_suite(2), tmp_path / "run")
    other = run.model_copy(update={"weights": run.weights | {"reasoner": "micro:vlm@123"}})
    with pytest.raises(BenchmarkError, match=r"answers of other weights .reasoner 'micro:vlm@.*--out"):
        RunFolder(tmp_path / "run", other)
    unknown = run.model_copy(update={"weights": run.weights | {"reasoner": "micro:vlm"}})
    RunFolder(tmp_path / "run", unknown).close()  # no revision is known, so nothing says that they differ
