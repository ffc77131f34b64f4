"""Options in the forms that files give them: they go by their labels, and what is not certain is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from act2see.errors import BenchmarkError
from act2see.evaluation.benchmarks import Suite, load_benchmark
from tests.evaluation import records as r

FOUR = ["center", "west", "east", "south"]
BASE = {"video": "a.mp4", "question": "Where?"}


def load(folder: Path, *rows: dict[str, Any]) -> Suite:
    return load_benchmark("own", r.write_lines(folder / "my.jsonl", list(rows)), missing="wrong")


def load_csv(folder: Path, row: dict[str, Any]) -> Suite:
    with (folder / "my.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return load_benchmark("own", folder / "my.csv", missing="wrong")


def read(folder: Path, **fields: Any) -> tuple[tuple[str, ...], str]:
    (sample,) = load(folder, BASE | fields).absent
    return sample.options, sample.answer


@pytest.mark.parametrize(
    ("options", "answer", "wanted"),
    [
        (["B. west", "A. center"], "A", (("center", "west"), "A")),
        (["B. west", "A. center"], "B. west", (("center", "west"), "B")),
        (["B. west", "A. center"], "west", (("center", "west"), "B")),
        (["(b) west", "(a) center"], "a", (("center", "west"), "A")),
        (["B. west", "C. east"], "B", (("west", "east"), "A")),
        (["A. west", "A. east"], "A. east", (("A. west", "A. east"), "B")),
        (["J. Smith", "B. Jones"], "J. Smith", (("J. Smith", "B. Jones"), "A")),
        (["B", "C", "A"], "A", (("B", "C", "A"), "C")),
        (["B. same", "A. same"], "B. same", (("same", "same"), "B")),
        ({"B": "west", "A": "center"}, "A", (("center", "west"), "A")),
        ({"A": "west", "C": "east"}, "C", (("west", "east"), "B")),
        ({"A": "A. west", "B": "B. east"}, "B", (("west", "east"), "B")),
        ({"2": "west", "1": "center", "10": "up"}, "10", (("center", "west", "up"), "C")),
        ({"A": "west", "B": "", "C": "east"}, "C", (("west", "east"), "B")),
    ],
)
def test_options_go_by_their_labels(tmp_path: Path, options: Any, answer: str, wanted: Any) -> None:
    assert read(tmp_path, options=options, answer=answer) == wanted


def test_several_right_options_go_by_their_labels_too(tmp_path: Path) -> None:
    options = ["D. south", "B. west", "C. east"]
    assert read(tmp_path, options=options, answer="BD", kind="choices") == (("west", "east", "south"), "AC")


def test_places_of_egonormia_are_those_of_the_file(tmp_path: Path) -> None:
    behaviours = ["B. wait", "A. run", "C. sing"]
    row = r.egonormia(0, right=0, sensible=(0,)) | {"behaviors": behaviours, "justifications": behaviours}
    suite = load_benchmark("egonormia", r.write_json(tmp_path / "final_data.json", [row]), missing="wrong")
    (sample,) = suite.absent
    assert (sample.options[0], sample.answer) == ("B. wait", "A")


@pytest.mark.parametrize(
    ("columns", "answer", "letter"),
    [
        ("A B C D", "C", "C"),
        ("a b c d", "east", "C"),
        ("option_a option_b option_c option_d", "c", "C"),
        ("option_1 option_2 option_3 option_4", "3", "C"),
        ("option1 option2 option3 option4", "option3", "C"),
        ("option_0 option_1 option_2 option_3", "3", "D"),
        ("a0 a1 a2 a3", "2", "C"),
        ("answer_choice_0 answer_choice_1 answer_choice_2 answer_choice_3", "east", "C"),
        ("D C B A", "A", "A"),
    ],
)
def test_options_may_have_a_column_each(tmp_path: Path, columns: str, answer: str, letter: str) -> None:
    names = columns.split()
    row = BASE | dict(zip(names, FOUR, strict=True)) | {"answer": answer, "q": "x", "mood": "calm"}
    (sample,) = load(tmp_path, row).absent
    (same,) = load_csv(tmp_path, row).absent
    assert sample == same
    assert sample.options == (tuple(FOUR) if names[0] != "D" else tuple(reversed(FOUR)))
    assert (sample.answer, sample.groups) == (letter, {"q": "x", "mood": "calm"})


def test_options_have_other_names_in_other_benchmarks(tmp_path: Path) -> None:
    for field in ("candidates", "choices", "option"):
        assert read(tmp_path, **{field: FOUR}, answer="west") == (tuple(FOUR), "B")
    assert read(tmp_path, A="x", B="", C="z", D=None, answer="C") == (("x", "z"), "B")


def test_columns_that_are_not_certain_are_refused(tmp_path: Path) -> None:
    def refuse(why: str, **fields: Any) -> None:
        with pytest.raises(BenchmarkError, match=why):
            load(tmp_path, BASE | fields)

    refuse("there twice, from A and option_1", A="x", B="y", option_1="x", option_2="y", answer="A")
    refuse("option_4: does not follow option_2", option_1="x", option_2="y", option_4="z", answer="1")
    refuse("number of one option and the text of another", option_1="2", option_2="1", answer="1")
    refuse("'B' is not one of A, C", A="x", B="", C="z", answer="B")


def test_what_is_not_read_is_named_once(tmp_path: Path) -> None:
    row = BASE | {"options": FOUR, "answer": "A", "A": "x", "B": "y", "notes": "n" * 90, "score": 0.5}
    suite = load(tmp_path, row, row | {"question": "Which?"})
    assert suite.absent[0].options == tuple(FOUR)
    assert suite.absent[0].groups == {}
    (problem,) = suite.problems
    assert problem.why.startswith("A, B, notes, score are not read")
    assert not problem.dropped


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(FOUR),
        str(FOUR),
        str(tuple(FOUR)),
        json.dumps(dict(zip("ABCD", FOUR, strict=True))),
        "center|west|east|south",
        "center | west | east | south |",
        "center;west; east;south",
        "center\nwest\n\neast\nsouth\n",
        "(A) center (B) west (C) east (D) south",
        "A. center B. west C. east D. south",
        "A) center; B) west; C) east; D) south",
        "A. center\nB. west\nC. east\nD. south",
        "B. west|A. center|C. east|D. south",
    ],
)
def test_a_text_of_options(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, options=text, answer="B") == (tuple(FOUR), "B")
    (sample,) = load_csv(tmp_path, BASE | {"options": text, "answer": "west"}).absent
    assert (sample.options, sample.answer) == (tuple(FOUR), "B")


def test_a_text_that_cannot_be_split_says_which_can(tmp_path: Path) -> None:
    for text in ("center, west, east", "['center' 'west']", "(A) center (A) west", "[center, west]"):
        with pytest.raises(
            BenchmarkError, match=r"holds 1 options.*a JSON or Python list, one option a line"
        ):
            load(tmp_path, BASE | {"options": text, "answer": "center"})
    assert read(tmp_path, options="x||z", answer="C") == (("x", "z"), "B")


@pytest.mark.parametrize("answer", ["o28", "B"])
def test_more_options_than_letters_are_an_error_of_the_line(tmp_path: Path, answer: str) -> None:
    many = BASE | {"options": [f"o{n}" for n in range(30)], "answer": answer}
    suite = load(tmp_path, BASE | {"options": FOUR, "answer": "A"}, many)
    (problem,) = suite.problems
    assert (problem.record, problem.field) == ("line 2", "options")
    assert problem.why == "holds 30 options: at most 26 can be shown"
    right = r.egonormia(0, right=29) | {"behaviors": many["options"], "justifications": many["options"]}
    with pytest.raises(BenchmarkError, match="behaviors: holds 30 options: at most 26"):
        load_benchmark("egonormia", r.write_json(tmp_path / "final_data.json", [right]), missing="wrong")


def test_two_questions_with_one_id_stop_and_equal_doubles_are_noted(tmp_path: Path) -> None:
    first = BASE | {"id": "q1", "options": FOUR, "answer": "A"}
    assert [problem.field for problem in load(tmp_path, first, first).problems] == ["id"]
    with pytest.raises(BenchmarkError, match=r"line 1 and line 3 have one id, 'q1', and differ \(question\)"):
        load(tmp_path, first, first | {"id": "q2"}, first | {"question": "When?"})
    table = tmp_path / "my.csv"
    table.write_text('id,video,question,options,answer\n1,a,Why?,"x\ny",x\n1,a,How?,x|y,x\n')
    with pytest.raises(BenchmarkError, match="line 2 and line 4 have one id, '1'"):
        load_benchmark("own", table, missing="wrong")
