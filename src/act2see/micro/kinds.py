"""What people ask about board clips, in the world's own words: one fixed question for each kind.

People ask the same in endless ways (`wordings`). Micro's chain begins with the question in these words, so
everything after its head is about one sentence for each kind. Slots name what is asked about: `x`, `y` and
`z` are shapes, besides a colour, a place, a side,
a direction and a number of seconds (`n`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TIPPED = "the board is tipped to the {side}"
_AWAY = "the {z} is taken away and "
_LIT = " as the {y} blinks"

KINDS: dict[str, str] = {
    "colour": "What colour is the {x}?",
    "colour_at": "What colour is the shape at {place}?",
    "start": "Where is the {x} at the start?",
    "end": "Where is the {x} at the end?",
    "where": "Where is the {x}?",
    "where_at": "Where is the {x} at second {n}?",
    "where_when": "Where is the {x} when the {y} blinks?",
    "which_moves": "Which shape moves?",
    "which_blinks": "Which shape blinks?",
    "blink_colour": "What colour does the {x} turn when it blinks?",
    "tip_where": "Where does the {x} end up when " + _TIPPED + "?",
    "tip_where_without": "Where does the {x} end up when " + _AWAY + _TIPPED + "?",
    "tip_where_when": "Where does the {x} end up when " + _TIPPED + _LIT + "?",
    "tip_where_without_when": "Where does the {x} end up when " + _AWAY + _TIPPED + _LIT + "?",
    "tip_which": "Which shape ends up at {place} when " + _TIPPED + "?",
    "tip_which_without": "Which shape ends up at {place} when " + _AWAY + _TIPPED + "?",
    "tip_which_when": "Which shape ends up at {place} when " + _TIPPED + _LIT + "?",
    "tip_which_without_when": "Which shape ends up at {place} when " + _AWAY + _TIPPED + _LIT + "?",
    "when_blinks": "When does the {x} blink?",
    "when_any_blinks": "When does a shape blink?",
    "when_moves": "When does the {x} move?",
    "when_appears": "When does the {x} appear?",
    "how_many": "How many shapes are there?",
    "how_many_colour": "How many shapes are {colour}?",
    "how_many_moves": "How many times does the {x} move?",
    "how_many_blink": "How many shapes blink?",
    "how_many_blinks": "How many times does the {x} blink?",
    "is_there": "Is there a {x}?",
    "is_there_colour": "Is there a {colour} {x}?",
    "any_colour": "Is a shape {colour}?",
    "is_colour": "Is the {x} {colour}?",
    "is_at": "Is the {x} at {place}?",
    "does_move": "Does the {x} move?",
    "does_blink": "Does the {x} blink?",
    "any_moves": "Does a shape move?",
    "any_blinks": "Does a shape blink?",
    "which_first": "Which blinks first, the {x} or the {y}?",
    "which_first_moves": "Which moves first, the {x} or the {y}?",
    "which_last": "Which blinks last, the {x} or the {y}?",
    "which_last_moves": "Which moves last, the {x} or the {y}?",
    "which_tipped": "Which side is the board tipped to?",
    "what_changed": "What changes from start to end?",
    "describe": "Describe the clip.",
    "what_at": "Which shape is at {place}?",
    "what_at_start": "Which shape is at {place} at the start?",
    "what_at_end": "Which shape is at {place} at the end?",
    "beside": "Which shape is {direction} the {x}?",
    "which_colour": "Which shape is {colour}?",
    "relation": "Is the {x} {direction} the {y}?",
    "list": "Which shapes are there?",
    "two_blinks": "Where is the {x} when the {y} blinks and when the {z} blinks?",
    "moved_between": "Does the {x} move between the blinks of the {y} and the {z}?",
    "which_blinks_first": "Which shape blinks first?",
    "which_blinks_last": "Which shape blinks last?",
    "which_moves_first": "Which shape moves first?",
    "which_moves_last": "Which shape moves last?",
    "blinks_before": "Does the {x} blink before the {y}?",
    "moves_before": "Does the {x} move before the {y} blinks?",
    "moves_after": "Does the {x} move after the {y} blinks?",
    "which_all_blink": "Which shapes blink?",
    "still": "Which shapes do not move?",
    "moved_colour": "What colour is the shape that moves?",
    "any_happens": "Does anything happen?",
    "is_tipped": "Is the board tipped?",
    "when_tips": "When is the board tipped?",
    "tip_all": "What is where when " + _TIPPED + "?",
    "above_or_below": "Is the {x} above or below the {y}?",
    "left_or_right": "Is the {x} left or right of the {y}?",
    "before_or_after": "Does the {x} blink before or after the {y}?",
    "moves_before_or_after": "Does the {x} move before or after the {y} blinks?",
    "before_or_after_move": "Does the {x} blink before or after the {y} moves?",
    "beyond": "Beyond the board.",
}
"""The question of each kind, with its slots. `beyond` stands for everything that a board cannot answer."""

DIRECTIONS: dict[str, tuple[int, int]] = {
    "above": (-1, 0),
    "below": (1, 0),
    "left of": (0, -1),
    "right of": (0, 1),
}
"""The directions from one shape to its neighbour, with the steps down and to the right."""

ABOUT_ONE_SHAPE = tuple(kind for kind, text in KINDS.items() if re.findall(r"{(\w+)}", text) == ["x"])
"""The kinds that ask about one shape, which a follow-up ("and the ring?") can ask about another."""


def slots_of(kind: str) -> tuple[str, ...]:
    """Return the slots of a kind in the order of its question. Raises `KeyError` for an unknown kind."""
    return tuple(re.findall(r"{(\w+)}", KINDS[kind]))


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks: its kind, and the contents of the slots."""

    kind: str
    slots: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """The question in the world's own words."""
        return KINDS[self.kind].format(**dict(self.slots))


def ask(kind: str, **slots: str) -> Asked:
    """Return a question of a kind.

    Raises:
        KeyError: If the kind is unknown, or one of its slots is missing.
    """
    return Asked(kind, tuple((slot, slots[slot]) for slot in slots_of(kind)))
