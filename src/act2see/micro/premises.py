"""Questions that have no answer: their premise is false, or no board can tell.

A false premise is a matter of the clip: "When does the ring move?" of a ring that stays. Only looking can
tell, so the words are those of the other families. What is beyond the board ("How many people are there?") is
a matter of the words alone.
"""

from __future__ import annotations

import random

from act2see.micro.drafts import (
    ABSENT,
    DARK,
    NO_BLINK,
    NO_MOVE,
    NOWHERE,
    REFUSAL,
    Draft,
    absent_shape,
    board_and_mover,
    draft,
)
from act2see.micro.draws import draw_blink, draw_board, draw_hops, draw_tipping
from act2see.micro.families import ask_outcome
from act2see.micro.happenings import first_to_blink, first_to_move, two_moments, when_blinks, when_moves
from act2see.micro.looks import generate, look_for_blink, look_for_shape, state_whether
from act2see.micro.words import Step, describe_moves, describe_path, edit_query, view_of
from act2see.micro.world import Clip


def draw_false(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question whose premise is false."""
    return rng.choice(_FALSE)(rng, frames, held_out)


def _no_blink(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask about the moment of a blink that does not take place."""
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 1, 2)))
    kind = rng.choice(("blink_colour", "where_when", "tip_where_when", "tip_which_when", "which_blinks"))
    if kind == "which_blinks":
        clip = Clip(frames, slow)
        return draft(clip, kind, look_for_blink(clip, "shape", rng), "", NO_BLINK)
    dark, lit = rng.sample([p.shape for p in board.pieces], 2)
    if rng.random() < 0.3:
        dark = absent_shape(rng, board)
    short = (draw_blink(rng, slow, lit, frames, rng.random() < 0.4, held_out),) if rng.random() < 0.5 else ()
    clip = Clip(frames, slow, short)
    chain = look_for_blink(clip, dark, rng)
    other = rng.choice([p.shape for p in board.pieces if p.shape != dark])
    slots = {"x": other, "y": dark, "side": rng.choice(("left", "right")), "place": "center"}
    if kind == "blink_colour":
        slots["x"] = dark
    elif kind == "tip_which_when":
        slots["place"] = rng.choice(("northwest", "west", "southwest", "northeast", "east", "southeast"))
    return draft(clip, kind, chain, "", DARK.format(x=dark), **slots)


def _no_move(rng: random.Random, frames: int, held_out: bool) -> Draft:
    if rng.random() < 0.5:
        return when_moves(rng, frames, held_out, 0)
    board, _ = board_and_mover(rng, held_out)
    clip = Clip(frames, ((0, board),))
    return draft(clip, "which_moves", (f" {describe_moves(board, board)}",), "", NO_MOVE)


def _no_piece(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask about a shape that the clip does not show."""
    board, mover = board_and_mover(rng, held_out)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 1))))
    x = absent_shape(rng, board)
    kind = rng.choice(
        ("colour", "where", "is_colour", "is_at", "start", "end", "when_moves", "does_move", "when_appears")
    )
    slots = {
        "x": x,
        "colour": rng.choice(board.pieces).colour,
        "place": rng.choice(("north", "center", "southeast")),
    }
    if kind in ("start", "end"):
        return draft(clip, kind, (), f"At the {kind} the {x} is at", NOWHERE, **slots)
    if kind in ("when_moves", "does_move"):
        return draft(clip, kind, (f" {describe_path(x, view_of(clip))}",), "", ABSENT.format(x=x), **slots)
    return draft(clip, kind, look_for_shape(clip, x, rng), "", ABSENT.format(x=x), **slots)


def _no_piece_to_tip(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask where a shape ends up that is not there, or that is taken away."""
    board = draw_board(rng, held_out)
    edit = draw_tipping(rng, board)
    x = edit.without or absent_shape(rng, board)
    after = edit.apply(board)
    clip = Clip(frames, ((0, board),), edit=edit)
    chain: tuple[Step, ...] = (state_whether("tipped board", False), *generate(edit_query(edit), after))
    asked = ask_outcome("tip_where", edit, x=x)
    lead = f"On the tipped board the {x} is at"
    return draft(clip, asked.kind, chain, lead, NOWHERE, **dict(asked.slots))


def _no_time(rng: random.Random, frames: int, held_out: bool) -> Draft:
    kind = rng.choice(("when_blinks", "when_blinks", "when_any_blinks"))
    return when_blinks(rng, frames, held_out, kind, blinks=False)


def _neither(rng: random.Random, frames: int, held_out: bool) -> Draft:
    kind = rng.choice(("blinks", "moves", "two_blinks", "moved_between"))
    if kind == "blinks":
        return first_to_blink(rng, frames, held_out, 0)
    if kind == "moves":
        return first_to_move(rng, frames, held_out, 0)
    return two_moments(rng, frames, held_out, kind, rng.choice((0, 1)))


_FALSE = (_no_blink, _no_blink, _no_move, _no_piece, _no_piece, _no_piece_to_tip, _no_time, _neither)


def draw_beyond(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a clip for a question that no board can answer. The chain does not even describe the view."""
    board, mover = board_and_mover(rng, held_out)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 1, 2))))
    made = draft(clip, "beyond", (), "", REFUSAL)
    return Draft(made.wording, clip, (), True)
