"""What a run said to a question, and the order in which the question's options were shown.

An order is a tuple: `order[shown]` is the place of an option in the record. It is the only mapping, it is
kept with the reply, and everything that is scored goes through it. The released scorer of one benchmark
mixes up the two directions, and gives a model that knows all answers 35 %.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from act2see.evaluation.reading import AnswerKind, Reading, read_answer
from act2see.evaluation.samples import FollowUp, Sample
from act2see.tools.frames import Record
from act2see.trace.options import LETTERS, is_catch_all

Order = tuple[int, ...]


class Reply(Record):
    """The answers of a run to one sample."""

    body: str | None = None
    """The content of `<answer>`."""
    order: Order = ()
    """The order of the options; empty for that of the record."""
    chain: str = ""
    """The reasoning, where it is judged."""
    refused: bool = False
    then: str | None = None
    """The answer to the second question."""
    then_order: Order = ()
    sensible: str | None = None
    """EgoNormia: the answer to a third question, which of the options (in `order`) are sensible."""


Replies = Mapping[str, Reply]
"""Id of a sample -> its reply."""


def shuffle_order(options: tuple[str, ...], key: str, seed: int | None) -> Order:
    """Return an order of options that depends on the key and the seed alone; that of the record without a
    seed.

    "None of the above" keeps its place.
    """
    places = list(range(len(options)))
    if seed is None:
        return tuple(places)
    free = [place for place in places if not is_catch_all(options[place])]
    mixed = free.copy()
    random.Random(f"{seed}:{key}").shuffle(mixed)
    for place, option in zip(free, mixed, strict=True):
        places[place] = option
    return tuple(places)


def show_options(options: tuple[str, ...], order: Order) -> tuple[str, ...]:
    """Return the options as they are shown."""
    return tuple(options[place] for place in order) if order else options


def letter_in(order: Order, place: int) -> str:
    """Return the letter under which the option at a place of the record is shown."""
    return LETTERS[order.index(place) if order else place]


def read_reply(
    body: str | None, options: tuple[str, ...], order: Order, kind: AnswerKind = "choice"
) -> Reading:
    """Read an answer to options that were shown in an order; places are those of the record."""
    reading = read_answer(body, show_options(options, order), kind)
    if not order:
        return reading
    if kind == "choice" and isinstance(reading.value, int):
        return Reading(order[reading.value])
    if kind == "choices" and isinstance(reading.value, frozenset):
        return Reading(frozenset(order[place] for place in reading.value))
    return reading


def ask_next(sample: Sample, reply: Reply) -> FollowUp | None:
    """Return the second question, with the words of what was chosen; None if the sample has none.

    An answer that cannot be read chose nothing: the second question then says so.
    """
    if sample.then is None:
        return None
    value = read_reply(reply.body, sample.options, reply.order).value
    chosen = sample.options[value] if isinstance(value, int) else "nothing"
    return sample.then.model_copy(update={"question": sample.then.question.replace("{choice}", chosen)})


def make_oracle(sample: Sample, seed: int | None = None) -> Reply:
    """Return the reply of someone who knows the answer, to options in the order of a seed."""
    return _answer(sample, seed, right=True)


def make_anti_oracle(sample: Sample, seed: int | None = None) -> Reply:
    """Return a reply that is wrong in every part."""
    return _answer(sample, seed, right=False)


def _answer(sample: Sample, seed: int | None, right: bool) -> Reply:
    order = shuffle_order(sample.options, sample.id, seed)
    count = len(sample.options)
    if sample.kind == "choice":
        body = letter_in(order, (sample.right + (not right)) % count)
    elif sample.kind == "choices":
        places = [place for place in range(count) if (LETTERS[place] in sample.answer) == right]
        body = ", ".join(letter_in(order, place) for place in places) or "[]"
    else:
        body = (
            sample.answer
            if right
            else {"box": "[0, 0, 1, 1]", "interval": "[0, 0.1]"}.get(sample.kind, "999999")
        )
    then, sensible = None, None
    then_order: Order = ()
    if sample.then is not None:
        then_order = shuffle_order(sample.then.options, f"{sample.id} then", seed)
        place = LETTERS.index(sample.then.answer)
        then = letter_in(then_order, (place + (not right)) % len(sample.then.options))
        wanted = [place for place in range(count) if (LETTERS[place] in sample.sensible) == right]
        sensible = ", ".join(letter_in(order, place) for place in wanted) or "[]"
    chain = "\n".join(sample.chain) if right else ""
    return Reply(body=body, order=order, chain=chain, then=then, then_order=then_order, sensible=sensible)
