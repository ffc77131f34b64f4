"""Sources: every record becomes a sample or a problem that names it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import SourceError
from act2see.micro.source import load_world
from act2see.training.corpus.sources import (
    LOADERS,
    Loaded,
    Problem,
    Sample,
    Tally,
    load_causalvqa,
    load_jsonl,
    load_minerva,
    load_social_genome,
)

SHARED = Path(__file__).parents[4] / "shared" / "data" / "benchmarks"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.webm", "clip 1.mp4"):
        (folder / name).write_bytes(b"x")
    return folder


def minerva(**changes: Any) -> dict[str, Any]:
    row = {
        "key": "k1",
        "video_id": "a",
        "question": "Who wins?",
        "answer": "the red team",
        "answer_id": 2,
        "reasoning": "At 0:05 red scores.",
    }
    row |= {f"answer_choice_{i}": f"team {i}" for i in range(5)} | {
        "split": "x",
        "category": "sports",
        "question type": "goal",
    }
    return row | changes


def written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def parts(loaded: list[Loaded]) -> tuple[list[Sample], list[Problem]]:
    return [x for x in loaded if isinstance(x, Sample)], [x for x in loaded if isinstance(x, Problem)]


def test_minerva_records_become_samples_or_problems(tmp_path: Path, videos: Path) -> None:
    rows = [
        minerva(),
        minerva(key="k2", video_id="b", answer_id="0"),
        minerva(key="k3", answer_id=5),
        minerva(key="k4", reasoning=" "),
        minerva(key="k5", video_id="gone"),
        minerva(key="k6", answer_choice_4=None),
        minerva(),
        "no object",
    ]
    samples, problems = parts(list(load_minerva(written(tmp_path / "m.json", rows), videos)))
    assert [(s.id, s.answer, Path(s.video).name) for s in samples] == [
        ("k1", "team 2", "a.mp4"),
        ("k2", "team 0", "b.webm"),
    ]
    assert samples[0].chain == "At 0:05 red scores."
    assert samples[0].licence == "CC-BY-4.0"
    named = [
        ("k3", "answer_id"),
        ("k4", "reasoning"),
        ("k5", "video_id"),
        ("k6", "answer_choice_4"),
        ("k1", "id"),
        ("record 8", "record"),
    ]
    assert [(p.record, p.field) for p in problems] == named
    assert all(p.dropped for p in problems)
    without, _ = parts(list(load_minerva(tmp_path / "m.json", videos, True)))
    assert [s.id for s in without] == ["k1", "k2", "k4"]


def test_causalvqa_records_and_the_notice_of_their_licence(tmp_path: Path, videos: Path) -> None:
    path = tmp_path / "c.csv"
    head = [
        "qid",
        "type",
        "question",
        "choices1",
        "choices2",
        "correct1",
        "correct2",
        "difficulty",
        "renamed_video",
    ]
    with path.open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(head)
        table.writerow(
            [
                "q1",
                "causal",
                "Why, then?",
                "1. it fell|2. it was pushed",
                "1. x|2. y",
                "2",
                "1",
                "hard",
                "a.mp4",
            ]
        )
        table.writerow(
            ["q2", "causal", "Why?", "1. it fell|2. it was pushed", "1. x|2. y", "3", "1", "hard", "a.mp4"]
        )
    samples, problems = parts(list(load_causalvqa(path, videos)))
    assert not samples
    assert problems[0].field == "licence"
    assert "evaluation only" in problems[0].why
    assert {p.field for p in problems[1:]} == {"rationale", "correct1"}
    assert "--without-chains" in problems[1].why
    samples, _ = parts(list(load_causalvqa(path, videos, True)))
    assert [(s.id, s.options, s.answer) for s in samples] == [
        ("q1", ("it fell", "it was pushed"), "it was pushed")
    ]


def test_social_genome_records_keep_their_trim(tmp_path: Path, videos: Path) -> None:
    row = {
        "qid": "v_q5_0",
        "q": "Why?",
        "vid_name": "a",
        "ts": "12.50-60.019000",
        "a0": "w",
        "a1": "x",
        "a2": "y",
        "a3": "z",
    }
    rows = [
        row | {"answer": 1, "chain": "She smiles."},
        row | {"qid": "2", "answer": "z", "chain": "He nods.", "ts": "60-12"},
        row | {"qid": "3"},
        row | {"qid": "4", "answer": "c", "chain": "He nods.", "ts": "soon"},
    ]
    samples, problems = parts(list(load_social_genome(written(tmp_path / "s.json", rows), videos)))
    assert [(s.answer, s.trim) for s in samples] == [("x", (12.5, 60.019))]
    assert [(p.record, p.field) for p in problems] == [("2", "ts"), ("3", "answer"), ("4", "ts")]


def test_json_lines_records_become_samples_or_problems(tmp_path: Path, videos: Path) -> None:
    row = {
        "video": "clip 1",
        "question": "What?",
        "options": ["left", "right"],
        "answer": "B",
        "chain": "It turns.",
        "trim": [1, 2.5],
    }
    lines = [
        row,
        row | {"id": "2", "answer": "up"},
        row | {"id": "3", "options": "left"},
        row | {"id": "4", "options": [], "answer": "left", "licence": "CC0"},
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\nnot json\n", encoding="utf-8")
    samples, problems = parts(list(load_jsonl(path, videos)))
    assert [(s.id, s.answer, s.trim) for s in samples] == [
        ("clip 1: What?", "right", (1.0, 2.5)),
        ("4", "left", (1.0, 2.5)),
    ]
    notices = [p for p in problems if not p.dropped]
    assert [(p.record, p.field) for p in notices] == [("clip 1: What?", "licence")]
    assert [(p.record, p.field) for p in problems if p.dropped] == [
        ("2", "answer"),
        ("3", "options"),
        ("line 6", "record"),
    ]
    tally = Tally()
    assert [s.id for s in tally.watch(load_jsonl(path, videos))] == ["clip 1: What?", "4"]
    assert str(tally).splitlines()[0] == "2 samples"
    assert "1 to check: licence" in str(tally)


@pytest.mark.parametrize("name", sorted(LOADERS))
@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_source_raises_one_error(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content:
        path.write_bytes(content)
    with pytest.raises(SourceError, match="cannot read"):
        list(LOADERS[name](path, tmp_path, False))


@pytest.mark.parametrize("text", ["{}", "[1", '"x"'])
def test_json_of_another_shape_raises_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(SourceError, match=r"minerva\.json"):
        list(load_minerva(tmp_path / "m.json", tmp_path))


def test_board_world_samples_are_deterministic(tmp_path: Path) -> None:
    samples = list(load_world(4, tmp_path))
    assert samples == list(load_world(4, tmp_path))
    assert [Path(s.video).is_file() for s in samples] == [True] * 4
    assert all(s.chain.startswith(f"{s.question} Second 0: ") and s.answer in s.chain for s in samples)
    assert not {s.id for s in samples} & {s.id for s in load_world(4, tmp_path, seed=1)}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets' own samples are not here")
def test_social_genomes_own_file_is_read(tmp_path: Path) -> None:
    samples, problems = parts(list(load_social_genome(SHARED / "social_genome_qa.json", tmp_path)))
    rows = json.loads((SHARED / "social_genome_qa.json").read_text(encoding="utf-8"))
    assert not samples
    assert len(problems) == len(rows)
    assert {p.field for p in problems} <= {"answer", "vid_name", "a0", "a1", "a2", "a3", "id"}
