"""Questions in people's words: the lines for training, how they are varied, and the strangers' test lines."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from act2see.graphs.earlier import MAX_TURNS
from act2see.micro.common_words import FORMS, fill_common, load_common_words
from act2see.micro.drafts import REFUSAL
from act2see.micro.kinds import ABOUT_ONE_SHAPE, KINDS, ask, slots_of as slots_of_kind
from act2see.micro.names import NAMES
from act2see.micro.questions import EVERYDAY, FAMILIES, make_item
from act2see.micro.slips import vary
from act2see.micro.study.strangers import (
    AUTHORS,
    read_lines,
    strange_questions,
    strange_refusals,
    strange_threads,
)
from act2see.micro.wordings import fill, load_wordings
from act2see.micro.world import CELLS, COLOURS, SHAPES, cell_name

SEARCHES = {
    "find_blink": "x",
    "find_is": "x colour",
    "find_at": "x place",
    "find_there": "x",
    "find_tipped": "side",
}
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
TALK = ("beyond_of", "before", "after")
"""The kinds of lines with slots for common words."""


def read(author: str, sort: str) -> list[dict[str, Any]]:
    return list(read_lines(author, sort))


def normal(text: str) -> str:
    """Return a line without case and marks."""
    return re.sub(r"[^a-z{}]+", " ", text.lower()).strip()


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


def test_training_lines_have_the_slots_of_their_kind() -> None:
    lines = load_wordings().lines
    # The kinds with two conditions are put together from lines with one.
    expected = {kind for kind in KINDS if not kind.endswith("_without_when")} | set(SEARCHES)
    assert set(lines) == expected | {"follow_up"} | set(TALK)
    for kind, texts in lines.items():
        assert len(texts) >= 45, kind
        if kind == "beyond" or kind in TALK:
            continue
        wanted = SEARCHES.get(kind, "x" if kind == "follow_up" else None)
        slots = set(slots_of_kind(kind)) if wanted is None else set(wanted.split())
        assert all(slots_of(text) == slots for text in texts), kind


@pytest.mark.parametrize("kind", TALK)
def test_lines_of_common_words_have_slots_that_are_filled(kind: str) -> None:
    rng = random.Random(0)
    of_board = {"x", "y", "colour", "place", "side"} if kind == "beyond_of" else set()
    for line in load_wordings().lines[kind]:
        assert slots_of(line) & set(FORMS), line
        assert slots_of(line) <= set(FORMS) | of_board, line
        assert slots_of(fill_common(line, rng)) <= of_board, line


def test_common_words_do_not_name_the_board() -> None:
    words = load_common_words()
    assert sum(map(len, words.values())) > 1500
    assert all(
        len(forms) == 1 + max(n for words_of, n in FORMS.values() if words_of == name)
        for name in words
        for forms in words[name]
    )
    board = {
        *SHAPES,
        *COLOURS,
        *map(cell_name, CELLS),
        "board",
        "blink",
        "flash",
        "move",
        "tip",
        "tilt",
        "left",
        "right",
    }
    assert not {form for forms in words.values() for word in forms for form in word} & board


def test_talk_around_a_question_leaves_the_question_whole() -> None:
    wordings, rng = load_wordings(), random.Random(0)
    texts = [wordings.say(ask("start", x="ring"), rng) for _ in range(600)]
    starts = [fill_common(line, random.Random(1)).split()[0].lower() for line in wordings.lines["before"]]
    assert sum(text.split()[0].lower() in starts for text in texts) > 20
    assert sum(len(text.split()) > 15 for text in texts) > 30


def test_no_long_training_line_is_a_test_line() -> None:
    strange = {
        normal(row["text"])
        for a in AUTHORS
        for s in ("questions", "refusals", "premises")
        for row in read(a, s)
    }
    own = {normal(text) for texts in load_wordings().lines.values() for text in texts}
    assert not {text for text in own & strange if len(text.split()) > 4}


def test_a_question_in_peoples_words_names_what_it_is_about() -> None:
    rng = random.Random(0)
    asked = ask("where_when", x="ring", y="circle")
    texts = {load_wordings().say(asked, rng) for _ in range(200)}
    assert len(texts) > 120
    named = sum("ring" in text.lower() and "circle" in text.lower() for text in texts)
    assert named / len(texts) > 0.75  # the others have another name or a slip


@pytest.mark.parametrize("family", [*FAMILIES, *EVERYDAY])
def test_rewording_changes_nothing_but_the_question(family: str) -> None:
    for index in range(30):
        item = make_item(family, index)  # type: ignore[arg-type]
        put = load_wordings().reword(item, random.Random(index))
        assert put == load_wordings().reword(item, random.Random(index))
        assert (put.asked, put.answer, put.chain, put.clip) == (
            item.asked,
            item.answer,
            item.chain,
            item.clip,
        )
        assert put.text
        assert "{" not in put.text
        if family == "beyond":
            assert put.answer == REFUSAL
        else:
            # Now and then the options are those of another question.
            assert bool(put.options) == bool(item.options)


def test_options_in_peoples_words_name_the_same_answer() -> None:
    styles = set()
    for index in range(400):
        item = make_item("plain", index)
        put = load_wordings().reword(item, random.Random(index))
        if put.named:
            assert put.given == put.named
            place = item.options.index(item.answer)
            assert put.options[place] == put.named
            assert put.correct == item.correct
            assert put.closing().endswith(f"{item.answer}.</think>\n<answer>{put.named}</answer>")
            styles.add(put.named)
    assert len(styles) > 20


def test_several_questions_in_one_are_declined() -> None:
    rng = random.Random(0)
    texts = [load_wordings().decline(rng) for _ in range(2000)]
    assert sum(len(text.split()) > 40 for text in texts) > 5  # several questions
    assert not any("{" in text for text in texts)


def test_follow_ups_come_after_a_question_of_their_kind() -> None:
    found = 0
    follow_ups = {fill(line, {"x": "ring"}, random.Random(0)) for line in load_wordings().lines["follow_up"]}
    assert all("{" not in text for text in follow_ups)
    for index in range(1000):
        item = make_item("plain", index)
        put = load_wordings().reword(item, random.Random(index))
        if put.earlier and item.asked.kind in ABOUT_ONE_SHAPE and len(put.text) < 20:
            assert len(put.earlier) <= MAX_TURNS
            assert all(question and answer for question, answer in put.earlier)
            found += 1
    assert found >= 5


def test_a_pronoun_stands_for_a_shape_that_was_asked_about() -> None:
    found = 0
    for index in range(2000):
        item = make_item("plain", index)
        put = load_wordings().reword(item, random.Random(index))
        named = dict(item.asked.slots).get("x", "")
        if (
            item.asked.kind in ABOUT_ONE_SHAPE
            and re.search(r"\b(it|its)\b", put.text.lower())
            and put.earlier
        ):
            names = {named, *NAMES.get(named, ())}
            if not any(name in put.text.lower() for name in names):
                found += any(name in put.earlier[-1][0].lower() for name in names)
    assert found >= 20


def test_some_earlier_questions_were_declined() -> None:
    put = [load_wordings().reword(make_item("plain", i), random.Random(i)) for i in range(600)]
    turns = [turn for item in put for turn in item.earlier]
    assert {len(item.earlier) for item in put} == {0, 1, 2, 3}
    declined = sum(answer == REFUSAL for _, answer in turns)
    assert len(turns) / 8 < declined < len(turns) / 2


def test_variations_keep_the_words() -> None:
    rng = random.Random(0)
    varied = [vary("Where is the ring?", rng) for _ in range(300)]
    assert "Where is the ring?" in varied
    assert len(set(varied)) > 40
    assert all(len(text) >= 12 for text in varied)


def test_strangers_questions_are_about_their_clips() -> None:
    items = strange_questions(300)
    assert len({item.text for item in items}) > 280
    for item in items:
        assert "{" not in item.text
        slots = dict(item.asked.slots)
        if item.earlier:
            assert any(shape in item.text.lower() for shape in SHAPES)
        elif "x" in slots:
            assert slots["x"] in item.text.lower()
    assert {item.family for item in items} >= {
        "observe",
        "blink",
        "imagine",
        "both",
        "when",
        "count",
        "exists",
    }
    assert all(item.answer == REFUSAL for item in strange_refusals(20))


def test_strangers_threads_have_up_to_three_turns_some_of_them_declined() -> None:
    items = strange_threads(60)
    assert {len(item.earlier) for item in items} == {1, 2, 3}
    answers = [answer for item in items for _, answer in item.earlier]
    assert len(answers) / 5 < answers.count(REFUSAL) < len(answers) / 2
    assert len({item.seed for item in items}) == 60
