"""One question of a benchmark, whatever its data set calls the fields.

The answer of a choice is a letter, not words: some published questions have two options with the same
words. A record that cannot be used becomes a `Problem` that names the record and the field; no record is
dropped silently.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from act2see.evaluation.quantities import read_quantity
from act2see.evaluation.reading import AnswerKind
from act2see.evaluation.regions import read_box, read_intervals
from act2see.tools.frames import Record
from act2see.tools.runtime.text import first_problem, quote_text
from act2see.tools.video.window import Window
from act2see.trace.options import LETTERS


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
    if len(options) > len(LETTERS):
        raise ValueError(f"options: {len(options)} options: at most {len(LETTERS)} can be shown")
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
