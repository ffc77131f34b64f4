"""Boards and events of the board world, drawn at random.

Questions are known by their seeds, so the order of the draws in here must never change.
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


def allowed(shape: str, colour: str, held_out: bool) -> bool:
    """Whether a pair may appear: the held-out ones only if `held_out` asks for them."""
    return held_out or (shape, colour) not in HELD_OUT


def held_out_colour(shape: str) -> str:
    """The colour that training never shows a shape in."""
    return next(colour for other, colour in HELD_OUT if other == shape)


def draw_colour(rng: random.Random, shape: str, held_out: bool, other_than: str = "") -> str:
    """Draw a colour that a shape may have."""
    return rng.choice([c for c in COLOURS if c != other_than and allowed(shape, c, held_out)])


def draw_board(rng: random.Random, held_out: bool = False, pieces: int = 4) -> Board:
    """Draw an even board; with `held_out`, at least one held-out pair is on it."""
    shapes = rng.sample(SHAPES, pieces)
    cells = rng.sample(CELLS, pieces)
    out = [Piece(s, draw_colour(rng, s, False), c) for s, c in zip(shapes, cells, strict=True)]
    if held_out:
        k = rng.randrange(pieces)
        out[k] = replace(out[k], colour=held_out_colour(out[k].shape))
    return Board(tuple(out))


def draw_hops(rng: random.Random, board: Board, mover: str, frames: int, times: int) -> Slow:
    """Draw the board over time while `mover` hops to `times` new cells, each on a whole second."""
    seconds = sorted(rng.sample(range(1, frames // FPS), times))
    slow, visited = [(0, board)], {board.piece(mover).cell}
    for second in seconds:
        last = slow[-1][1]
        cell = rng.choice([c for c in last.free if c not in visited] or last.free)
        visited.add(cell)
        slow.append((second * FPS, last.change(mover, cell=cell)))
    return tuple(slow)


def draw_short(
    rng: random.Random, kind: str, piece: Piece, frames: int, in_view: bool, slow: Slow = ()
) -> Short:
    """Draw a short event of 5-7 frames (0.42-0.58 s).

    An event between two seconds always covers one of the two frames that sampling at 3 fps takes there. None
    of the slow changes falls inside an event, so that every frame of it shows the same board.

    Args:
        rng: The source of randomness.
        kind: "blink" or "guest".
        piece: As it is shown during the event.
        frames: The length of the clip.
        in_view: Around a whole second, or strictly between two.
        slow: The lasting boards of the clip.

    Raises:
        ValueError: There is no room for the event.
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
    """Draw a blink of a shape that is on the board, in another colour than its usual one."""
    usual = slow[0][1].piece(shape).colour
    colour = draw_colour(rng, shape, False, usual)
    if held_out and rng.random() < 0.7:
        rare = held_out_colour(shape)
        colour = rare if rare != usual else colour
    return draw_short(rng, "blink", Piece(shape, colour, (0, 0), True), frames, in_view, slow)


def draw_guest(rng: random.Random, slow: Slow, frames: int, in_view: bool, held_out: bool) -> Short:
    """Draw a guest: a shape that is not on the board."""
    board = slow[0][1]
    shape = next(s for s in rng.sample(SHAPES, len(SHAPES)) if board.find(s) is None)
    piece = Piece(shape, draw_colour(rng, shape, held_out), rng.choice(always_free(slow)))
    if held_out:
        piece = replace(piece, colour=held_out_colour(shape))
    return draw_short(rng, "guest", piece, frames, in_view, slow)


def always_free(slow: Slow) -> list[Cell]:
    """The cells that are free all the time, however the pieces hop."""
    taken = {p.cell for _, board in slow for p in board.pieces}
    return [c for c in CELLS if c not in taken]


def draw_tipping(rng: random.Random, board: Board, keep: str = "") -> Edit:
    """Draw a tipping of the board; at times a shape is taken away first, but never `keep`."""
    shapes = [p.shape for p in board.pieces if p.shape != keep]
    return Edit(rng.choice(SIDES), rng.choice(shapes) if rng.random() < 0.35 else None)
