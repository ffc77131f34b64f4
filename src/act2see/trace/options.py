"""The options of a question, and which of them an answer names."""

from __future__ import annotations

import re

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The letters that name options."""
# "The answer is B.", "Final answer: (B)", "\boxed{B}", at the end of an answer in plain words.
_NAMED = re.compile(
    r"(?:\b(?i:answer|option|choice)\b(?i: is| would be)?\s*:?\s*[(*]*([A-Z])[)*]*|\\boxed\{([A-Z])\})[.$ ]*$"
)


def choose(answer: str | None, options: tuple[str, ...]) -> str | None:
    """Return the option that an answer names by its letter or its words; None if it names none or several.

    A letter counts only alone, before a period, a bracket or a colon, or as the named answer at the end, so
    that "A man walks in" does not name option A.

    Args:
        answer: The content of `<answer>`; None for an unfinished run.
        options: The options of the question.
    """
    if answer is None or not options:
        return None
    letters = LETTERS[: len(options)]
    body = answer.strip().strip("*_`$ ")  # Markdown

    alone = body.strip("()[]. ").upper()  # "B", "(b)", "[B]."
    if len(alone) == 1 and alone in letters:
        return options[letters.index(alone)]

    opening = body.strip("( ")  # "B. the ring", "(B) the ring", "b: the ring"
    if opening[1:2] in (".", ")", ":") and opening[0].upper() in letters:
        return options[letters.index(opening[0].upper())]

    if named := _NAMED.search(body):  # "So the answer is B."
        letter = named[1] or named[2]
        return options[letters.index(letter)] if letter in letters else None

    same = [option for option in options if _bare(option) == _bare(body)]
    return same[0] if len(same) == 1 else None


def _bare(option: str) -> str:
    """Remove differences in case and punctuation."""
    return option.casefold().strip(" .")
