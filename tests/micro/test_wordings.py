"""The test wordings of the micro model: their kinds, slots and numbers. Nothing is trained on them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "wordings"
AUTHORS = ("a", "b")
SLOTS = {
    "colour": "x",
    "start": "x",
    "end": "x",
    "where": "x",
    "where_when": "x y",
    "which_moves": "",
    "which_blinks": "",
    "blink_colour": "x",
    "tip_where": "x side",
    "tip_where_without": "x z side",
    "tip_where_when": "x y side",
    "tip_which": "place side",
    "when_blinks": "x",
    "when_moves": "x",
    "how_many": "",
    "how_many_colour": "colour",
    "how_many_moves": "x",
    "is_there": "x",
    "is_there_colour": "colour x",
    "does_move": "x",
    "does_blink": "x",
    "which_first": "x y",
    "which_first_moves": "x y",
    "what_changed": "",
    "describe": "",
    "two_blinks": "x y z",
    "moved_between": "x y z",
    "follow_up": "x",
}
"""The slots of each kind of question."""


def read(author: str, kind: str) -> list[dict[str, Any]]:
    lines = (FOLDER / f"{author}_{kind}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def slots_of(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("author", AUTHORS)
def test_questions_have_the_slots_of_their_kind(author: str) -> None:
    questions = read(author, "questions")
    for question in questions:
        assert slots_of(question["text"]) == set(SLOTS[question["kind"]].split()), question
    counts = Counter(question["kind"] for question in questions)
    assert set(counts) == set(SLOTS)
    assert min(counts.values()) >= 12


@pytest.mark.parametrize("author", AUTHORS)
def test_refusals_and_premises_have_reasons(author: str) -> None:
    refusals, premises = read(author, "refusals"), read(author, "premises")
    assert len(refusals) >= 200
    assert len(premises) >= 60
    assert all(refusal["reason"] and not slots_of(refusal["text"]) for refusal in refusals)
    known = {"x", "y", "z", "colour", "place", "place2", "side"}
    assert all(premise["false"] and slots_of(premise["text"]) <= known for premise in premises)


def test_the_authors_wrote_different_texts() -> None:
    texts = [
        {question["text"].casefold().rstrip("?. ") for question in read(author, "questions")}
        for author in AUTHORS
    ]
    assert len(texts[0] & texts[1]) < 25
