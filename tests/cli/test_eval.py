"""`act2see eval`: the board benchmark with the micro models, one's own files, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from tests.cli.helpers import Run

from act2see.cli.eval import find_suite
from act2see.evaluation.benchmarks import BENCHMARKS
from act2see.evaluation.guide import load_guide
from act2see.evaluation.records import read_questions, read_run
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Write a file of questions about a clip of the board world."""
    item = make_item("blink", 0, "test")
    write_clip(item.clip, tmp_path / "clip.mp4")
    row = {"id": "mine", "video": "clip.mp4", "question": item.text, "options": list(item.options)}
    path = tmp_path / "my.jsonl"
    path.write_text(json.dumps(row | {"answer": item.correct}) + "\n")
    return path


def test_the_board_benchmark_runs_offline_with_micro(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    shown = run("eval", "board", "--limit", 2, "--out", folder).output
    assert "board, micro: 100.0 % accuracy (2 questions)" in shown
    for part in ("without the video: ", "by family: blink", "retrieve 1.00, generate 0.00", "seed 0"):
        assert part in shown
    lines = list(read_questions(folder))
    assert [line.task for line in lines] == ["observe", "blink"]
    assert all(line.needed == ("retrieve",) and line.calls.retrieve == 1 for line in lines)
    assert all(line.correct and line.frames == line.initial_frames + 1 for line in lines)
    score = read_run(folder).score
    assert score is not None
    again = run("eval", "board", "--limit", 2, "--out", folder).output
    assert "2 of 2 questions have answers already" in again
    assert read_run(folder).score == score
    refused = run("eval", "board", "--limit", 2, "--out", folder, "--max-calls", 1, code=2).output
    assert "holds another run (config" in refused


def test_a_rival_way_of_working_is_a_run_as_any_other(run: Run, own: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "cited")
    shown = run("eval", own, "--way", "cited", "--no-pictures", *out).output
    assert "own, micro-cited-frames: " in shown
    [line] = read_questions(tmp_path / "cited")
    assert (line.arm, line.calls.all, line.frames) == ("micro-cited-frames", 0, line.initial_frames)
    assert "1 of 1 questions have answers already" in run("eval", own, "--way", "cited-frames", *out).output
    refused = run("eval", own, "--way", "chain", *out, code=2).output
    assert "holds another run (arm 'micro-cited-frames', not 'micro-chain-of-thought')" in refused
    refused = run("eval", own, "--way", "c", *out, code=2).output
    assert "there is no way of working 'c' (known: chain-of-thought, " in refused


def test_ones_own_questions(run: Run, own: Path, tmp_path: Path) -> None:
    row = json.loads(own.read_text())
    absent = row | {"id": "other", "video": "gone.mp4"}
    write_rows(own, row, row, absent)
    out = ("--out", tmp_path / "out")
    assert "1 of 2 questions have no video ('gone.mp4'" in run("eval", own, *out, code=2).output
    shown = run("eval", own, "--missing", "skip", "--no-pictures", *out).output
    assert "own, micro: 100.0 % accuracy (1 questions)" in shown
    assert "1 questions are left out (--missing skip); no video: gone.mp4" in shown
    assert "'mine' is there twice: the first record is used" in shown
    write_rows(own, row)
    assert "holds another run (digest" in run("eval", own, "--missing", "skip", *out, code=2).output
    refused = run("eval", "board", "--limit", 2, *out, code=2).output
    assert "holds another run (benchmark 'own', not 'board')" in refused
    write_rows(own, absent)
    none = run("eval", own, "--missing", "wrong", "--diagnose", "--out", tmp_path / "none").output
    assert "own, micro: 0.0 % accuracy (1 questions)" in none
    assert "answers: missing 1" in none
    assert "inspect view" not in none  # there are no logs


def test_ones_own_questions_from_csv(own: Path) -> None:
    row = json.loads(own.read_text())
    table = own.parent / "my.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row | {"options": "|".join(row["options"])})
    found, same = (find_suite(str(path), None, None, None).suite for path in (table, own))
    assert found.samples == same.samples
    assert found.samples[0].video == str(own.parent / "clip.mp4")


def write_rows(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bad_input_is_one_line_that_says_what_to_do(run: Run, own: Path, tmp_path: Path) -> None:
    def refuse(*words: object) -> str:
        return str(run("eval", *words, "--out", tmp_path / "out", code=2).output)

    assert "name a benchmark: act2see eval board" in refuse()
    assert "there is no benchmark 'video-mne' (known: board, video-mme" in refuse("video-mne")
    assert "video-mme needs its download" in refuse("video-mme")
    assert "draws its own clips" in refuse("board", "--data", tmp_path)
    assert "there is no file or folder" in refuse("vitib", "--data", tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has none of vitcot_data.jsonl" in refuse("vitib", "--data", empty)
    row = json.loads(own.read_text())
    drifted = {("query" if key == "question" else key): value for key, value in row.items()}
    assert "question: is missing (the record has: id, video, query" in refuse(write_rows(own, drifted))
    assert "answer: 'E' is not one of A to D" in refuse(write_rows(own, row | {"answer": "E"}))
    free = row | {"options": [], "answer": "red"}
    assert "1 questions have free answers: name a chat model" in refuse(write_rows(own, free))
    assert not (tmp_path / "out").exists()


def test_the_list_says_what_each_benchmark_needs(run: Run) -> None:
    shown = run("eval", "--list").output
    for name in ("board", *BENCHMARKS):
        assert f"\n{name}: " in f"\n{shown}"
    assert "licence:   academic research only" in shown
    assert "paper 16 h, at 20.9 s a question (one H200, 120 frames" in shown
    assert "unknown (the speed of api is not known" in run("eval", "--list", "--preset", "api").output


def test_the_facts_of_the_list_are_those_of_the_loaders_and_of_the_measurement() -> None:
    needs, speeds = load_guide()
    for one in needs:
        records = BENCHMARKS[one.name].records if one.name in BENCHMARKS else None
        assert records in (None, one.questions), one.name
    assert {one.name for one in needs} == {"board", *BENCHMARKS}
    measured = json.loads((ROOT / "benchmarks/results/gpu/trace_8b.json").read_text())
    assert speeds["paper"].seconds == measured["seconds, first question"]
    assert yaml.safe_load((ROOT / "src/act2see/evaluation/downloads.yaml").read_text())


def test_inspect_finds_the_benchmarks_as_tasks(tmp_path: Path) -> None:
    from act2see.cli.inspect_tasks import NAMES, TASKS

    assert set(NAMES) == {"board", *BENCHMARKS}
    task = TASKS["board"](limit=4, out=str(tmp_path / "run"))
    assert [sample.id for sample in task.dataset] == [f"2000000{n}" for n in range(4)]
    assert task.name == "board-micro"
