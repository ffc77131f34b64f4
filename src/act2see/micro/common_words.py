"""Common words: what people talk of besides the board.

A question beyond the board may be about anything, and so may the talk around a question that the board does
answer. Both are lines with slots (`lines/people.jsonl`, kinds `beyond_of`, `before` and `after`), which are
filled in from a list of some 1,800 words of all of life (`lines/common_words.json`). So no single strange
word tells the two apart: what counts is what is asked.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

WORDS = Path(__file__).parent / "lines" / "common_words.json"
FORMS = {
    "thing": ("things", 0),
    "things": ("things", 1),
    "stuff": ("stuff", 0),
    "person": ("persons", 0),
    "verb": ("verbs", 0),
    "verbs": ("verbs", 1),
    "verbing": ("verbs", 2),
    "verbed": ("verbs", 3),
    "adj": ("adjs", 0),
    "name": ("names", 0),
    "topic": ("topics", 0),
}
"""The slots: which list fills it, and with which form of a word."""
_SLOT = re.compile("{(" + "|".join(FORMS) + ")}")


@lru_cache(1)
def load_common_words() -> Mapping[str, Sequence[Sequence[str]]]:
    """Return the lists of words, each word with its forms."""
    lists = json.loads(WORDS.read_text(encoding="utf-8"))
    return {
        name: [word if isinstance(word, list) else [word] for word in words] for name, words in lists.items()
    }


def fill_common(line: str, rng: random.Random) -> str:
    """Return a line with each slot for a common word filled in; slots of the board stay.

    Args:
        line: Text with slots such as `{thing}`.
        rng: The source of randomness.
    """
    words = load_common_words()

    def draw(match: re.Match[str]) -> str:
        name, form = FORMS[match[1]]
        return rng.choice(words[name])[form]

    return _SLOT.sub(draw, line)
