"""What an answer says: a table of hard strings, each with its right value written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from act2see.evaluation.quantities import Quantity, read_quantity
from act2see.evaluation.reading import Reading, Value, read_answer
from act2see.evaluation.regions import measure_box_iou, measure_time_iou
from act2see.trace.options import LETTERS

FAULTS = ("unanswered", "several", "unreadable")


def load_table() -> tuple[dict[str, tuple[str, ...]], list[dict[str, Any]]]:
    lines = (Path(__file__).parent / "hard_answers.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    options = {row["name"]: tuple(row["options"]) for row in rows if "name" in row}
    return options, [row for row in rows if "body" in row]


OPTIONS, ROWS = load_table()


def plain(value: Value | None) -> Any:
    """Return a value as the table writes it."""
    if isinstance(value, int):
        return LETTERS[value]
    if isinstance(value, frozenset):
        return sorted(LETTERS[place] for place in value)
    if isinstance(value, Quantity):
        return pytest.approx(value.value)
    if isinstance(value, tuple):
        return [list(part) if isinstance(part, tuple) else part for part in value]
    return value


def test_the_table_is_large_and_has_no_case_twice() -> None:
    assert len(ROWS) >= 250
    assert len({(row.get("of"), row.get("kind"), row["body"]) for row in ROWS}) == len(ROWS)


def test_all_hard_answers_are_read_right() -> None:
    wrong = []
    for row in ROWS:
        reading = read_answer(row["body"], OPTIONS.get(row.get("of", ""), ()), row.get("kind", "choice"))
        said = reading.fault or plain(reading.value)
        if row["value"] != said:
            wrong.append(f"{row['body']!r} of {row.get('of')}: {said!r}, not {row['value']!r}")
    assert not wrong, f"{len(wrong)} of {len(ROWS)} wrong:\n" + "\n".join(wrong)


def test_no_answer_and_no_options_are_read_as_nothing() -> None:
    assert read_answer(None, ("x", "y")) == Reading(fault="unanswered")
    assert read_answer("A") == Reading(fault="unreadable")
    assert read_answer("B", ("same", "same")) == Reading(1)


@pytest.mark.parametrize(
    "body", ["A man " * 2_000 + "\nB", "( " * 50_000, "1:" * 50_000, "no, wait " * 20_000]
)
@pytest.mark.parametrize("kind", ["choice", "choices", "interval", "box", "number"])
def test_long_answers_are_read_quickly(body: str, kind: Any) -> None:
    read_answer(body, OPTIONS["men"], kind)  # the time limit of the suite is the check: no pattern backtracks


def test_measures_of_overlap() -> None:
    assert measure_time_iou([(0, 10)], [(5, 15)]) == pytest.approx(1 / 3)
    assert measure_time_iou([(0, 10), (5, 20)], [(0, 20)]) == 1.0
    assert measure_time_iou([(0, 5), (10, 15)], [(0, 15)]) == pytest.approx(2 / 3)
    assert measure_time_iou([(0, 1)], [(2, 3)]) == 0.0
    assert measure_box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert measure_box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("50 cm", "0.5 m", True),
        ("26.4", "26.4 m²", True),
        ("50 cm", "50", True),
        ("50 cm", "50 kg", False),
        ("2 min", "120 s", True),
        ("3", "4", False),
    ],
)
def test_quantities_agree_across_units(a: str, b: str, same: bool) -> None:
    first, second = read_quantity(a), read_quantity(b)
    assert first is not None
    assert second is not None
    assert first.agrees(second) is same
    assert second.agrees(first) is same
