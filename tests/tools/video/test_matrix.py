"""A fifth of the matrix of `python -m benchmarks files`, always the same one.

These are more than a hundred files, which take 20 s to make and to read: each is a container, a codec or a
quirk that no other file has.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.files import cases, fifth, measure
from benchmarks.files.basics import film
from benchmarks.files.cases import Case
from benchmarks.files.oracle import Truth, check, find_truth

WHOLE = cases()
PART = fifth(WHOLE)
KINDS = list(dict.fromkeys(case.kind for case in WHOLE))
CLIP = Case("", "clip", film("mkv", "h264"))


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_as_ffmpeg_decodes_them(kind: str, tmp_path: Path) -> None:
    decord = importlib.util.find_spec("decord") is not None
    results = [measure(case, tmp_path, decord=decord) for case in PART if case.kind == kind]
    assert results
    assert {r.case.name: r.problems for r in results if r.problems and r.single} == {}
    assert max(result.seconds for result in results) < 5


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("damage", "mkv-h264-flip"),
        ("damage", "mov-mjpeg-zero"),
        ("damage", "ts-h264-hole"),
        ("repeated", "ts-b-hole"),
        ("dropped", "avi-h264-b"),
    ],
    ids=[
        "damage that only the decoder sees",
        "a packet that starts empty",
        "frames that come late after a hole",
        "a lone odd decoding time in TS",
        "a gap in AVI with B-frames",
    ],
)
def test_what_the_matrix_found_is_read_right(kind: str, name: str, tmp_path: Path) -> None:
    [case] = [case for case in WHOLE if (case.kind, case.name) == (kind, name)]
    result = measure(case, tmp_path, decord=False)
    assert result.single
    assert result.problems == []


def test_pictures_that_depend_on_what_a_caller_keeps_are_no_truth(tmp_path: Path) -> None:
    [case] = [case for case in WHOLE if case.name == "ts-mpeg2-b-lost"]
    assert not measure(case, tmp_path, decord=False).single


def test_the_matrix_is_large_and_its_names_are_its_own() -> None:
    assert len(WHOLE) >= 400
    assert len({(case.kind, case.name) for case in WHOLE}) == len(WHOLE)
    assert 100 <= len(PART) <= len(WHOLE) // 4


def find(path: Path) -> Truth:
    truth = find_truth(path, "", CLIP.made, 0.0)
    assert truth is not None
    return truth


def test_the_truth_is_what_was_made(tmp_path: Path) -> None:
    truth = find(CLIP.write(tmp_path))
    assert [code & 0xFFF for code in truth.codes] == list(CLIP.made)
    assert truth.times == pytest.approx(list(CLIP.made.values()), abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"times": 0.03}, "s instead of"),
        ({"codes": 1}, "wrong pictures"),
        ({"codes": 0}, "75 frames instead of 74"),
    ],
)
def test_a_wrong_picture_or_time_is_noticed(wrong: dict[str, float], said: str, tmp_path: Path) -> None:
    path = CLIP.write(tmp_path)
    truth = find(path)
    assert check(path, truth, "pyav", upright=CLIP.upright) == []
    if "times" in wrong:
        times = truth.times + wrong["times"]
        truth = replace(truth, times=times, stamps=times)
    elif wrong["codes"]:
        truth = replace(truth, codes=[*truth.codes[1:], truth.codes[0]])
    else:
        times = truth.times[1:]
        truth = replace(truth, codes=truth.codes[1:], times=times, stamps=times)
    [found, *_] = check(path, truth, "pyav", upright=CLIP.upright)
    assert said in found


def test_an_error_is_right_only_without_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(b"no video")
    assert find_truth(path, "", {}, 0.0) is None
    assert check(path, None, "pyav", upright=CLIP.upright) == []
    assert check(CLIP.write(tmp_path), None, "pyav", upright=CLIP.upright) != []
