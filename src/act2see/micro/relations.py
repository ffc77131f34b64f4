"""Questions about places relative to another shape: which shape is beside it, and whether one is above it.

Places are compared by row and column. A table of all pairs of places is more than micro learns from a few
thousand chains (13 of 20 neighbours were right), the three rows and the three columns are not.
"""

from __future__ import annotations

import random

from act2see.micro.drafts import (
    ABSENT,
    NOTHING,
    Draft,
    absent_shape,
    board_and_mover,
    draft,
    draw_options,
    draw_yes_or_no,
    yes_or_no,
)
from act2see.micro.draws import draw_hops
from act2see.micro.kinds import DIRECTIONS
from act2see.micro.looks import look_for_shape
from act2see.micro.words import Step, describe_row
from act2see.micro.world import CELLS, SHAPES, Board, Cell, Clip, cell_name

_ABSENT = 0.1  # share of the questions about a shape that is not there


def draw_relation(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question about two shapes, or about the neighbour of one."""
    board, mover = board_and_mover(rng, held_out)
    if rng.random() < 0.5:
        return ask_beside(rng, Clip(frames, ((0, board),)), board)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 0, 0, 1))))
    return _ask_relation(rng, clip, board)


def ask_beside(rng: random.Random, clip: Clip, board: Board) -> Draft:
    """Ask which shape is next to another, on a clip in which nothing moves."""
    direction = rng.choice(list(DIRECTIONS))
    if rng.random() < _ABSENT:
        return ask_absent(rng, clip, board, "beside", "x", direction=direction)
    p = rng.choice(board.pieces)
    slots = {"direction": direction, "x": p.shape}
    found = f" At the start the {p.shape} is at {describe_row(p.cell)}."
    found += f" {describe_neighbour(p.cell, direction)}."
    chain = (*look_for_shape(clip, p.shape, rng), found)
    cell = step_from(p.cell, direction)
    if cell not in CELLS:
        return draft(clip, "beside", chain, f"{direction.capitalize()} it is", NOTHING, **slots)
    place = cell_name(cell)
    content = next((q.shape for q in board.pieces if q.cell == cell), NOTHING)
    options = () if content == NOTHING else draw_options(rng, content, list(SHAPES))
    return draft(clip, "beside", chain, f"At the start at {place} is", content, options, **slots)


def ask_absent(rng: random.Random, clip: Clip, board: Board, kind: str, slot: str, /, **slots: str) -> Draft:
    """Ask the same of a shape that the clip does not show, in one of the slots."""
    absent, present = absent_shape(rng, board), rng.choice(board.pieces).shape
    chain: tuple[Step, ...] = ()
    if slot == "y":
        chain += look_for_shape(clip, present, rng)
    chain += look_for_shape(clip, absent, rng)
    slots |= {"x": present, "y": present, slot: absent}
    return draft(clip, kind, chain, "", ABSENT.format(x=absent), **slots)


def _ask_relation(rng: random.Random, clip: Clip, board: Board) -> Draft:
    """Ask whether a shape is above, below, left of or right of another. Only the rows or columns count."""
    direction = rng.choice(list(DIRECTIONS))
    if rng.random() < _ABSENT:
        return ask_absent(rng, clip, board, "relation", rng.choice("xy"), direction=direction)
    p, q = rng.sample(board.pieces, 2)
    compared, is_so = compare_places(p.cell, q.cell, direction)
    chain = (
        *look_for_shape(clip, p.shape, rng),
        *look_for_shape(clip, q.shape, rng),
        f" At the start the {p.shape} is at {describe_row(p.cell)}."
        f" At the start the {q.shape} is at {describe_row(q.cell)}."
        f" {compared}.",
    )
    lead = f"The {p.shape} is {direction} the {q.shape}:"
    options = draw_yes_or_no(rng)
    slots = {"x": p.shape, "y": q.shape, "direction": direction}
    return draft(clip, "relation", chain, lead, yes_or_no(is_so), options, **slots)


def step_from(cell: Cell, direction: str) -> Cell:
    """Return the place next to a place; it may lie outside the board."""
    down, right = DIRECTIONS[direction]
    return cell[0] + down, cell[1] + right


def describe_neighbour(cell: Cell, direction: str) -> str:
    """Return the place next to a place: "Below it is row 2 column 1: west", or "...: no place"."""
    beside = step_from(cell, direction)
    row, column = (n + 1 for n in beside)
    place = cell_name(beside) if beside in CELLS else "no place"
    return f"{direction.capitalize()} it is row {row} column {column}: {place}"


def compare_places(cell: Cell, other: Cell, direction: str) -> tuple[str, bool]:
    """Return the rows or columns of two places, like "The row is 1 to 2 lower", and whether it is so.

    The comparison has a word of its own: without it, micro did not learn to compare for a yes or no.
    """
    axis = 0 if direction in ("above", "below") else 1
    step = DIRECTIONS[direction][axis]
    name = ("row", "column")[axis]
    is_so = (cell[axis] - other[axis]) * step > 0
    word = "same" if cell[axis] == other[axis] else "lower" if cell[axis] < other[axis] else "higher"
    return f"The {name} is {cell[axis] + 1} to {other[axis] + 1} {word}", is_so
