"""The draft of a question: what its family decides, and what the families of everyday questions share.

The everyday families (`plain`, `happenings`, `premises`) are asked of the same clips as the paper's four
(`families`). As there, a question has the same words whether or not the initial view holds the answer.

Short events are drawn so that retrieval at 3 frames a second sees each of them in exactly one frame. So the
time of every look is known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from act2see.micro.draws import draw_blink, draw_board
from act2see.micro.kinds import Asked, ask
from act2see.micro.looks import sampled_frames, seconds_of
from act2see.micro.words import Step, describe_view, view_of
from act2see.micro.world import FPS, SHAPES, Board, Clip, Short, Slow

ABSENT = "There is no {x} in this clip."
DARK = "The {x} does not blink in this clip."
STILL = "The {x} does not move in this clip."
LEVEL = "The board is not tipped in this clip."
NO_BLINK = "Nothing blinks in this clip."
NO_MOVE = "Nothing moves in this clip."
NEITHER_BLINKS = "Neither of them blinks in this clip."
NEITHER_MOVES = "Neither of them moves in this clip."
NOWHERE = "nowhere"
NOTHING = "nothing"
REFUSAL = (
    "I cannot tell that from a board. Ask one thing in English, for example: What colour is the ring? "
    "Which shape blinks? Where does the circle end up when the board is tipped to the left?"
)


@dataclass(frozen=True, slots=True)
class Wording:
    """The wording of a question."""

    kind: str
    asked: Asked
    options: tuple[str, ...]
    answer: str
    lead: str
    """The beginning of the conclusion."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of an `Item` that its family decides."""

    wording: Wording
    clip: Clip
    chain: tuple[Step, ...]
    in_view: bool


def yes_or_no(is_so: bool) -> str:
    """Return "yes" or "no"."""
    return "yes" if is_so else "no"


def draw_seen_blink(
    rng: random.Random, slow: Slow, shape: str, frames: int, in_view: bool, taken: Sequence[Short] = ()
) -> Short | None:
    """Draw a blink that retrieval sees in exactly one frame; None if no room was found for it.

    Args:
        rng: The source of randomness.
        slow: The lasting boards of the clip.
        shape: The shape that blinks.
        frames: The length of the clip in frames.
        in_view: Whether the blink covers a whole second.
        taken: Other short events, from which it keeps a distance of half a second, at another second.
    """
    for _ in range(100):
        event = draw_blink(rng, slow, shape, frames, in_view, False)
        if is_seen_once(event) and all(_is_apart(event, other) for other in taken):
            return event
    return None


def _is_apart(event: Short, other: Short) -> bool:
    distance = max(event.start - other.stop, other.start - event.stop)
    return distance >= FPS // 2 and shown_second(event) != shown_second(other)


def draw_blinks(rng: random.Random, slow: Slow, frames: int, shapes: Sequence[str]) -> tuple[Short, ...]:
    """Draw a blink of each shape, in view or not, at different seconds.

    Raises:
        ValueError: If there is no room for them.
    """
    for _ in range(50):
        events: list[Short] = []
        for shape in shapes:
            event = draw_seen_blink(rng, slow, shape, frames, rng.random() < 0.4, events)
            if event is None:
                break
            events.append(event)
        else:
            return tuple(events)
    raise ValueError(f"no room for {len(shapes)} blinks in {frames} frames")


def is_seen_once(event: Short) -> bool:
    """Whether exactly one frame that retrieval could return shows the event."""
    return len(sampled_frames(event)) == 1


def shown_second(event: Short) -> int:
    """Return the whole second of the time at which a chain sees the event."""
    return int(seconds_of(sampled_frames(event)[0]))


def board_and_mover(rng: random.Random, held_out: bool) -> tuple[Board, str]:
    board = draw_board(rng, held_out, pieces=rng.choice((3, 4, 4, 4)))
    return board, rng.choice(board.pieces).shape


def absent_shape(rng: random.Random, board: Board) -> str:
    return rng.choice([s for s in SHAPES if board.find(s) is None])


def draft(
    clip: Clip,
    kind: str,
    chain: tuple[Step, ...],
    lead: str,
    answer: str,
    options: tuple[str, ...] = (),
    /,
    **slots: str,
) -> Draft:
    """Return the draft of a question: its chain begins with the description of the view."""
    calls = [s for s in chain if not isinstance(s, str)]
    wording = Wording(kind, ask(kind, **slots), options, answer, lead)
    return Draft(wording, clip, (describe_view(view_of(clip)), *chain), not calls)


def draw_options(rng: random.Random, answer: str, others: list[str], n: int = 4) -> tuple[str, ...]:
    """Return `n` options with the answer among them; none if the answer is a sentence."""
    pool = [o for o in dict.fromkeys(others) if o != answer]
    rng.shuffle(pool)
    options = [answer, *pool[: n - 1]]
    rng.shuffle(options)
    return tuple(options)


def draw_yes_or_no(rng: random.Random) -> tuple[str, ...]:
    return rng.choice((("yes", "no"), ("no", "yes")))
