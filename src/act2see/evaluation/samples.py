"""One question of a benchmark, whatever its data set calls the fields.

The answer of a choice is a letter, not words: some published questions have two options with the same
words. A record that cannot be used becomes a `Problem` that names the record and the field; no record is
dropped silently.
"""

from __future__ import annotations

import re
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from act2see.evaluation.quantities import read_quantity
from act2see.evaluation.reading import AnswerKind
from act2see.evaluation.regions import read_box, read_intervals
from act2see.tools.frames import Record
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.tools.video.window import Window
from act2see.trace.options import LETTERS

_LABEL = re.compile(r"\s*\(?([A-Z])\)?\s*[.:)]+\s+")
_LONE_LETTER = re.compile(r"[\s(\[]*([A-Za-z])[\s)\].:]*")


class FieldError(Exception):
    """A field that is missing or cannot be used."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


class FollowUp(Record):
    """A second question, asked after the first was answered. `{choice}` in its text is what was chosen."""

    question: str
    options: tuple[str, ...]
    answer: str
    """The letter of the right option."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_letter(self.answer, self.options, "answer")
        return self


class Sample(Record):
    """One question about one video, with its right answer."""

    id: str
    benchmark: str
    video: str
    """A path, or the name that the data set gives the video until it is looked for."""
    question: str
    options: tuple[str, ...] = ()
    """Without letters."""
    kind: AnswerKind = "choice"
    answer: str
    """The letter of the right option (letters for `choices`: "ACD"), or the right answer as text."""
    groups: dict[str, str] = Field(default_factory=dict)
    """What scores are also given by: duration, domain, task."""
    evidence: str = ""
    chain: tuple[str, ...] = ()
    """Steps of the reference's reasoning."""
    frames: int | None = Field(default=None, ge=1)
    """How many frames the paper shows at the start; None for its 1 frame a second."""
    trim: tuple[float, float] | None = None
    """Start and end, in seconds, of the part of the video that is asked about."""
    then: FollowUp | None = None
    sensible: str = ""
    """EgoNormia: the letters of all options that are sensible."""
    needed: tuple[str, ...] | None = None
    """The tags of the calls that an answer needs, in order; None where that is not known."""
    licence: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "choice":
            _check_letter(self.answer, self.options, "answer")
        for letter in (self.answer if self.kind == "choices" else "") + self.sensible:
            _check_letter(letter, self.options, "answer")
        reader = {"interval": read_intervals, "box": read_box, "number": read_quantity, "size": read_quantity}
        if self.kind in reader and reader[self.kind](self.answer) is None:
            raise ValueError(f"answer: {quote_text(self.answer)!r} is no {self.kind}")
        return self

    @property
    def right(self) -> int:
        """The place of the right option."""
        return LETTERS.index(self.answer)

    @property
    def clip(self) -> str:
        """The video, or the part that is asked about, in the syntax of `open_video`."""
        return str(Window(self.video, *self.trim)) if self.trim else self.video


def _check_letter(letter: str, options: tuple[str, ...], field: str) -> None:
    if len(options) < 2:
        raise ValueError(f"options: {len(options)} options are no choice")
    if len(letter) != 1 or letter not in LETTERS[: len(options)]:
        raise ValueError(
            f"{field}: {quote_text(letter)!r} is not one of {LETTERS[0]} to {LETTERS[len(options) - 1]}"
        )


def make_sample(**fields: Any) -> Sample:
    """Return a sample. Raises `FieldError` if a field does not fit."""
    try:
        return Sample(**fields)
    except ValidationError as e:
        field, why = first_problem(e)
        named, _, rest = why.partition(": ")
        raise FieldError(field or named, why if field else rest) from e


def take_text(row: dict[str, Any], *fields: str) -> str:
    """Return the text of the first of these fields that is there. Raises `FieldError` if none is, or it is
    empty.
    """
    for field in fields:
        if (value := row.get(field)) is not None:
            if isinstance(value, dict | list) or not str(value).strip():
                raise FieldError(
                    field, "is empty" if value in ("", [], {}) or isinstance(value, str) else "is no text"
                )
            return str(value).strip()
    known = quote_text(", ".join(map(str, row)), 120)
    raise FieldError(fields[0], f"is missing (the record has: {known})")


def take_options(row: dict[str, Any], field: str, fewest: int = 2) -> tuple[str, ...]:
    """Return options without their letters, from a list, a dictionary by letter, or lines of text."""
    value = row.get(field)
    if value is None:
        raise FieldError(field, f"is missing (the record has: {quote_text(', '.join(map(str, row)), 120)})")
    if isinstance(value, str):
        value = [line for line in value.split("\n") if line.strip()]
    elif isinstance(value, dict):
        value = [value[letter] for letter in sorted(value) if str(value[letter] or "").strip()]
    if not isinstance(value, list | tuple) or not all(
        isinstance(option, str) and option.strip() for option in value
    ):
        raise FieldError(field, "must be a list of non-empty texts")
    if len(value) < fewest:
        raise FieldError(field, f"holds {len(value)} options, not {fewest} or more")
    return drop_labels(value)


def drop_labels(options: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return options without "A. " or "(A): ", if each has the letter of its place."""
    labels = [_LABEL.match(option) for option in options]
    has_all = all(label and label[1] == LETTERS[n] for n, label in enumerate(labels[: len(LETTERS)]))
    if not has_all:
        return tuple(option.strip() for option in options)
    return tuple(
        option[label.end() :].strip() for option, label in zip(options, labels, strict=True) if label
    )


def take_letter(row: dict[str, Any], field: str, options: tuple[str, ...]) -> str:
    """Return the letter of the right option: the field holds it ("B", "(B)"), or the option's words.

    Of two options with the same words it is the first. Raises `FieldError` if it is outside the options.
    """
    given = take_text(row, field)
    if (alone := _LONE_LETTER.fullmatch(given)) and given not in options:
        letter = alone[1].upper()
        if letter in LETTERS[: len(options)]:
            return letter
        raise FieldError(field, f"{quote_text(given)!r} is not one of A to {LETTERS[len(options) - 1]}")
    if given in options:
        return LETTERS[options.index(given)]
    label = _LABEL.match(given)
    if label and given[label.end() :] in options:
        return label[1]
    raise FieldError(field, f"{quote_text(given)!r} is none of the {len(options)} options")
