"""The questions are deterministic. Splits share nothing, and neither options nor wording reveal the
answer."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from act2see.micro.questions import FAMILIES, Item, ToolCall, items, make_item, sentences
from act2see.micro.words import describe, describe_view, view_of
from act2see.micro.world import CELLS, COLOURS, FPS, HELD_OUT, SHAPES, Board, cell_name

SPLITS = ("train", "validation", "test", "held_out")
COUNT = 400


@pytest.fixture(scope="module")
def made() -> dict[str, list[Item]]:
    return {split: list(items(COUNT, split)) for split in SPLITS}  # type: ignore[arg-type]


def pairs(item: Item) -> set[tuple[str, str]]:
    """Return every (shape, colour) that the clip or the chain shows."""
    boards: list[Board] = [item.clip.board(f) for f in range(item.clip.frames)]
    boards += [s.expect for s in item.chain if isinstance(s, ToolCall)]
    return {(p.shape, p.colour) for b in boards for p in b.pieces}


def template(text: str) -> str:
    """Return a question without its shapes, colours, places and sides."""
    names = sorted([*SHAPES, *COLOURS, *(cell_name(c) for c in CELLS)], key=len, reverse=True)
    without_names = re.sub(rf"\b({'|'.join(names)})\b", "_", text)
    return re.sub(r"\b(to the )(left|right)\b", r"\1_", without_names)


def test_items_are_deterministic() -> None:
    for family in FAMILIES:
        assert make_item(family, 5) == make_item(family, 5)
        assert make_item(family, 5) != make_item(family, 6)
    assert list(items(8, "test")) == list(items(8, "test"))
    assert Counter(i.family for i in items(8, "test")) == dict.fromkeys(FAMILIES, 2)


def test_splits_share_no_seed(made: dict[str, list[Item]]) -> None:
    seeds = {split: {i.seed for i in some} for split, some in made.items()}
    assert all(len(s) == COUNT for s in seeds.values())
    assert len(set().union(*seeds.values())) == COUNT * len(SPLITS)
    last = {split: max(s) for split, s in seeds.items()}
    first = {split: min(s) for split, s in seeds.items()}
    # Splits start ten million seeds apart, so that even the largest corpus stays within its split.
    assert all(first[b] - last[a] > 9_000_000 for a, b in pairwise(SPLITS))


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_held_out_split_shows_held_out_pairs(made: dict[str, list[Item]], split: str) -> None:
    for item in made[split]:
        assert bool(pairs(item) & HELD_OUT) == (split == "held_out"), item.text


@pytest.mark.parametrize("split", SPLITS)
def test_options_hold_the_answer_once_and_its_letter_is_uniform(
    made: dict[str, list[Item]], split: str
) -> None:
    with_options = [i for i in made[split] if i.options]
    assert len(with_options) == COUNT or split == "train"
    for item in with_options:
        assert len(set(item.options)) == len(item.options) == 4
        assert item.options.count(item.answer) == 1
        assert item.options["ABCD".index(item.correct)] == item.answer
    letters = Counter(i.correct for i in with_options)
    expected = len(with_options) / 4
    chi_squared = sum((letters[x] - expected) ** 2 / expected for x in "ABCD")
    assert chi_squared < 16.3  # p = 0.001 with 3 degrees of freedom


def test_some_training_questions_have_no_options(made: dict[str, list[Item]]) -> None:
    without = [i for i in made["train"] if not i.options]
    assert 0.1 < len(without) / COUNT < 0.3
    assert all(i.correct == i.answer for i in without)
    assert make_item("blink", 0, options=True).options
    assert not make_item("blink", 0, "test", options=False).options


def test_the_usual_colour_is_never_an_option_of_a_blink(made: dict[str, list[Item]]) -> None:
    asked = [i for some in made.values() for i in some if i.family == "blink" and i.kind == "colour"]
    assert asked
    for item in asked:
        shape = item.clip.short[0].piece.shape
        assert item.clip.slow[0][1].piece(shape).colour not in item.options


def test_the_wording_does_not_reveal_whether_to_call() -> None:
    """A wording that needs a tool for one clip needs fewer for another. Only `both` always imagines."""
    needed: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for item in items(2400, "train"):
        needed[template(item.text)][item.needed] += 1
    common = {t: n for t, n in needed.items() if n.total() >= 30}
    assert len(common) >= 10
    for text, n in common.items():
        looks = sum(c for tags, c in n.items() if "retrieve" in tags)
        imagines = sum(c for tags, c in n.items() if "generate" in tags)
        assert looks == 0 or 0.1 < looks / n.total() < 0.9, text
        assert imagines == 0 or imagines / n.total() < 0.9 or "blinks" in text, text
    assert any(() in n and ("retrieve",) in n for n in common.values())
    assert any(() in n and ("generate",) in n for n in common.values())
    assert any(("generate",) in n and ("retrieve", "generate") in n for n in common.values())


@pytest.mark.parametrize("split", SPLITS)
def test_needed_calls_follow_from_the_view(made: dict[str, list[Item]], split: str) -> None:
    for item in made[split]:
        shown = item.clip.view()
        for call in (s for s in item.chain if isinstance(s, ToolCall)):
            if call.tag == "retrieve":
                # The frame exists at 3 fps and not in the view.
                assert call.expect not in shown
                assert call.expect in [item.clip.board(f) for f in range(0, item.clip.frames, FPS // 3)]
            else:
                assert item.clip.edit is not None
                assert call.expect not in shown
        if item.family == "imagine":
            assert item.in_view == any(b.tipped for b in shown) == (not item.needed)
        assert ("retrieve" in item.needed) == (item.family != "imagine" and not item.in_view)


def test_chains_end_in_the_answer_and_name_every_piece() -> None:
    item = make_item("observe", 0, "test")
    assert item.closing() == f" {item.lead} {item.answer}.</think>\n<answer>{item.answer}</answer>"
    board = item.clip.slow[0][1]
    assert describe(board) == ", ".join(map(str, board.ordered())) + "."
    view = describe_view(view_of(item.clip))
    assert view.startswith(f"Second 0: {describe(item.clip.view()[0])} 1: ")
    assert view.count(": ") == len(item.clip.view())


def test_clip_lengths() -> None:
    assert {make_item("blink", i).clip.frames // FPS for i in range(60)} == set(range(6, 11))
    assert make_item("both", 0, seconds=9).clip.seconds == 9.0


def test_sentences_name_every_colour_and_shape() -> None:
    text = " ".join(sentences())
    assert all(w in text for w in (*COLOURS, *SHAPES))
