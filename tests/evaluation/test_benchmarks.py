"""Loading: the records of each data set become samples, and what cannot be used is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite, load_benchmark
from act2see.evaluation.samples import Sample
from tests.evaluation import records as r

# The real files, which are not in the repository: their licences differ. From GitHub, under these names:
# vitib.jsonl: BRZ911/ViTCoT src/vitcot_data.jsonl; hermes.json: gdace829/HERMES data/videomme/videomme.json;
# video_mme.json: plnguyen2908/Video-MME-viz data/video_mme.json; vcr_input.json: zhishuifeiqian/VCR-Bench
# eval_code/input.json; omni.jsonl: harryhsing/OmniAgent data/example_eval.jsonl; egonormia_ood.json:
# Open-Social-World/EgoNormia src/final_dataset/ood_robot.json.
REAL = Path(os.environ.get("ACT2SEE_BENCHMARKS", ""))


MINERVA = ("key", "video_id", "question", "answer_id", "answer_choice_3")
"""Fields that a record of MINERVA cannot do without."""


def load(name: str, source: Path | str, **settings: Any) -> Suite:
    return load_benchmark(name, source, missing="leave out", **settings)


def all_of(suite: Suite) -> tuple[Sample, ...]:
    return suite.samples + suite.absent


def dropped(suite: Suite) -> list[tuple[str, str]]:
    return [(problem.record, problem.field) for problem in suite.problems if problem.dropped]


def test_video_mme_in_its_official_form(tmp_path: Path) -> None:
    path = r.write_json(tmp_path / "video_mme.json", [r.video_mme(1), r.video_mme(2, "(D)")])
    r.touch(tmp_path / "data" / "v1.mp4")
    suite = load("video-mme", path)
    (first,) = suite.samples
    assert first.video == str(tmp_path / "data" / "v1.mp4")
    assert first.options == ("A kite.", "A drum.", "A boat.", "A lamp.")
    assert (first.id, first.answer, first.groups["duration"]) == ("001-1", "B", "medium")
    assert first.groups["task_type"] == "Counting Problem"
    assert [sample.video for sample in suite.absent] == ["v2"]
    assert "2 records, the published file 2,700" in str(suite)
    assert "1 questions are left out, for want of 1 videos" in str(suite)
    assert load("video-mme", tmp_path).samples == suite.samples  # the folder finds its file


def test_video_mme_as_hermes_nests_it(tmp_path: Path) -> None:
    suite = load("video-mme", r.write_json(tmp_path / "videomme.json", [r.hermes()]))
    first, second = suite.absent
    assert (first.id, first.answer, first.video) == ("v1-1", "C", "v1")
    assert second.answer == "A"  # of two options with the same words, the first
    assert first.groups == {"duration": "short", "task_type": "Object Recognition"}


def test_video_mme_v2_keeps_the_groups_of_four(tmp_path: Path) -> None:
    rows = r.video_mme_v2(1) + r.video_mme_v2(2, "HGFE", "logic", "[1, [2, 3], 4]")
    suite = load("video-mme-v2", r.write_json(tmp_path / "test.json", rows))
    assert len(suite.absent[0].options) == 8
    assert suite.absent[0].options[7] == "Colour number 7."
    assert suite.absent[4].answer == "H"
    assert suite.absent[4].groups["group_structure"] == "[1,[2,3],4]"
    assert {sample.groups["group"] for sample in suite.absent} == {"001", "002"}


def test_vitib_and_video_espresso_keep_their_evidence(tmp_path: Path) -> None:
    r.touch(tmp_path / "all_video" / "set" / "1.mp4")
    suite = load("vitib", r.write_lines(tmp_path / "vitcot_data.jsonl", [r.vitib(1), r.vitib(2)]))
    (sample,) = suite.samples
    assert sample.options[0] == "He runs away."
    assert (sample.answer, sample.groups, sample.frames) == ("B", {"task": "Cooking Process"}, None)
    assert sample.evidence == "The man in image 1 waits."
    assert len({s.id for s in all_of(suite)}) == 2
    espresso = load("video-espresso", r.write_json(tmp_path / "bench_hard.json", [r.espresso(1)]))
    assert espresso.absent[0].frames == 3


@pytest.mark.parametrize("hub", [True, False])
def test_egonormia_from_the_hub_and_from_the_repository(tmp_path: Path, hub: bool) -> None:
    rows = [r.egonormia(n, right=n, hub=hub) for n in range(4)]
    data: Any = rows if hub else {row["id"]: row for row in rows}
    r.touch(
        tmp_path / "video" / "clip-1" / "video_during.mp4", tmp_path / "video" / "clip-1" / "video_prev.mp4"
    )
    suite = load("egonormia", r.write_json(tmp_path / "final_data.json", data))
    (sample,) = suite.samples
    assert sample.video.endswith("video_prev.mp4")
    assert sample.options[4] == "None of these."
    assert (sample.answer, sample.sensible) == ("B", "BD")
    assert sample.then is not None
    assert (sample.then.answer, sample.then.options[1]) == ("B", "Because of 1 of 1.")
    assert len(suite.absent) == 3


def test_vcr_bench_has_four_kinds_of_answers(tmp_path: Path) -> None:
    rows = [r.vcr_bench(n, a) for n, a in enumerate(["B", "[90, 150]", "[10, 20, 30, 40]", "Kitchen"])]
    suite = load("vcr-bench", r.write_json(tmp_path / "meta_info.json", rows))
    assert [sample.kind for sample in suite.absent] == ["choice", "interval", "box", "text"]
    first = suite.absent[0]
    assert (first.question, first.options[1]) == ("What happens in 0?", "He runs.")
    assert first.chain == ("1. 0:01-0:05, he comes.", "2. Thus he runs.")
    assert [sample.groups["duration"] for sample in suite.absent] == ["0-60", "60-300", "300+", "0-60"]


def test_minerva_and_causalvqa_are_read_by_the_loaders_of_training(tmp_path: Path) -> None:
    rows = [r.minerva(1), r.minerva(2, reasoning=""), r.minerva(3, answer_id=7)]
    suite = load("minerva", r.write_json(tmp_path / "minerva.json", rows))
    assert [(s.id, s.answer, s.groups["question type"]) for s in suite.absent] == [
        ("k1", "C", "goal"),
        ("k2", "C", "goal"),
    ]
    assert dropped(suite) == [("k3", "answer_id")]
    (tmp_path / "c.csv").write_text(r.CAUSALVQA, encoding="utf-8")
    causal = load("causalvqa", tmp_path / "c.csv")
    assert [(s.answer, s.groups) for s in causal.absent] == [
        ("B", {"type": "causal", "difficulty": "hard"}),
        ("A", {"type": "planning", "difficulty": "easy"}),
    ]
    assert "evaluation only" in str(causal)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        *(
            ({k: v for k, v in r.minerva(2).items() if k != name}, name)
            for name in r.minerva(2)
            if name in MINERVA
        ),
        (r.minerva(2, answer_id=9), "answer_id"),
        (r.minerva(2, answer_id="C"), "answer_id"),
        (r.minerva(1, question="Who loses?", category="other"), "id"),
        ("no object", "record"),
    ],
)
def test_a_bad_record_of_minerva_is_named_with_its_field(tmp_path: Path, row: Any, field: str) -> None:
    suite = load("minerva", r.write_json(tmp_path / "minerva.json", [r.minerva(1), row]))
    assert [name for _, name in dropped(suite)] == [field]
    assert [(s.id, s.question, s.groups["category"]) for s in suite.absent] == [("k1", "Who wins?", "sport")]


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (",2,1,hard", ",5,1,hard", [("q1", "correct1")]),
        (",2,1,hard", ",,1,hard", [("q1", "correct1")]),
        ("q2,planning", "q1,planning", [("q1", "id")]),
        (",choices1,", ",candidates,", None),
        ("qid,", "id,", None),
        (",correct1,", ",right,", None),
        (",renamed_video", ",video", None),
    ],
)
def test_a_bad_record_of_causalvqa_is_named_with_its_field(
    tmp_path: Path, old: str, new: str, faults: list[tuple[str, str]] | None
) -> None:
    path = tmp_path / "c.csv"
    path.write_text(r.CAUSALVQA.replace(old, new, 1), encoding="utf-8")
    if faults is None:
        with pytest.raises(BenchmarkError, match=f"{old.strip(',')}: is missing.*another version"):
            load("causalvqa", path)
        return
    suite = load("causalvqa", path)
    assert dropped(suite) == faults
    assert len(suite.absent) == 1


def test_a_field_that_scores_are_given_by_is_named_if_no_record_has_it(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(r.CAUSALVQA.replace("difficulty", "level"), encoding="utf-8")
    suite = load("causalvqa", tmp_path / "c.csv")
    assert [s.groups for s in suite.absent] == [{"type": "causal"}, {"type": "planning"}]
    assert any("difficulty: is missing in all records" in str(problem) for problem in suite.problems)


def test_ones_own_lines_and_tables(tmp_path: Path) -> None:
    rows = [
        {
            "video": "a.mp4",
            "question_type": "MCQ",
            "question": "Why?",
            "options": ["A. x", "B. y"],
            "answer": "B",
        },
        {
            "video": "a.mp4",
            "question_type": "TR",
            "question": "When?",
            "options": [],
            "answer": "[[1.4, 40.1]]",
        },
        {
            "video": "a.mp4",
            "question_type": "SIZE",
            "question": "How large?",
            "options": [],
            "answer": "26.4",
        },
        {
            "video": "a.mp4",
            "question": "Where?",
            "answer": "in a kitchen",
            "trim": "0:02-0:08",
            "mood": "calm",
        },
    ]
    r.touch(tmp_path / "a.mp4")
    suite = load("own", r.write_lines(tmp_path / "mine.jsonl", rows))
    assert [sample.kind for sample in suite.samples] == ["choice", "interval", "size", "text"]
    assert suite.samples[3].trim == (2.0, 8.0)
    assert suite.samples[3].clip.endswith("a.mp4#t=2,8")
    assert suite.samples[3].groups == {"mood": "calm"}
    (tmp_path / "mine.csv").write_text("video,question,options,answer\na.mp4,Why?,it fell|it flew,it flew\n")
    assert load("own", tmp_path / "mine.csv").samples[0].answer == "B"


def test_any_fsspec_url_and_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = [r.video_mme(1), r.video_mme(2)]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    with fsspec.open("memory://bench/records.parquet", "wb") as file:
        file.write((tmp_path / "test-00000-of-00001.parquet").read_bytes())
    r.touch(tmp_path / "videos" / "v2.mkv")
    suite = load("video-mme", "memory://bench/records.parquet", videos=tmp_path)
    assert [sample.id for sample in suite.samples] == ["002-1"]
    with pytest.raises(BenchmarkError, match=r"cannot read memory://bench/gone\.json"):
        load("video-mme", "memory://bench/gone.json")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (r.video_mme(5, "E"), "answer"),
        (r.video_mme(5, "a kite"), "answer"),
        (r.video_mme(5, answer=None), "answer"),
        (r.video_mme(5, options=r.FOUR[:3]), "options"),
        (r.video_mme(5, options=["A. x", "", "C. y", "D. z"]), "options"),
        ({k: v for k, v in r.video_mme(5).items() if k != "videoID"}, "videoID"),
        ({k: v for k, v in r.video_mme(5).items() if k != "task_type"}, "task_type"),
        (r.video_mme(1), "id"),
        ("no object", "record"),
    ],
)
def test_a_bad_record_is_named_with_its_field(tmp_path: Path, row: Any, field: str) -> None:
    suite = load("video-mme", r.write_json(tmp_path / "video_mme.json", [r.video_mme(1), row]))
    assert dropped(suite) == [("record 2", field)]
    assert len(suite.absent) == 1


def test_drift_of_the_schema_names_the_field(tmp_path: Path) -> None:
    renamed = [{k.replace("options", "candidates"): v for k, v in r.video_mme(n).items()} for n in range(3)]
    with pytest.raises(BenchmarkError, match=r"options: is missing .*candidates.*another version"):
        load("video-mme", r.write_json(tmp_path / "video_mme.json", renamed))


def test_wrong_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no benchmark 'video-mmm': one of video-mme"):
        load("video-mmm", tmp_path)
    with pytest.raises(
        BenchmarkError, match=r"has none of vitcot_data\.jsonl.*name the folder of the download"
    ):
        load("vitib", tmp_path)
    with pytest.raises(BenchmarkError, match="there is no file or folder"):
        load("vitib", tmp_path / "gone")
    r.write_lines(tmp_path / "vitib.jsonl", [r.vitib(1)])
    with pytest.raises(BenchmarkError, match="another benchmark"):
        load("video-mme", tmp_path / "vitib.jsonl")
    (tmp_path / "broken.json").write_text("[1,")
    with pytest.raises(BenchmarkError, match="is not JSON"):
        load("video-mme", tmp_path / "broken.json")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(BenchmarkError, match="of no known kind"):
        load("video-mme", tmp_path / "notes.txt")


def real(name: str) -> Path:
    shared = Path(__file__).parents[3] / "shared" / "data" / "benchmarks"
    for folder in (REAL, shared):
        if folder.name and (folder / name).is_file():
            return folder / name
    pytest.skip(f"{name} is not here: set ACT2SEE_BENCHMARKS to a folder with it")


@pytest.mark.parametrize(
    ("benchmark", "name"),
    [
        ("vitib", "vitib.jsonl"),
        ("egonormia", "egonormia_ood.json"),
        ("video-mme", "hermes.json"),
        ("video-mme", "video_mme.json"),
        ("vcr-bench", "vcr_input.json"),
        ("own", "omni.jsonl"),
    ],
)
def test_real_records_are_all_read(benchmark: str, name: str) -> None:
    suite = load(benchmark, real(name))
    assert not dropped(suite)
    counts = {
        "hermes.json": 2700,
        "video_mme.json": 2700,
        "egonormia_ood.json": 11,
        "vcr_input.json": 4,
        "omni.jsonl": 6,
    }
    assert len(all_of(suite)) in ({counts[name]} if name in counts else {198, 1382})


def test_a_data_set_of_the_hub_is_read_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.Dataset.from_list([r.video_mme(1), r.video_mme(2)])
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> Any:
        asked.append((name, split))
        return loaded

    with pytest.raises(BenchmarkError, match=r"cannot load lmms-lab/Video-MME \(test\) from the hub"):
        load("video-mme", "hf://datasets/lmms-lab/Video-MME")  # tests are offline
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)  # the hub is the only part that is replaced
    suite = load("video-mme", "hf://datasets/lmms-lab/Video-MME", split="dev")
    assert [sample.id for sample in suite.absent] == ["001-1", "002-1"]
    assert asked == [("lmms-lab/Video-MME", "dev")]
