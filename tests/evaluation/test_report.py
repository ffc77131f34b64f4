"""`act2see report`: right figures, a safe page and its twin, and folders that are refused."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.evaluation import InstantArm, make_suite

from act2see.cli.report import report as report_command
from act2see.errors import Act2SeeError, BenchmarkError
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.comparing import compare_pairs, correct_for_many, load_run, load_runs
from act2see.evaluation.diagnostics import count_ignored, make_diagnostics
from act2see.evaluation.harness import Options, open_evaluation
from act2see.evaluation.paper import list_figures
from act2see.evaluation.records import QUESTIONS, RUN, Calls, QuestionRecord, load_trace
from act2see.evaluation.report_pages import write_report
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Call, Frames, Segment, Text
from tests.evaluation.test_harness import KnowingArm
from tests.trace.page_parts import HOSTILE, Page


def make_run(suite: Suite, arm: InstantArm, folder: Path) -> Path:
    """Run a suite without inspect_ai, which writes logs."""
    evaluation = open_evaluation(suite, arm, Options(), folder)

    async def ask() -> None:
        for id in evaluation.samples:
            await evaluation.ask(id, 1)

    try:
        asyncio.run(ask())
        evaluation.finish()
    finally:
        evaluation.folder.close()
    return folder


def line(
    id: int, score: float, needed: tuple[str, ...] | None, tokens: int = 100, **calls: int
) -> QuestionRecord:
    return QuestionRecord(
        id=str(id), benchmark="board", arm="micro", seed=0, task="when" if id % 2 else "where", video="a.mp4",
        question="?", truth="A", correct=score == 1, score=score, status="answered", outcome="right",
        needed=needed, tokens=tokens, calls=Calls(**calls),
    )  # fmt: skip


def test_calls_are_compared_with_need() -> None:
    lines = [
        line(0, 1, ("retrieve",), retrieve=1),
        line(1, 1, ("retrieve", "generate"), retrieve=2),
        line(2, 0, (), generate=1),
        line(3, 0, (), tokens=500),
        line(4, 0, None, other=5),
    ]
    found = make_diagnostics([*lines, line(5, 0, ()).model_copy(update={"status": "failed"})])
    assert found.n == 5
    assert (found.called.share, found.calls) == (0.8, 1.8)
    assert found.recall is not None
    assert found.precision is not None
    assert found.needless is not None
    assert (found.recall.n, round(found.recall.share * 3)) == (3, 2)
    assert (found.precision.n, round(found.precision.share * 4)) == (4, 2)
    assert (found.needless.n, found.needless.share) == (2, 0.5)
    assert found.points == pytest.approx(1000 * 40 / 180)
    assert [(g.name, g.accuracy.n, g.accuracy.share) for g in found.by_calls] == [
        ("0", 1, 0.0),
        ("1", 2, 0.5),
        ("2", 1, 1.0),
        ("4 or more", 1, 0.0),
    ]
    where = next(g for g in found.by_task if g.name == "where")
    assert (where.accuracy.n, where.needed, where.generate) == (3, 0.5, pytest.approx(1 / 3))
    assert (found.with_imagined.n, found.without_imagined.share) == (1, 0.5)
    with pytest.raises(BenchmarkError, match="no question of this run was asked"):
        make_diagnostics([])


def test_a_frame_without_a_word_about_it_is_ignored() -> None:
    call = Call(text="<zoom>x</zoom>", tag="zoom", query="x")
    frame = FrameRef(digest="0" * 32, width=1, height=1, seconds=0)
    shown, answer = Frames(tag="zoom", frames=(frame, frame)), Answer(text="A", body="A")
    said, silent = Text(text="It is red."), Text(text="\n</think>\n")
    forced = Text(text="I answer.", author="graph")
    cases: list[tuple[int, list[Segment]]] = [
        (0, [call, shown, said, answer]),
        (2, [call, shown, silent, answer]),
        (2, [call, shown, forced, answer]),
        (4, [call, shown, call, shown, answer]),
        (2, [call, shown, call, shown, said, answer]),
        (0, [call, Frames(tag="zoom", note="No match."), answer]),
    ]
    for ignored, segments in cases:
        assert count_ignored(segments) == ignored


def test_p_values_of_several_pairs() -> None:
    assert correct_for_many([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_for_many([0.9, 0.8]) == [1.0, 1.0]
    assert correct_for_many([]) == []


def test_the_papers_figures() -> None:
    shown = {figure.who: (figure.accuracy, figure.source) for figure in list_figures("video-mme")}
    assert shown["Act2See"] == (74.2, "CVPR 2026 paper, main results")
    assert shown["Chain-of-Frames"] == (75.3, "CVPR 2026 paper, Table 3")
    assert {f.who: f.accuracy for f in list_figures("vitib")}["Qwen3-VL-8B-Thinking, the base"] == 60.2
    assert list_figures("board") == []


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two runs over the same questions with hostile words: one is always right, one every other time."""
    suite = make_suite(12)
    samples = [s.model_copy(update={"benchmark": "video-mme"}) for s in suite.samples]
    samples[1] = samples[1].model_copy(update={"question": f"Where {HOSTILE[:60]} | `x`?"})
    suite = replace(suite, benchmark="video-mme", samples=tuple(samples))
    return [
        make_run(suite, KnowingArm(suite), tmp_path / "knowing"),
        make_run(suite, InstantArm(), tmp_path / "instant"),
    ]


def test_the_page_and_its_twin(two: list[Path], tmp_path: Path) -> None:
    runs = load_runs(two)
    [pair] = compare_pairs(runs)
    assert (pair.n, pair.paired.both, pair.paired.first_only, pair.paired.second_only) == (12, 6, 6, 0)
    assert pair.paired.p == pair.corrected == 2 / 2**6
    to = tmp_path / "out" / "report.html"
    to.parent.mkdir()
    twin = write_report(runs, to, traces=2)
    html, text = to.read_text(), twin.read_text()
    page = Page(html)  # every element is closed
    [policy] = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")
    plain = re.sub(r"base64,[\w+/=]+", "", html)
    assert not re.search(r"https?:|//\w|@import|<script|<img src=x", plain)
    assert {tag for tag, _ in page.tags} >= {"details", "table", "img"}
    assert [a["src"][:22] for tag, a in page.tags if tag == "img"] == ["data:image/png;base64,"]
    assert [tag for tag, _ in page.tags].count("details") == 2
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert len(links) == 6
    assert all((to.parent / link).resolve().is_file() for link in links)
    for part in (
        "| Act2See | 74.2 % | CVPR 2026 paper, main results |",
        "| knowing, instant | 12 | 6 | 6 | 0 | 0 | 0.031 | 0.031 |",
        "| instant | 50.0 % accuracy | this report, 12 of 12 questions |",
    ):
        assert part in text
    assert "<script" not in text.replace("\\<", "")
    assert write_report(runs, to) == twin  # its own file is replaced
    (tmp_path / "letter.html").write_text("Dear Ann")
    with pytest.raises(Act2SeeError, match="was not written by this command"):
        write_report(runs, tmp_path / "letter.html")
    with pytest.raises(Act2SeeError, match=r"name a \.html file"):
        write_report(runs, tmp_path / "report.pdf")


def test_what_is_refused(two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = two
    report_command([first], tmp_path / "r.html")
    assert "knowing: 100.0 % accuracy" in capsys.readouterr().out

    def refuse(why: str, *folders: Path) -> None:
        with pytest.raises(BenchmarkError, match=why):
            load_runs(folders or [first])

    refuse("holds no run", tmp_path / "nothing")
    refuse("is named twice", first, first)
    whole, foreign = (first / QUESTIONS).read_text(), (second / QUESTIONS).read_text()
    lines = whole.splitlines(keepends=True)
    (first / QUESTIONS).write_text("".join(lines[:-1]))
    refuse("has 11 lines of questions and run.json counts 12")
    (first / QUESTIONS).write_text("".join([*lines[:-1], foreign.splitlines(keepends=True)[-1]]))
    refuse(r"line 12 is of another run \(arm 'instant', not 'knowing'\)")
    changed = json.loads(lines[-1])
    for field, value, why in (
        ("schema_version", 2, "schema version 2 and this act2see reads 1 .field schema_version"),
        ("mood", "good", "line 12: mood"),
        ("seed", 3, "of another run .seed 3, not 0"),
    ):
        (first / QUESTIONS).write_text("".join([*lines[:-1], json.dumps(changed | {field: value}) + "\n"]))
        refuse(why)
    (first / QUESTIONS).write_text(whole)
    path = first / RUN
    path.write_text(path.read_text().replace('"state": "finished"', '"state": "running"'))
    refuse("is not finished")
    assert load_run(second).failures[0].id == "q00001"
    assert load_trace(second, "../instant/traces/x.json") is None
