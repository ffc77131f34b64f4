"""Questions in strangers' words, for measuring: nothing is trained on them.

The lines (`study/wordings`) are by authors who had not seen the world's code, its templates or each other's
lines.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from act2see.micro.kinds import ABOUT_ONE_SHAPE
from act2see.micro.questions import EVERYDAY, FAMILIES, Item, make_item
from act2see.micro.world import SHAPES

WORDINGS = Path(__file__).parent / "wordings"
AUTHORS = ("a", "b")
_MOST_DRAWS = 4000


def strange_questions(count: int) -> list[Item]:
    """Return test items in strangers' words: the lines of all kinds by turns, in the words as written."""
    lines = [line for author in AUTHORS for line in read_lines(author, "questions")]
    random.Random(0).shuffle(lines)
    drawn = {}
    items = []
    for number in range(count):
        line = lines[number % len(lines)]
        kind = line["kind"]
        if kind not in drawn:
            drawn[kind] = _items_of(kind)
        items.append(_put(next(drawn[kind]), line, lines, random.Random(f"strange {number}")))
    return items


def strange_refusals(count: int) -> list[Item]:
    """Return questions that no board can answer, each about a clip of its own."""
    lines = [line for author in AUTHORS for line in read_lines(author, "refusals")]
    random.Random(0).shuffle(lines)
    items = []
    for number in range(count):
        text = lines[number % len(lines)]["text"]
        items.append(replace(make_item("beyond", number, "test"), text=text, options=()))
    return items


def strange_threads(count: int) -> list[Item]:
    """Return questions in strangers' words that come after one to three other ones in their thread.

    A third of the earlier questions are beyond the board and were declined. The questions are whole: none
    needs what came before it.
    """
    whole = [item for item in strange_questions(3 * count) if not item.earlier]
    refusals = strange_refusals(count)
    items = []
    for number, item in enumerate(whole[:count]):
        rng = random.Random(f"thread {number}")
        turns = []
        for _ in range(rng.randint(1, 3)):
            before = rng.choice(refusals if rng.random() < 1 / 3 else whole)
            turns.append((before.text, before.given))
        items.append(replace(item, earlier=tuple(turns)))
    return items


def _items_of(kind: str) -> Iterator[Item]:
    """Yield test items of a kind, from the families in turn; a follow-up can be of any that asks about one
    shape."""
    families = (*FAMILIES, *(family for family in EVERYDAY if family not in ("false", "beyond")))
    # Far beyond the items of the other figures, so that the clips are other ones.
    for index in range(100_000, 100_000 + _MOST_DRAWS):
        for family in families:
            item = make_item(family, index, "test", options=False)
            asked = item.asked.kind
            if asked == kind or (kind == "follow_up" and asked in ABOUT_ONE_SHAPE):
                yield item


def _put(item: Item, line: dict[str, Any], lines: list[dict[str, Any]], rng: random.Random) -> Item:
    """Return the item with its question in the words of a line."""
    slots = dict(item.asked.slots)
    earlier = item.earlier
    if line["kind"] == "follow_up":
        same = [other["text"] for other in lines if other["kind"] == item.asked.kind]
        before = rng.choice(same) if same else item.asked.text.replace(slots["x"], "{x}")
        other = rng.choice([shape for shape in SHAPES if shape != slots["x"]])
        earlier = ((_fill(before, {**slots, "x": other}), item.answer),)
    return replace(item, text=_fill(line["text"], slots), earlier=earlier)


def _fill(line: str, slots: dict[str, str]) -> str:
    for slot, word in slots.items():
        line = line.replace(f"{{{slot}}}", word)
    return line


@lru_cache
def read_lines(author: str, sort: str) -> tuple[dict[str, Any], ...]:
    """Return an author's lines: "questions", "refusals" or "premises"."""
    text = (WORDINGS / f"{author}_{sort}.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())
