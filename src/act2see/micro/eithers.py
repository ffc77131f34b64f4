"""Either-or questions: above or below, left or right, before or after. The answer is one of the two words.

`relations` and `orders` ask the same for a yes or no. If neither word is true, the answer says so.
"""

from __future__ import annotations

import random

from act2see.micro.drafts import (
    DARK,
    STILL,
    Draft,
    board_and_mover,
    draft,
    draw_blinks,
    shown_second,
)
from act2see.micro.draws import draw_hops
from act2see.micro.happenings import draw_moves, name_extreme
from act2see.micro.looks import find_blink, look_for_blink, look_for_shape
from act2see.micro.relations import ask_absent, compare_places
from act2see.micro.words import Step, describe_path, describe_row, list_seconds, move_times, view_of
from act2see.micro.world import Board, Clip

KINDS_ASKED = (
    "above_or_below",
    "left_or_right",
    "before_or_after",
    "moves_before_or_after",
    "before_or_after_move",
)
SAME = {"above": "in the same row", "left": "in the same column"}
"""The answer where two shapes are at the same height, or none is to the left of the other."""
_MISSING = 0.15  # share of the questions in which a shape is missing, or one of the two events


def draw_either(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw an either-or question."""
    kind = rng.choice(
        (
            "above_or_below",
            "left_or_right",
            "before_or_after",
            "moves_before_or_after",
            "before_or_after_move",
        )
    )
    board, mover = board_and_mover(rng, held_out)
    if kind in ("above_or_below", "left_or_right"):
        return _ask_place(rng, frames, board, mover, kind)
    if kind == "before_or_after":
        return _ask_blinks(rng, frames, board, mover)
    return _ask_move_and_blink(rng, frames, board, kind)


def _ask_place(rng: random.Random, frames: int, board: Board, mover: str, kind: str) -> Draft:
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 0, 0, 1))))
    if rng.random() < _MISSING:
        return ask_absent(rng, clip, board, kind, rng.choice("xy"))
    near, far = ("above", "below") if kind == "above_or_below" else ("left", "right")
    p, q = rng.sample(board.pieces, 2)
    direction = near if near == "above" else "left of"
    compared, is_near = compare_places(p.cell, q.cell, direction)
    axis = 0 if near == "above" else 1
    answer = SAME[near] if p.cell[axis] == q.cell[axis] else near if is_near else far
    chain = (
        *look_for_shape(clip, p.shape, rng),
        *look_for_shape(clip, q.shape, rng),
        f" At the start the {p.shape} is at {describe_row(p.cell)}."
        f" At the start the {q.shape} is at {describe_row(q.cell)}."
        f" {compared}.",
    )
    options = rng.choice(((near, far), (far, near))) if answer in (near, far) else ()
    lead = f"Seen from the {q.shape} the {p.shape} is"
    return draft(clip, kind, chain, lead, answer, options, x=p.shape, y=q.shape)


def _ask_blinks(rng: random.Random, frames: int, board: Board, mover: str) -> Draft:
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    shapes = [x, y] if rng.random() > _MISSING else [rng.choice((x, y))]
    events = draw_blinks(rng, slow, frames, rng.sample(shapes, len(shapes)))
    clip = Clip(frames, slow, events)
    found = {event.piece.shape: shown_second(event) for event in events}
    seconds = {shape: found.get(shape, "never") for shape in (x, y)}
    chain: tuple[Step, ...] = (*look_for_blink(clip, x, rng), *look_for_blink(clip, y, rng))
    dark = [shape for shape in (x, y) if shape not in found]
    if dark:
        chain += (list_seconds(seconds),)
        return draft(clip, "before_or_after", chain, "", DARK.format(x=dark[0]), x=x, y=y)
    return _conclude(rng, clip, "before_or_after", chain, {x: found[x], y: found[y]}, "blinks")


def _ask_move_and_blink(rng: random.Random, frames: int, board: Board, kind: str) -> Draft:
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    mover, lit = (x, y) if kind == "moves_before_or_after" else (y, x)
    missing = rng.choice(("move", "blink")) if rng.random() < _MISSING else ""
    clip, moves = _draw_move_and_blink(rng, frames, board, mover, lit, missing)
    path = f" {describe_path(mover, view_of(clip))}"
    if missing == "move":
        return draft(clip, kind, (path,), "", STILL.format(x=mover), x=x, y=y)
    chain: tuple[Step, ...] = (path, *look_for_blink(clip, lit, rng))
    event = find_blink(clip, lit)
    if event is None:
        return draft(clip, kind, chain, "", DARK.format(x=lit), x=x, y=y)
    seconds = {mover: moves[0], lit: shown_second(event)}
    verb = "moves" if mover == x else "blinks"
    return _conclude(rng, clip, kind, chain, {x: seconds[x], y: seconds[y]}, verb)


def _draw_move_and_blink(
    rng: random.Random, frames: int, board: Board, mover: str, lit: str, missing: str
) -> tuple[Clip, list[int]]:
    """Draw moves of one shape, all before or all after the blink of another; return them with the clip."""
    while True:
        slow = draw_moves(rng, board, [] if missing == "move" else [mover], frames)
        shapes = [] if missing == "blink" else [lit]
        clip = Clip(frames, slow, draw_blinks(rng, slow, frames, shapes))
        moves, event = list(move_times(mover, view_of(clip))), find_blink(clip, lit)
        # In the same second, the order would be a matter of frames.
        if event is None or not moves:
            return clip, moves
        second = shown_second(event)
        if moves[-1] < second or moves[0] > second:
            return clip, moves


def _conclude(
    rng: random.Random, clip: Clip, kind: str, chain: tuple[Step, ...], seconds: dict[str, int], verb: str
) -> Draft:
    """Return the draft of a question about the order of two events; the first one is asked about."""
    x, y = seconds
    lead, first = name_extreme(seconds, "first")
    chain += (f"{list_seconds(seconds)} {lead} {first}.",)
    answer = "before" if first == x else "after"
    options = rng.choice((("before", "after"), ("after", "before")))
    return draft(clip, kind, chain, f"The {x} {verb}", answer, options, x=x, y=y)
