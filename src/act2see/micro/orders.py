"""Questions about order: which of all shapes blinks or moves first, and what comes before what.

`happenings` asks the same of two shapes that the question names. Here either none is named, so that the chain
must find all blinks or moves, or the answer is yes or no.
"""

from __future__ import annotations

import random

from act2see.micro.drafts import (
    DARK,
    NO_BLINK,
    NO_MOVE,
    STILL,
    Draft,
    board_and_mover,
    draft,
    draw_blinks,
    draw_options,
    draw_yes_or_no,
    shown_second,
    yes_or_no,
)
from act2see.micro.draws import draw_hops
from act2see.micro.happenings import draw_moves, name_extreme
from act2see.micro.looks import blinks_found, find_blink, look_for_all_blinks, look_for_blink
from act2see.micro.words import (
    Step,
    describe_moves,
    describe_path,
    list_seconds,
    move_times,
    moved_shapes,
    view_of,
)
from act2see.micro.world import SHAPES, Board, Clip, Slow


def draw_order(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question about the order of blinks and moves."""
    kind = rng.choice(("blinks", "blinks", "moves", "moves", "blinks_before", "moves_before", "moves_after"))
    if kind == "blinks":
        return _first_of_blinks(rng, frames, held_out)
    if kind == "moves":
        return _first_of_moves(rng, frames, held_out)
    if kind == "blinks_before":
        return _blinks_before(rng, frames, held_out)
    return _moves_beside_blink(rng, frames, held_out, kind)


def _first_of_blinks(rng: random.Random, frames: int, held_out: bool) -> Draft:
    kind = rng.choice(("which_blinks_first", "which_blinks_first", "which_blinks_last"))
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    shapes = rng.sample([p.shape for p in board.pieces], rng.choice((0, 1, 2, 2, 2, 2, 2)))
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, shapes))
    chain = look_for_all_blinks(clip, rng)
    if not shapes:
        return draft(clip, kind, chain, "", NO_BLINK)
    seconds = {event.piece.shape: shown_second(event) for event in blinks_found(clip)}
    lead, answer = name_extreme(seconds, kind)
    options = draw_options(rng, answer, [p.shape for p in board.pieces])
    return draft(clip, kind, (*chain, list_seconds(seconds)), lead, answer, options)


def _first_of_moves(rng: random.Random, frames: int, held_out: bool) -> Draft:
    kind = rng.choice(("which_moves_first", "which_moves_first", "which_moves_last"))
    board, _ = board_and_mover(rng, held_out)
    slow = draw_lasting_moves(rng, board, frames, rng.choice((0, 1, 2, 2, 2, 2, 2)))
    clip = Clip(frames, slow)
    view = view_of(clip)
    movers = moved_shapes(board, slow[-1][1])
    chain = f" {describe_moves(board, slow[-1][1])}"
    if not movers:
        return draft(clip, kind, (chain,), "", NO_MOVE)
    asked = 0 if kind == "which_moves_first" else -1
    seconds = {shape: move_times(shape, view)[asked] for shape in movers}
    chain += "".join(f" {describe_path(shape, view)}" for shape in movers) + list_seconds(seconds)
    lead, answer = name_extreme(seconds, kind)
    return draft(clip, kind, (chain,), lead, answer, draw_options(rng, answer, list(SHAPES)))


def draw_lasting_moves(rng: random.Random, board: Board, frames: int, moving: int) -> Slow:
    """Draw a board over time on which some shapes hop, and none of them ends where it began."""
    movers = rng.sample([p.shape for p in board.pieces], moving)
    while True:
        slow = draw_moves(rng, board, movers, frames)
        if len(moved_shapes(board, slow[-1][1])) == moving:
            return slow


def _blinks_before(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    events = draw_blinks(rng, slow, frames, rng.sample([x, y], rng.choice((1, 2, 2, 2, 2))))
    clip = Clip(frames, slow, events)
    chain: tuple[Step, ...] = (*look_for_blink(clip, x, rng), *look_for_blink(clip, y, rng))
    seconds = {event.piece.shape: shown_second(event) for event in events}
    chain += (list_seconds({shape: seconds.get(shape, "never") for shape in (x, y)}),)
    dark = [shape for shape in (x, y) if shape not in seconds]
    if dark:
        return draft(clip, "blinks_before", chain, "", DARK.format(x=dark[0]), x=x, y=y)
    lead, first = name_extreme(seconds, "first")
    chain += (f" {lead} {first}.",)
    lead = f"The {x} blinks before the {y}:"
    answer = yes_or_no(first == x)
    return draft(clip, "blinks_before", chain, lead, answer, draw_yes_or_no(rng), x=x, y=y)


def _moves_beside_blink(rng: random.Random, frames: int, held_out: bool, kind: str) -> Draft:
    """Ask whether a shape moves before, or after, another one blinks."""
    board, _ = board_and_mover(rng, held_out)
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    moving, blinking = rng.random() < 0.9, rng.random() < 0.9
    while True:
        slow = draw_moves(rng, board, [x] if moving else [], frames)
        clip = Clip(frames, slow, draw_blinks(rng, slow, frames, [y] if blinking else []))
        moves, event = move_times(x, view_of(clip)), find_blink(clip, y)
        # In the same second, the order would be a matter of frames.
        if event is None or shown_second(event) not in moves:
            break
    path = f" {describe_path(x, view_of(clip))}"
    slots = {"x": x, "y": y}
    if not moves:
        return draft(clip, kind, (path,), "", STILL.format(x=x), **slots)
    chain: tuple[Step, ...] = (path, *look_for_blink(clip, y, rng))
    if event is None:
        return draft(clip, kind, chain, "", DARK.format(x=y), **slots)
    before, lit = kind == "moves_before", shown_second(event)
    move = moves[0] if before else moves[-1]
    # So that "yes" is always the name of the shape that moves.
    lead, named = name_extreme({x: move, y: lit}, "first" if before else "last")
    chain += (f"{list_seconds({x: move, y: lit})} {lead} {named}.",)
    answer = yes_or_no(named == x)
    lead = f"The {x} moves {'before' if before else 'after'} the {y} blinks:"
    return draft(clip, kind, chain, lead, answer, draw_yes_or_no(rng), **slots)
