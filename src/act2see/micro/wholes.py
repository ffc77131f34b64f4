"""Questions about the whole board: all shapes that blink, move or stay, and whether it is tipped."""

from __future__ import annotations

import random
from collections.abc import Callable

from act2see.micro.drafts import (
    LEVEL,
    NO_BLINK,
    NO_MOVE,
    Draft,
    board_and_mover,
    draft,
    draw_blinks,
    draw_options,
    draw_yes_or_no,
    yes_or_no,
)
from act2see.micro.draws import draw_board, draw_hops, draw_tipping
from act2see.micro.looks import (
    blinks_found,
    find_blink,
    generate,
    look_for_all_blinks,
    look_for_blink,
    state_tipping,
)
from act2see.micro.orders import draw_lasting_moves
from act2see.micro.plain import add_tipping
from act2see.micro.words import (
    Step,
    describe,
    describe_level,
    describe_moves,
    edit_query,
    list_shapes,
    moved_shapes,
    name_times,
    view_of,
)
from act2see.micro.world import COLOURS, FPS, SIDES, Clip, Edit, Slow

ALL_MOVE = "Every shape moves in this clip."


def draw_whole(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question about the whole board."""
    return rng.choice(_WHOLE)(rng, frames, held_out)


def _which_blink(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    shapes = rng.sample([p.shape for p in board.pieces], rng.choice((0, 1, 1, 2, 2, 2)))
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, shapes))
    chain = look_for_all_blinks(clip, rng)
    if not shapes:
        return draft(clip, "which_all_blink", chain, "", NO_BLINK)
    answer = list_shapes([event.piece for event in blinks_found(clip)])
    return draft(clip, "which_all_blink", chain, "It is the lit", answer)


def _which_move(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask which shapes move, or which do not."""
    kind = rng.choice(("which_moves", "still", "still"))
    board, _ = board_and_mover(rng, held_out)
    slow = draw_lasting_moves(rng, board, frames, rng.choice((0, 1, 1, 2, 2, 3)))
    last = slow[-1][1]
    movers = moved_shapes(board, last)
    chain = (f" {describe_moves(board, last)}",)
    clip = Clip(frames, slow)
    if kind == "which_moves":
        if not movers:
            return draft(clip, kind, chain, "", NO_MOVE)
        moving = [p for p in board.ordered() if p.shape in movers]
        return draft(clip, kind, chain, "It is the moved", list_shapes(moving))
    staying = [p for p in board.ordered() if p.shape not in movers]
    if not staying:
        return draft(clip, kind, chain, "", ALL_MOVE)
    return draft(clip, kind, chain, "It is the still", list_shapes(staying))


def _moved_colour(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, _ = board_and_mover(rng, held_out)
    slow = draw_lasting_moves(rng, board, frames, rng.choice((0, 1, 1, 1, 1, 1)))
    last = slow[-1][1]
    chain = f" {describe_moves(board, last)}"
    clip = Clip(frames, slow)
    movers = moved_shapes(board, last)
    if not movers:
        return draft(clip, "moved_colour", (chain,), "", NO_MOVE)
    p = board.piece(movers[0])
    chain += f" It is the moved {p.shape}."
    options = draw_options(rng, p.colour, list(COLOURS))
    return draft(clip, "moved_colour", (chain,), f"The {p.shape} is", p.colour, options)


def _any_happens(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 0, 1)))
    lit = [rng.choice(board.pieces).shape] if rng.random() < 0.5 else []
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, lit))
    if not lit and rng.random() < 0.3:
        clip = add_tipping(rng, clip)
    last = clip.slow[-1][1]
    tipped = state_tipping(view_of(clip), Edit("left"))
    chain: tuple[Step, ...] = (tipped, f" {describe_moves(board, last)}")
    happens = last != board
    if not happens:
        chain += look_for_blink(clip, "shape", rng)
        happens = find_blink(clip, "shape") is not None
    answer = yes_or_no(happens)
    return draft(clip, "any_happens", chain, "Something happens:", answer, draw_yes_or_no(rng))


def _tipped(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask whether the board is tipped, or when."""
    kind = rng.choice(("is_tipped", "when_tips"))
    board, mover = board_and_mover(rng, held_out)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1))))
    if rng.random() < (0.5 if kind == "is_tipped" else 0.8):
        clip = add_tipping(rng, clip)
    view = view_of(clip)
    seen = state_tipping(view, Edit("left"))
    when = next((second for second, board in view if board.tipped), None)
    if kind == "is_tipped":
        answer = yes_or_no(when is not None)
        return draft(clip, kind, (seen,), "The board is tipped:", answer, draw_yes_or_no(rng))
    chain = (seen, f" {describe_level(view)}")
    if when is None:
        return draft(clip, kind, chain, "", LEVEL)
    return draft(clip, kind, chain, "The board is tipped", name_times([when]))


def _tip_all(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask where everything ends up."""
    board = draw_board(rng, held_out)
    edit = Edit(draw_tipping(rng, board).side)
    after = edit.apply(board)
    slow: Slow = ((0, board),)
    shown: Edit | None = None
    if rng.random() < 0.3:
        shown = Edit(rng.choice(SIDES))
        slow = (*slow, (rng.randrange(1, frames // FPS) * FPS, shown.apply(board)))
    clip = Clip(frames, slow, edit=edit)
    chain: tuple[Step, ...] = (state_tipping(view_of(clip), edit),)
    if shown != edit:
        chain += generate(edit_query(edit), after)
    answer = describe(after).partition(": ")[2].rstrip(".")
    return draft(clip, "tip_all", chain, "On the tipped board:", answer, side=edit.side)


_WHOLE: tuple[Callable[[random.Random, int, bool], Draft], ...] = (
    _which_blink,
    _which_move,
    _which_move,
    _moved_colour,
    _any_happens,
    _tipped,
    _tipped,
    _tip_all,
)
