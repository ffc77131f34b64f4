"""What an answer says: from the body of `<answer>` and the question's options alone to a value that is
scored.

Scorers get nothing but this body. Two well-known harnesses read the whole text, and take "A man walks to
the door, so the answer is B" for A. A body that cannot be read is told apart from none, and from one that
names several options, so that a table can count each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from act2see.evaluation.quantities import Quantity, read_quantity
from act2see.evaluation.regions import Box, Interval, read_box, read_intervals
from act2see.trace.answer_words import clean_answer, split_minds
from act2see.trace.options import pick_option, pick_options

AnswerKind = Literal["choice", "choices", "interval", "box", "number", "size", "text"]
"""One option, several, parts of the video, a box in a picture, an exact number, a size that is estimated,
words.
"""
Value = int | frozenset[int] | tuple[Interval, ...] | Box | Quantity | str
Fault = Literal["", "unanswered", "several", "unreadable"]
_LONGEST = 4_000  # characters of an answer that are looked at, its end


@dataclass(frozen=True, slots=True)
class Reading:
    """The value of an answer, or why there is none.

    The value is the place of an option, a set of places, intervals in seconds, a box, a quantity, or words.
    """

    value: Value | None = None
    fault: Fault = ""


def read_answer(body: str | None, options: tuple[str, ...] = (), kind: AnswerKind = "choice") -> Reading:
    """Return what an answer says.

    Args:
        body: The content of `<answer>`; None for a run without an answer.
        options: The options as they were shown, in their order, without letters.
        kind: What the question asks for.
    """
    if body is None or not body.strip():
        return Reading(fault="unanswered")
    if kind == "choice":
        pick = pick_option(body, options)
        if pick.index is not None:
            return Reading(pick.index)
        return Reading(fault="several" if pick.several else "unreadable")
    value: Value | None
    if kind == "choices":
        value = pick_options(body, options)
    elif kind == "text":
        value = " ".join(body.split())
    else:
        value = _read_last(body, kind)
    return Reading(fault="unreadable") if value is None else Reading(value)


def _read_last(body: str, kind: AnswerKind) -> Value | None:
    """Read the last thing that a person said who changed the mind."""
    read = {"interval": read_intervals, "box": read_box}.get(kind, read_quantity)
    for part, retracts in reversed(split_minds(clean_answer(body[-_LONGEST:]))):
        value: Value | None = read(part)
        if value is not None or retracts:
            return value
    return None
