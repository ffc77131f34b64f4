"""Pictures that are not boards, and are hard to tell from them: what the guard must refuse.

Each kind has its own function or its own arguments, and each seed draws another picture of the kind: grids of
other things, games, charts, boards of other sizes, boards whose cells hold other things, and plain pictures.
Many use the world's own colours.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from act2see.micro.study.drawings import (
    BLACK,
    CELLS,
    GROUND,
    PICTURES,
    TILE,
    WHITE,
    Cell,
    Draw,
    dark_letter,
    disc,
    draw_any_colour,
    draw_colour,
    icon,
    pale_letter,
    photo,
    star,
    write,
)
from act2see.micro.world import COLOURS, SHAPES, Board, Colour, Piece, Pixels, render

_SIZE = 240
_NAMES = tuple(COLOURS)


def draw_negative(kind: str, seed: int) -> Pixels:
    """Return a picture of a kind (a key of `KINDS`), `(240, 240, 3)` uint8."""
    rng = random.Random(f"{kind} {seed}")
    made = KINDS[kind](rng)
    return np.asarray(made.convert("RGB") if isinstance(made, Image.Image) else made, np.uint8)


def _canvas(rng: random.Random, ground: Colour, draw: Draw) -> Image.Image:
    image = Image.new("RGB", (_SIZE, _SIZE), ground)
    draw(rng, ImageDraw.Draw(image), _SIZE)
    return image


def _grid(
    rng: random.Random,
    rows: int = 3,
    columns: int = 3,
    ground: Colour = GROUND,
    tile: Colour | None = TILE,
    gap: float = 0.04,
    radius: float = 0.1,
    fill: Cell | None = None,
    share: float = 1.0,
) -> Image.Image:
    """Draw a grid of tiles.

    Args:
        rng: The source of randomness.
        rows: The number of rows.
        columns: The number of columns.
        ground: The colour between tiles.
        tile: The colour of tiles; None draws each in a colour of its own.
        gap: The margin of a tile, as a share of a cell.
        radius: The radius of its corners, as a share of a cell.
        fill: Draws the content of a cell, from its centre and its half size.
        share: The share of cells with content.
    """
    image = Image.new("RGB", (_SIZE, _SIZE), ground)
    draw = ImageDraw.Draw(image)
    width, height = _SIZE / columns, _SIZE / rows
    for row in range(rows):
        for column in range(columns):
            left, top = column * width, row * height
            inset = gap * min(width, height)
            box = (left + inset, top + inset, left + width - inset, top + height - inset)
            draw.rounded_rectangle(box, radius * min(width, height), fill=tile or draw_colour(rng))
            if fill and rng.random() < share:
                fill(rng, draw, left + width / 2, top + height / 2, min(width, height) / 2)
    return image


def _checkers(
    rng: random.Random, count: int, one: Colour, other: Colour, pieces: bool = False
) -> Image.Image:
    image = Image.new("RGB", (_SIZE, _SIZE), one)
    draw = ImageDraw.Draw(image)
    cell = _SIZE / count
    for row in range(count):
        for column in range(count):
            x, y = column * cell, row * cell
            if (row + column) % 2:
                draw.rectangle((x, y, x + cell, y + cell), fill=other)
            if pieces and rng.random() < 0.3:
                r = cell * 0.36
                center = (x + cell / 2, y + cell / 2)
                box = (center[0] - r, center[1] - r, center[0] + r, center[1] + r)
                draw.ellipse(box, fill=rng.choice((WHITE, BLACK, COLOURS["red"])))
    return image


def _calendar(rng: random.Random) -> Image.Image:
    image = _grid(rng, 6, 7, WHITE, (235, 235, 240), 0.05, 0.0, dark_letter)
    ImageDraw.Draw(image).rectangle((0, 0, _SIZE, 38), fill=draw_colour(rng))
    return image


def _sudoku(rng: random.Random) -> Image.Image:
    image = _grid(rng, 9, 9, (150, 150, 150), WHITE, 0.03, 0.0, dark_letter, 0.5)
    draw = ImageDraw.Draw(image)
    for i in range(4):
        draw.line((i * 80, 0, i * 80, _SIZE), fill=BLACK, width=4)
        draw.line((0, i * 80, _SIZE, i * 80), fill=BLACK, width=4)
    return image


def _plain(rng: random.Random, colour: Colour | None = None) -> Image.Image:
    return Image.new("RGB", (_SIZE, _SIZE), colour or draw_any_colour(rng))


def _gradient(rng: random.Random, across: bool) -> Pixels:
    ramp = np.linspace(draw_any_colour(rng), draw_any_colour(rng), _SIZE)
    picture = np.broadcast_to(ramp[None] if across else ramp[:, None], (_SIZE, _SIZE, 3))
    return picture.astype(np.uint8)


def _noise(rng: random.Random, cell: int, grey: bool = False) -> Pixels:
    values = np.random.default_rng(rng.randrange(1 << 30))
    count = _SIZE // cell
    small = values.integers(0, 256, (count, count, 1 if grey else 3), np.uint8)
    return np.broadcast_to(small.repeat(cell, 0).repeat(cell, 1), (_SIZE, _SIZE, 3))


def _board(rng: random.Random) -> Board:
    shapes = rng.sample(SHAPES, 4)
    cells = rng.sample([(r, c) for r in range(3) for c in range(3)], 4)
    return Board(tuple(Piece(s, rng.choice(_NAMES), cell) for s, cell in zip(shapes, cells, strict=True)))


def _changed_board(rng: random.Random, change: Callable[[Pixels, random.Random], Pixels]) -> Pixels:
    return change(render(_board(rng), _SIZE).copy(), rng)


def _mixed_board(rng: random.Random, fill: Cell) -> Image.Image:
    """Draw a board with other things in two free cells."""
    board = _board(rng)
    image = Image.fromarray(render(board, _SIZE))
    cell = _SIZE / 3
    for row, column in rng.sample(board.free, 2):
        fill(rng, ImageDraw.Draw(image), (column + 0.5) * cell, (row + 0.5) * cell, cell / 2)
    return image


def _many_boards(board: Pixels, rng: random.Random) -> Pixels:
    half = board[::2, ::2]
    return np.tile(half, (2, 2, 1))


def _turned(board: Pixels, rng: random.Random) -> Pixels:
    turned = Image.fromarray(board).rotate(rng.choice((20, 30, 45)), Image.Resampling.BICUBIC)
    return np.asarray(turned)


def _negative(board: Pixels, rng: random.Random) -> Pixels:
    return 255 - board


def _grey(board: Pixels, rng: random.Random) -> Pixels:
    mean = board.mean(-1, keepdims=True).astype(np.uint8)
    return np.broadcast_to(mean, board.shape)


def _titled(board: Pixels, rng: random.Random) -> Pixels:
    image = Image.fromarray(board)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 80, _SIZE, 160), fill=WHITE)
    write(draw, 120, 120, "THE END", 40, BLACK)
    return np.asarray(image)


def _half(board: Pixels, rng: random.Random) -> Pixels:
    board[:, _SIZE // 2 :] = draw_any_colour(rng)
    return board


def _shuffled(board: Pixels, rng: random.Random) -> Pixels:
    """The board's quarters in another order."""
    half = _SIZE // 2
    parts = [board[:half, :half], board[:half, half:], board[half:, :half], board[half:, half:]]
    a, b, c, d = rng.choice(((1, 0, 3, 2), (3, 2, 1, 0), (2, 3, 0, 1)))
    return np.vstack([np.hstack([parts[a], parts[b]]), np.hstack([parts[c], parts[d]])])


_CHANGES = {
    "four boards": _many_boards,
    "turned board": _turned,
    "negative of a board": _negative,
    "grey board": _grey,
    "board behind a title": _titled,
    "half a board": _half,
    "shuffled board": _shuffled,
}
KINDS: dict[str, Callable[[random.Random], Any]] = {
    **{f"3 x 3 {name}": partial(_grid, fill=fill) for name, fill in CELLS.items()},
    **{f"a few {name}": partial(_grid, fill=fill, share=0.4) for name, fill in CELLS.items()},
    **{f"a board with {name}": partial(_mixed_board, fill=fill) for name, fill in CELLS.items()},
    **{name: partial(_canvas, ground=ground, draw=draw) for name, (ground, draw) in PICTURES.items()},
    **{name: partial(_changed_board, change=change) for name, change in _CHANGES.items()},
    "2 x 2 discs": partial(_grid, rows=2, columns=2, fill=disc),
    "4 x 4 discs": partial(_grid, rows=4, columns=4, fill=disc, share=0.5),
    "3 x 4 discs": partial(_grid, rows=3, columns=4, fill=disc, share=0.5),
    "5 x 5 discs": partial(_grid, rows=5, columns=5, fill=disc, share=0.4),
    "memory cards": partial(_grid, rows=4, columns=4, ground=(30, 90, 60), tile=None, fill=star, share=0.3),
    "connect four": partial(_grid, rows=6, columns=7, ground=(30, 60, 200), tile=(20, 30, 90), fill=disc),
    "number pad": partial(_grid, rows=4, ground=BLACK, fill=pale_letter),
    "pale 3 x 3 discs": partial(_grid, ground=WHITE, tile=(225, 225, 228), fill=disc, share=0.5),
    "empty grid": _grid,
    "grid of icons": partial(_grid, rows=4, columns=4, tile=GROUND, fill=icon),
    "grid of photos": partial(_grid, ground=WHITE, fill=photo),
    "dark grid of photos": partial(_grid, ground=BLACK, fill=photo),
    "colour swatches": partial(_grid, ground=WHITE, tile=None, gap=0.0),
    "puzzle cube": partial(_grid, ground=BLACK, tile=None, radius=0.15),
    "calendar": _calendar,
    "sudoku": _sudoku,
    "chess board": partial(_checkers, count=8, one=(238, 216, 180), other=(180, 134, 98), pieces=True),
    "checkerboard": partial(_checkers, count=8, one=WHITE, other=BLACK),
    "dark 3 x 3 checkerboard": partial(_checkers, count=3, one=GROUND, other=TILE, pieces=True),
    "dark checkerboard": partial(_checkers, count=6, one=GROUND, other=TILE, pieces=True),
    "plain": _plain,
    "plain ground": partial(_plain, colour=GROUND),
    "plain tile": partial(_plain, colour=TILE),
    "black": partial(_plain, colour=BLACK),
    "white": partial(_plain, colour=WHITE),
    "gradient across": partial(_gradient, across=True),
    "gradient down": partial(_gradient, across=False),
    "noise": partial(_noise, cell=1),
    "grey noise": partial(_noise, cell=1, grey=True),
    "coarse noise": partial(_noise, cell=20),
    "nine coloured squares": partial(_noise, cell=80),
}
"""The kinds of pictures, with what draws each."""
