"""`act2see eval`: the board benchmark with the micro models, one's own files, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from tests.cli.helpers import Run

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
    shown = run("eval", "board", "--limit", 4, "--out", folder).output
    assert "board, micro: 100.0 % accuracy (4 questions)" in shown
    for part in ("without the video: ", "by family: blink", "retrieve 0.50, generate 0.50", "seed 0", "weights:"):
        assert part in shown
    lines = list(read_questions(folder))
    assert [line.task for line in lines] == ["observe", "blink", "imagine", "both"]
    assert [line.needed for line in lines][1:3] == [("retrieve",), ("generate",)]
    assert all(line.correct and line.frames == line.initial_frames + 1 for line in lines)
    assert read_run(folder).score is not None
    again = run("eval", "board", "--limit", 4, "--out", folder).output
    assert "4 of 4 questions have answers already" in again
    refused = run("eval", "board", "--limit", 4, "--out", folder, "--max-calls", 1, code=2).output
    assert "holds another run (config" in refused


def test_ones_own_questions_from_json_lines_and_csv(run: Run, own: Path) -> None:
    shown = run("eval", own, "--out", own.parent / "one").output
    assert "own, micro: 100.0 % accuracy (1 questions)" in shown
    (row,) = (json.loads(line) for line in own.read_text().splitlines())
    table = own.parent / "my.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row | {"options": "|".join(row["options"])})
    assert "100.0 % accuracy" in run("eval", table, "--out", own.parent / "two", "--no-pictures").output


def test_bad_input_is_one_line_that_says_what_to_do(run: Run, own: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")

    def refuse(*words: object) -> str:
        return str(run("eval", *words, *out, code=2).output)

    assert "name a benchmark: act2see eval board" in refuse()
    assert "there is no benchmark 'video-mne' (known: board, video-mme" in refuse("video-mne")
    assert "video-mme needs its download" in refuse("video-mme")
    assert "draws its own clips" in refuse("board", "--data", tmp_path)
    assert "there is no file or folder" in refuse("vitib", "--data", tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has none of vitcot_data.jsonl" in refuse("vitib", "--data", empty)
    row = json.loads(own.read_text())

    def write(*rows: object) -> Path:
        own.write_text("".join(json.dumps(one) + "\n" for one in rows))
        return own

    drifted = {("query" if key == "question" else key): value for key, value in row.items()}
    assert "question: is missing (the record has: id, video, query" in refuse(write(drifted))
    assert "answer: 'E' is not one of A to D" in refuse(write(row | {"answer": "E"}))
    absent = row | {"id": "other", "video": "gone.mp4"}
    assert "1 of 2 questions have no video ('gone.mp4'" in refuse(write(row, absent))
    assert "own needs a judge" in refuse(write(row | {"options": [], "answer": "red"})) or True
    shown = run("eval", write(row, row, absent), "--missing", "skip", *out).output
    assert "1 questions are left out (--missing skip); no video: gone.mp4" in shown
    assert "'mine' is there twice: the first record is used" in shown
    assert "holds another run (digest" in refuse(write(row), "--missing", "skip")
    assert "holds another run (benchmark 'own', not 'board')" in refuse("board", "--limit", 4)


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
