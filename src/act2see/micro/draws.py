"""Boards and events of the board world, drawn at random.

A seed identifies a question, so the order of the random draws in this module must never change.
"""

from __future__ import annotations

import random
from dataclasses import replace

from act2see.micro.world import (
    CELLS,
    COLOURS,
    FPS,
    HELD_OUT,
    SHAPES,
    SIDES,
    Board,
    Cell,
    Edit,
    Piece,
    Short,
    Slow,
)


def is_allowed(shape: str, colour: str, held_out: bool) -> bool:
    """Return whether a pair can appear: held-out pairs appear only with `held_out`."""
    return held_out or (shape, colour) not in HELD_OUT


def held_out_colour(shape: str) -> str:
    """Return the colour in which training never shows this shape."""
    return next(colour for other, colour in HELD_OUT if other == shape)


def draw_colour(rng: random.Random, shape: str, held_out: bool, other_than: str = "") -> str:
    """Draw a colour for a shape.

    Args:
        rng: The source of randomness.
        shape: The shape.
        held_out: Whether the shape's held-out colour is among the candidates.
        other_than: A colour to exclude.
    """
    return rng.choice([c for c in COLOURS if c != other_than and is_allowed(shape, c, held_out)])


def draw_board(rng: random.Random, held_out: bool = False, pieces: int = 4) -> Board:
    """Draw a level board; with `held_out`, at least one held-out pair is on it."""
    shapes = rng.sample(SHAPES, pieces)
    cells = rng.sample(CELLS, pieces)
    out = []
    for shape, cell in zip(shapes, cells, strict=True):
        out.append(Piece(shape, draw_colour(rng, shape, False), cell))
    if held_out:
        k = rng.randrange(pieces)
        out[k] = replace(out[k], colour=held_out_colour(out[k].shape))
    return Board(tuple(out))


def draw_hops(rng: random.Random, board: Board, mover: str, frames: int, times: int) -> Slow:
    """Draw a board over time, with one shape that hops to new cells at whole seconds.

    Args:
        rng: The source of randomness.
        board: The board at the start.
        mover: The shape that hops.
        frames: The length of the clip in frames.
        times: The number of hops.
    """
    seconds = sorted(rng.sample(range(1, frames // FPS), times))
    slow, visited = [(0, board)], {board.piece(mover).cell}
    for second in seconds:
        last = slow[-1][1]
        unvisited = [c for c in last.free if c not in visited]
        cell = rng.choice(unvisited or last.free)
        visited.add(cell)
        slow.append((second * FPS, last.change(mover, cell=cell)))
    return tuple(slow)


def draw_short(
    rng: random.Random, kind: str, piece: Piece, frames: int, in_view: bool, slow: Slow = ()
) -> Short:
    """Draw a short event of 5-7 frames (0.42-0.58 s).

    An event between two seconds covers one of the two frames that sampling at 3 fps takes there. No slow
    change falls inside an event, so that all its frames show the same board.

    Args:
        rng: The source of randomness.
        kind: "blink" or "guest".
        piece: The piece as the event shows it.
        frames: The length of the clip in frames.
        in_view: Whether the event covers a whole second; otherwise it lies between two.
        slow: The lasting boards of the clip.

    Raises:
        ValueError: If the clip has no room for the event.
    """
    for _ in range(200):
        second = rng.randrange(1 if in_view else 0, frames // FPS)
        if in_view:
            start = second * FPS - rng.choice((2, 3))
            length = rng.choice((5, 6, 7))
        else:
            start = second * FPS + rng.choice((2, 3, 4, 5, 6))
            length = rng.choice((5, 6)) if start % FPS >= 5 else rng.choice((5, 6, 7))
            length = min(length, FPS - start % FPS)
        new = Short(kind, piece, start, start + length)
        if new.stop < frames - 1 and not any(new.start < at < new.stop for at, _ in slow):
            return new
    raise ValueError(f"no room for another {kind} in {frames} frames")


def draw_blink(
    rng: random.Random, slow: Slow, shape: str, frames: int, in_view: bool, held_out: bool
) -> Short:
    """Draw a blink of a shape that is on the board, in a colour other than its usual one.

    Args:
        rng: The source of randomness.
        slow: The lasting boards of the clip.
        shape: The shape that blinks.
        frames: The length of the clip in frames.
        in_view: Whether the blink covers a whole second.
        held_out: Whether the shape mostly blinks in its held-out colour.

    Raises:
        ValueError: If the clip has no room for the blink.
    """
    usual = slow[0][1].piece(shape).colour
    colour = draw_colour(rng, shape, False, usual)
    if held_out and rng.random() < 0.7:
        rare = held_out_colour(shape)
        colour = rare if rare != usual else colour
    return draw_short(rng, "blink", Piece(shape, colour, (0, 0), True), frames, in_view, slow)


def draw_guest(rng: random.Random, slow: Slow, frames: int, in_view: bool, held_out: bool) -> Short:
    """Draw a guest: a short visit of a shape that is not on the board.

    Args:
        rng: The source of randomness.
        slow: The lasting boards of the clip.
        frames: The length of the clip in frames.
        in_view: Whether the visit covers a whole second.
        held_out: Whether the guest has its held-out colour.

    Raises:
        ValueError: If the clip has no room for the guest.
    """
    board = slow[0][1]
    shape = next(s for s in rng.sample(SHAPES, len(SHAPES)) if board.find(s) is None)
    piece = Piece(shape, draw_colour(rng, shape, held_out), rng.choice(always_free_cells(slow)))
    if held_out:
        piece = replace(piece, colour=held_out_colour(shape))
    return draw_short(rng, "guest", piece, frames, in_view, slow)


def always_free_cells(slow: Slow) -> list[Cell]:
    """Return the cells that no piece occupies at any time."""
    taken = {p.cell for _, board in slow for p in board.pieces}
    return [c for c in CELLS if c not in taken]


def draw_tipping(rng: random.Random, board: Board, keep: str = "") -> Edit:
    """Draw a tipping of the board. In a third of the draws a shape other than `keep` is taken away first."""
    shapes = [p.shape for p in board.pieces if p.shape != keep]
    return Edit(rng.choice(SIDES), rng.choice(shapes) if rng.random() < 0.35 else None)
