"""Questions in people's words: what a training question sounds like when somebody else asks it.

The lines were written by people of many kinds, one file for all (`lines/people.jsonl`). Each has the kind of
question that it asks, with slots for shapes, colours, places and sides. Here a line is drawn, its slots are
filled in (with other names for places, colours and shapes, too), and the text is varied as people type:
small letters, missing marks, slips of the finger, a polite word before or after.

The test lines (`study/wordings`) have other authors and are never read here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from act2see.micro.common_words import fill_common
from act2see.micro.drafts import ABSENT, DARK, REFUSAL, STILL
from act2see.micro.kinds import ABOUT_ONE_SHAPE, DIRECTIONS, KINDS, Asked, ask, slots_of
from act2see.micro.names import (
    DIRECTION_NAMES,
    NAMES,
    NUMBERS,
    PLACES,
    STRANGE_SHAPES,
    STRANGE_SIDES,
    SYNONYMS,
)
from act2see.micro.questions import Item
from act2see.micro.slips import append, capitalise, uncapitalise, vary
from act2see.micro.world import CELLS, COLOURS, SHAPES, SIDES, cell_name

LINES = Path(__file__).parent / "lines" / "people.jsonl"
_OWN_WORDS = 0.08  # share of questions that keep the world's own words
_EARLIER = 0.4  # share of questions with unrelated earlier questions
_TURNS = (1, 1, 1, 2, 2, 3)  # how many earlier questions there are
_DECLINED = 0.3  # share of the earlier questions that were beyond the board
_FOLLOW_UP = 0.12  # share of questions about one shape that are put as a follow-up
_PRONOUN = 0.1  # share of questions about a shape that call it by a pronoun
_BEYOND_OPTIONS = 0.15  # share of questions beyond the board that have options
_STRANGE_OPTIONS = 0.06  # share of questions with options whose options fit another question
_NAMED_OPTIONS = 0.4  # share of questions with options whose options are in people's words
_OTHER_NAME = 0.06  # share of shapes and colours that have another name than the world's
_SEVERAL = 0.08  # share of questions beyond the board that are several questions in one
_PATTERN = 0.4  # share of the other questions beyond the board that are a pattern filled with common words
_TALK = 0.1  # share of texts with talk before them, and with talk after them
_STRANGE = 0.14  # share of questions beyond the board that ask about a thing or a side that it has not
_THINNED = 0.2  # share of lines without a word or two
_PLACE_NAME = 0.6  # the same for places

_JOINTS = ("? and ", ", and ", " and ", "? also, ", "? Also ", ". ", "? ", ", plus: ", " & ", "; ")
"""What stands between two questions."""
_WHOLE = ("beyond", "two_blinks", "moved_between", "describe", "what_changed", "list")
"""Kinds that already ask for more than one thing."""
_MOMENTS = (
    "when the {y} blinks",
    "at the moment the {y} lights up",
    "while the {y} flashes",
    "just as the {y} is lit",
    "at the {y}'s flash",
    "as soon as the {y} blinks",
    "during the {y}'s blink",
    "the instant the {y} glows",
)
_EARLIER_ANSWERS = (
    *COLOURS,
    *map(cell_name, CELLS),
    *SHAPES,
    "yes",
    "no",
    "1",
    "2",
    "3",
    "at 2 s",
    "at 4.3 s",
    *(text.format(x=shape) for text in (ABSENT, DARK, STILL) for shape in SHAPES),
)
_VERDICTS = (("yes", "no"), ("true", "false"), ("true", "false"), ("correct", "incorrect"))
"""Names of yes and no."""
_OTHER_WORD = 0.25  # share of these words that another one replaces
_SYNONYM = {word: words for words in SYNONYMS for word in words}
_WORD = re.compile(
    r"(?<!{)\b(" + "|".join(sorted(map(re.escape, _SYNONYM), key=len, reverse=True)) + r")\b(?!})",
    re.IGNORECASE,
)
_SLOT = re.compile(r"{(\w+)}")
_THE_SHAPE = re.compile(r"\b[Tt]he {x}(?:'s)?(?!\w)")


@dataclass(frozen=True, slots=True)
class Wordings:
    """Lines in people's words, by kind."""

    lines: Mapping[str, Sequence[str]]

    def say(self, asked: Asked, rng: random.Random) -> str:
        """Return a question in people's words.

        Args:
            asked: What it asks.
            rng: The source of randomness.
        """
        slots = dict(asked.slots)
        if asked.kind.endswith("_without_when"):
            line = rng.choice(self.lines[asked.kind.removesuffix("_when")])
            moment = rng.choice(_MOMENTS)
            text = (
                capitalise(f"{moment}, {line}") if rng.random() < 0.4 else f"{line.rstrip('?.! ')} {moment}?"
            )
        else:
            text = rng.choice(self.lines[asked.kind])
        return self._vary(fill(text, slots, rng), rng)

    def decline(self, rng: random.Random) -> str:
        """Return a question that no board can answer, or several questions in one."""
        if rng.random() < _SEVERAL:
            return self._ask_several(rng)
        if rng.random() < _STRANGE:
            return self._ask_about_strange(rng)
        line = rng.choice(self.lines["beyond_of" if rng.random() < _PATTERN else "beyond"])
        return self._vary(fill(fill_common(line, rng), draw_slots(rng), rng), rng)

    def _vary(self, text: str, rng: random.Random) -> str:
        """Return a text as somebody else might have typed it, now and then with talk around it."""
        if rng.random() < _TALK:
            text = fill_common(rng.choice(self.lines["before"]), rng) + uncapitalise(text)
        if rng.random() < _TALK:
            text = append(text, fill_common(rng.choice(self.lines["after"]), rng))
        return vary(text, rng)

    def _ask_several(self, rng: random.Random) -> str:
        kinds = [kind for kind in self.lines if kind in KINDS and kind not in _WHOLE]
        count = 2 if rng.random() < 0.85 else rng.randint(3, 8)
        texts: list[str] = []
        for kind in rng.sample(kinds, count):
            text = fill(rng.choice(self.lines[kind]), draw_slots(rng), rng)
            texts.append(uncapitalise(text) if texts else text)
        return vary(texts[0].rstrip("?.! ") + "".join(rng.choice(_JOINTS) + text for text in texts[1:]), rng)

    def _ask_about_strange(self, rng: random.Random) -> str:
        """Return a question of the board about a shape, or a side, that no board has."""
        slots = draw_slots(rng)
        kinds = [kind for kind in self.lines if kind in KINDS and set(slots_of(kind)) & {"x", "side"}]
        kind = rng.choice(kinds)
        strange = rng.choice([slot for slot in slots_of(kind) if slot in ("x", "y", "z", "side")])
        slots[strange] = rng.choice(STRANGE_SIDES if strange == "side" else STRANGE_SHAPES)
        return self._vary(fill(rng.choice(self.lines[kind]), slots, rng), rng)

    def follow_up(self, shape: str, rng: random.Random) -> str:
        """Return a question that repeats the one before about another shape."""
        return vary(fill(rng.choice(self.lines["follow_up"]), {"x": shape}, rng), rng)

    def search(self, kind: str, slots: Mapping[str, str], rng: random.Random) -> str:
        """Return a search for a moment, of the kinds `find_blink`, `find_is`, `find_at`, `find_there`,
        `find_tipped`."""
        return vary(fill(rng.choice(self.lines[kind]), slots, rng), rng)

    def reword(self, item: Item, rng: random.Random) -> Item:
        """Return an item whose question is in people's words.

        A part of the items follows up on an earlier question, or comes after one that it has nothing to do
        with.
        """
        if item.kind == "beyond":
            options = _draw_options(rng) if rng.random() < _BEYOND_OPTIONS else ()
            item = replace(item, text=self.decline(rng), options=options)
        elif rng.random() < _OWN_WORDS:
            pass
        elif item.asked.kind in ABOUT_ONE_SHAPE and rng.random() < _FOLLOW_UP:
            return self._as_follow_up(item, rng)
        elif "x" in slots_of(item.asked.kind) and rng.random() < _PRONOUN:
            return self._with_pronoun(item, rng)
        else:
            item = replace(item, text=self.say(item.asked, rng))
        if item.options and rng.random() < _NAMED_OPTIONS:
            item = _name_options(item, rng)
        if item.options and rng.random() < _STRANGE_OPTIONS:
            # Nothing in them need fit: the answer is what the clip shows.
            item = replace(item, options=_draw_options(rng), named="")
        if rng.random() < _EARLIER:
            return replace(item, earlier=self._draw_earlier(rng, rng.choice(_TURNS)))
        return item

    def _as_follow_up(self, item: Item, rng: random.Random) -> Item:
        shape = dict(item.asked.slots)["x"]
        other = rng.choice([s for s in SHAPES if s != shape])
        before = ask(item.asked.kind, x=other)
        words = before.text if rng.random() < 0.2 else self.say(before, rng)
        return self._put_after(item, self.follow_up(shape, rng), (words, _draw_answer(item, rng)), rng)

    def _with_pronoun(self, item: Item, rng: random.Random) -> Item:
        """Return an item that calls its shape "it", after another question about this shape."""
        kind, slots = item.asked.kind, dict(item.asked.slots)
        lines = [
            line for line in self.lines.get(kind, ()) if line.count("{x}") == 1 and _THE_SHAPE.search(line)
        ]
        if not lines:
            return replace(item, text=self.say(item.asked, rng))
        line = _THE_SHAPE.sub(_name_by_pronoun, rng.choice(lines))
        before = self.say(ask(rng.choice(ABOUT_ONE_SHAPE), x=slots["x"]), rng)
        turn = (before, rng.choice(_EARLIER_ANSWERS))
        return self._put_after(item, vary(fill(line, slots, rng), rng), turn, rng)

    def _put_after(self, item: Item, text: str, before: tuple[str, str], rng: random.Random) -> Item:
        """Return an item with a text that needs the question before it, now and then with others before."""
        others = self._draw_earlier(rng, rng.choice((1, 2))) if rng.random() < _EARLIER else ()
        return replace(item, text=text, earlier=(*others, before))

    def _draw_earlier(self, rng: random.Random, count: int) -> tuple[tuple[str, str], ...]:
        """Draw earlier questions with their answers, some of them declined."""
        kinds = [k for k in self.lines if k in KINDS and k != "beyond"]
        turns = []
        for _ in range(count):
            if rng.random() < _DECLINED:
                turns.append((self.decline(rng), REFUSAL))
                continue
            text = fill(rng.choice(self.lines[rng.choice(kinds)]), draw_slots(rng), rng)
            turns.append((vary(text, rng), rng.choice(_EARLIER_ANSWERS)))
        return tuple(turns)


def _name_by_pronoun(match: re.Match[str]) -> str:
    name = "its" if match[0].endswith("s") else "it"
    return name.capitalize() if match[0][0] == "T" else name


def _draw_answer(item: Item, rng: random.Random) -> str:
    """Return an answer of the item's kind: one of its options, or another answer."""
    return rng.choice(item.options or (item.answer,))


def draw_slots(rng: random.Random) -> dict[str, str]:
    """Return contents for all slots: three shapes, a colour, a place, and so on."""
    x, y, z = rng.sample(SHAPES, 3)
    return {
        "x": x,
        "y": y,
        "z": z,
        "colour": rng.choice(list(COLOURS)),
        "place": cell_name(rng.choice(CELLS)),
        "side": rng.choice(SIDES),
        "n": str(rng.randrange(10)),
        "direction": rng.choice(list(DIRECTIONS)),
    }


def _name_options(item: Item, rng: random.Random) -> Item:
    """Return an item whose options are in people's words: "Top left", "a ring", "Two"."""
    article, capital = rng.choice(("", "", "", "the ", "a ")), rng.random() < 0.5
    verdicts = rng.choice(_VERDICTS)
    options = {}
    for option in item.options:
        name = option
        if option in PLACES:
            name = rng.choice(PLACES[option])
        elif option in SHAPES:
            name = article + option
        elif option.isdecimal() and rng.random() < 0.3:
            name = NUMBERS[int(option)]
        elif option in ("yes", "no"):
            name = verdicts[option == "no"]
        options[option] = capitalise(name) if capital else name
    named = options.get(item.answer, item.answer)
    # Case does not matter when an answer is compared with the options.
    same = named.casefold() == item.answer.casefold()
    return replace(item, options=tuple(options.values()), named="" if same else named)


def _draw_options(rng: random.Random) -> tuple[str, ...]:
    """Draw options of any kind, as people name them."""
    places = [rng.choice(names) for names in PLACES.values()]
    pool = rng.choice(
        (list(COLOURS), list(SHAPES), places, ["yes", "no"], ["A", "B", "C"], ["1", "2", "3", "4"])
    )
    return tuple(rng.sample(pool, min(rng.choice((2, 3, 4, 4)), len(pool))))


def fill(line: str, slots: Mapping[str, str], rng: random.Random) -> str:
    """Return a line with its slots filled in, now and then with another name."""

    def name(match: re.Match[str]) -> str:
        slot = match[1]
        word = slots[slot]
        if slot == "place":
            return rng.choice(PLACES[word]) if rng.random() < _PLACE_NAME else word
        if slot == "n":
            return NUMBERS[int(word)] if int(word) < len(NUMBERS) and rng.random() < 0.25 else word
        if slot == "direction":
            return rng.choice((word, *DIRECTION_NAMES[word]))
        others = NAMES.get(word)
        return rng.choice(others) if others and rng.random() < _OTHER_NAME else word

    if rng.random() < _THINNED:
        line = _leave_out(line, rng)
    return _SLOT.sub(name, _exchange(line, rng))


def fill_plainly(line: str, slots: Mapping[str, str]) -> str:
    """Return a line with its slots filled in by the world's own names."""
    return _SLOT.sub(lambda match: slots[match[1]], line)


def _leave_out(line: str, rng: random.Random) -> str:
    """Return a line without one or two of its words; slots stay. A line of a few words is unchanged."""
    words = line.split(" ")
    if len(words) < 6:
        return line
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(words))
        if "{" not in words[place]:
            del words[place]
    return " ".join(words)


def _exchange(line: str, rng: random.Random) -> str:
    """Return a line with some of its words replaced by others that people use for the same."""

    def other(match: re.Match[str]) -> str:
        word = match[1]
        return rng.choice(_SYNONYM[word.lower()]) if rng.random() < _OTHER_WORD else word

    return _WORD.sub(other, line)


@lru_cache(1)
def load_wordings() -> Wordings:
    """Return the shipped lines."""
    return read_wordings(LINES)


def read_wordings(path: Path) -> Wordings:
    """Return the lines of a file of objects with `kind` and `text`, one on each line."""
    lines: dict[str, list[str]] = {}
    for row in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(row)
        lines.setdefault(record["kind"], []).append(record["text"])
    return Wordings(lines)
