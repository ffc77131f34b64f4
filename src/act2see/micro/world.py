"""The board world: the clips that the `micro` models are trained on.

A clip shows a 3 x 3 board with coloured pieces, each of another shape. It has three kinds of events:

- *slow changes* happen at whole seconds and last: a shape hops to another cell, or the board is tipped;
- *blinks* last 0.35-0.6 s: the shape's cell lights up and the shape changes its colour;
- *guests* are shapes that are on the board for 0.35-0.6 s only.

The initial view takes one frame at each whole second, so it misses a short event between two seconds.
Retrieval, at 3 frames a second, sees it. Whether an event is in view is decided when the clip is made, never
by the question's wording.

Tipping is the world's physics: every shape slides towards the low edge (marked by a white bar) until the edge
or another shape stops it. The order along each row is kept. The generator learns the outcome from pictures.

One cell is 64 x 64 pixels of the 192 x 192 clip, and exactly one merged vision token of the micro VLM, which
reads frames at 48 x 48. Times are frame numbers at 12 fps inside this module and seconds outside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
Side = str
Colour = tuple[int, int, int]
"""Red, green and blue, each from 0 to 255."""

FPS = 12
GRID = 3
CELL = 64
SIZE = GRID * CELL
COLOURS: dict[str, Colour] = {
    "red": (222, 44, 44),
    "green": (40, 176, 64),
    "blue": (52, 92, 230),
    "yellow": (240, 214, 40),
    "purple": (160, 56, 200),
    "orange": (244, 136, 28),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
PLACES = (
    ("northwest", "north", "northeast"),
    ("west", "center", "east"),
    ("southwest", "south", "southeast"),
)
SIDES: tuple[Side, ...] = ("left", "right")
# (shape, colour) pairs that training and validation never show, in any role. They show each of these colours
# and shapes in other pairs.
HELD_OUT = frozenset(
    {
        ("circle", "purple"),
        ("square", "orange"),
        ("triangle", "green"),
        ("cross", "yellow"),
        ("ring", "blue"),
    }
)
NAMELESS_SHAPES = ("diamond", "bar", "ell")  # only the training of the vision tower draws these
_GROUND, _TILE, _LIT, _BAR = (18, 18, 22), (38, 38, 46), (226, 226, 232), (255, 255, 255)

Cell = tuple[int, int]


def cell_name(cell: Cell) -> str:
    """Return a cell's name: "northeast" for `(0, 2)`. One word is one token (`docs/decisions.md`)."""
    return PLACES[cell[0]][cell[1]]


CELLS: tuple[Cell, ...] = tuple((r, c) for r in range(GRID) for c in range(GRID))


@dataclass(frozen=True, slots=True)
class Piece:
    """One shape on the board."""

    shape: str
    colour: str
    cell: Cell
    lit: bool = False

    def __str__(self) -> str:
        """Return "northwest circle red" or, for a lit piece, "northwest lit circle glowing red".

        The word that answers a question comes right after the word that the question names: a shape after its
        place and after "lit", a colour after its shape and after "glowing". Micro finds a word by its
        neighbour (`docs/decisions.md`).
        """
        place = cell_name(self.cell)
        if self.lit:
            return f"{place} lit {self.shape} glowing {self.colour}"
        return f"{place} {self.shape} {self.colour}"


@dataclass(frozen=True, slots=True)
class Board:
    """The content of one frame: its pieces, and whether it is tipped."""

    pieces: tuple[Piece, ...]
    tipped: Side | None = None
    """The low side; None if the board is level."""

    def find(self, shape: str) -> Piece | None:
        """Return the piece of a shape, or None if it is not on the board."""
        return next((p for p in self.pieces if p.shape == shape), None)

    def piece(self, shape: str) -> Piece:
        """Return the piece of a shape. Raises `KeyError` if it is not on the board."""
        found = self.find(shape)
        if found is None:
            raise KeyError(f"no {shape} on this board")
        return found

    @property
    def lit(self) -> Piece | None:
        """The piece that blinks, or None."""
        return next((p for p in self.pieces if p.lit), None)

    @property
    def free(self) -> list[Cell]:
        """The cells without a piece."""
        taken = {p.cell for p in self.pieces}
        return [c for c in CELLS if c not in taken]

    def ordered(self) -> tuple[Piece, ...]:
        """Return the pieces in reading order, which is the order in chains."""
        return tuple(sorted(self.pieces, key=lambda p: p.cell))

    def change(self, shape: str, **fields: Any) -> Board:
        """Return the board with some fields of one piece replaced."""
        pieces = [replace(p, **fields) if p.shape == shape else p for p in self.pieces]
        return replace(self, pieces=tuple(pieces))

    def without(self, shape: str) -> Board:
        """Return the board without the piece of a shape."""
        return replace(self, pieces=tuple(p for p in self.pieces if p.shape != shape))

    def tip(self, side: Side) -> Board:
        """Return the board after every piece has slid to `side`. The order along each row is kept."""
        left = side == "left"
        rows: dict[int, list[Piece]] = {}
        for p in sorted(self.pieces, key=lambda p: p.cell, reverse=not left):
            rows.setdefault(p.cell[0], []).append(p)
        moved = []
        for row, pieces in rows.items():
            for i, p in enumerate(pieces):
                column = i if left else GRID - 1 - i
                moved.append(replace(p, cell=(row, column)))
        return Board(tuple(moved), side)


Slow = tuple[tuple[int, Board], ...]
"""Pairs of a frame number and the lasting board from that frame on, in order."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A counterfactual: the board tipped to `side`, optionally with one shape taken away first."""

    side: Side
    without: str | None = None

    def apply(self, board: Board) -> Board:
        """Return the board after the edit."""
        rest = board.without(self.without) if self.without else board
        return rest.tip(self.side)

    def __str__(self) -> str:
        """Return the edit in the words of the generator's prompts."""
        without = f" without the {self.without}" if self.without else ""
        return f"the board tipped to the {self.side}{without}"


@dataclass(frozen=True, slots=True)
class Short:
    """A short event: a blink or a guest."""

    kind: str
    piece: Piece
    """The piece as the event shows it."""
    start: int
    """Number of the first frame."""
    stop: int
    """Number of the frame after the last one."""

    @property
    def in_view(self) -> bool:
        """Whether the event covers a whole second, so that the initial view shows it."""
        return any(f % FPS == 0 for f in range(self.start, self.stop))


@dataclass(frozen=True, slots=True)
class Clip:
    """The description of a clip, from which every frame can be drawn."""

    frames: int
    slow: Slow
    short: tuple[Short, ...] = ()
    edit: Edit | None = None
    """The counterfactual that the question asks for, or None."""

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def base(self, frame: int) -> Board:
        """Return the lasting board at a frame, without short events."""
        return [b for at, b in self.slow if at <= frame][-1]

    def board(self, frame: int) -> Board:
        """Return the board that a frame shows."""
        board = self.base(frame)
        for event in self.short:
            if not event.start <= frame < event.stop:
                continue
            if event.kind == "blink":
                board = board.change(event.piece.shape, colour=event.piece.colour, lit=True)
            else:
                board = replace(board, pieces=(*board.pieces, event.piece))
        return board

    def at(self, seconds: float) -> Board:
        """Return the board of the last frame at or before `seconds`."""
        # A millisecond of tolerance: traces round times to a tenth of one.
        return self.board(min(self.frames - 1, int((seconds + 1e-3) * FPS)))

    def view(self) -> list[Board]:
        """Return the boards of the initial view: one for each whole second."""
        return [self.board(f) for f in range(0, self.frames, FPS)]


Look = tuple[float, int, int]
"""Scale, and the shifts to the right and down in quarters of a pixel."""
_PLAIN: Look = (1.0, 0, 0)


@lru_cache(20_000)
def _sprite(shape: str, colour: str, lit: bool, size: int, look: Look = _PLAIN) -> Pixels:
    """Draw one cell at four times its size, then reduce it, so that edges are smooth at any size."""
    big = 4 * CELL
    image = Image.new("RGB", (big, big), _GROUND)
    draw = ImageDraw.Draw(image)
    inset = 10
    tile = _LIT if lit else _TILE
    draw.rounded_rectangle([inset, inset, big - inset, big - inset], 24, fill=tile)
    if shape:
        scale, right, down = look
        center = (big / 2 + right, big / 2 + down)
        fill = COLOURS.get(colour, colour)  # nameless colours are hex codes already
        _draw_shape(draw, shape, center, big * 0.36 * scale, fill, tile)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    center: tuple[float, float],
    r: float,
    fill: Colour | str,
    tile: Colour,
) -> None:
    """Draw a shape of radius `r`; `tile` fills the hole of a ring."""
    x, y = center
    if shape == "circle":
        draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    elif shape == "ring":
        draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
        draw.ellipse([x - r * 0.5, y - r * 0.5, x + r * 0.5, y + r * 0.5], fill=tile)
    elif shape == "square":
        q = r * 0.94
        draw.rectangle([x - q, y - q, x + q, y + q], fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
    elif shape == "cross":
        w = r * 0.38
        draw.rectangle([x - w, y - r, x + w, y + r], fill=fill)
        draw.rectangle([x - r, y - w, x + r, y + w], fill=fill)
    elif shape == "diamond":
        draw.polygon([(x, y - r), (x - r, y), (x, y + r), (x + r, y)], fill=fill)
    elif shape == "bar":
        draw.rectangle([x - r, y - r * 0.4, x + r, y + r * 0.4], fill=fill)
    else:  # an L
        draw.rectangle([x - r, y - r, x - r * 0.2, y + r], fill=fill)
        draw.rectangle([x - r, y + r * 0.2, x + r, y + r], fill=fill)


def _look(shape: str, jitter: int | None) -> Look:
    """Draw the size and position of a shape; without a seed, the plain ones."""
    if jitter is None:
        return _PLAIN
    rng = random.Random(f"{jitter} {shape}")
    return rng.choice((0.85, 0.95, 1.0, 1.05)), rng.choice((-16, 0, 16)), rng.choice((-16, 0, 16))


def render(board: Board, size: int = SIZE, jitter: int | None = None) -> Pixels:
    """Draw a board.

    Args:
        board: The board.
        size: The width and height of the picture in pixels; a multiple of 12.
        jitter: A seed. It varies the size and position of each shape a little, for training only.

    Returns:
        `(size, size, 3)` uint8.
    """
    cell = size // GRID
    out = np.empty((size, size, 3), np.uint8)
    for r, c in CELLS:
        out[_area(r, c, cell)] = _sprite("", "", False, cell)
    for p in board.pieces:
        out[_area(*p.cell, cell)] = _sprite(p.shape, p.colour, p.lit, cell, _look(p.shape, jitter))
    if board.tipped:
        bar = size // 24
        out[:, _edge(board.tipped, bar)] = _BAR
    return out


def _area(row: int, column: int, cell: int) -> tuple[slice, slice]:
    """Return the rows and columns of pixels of a cell that is `cell` pixels wide."""
    return slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell)


def _edge(side: Side, width: int) -> slice:
    """Return the columns of pixels at an edge."""
    return slice(None, width) if side == "left" else slice(-width, None)


def read_board(pixels: Pixels) -> Board:
    """Read a board from a picture: the nearest sprite of each cell. No model is trained with it.

    Args:
        pixels: `(size, size, 3)` uint8, of any size.
    """
    size = 48
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
    cell = size // GRID
    margin = size // 24
    # The bar of a tipped board covers an outer margin, so the comparison leaves it out.
    inner = np.s_[:, margin:-margin, margin:-margin]
    kinds = [("", "", False)] + [(s, c, lit) for s in SHAPES for c in COLOURS for lit in (False, True)]
    sprites = np.stack([_sprite(*kind, cell) for kind in kinds]).astype(np.float32)  # (kinds, cell, cell, 3)
    pieces = []
    for r, c in CELLS:
        patch = pixels[_area(r, c, cell)].astype(np.float32)
        distances = ((sprites[inner] - patch[None][inner]) ** 2).mean((1, 2, 3))
        shape, colour, lit = kinds[int(distances.argmin())]
        if shape:
            pieces.append(Piece(shape, colour, (r, c), lit))
    return Board(tuple(pieces), _low_side(pixels, margin))


def _low_side(pixels: Pixels, margin: int) -> Side | None:
    """Return the side with a white bar, or None."""
    # A bar is white along its whole edge, a lit cell on a part of it: hence a low percentile.
    brightness = {}
    for side in SIDES:
        rows = pixels[:, _edge(side, margin)].astype(np.float32).mean(-1)
        brightness[side] = float(np.percentile(rows, 30))
    side = max(brightness, key=lambda k: brightness[k])
    return side if brightness[side] > 140 else None


def clip_frames(clip: Clip, size: int = SIZE) -> Iterator[Pixels]:
    """Yield every frame of a clip, `(size, size, 3)` uint8; consecutive equal frames are drawn once."""
    last: tuple[Board, Pixels] | None = None
    for f in range(clip.frames):
        board = clip.board(f)
        if last is None or last[0] != board:
            last = (board, render(board, size))
        yield last[1]


def write_clip(clip: Clip, path: str | Path, size: int = SIZE) -> Path:
    """Encode a clip as H.264 in MP4 (yuv420p, 12 fps, one keyframe a second); return `path`."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "crf": "18", "g": str(FPS), "threads": "1"}
        )
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for pixels in clip_frames(clip, size):
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
