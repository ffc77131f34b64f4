"""The options of a question, and which of them an answer names."""

from __future__ import annotations

import re

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""The letters that name options."""

_EDGES = " \t\n*_`$\"'\u2018\u2019\u201c\u201d.!,"  # Markdown, quotes, the end of a sentence
_BRACKETS = "()[]{}:"
# "B. the ring", "(b) the ring", "B - the ring", "B\nthe ring"
_LABELLED = re.compile(
    r"[\s(\[*_]{0,4}([A-Za-z])"
    r"(?:[)\].:\uff1a\u3001,*]{1,4}\s|\s{1,3}[-\u2013\u2014]\s|[\uff1a\u3001\n])\s*(.+)",
    re.DOTALL,
)
# "The answer is B.", "**Final answer:** (b)", "答案是B", "\boxed{\text{B}}"
_NAMED = (
    re.compile(
        r"(?:\b(?i:answer)(?i: is| would be| should be)?|答案[是为]?)[\s*_]{0,3}[:\uff1a]?[\s*_\"']{0,4}"
        r"(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?=[.,;:)\]*\"'!\n]|\s{0,3}$))"
    ),
    re.compile(r"\\boxed\{(?:\\text\{)?\(?([A-Za-z])\)?\}"),
    re.compile(r"^\W{0,4}(?i:it'?s|it is|option|choice)\s(?i:option )?([A-Za-z])\W{0,3}$"),
    re.compile(r"^\W{0,4}([A-Z])\W{0,2} is (?:correct|right|the (?:correct |right )?answer)\W{0,3}$"),
)
_LONGEST = 4_000  # characters of an answer that are looked at, its end


def choose(answer: str | None, options: tuple[str, ...]) -> str | None:
    """Return the option that an answer names by its letter or its words; None if it names none or several.

    Its words come first: the option "a.m." is not option A. A letter counts alone, before a label's sign, or
    where the answer is named ("The answer is B."), so that "A man walks in" does not name option A.

    Args:
        answer: The content of `<answer>`; None for an unfinished run.
        options: The options of the question.
    """
    if answer is None or not options:
        return None
    body = answer[-_LONGEST:].strip(_EDGES)
    same = [option for option in options if _bare(option) == _bare(body)]
    if same:
        return same[0] if len(same) == 1 else None
    letter = _letter(body, options)
    return None if letter is None else options[LETTERS.index(letter)]


def _letter(body: str, options: tuple[str, ...]) -> str | None:
    """The letter that an answer names, as a capital."""
    letters = LETTERS[: len(options)]
    alone = body.strip(_EDGES + _BRACKETS).upper()  # "B", "(b)", "[B]."
    if len(alone) == 1:
        return alone if alone in letters else None
    if labelled := _LABELLED.match(body):
        letter = labelled[1].upper()
        return letter if letter in letters and _fits(labelled[1], labelled[2], options) else None
    named = [match for pattern in _NAMED for match in pattern.finditer(body)]
    if not named:
        return None
    last = max(named, key=lambda match: match.end())
    letter = next(group for group in last.groups() if group).upper()
    return letter if letter in letters else None


def _fits(label: str, words: str, options: tuple[str, ...]) -> bool:
    """Whether the words after a label agree with its option, or a capital label names no other option."""
    own = options[LETTERS.index(label.upper())]
    said = _bare(words)
    if said.startswith(_bare(own)) or _bare(own).startswith(said):
        return True
    others = [option for option in options if option != own]
    names_another = any(_bare(option) and _bare(option) in said for option in others)
    another_letter = re.search(rf"\b[{LETTERS[: len(options)]}]\b(?!\s[a-z])", words)
    return label.isupper() and not names_another and not another_letter


def _bare(text: str) -> str:
    return " ".join(text.split()).casefold().strip(_EDGES)
