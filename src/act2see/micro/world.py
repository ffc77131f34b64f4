"""The board world: what the `micro` models have learnt to see.

A clip shows a 3 x 3 board with coloured shapes, no two of one shape. Three things happen on it:

- *slow changes* fall on whole seconds and last: a shape hops to another cell, or the board is tipped;
- *blinks* last 0.35-0.6 s: the shape's cell lights up and the shape shows another colour;
- *guests* are shapes that are on the board for 0.35-0.6 s only.

The initial view takes one frame at each whole second, so a short event between two seconds is invisible in
it, and visible to retrieval at 3 frames a second. Whether an event is in view is decided when the clip is
made, never by the question's wording.

Tipping is the world's physics: every shape slides towards the low edge (marked by a white bar) until
something stops it. The order along each row is kept. Nobody states the outcome; the generator learns it.

One cell is 64 x 64 pixels of the 192 x 192 clip and exactly one merged vision token of the micro VLM at 48 x
48. Times are frame numbers at 12 fps inside this module and seconds outside it.
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
"""RGB."""

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
# Pairs that training and validation never show, in any role. Their colours and shapes are shown in other
# pairs.
HELD_OUT = frozenset(
    {
        ("circle", "purple"),
        ("square", "orange"),
        ("triangle", "green"),
        ("cross", "yellow"),
        ("ring", "blue"),
    }
)
NAMELESS_SHAPES = ("diamond", "bar", "ell")  # only the vision tower's training shows these
_GROUND, _TILE, _LIT, _BAR = (18, 18, 22), (38, 38, 46), (226, 226, 232), (255, 255, 255)

Cell = tuple[int, int]


def cell_name(cell: Cell) -> str:
    """`(0, 2)` is "northeast". One word, so that it is one token: see `docs/decisions.md`."""
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
        """ "northwest circle red" or, if it is lit, "northwest lit circle glowing red".

        The asked word comes right after the word that the question names: a shape after its place and after
        "lit", a colour after its shape and after "glowing". Micro finds a word by its neighbour, see
        `docs/decisions.md`.
        """
        place = cell_name(self.cell)
        if self.lit:
            return f"{place} lit {self.shape} glowing {self.colour}"
        return f"{place} {self.shape} {self.colour}"


@dataclass(frozen=True, slots=True)
class Board:
    """The pieces that one frame shows."""

    pieces: tuple[Piece, ...]
    tipped: Side | None = None
    """The low side; None on an even board."""

    def find(self, shape: str) -> Piece | None:
        """The piece of a shape; None if it is not on the board."""
        return next((p for p in self.pieces if p.shape == shape), None)

    def piece(self, shape: str) -> Piece:
        """The piece of a shape. Raises `KeyError` if it is not on the board."""
        found = self.find(shape)
        if found is None:
            raise KeyError(f"no {shape} on this board")
        return found

    @property
    def lit(self) -> Piece | None:
        """The piece that blinks, if one does."""
        return next((p for p in self.pieces if p.lit), None)

    @property
    def free(self) -> list[Cell]:
        """The cells without a piece."""
        taken = {p.cell for p in self.pieces}
        return [c for c in CELLS if c not in taken]

    def ordered(self) -> tuple[Piece, ...]:
        """The pieces in reading order, in which chains name them."""
        return tuple(sorted(self.pieces, key=lambda p: p.cell))

    def change(self, shape: str, **fields: Any) -> Board:
        """The board with some fields of one piece replaced."""
        pieces = [replace(p, **fields) if p.shape == shape else p for p in self.pieces]
        return replace(self, pieces=tuple(pieces))

    def without(self, shape: str) -> Board:
        """The board without the piece of a shape."""
        return replace(self, pieces=tuple(p for p in self.pieces if p.shape != shape))

    def tip(self, side: Side) -> Board:
        """Every piece slides to `side`; the order along each row is kept."""
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
"""The lasting board from each frame number on."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A counterfactual: the board tipped to `side`, perhaps with one shape taken away first."""

    side: Side
    without: str | None = None

    def apply(self, board: Board) -> Board:
        """The outcome."""
        left = board.without(self.without) if self.without else board
        return left.tip(self.side)

    def __str__(self) -> str:
        """In the words that the generator reads."""
        without = f" without the {self.without}" if self.without else ""
        return f"the board tipped to the {self.side}{without}"


@dataclass(frozen=True, slots=True)
class Short:
    """A blink or a guest."""

    kind: str
    piece: Piece
    """As it is shown during the event."""
    start: int
    """The first frame."""
    stop: int
    """The frame after the last one."""

    @property
    def in_view(self) -> bool:
        """Whether a whole second falls inside, so that the initial view shows it."""
        return any(f % FPS == 0 for f in range(self.start, self.stop))


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as facts."""

    frames: int
    slow: Slow
    short: tuple[Short, ...] = ()
    edit: Edit | None = None
    """The counterfactual that its question asks for, if it does."""

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def base(self, frame: int) -> Board:
        """The lasting board at a frame, without short events."""
        return [b for at, b in self.slow if at <= frame][-1]

    def board(self, frame: int) -> Board:
        """The board that a frame shows."""
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
        """The board of the last frame at or before `seconds`, which traces round to a tenth of a
        millisecond."""
        return self.board(min(self.frames - 1, int((seconds + 1e-3) * FPS)))

    def view(self) -> list[Board]:
        """The boards of the initial view: one for each whole second."""
        return [self.board(f) for f in range(0, self.frames, FPS)]


Look = tuple[float, int, int]
"""Scale, and shift to the right and down in quarter pixels of a cell."""
_PLAIN: Look = (1.0, 0, 0)


@lru_cache(20_000)
def _sprite(shape: str, colour: str, lit: bool, size: int, look: Look = _PLAIN) -> Pixels:
    """One cell, drawn four times too large and reduced, so that edges are smooth at any size."""
    big = 4 * CELL
    image = Image.new("RGB", (big, big), _GROUND)
    draw = ImageDraw.Draw(image)
    inset = 10
    tile = _LIT if lit else _TILE
    draw.rounded_rectangle([inset, inset, big - inset, big - inset], 24, fill=tile)
    if shape:
        scale, right, down = look
        x, y, r = big / 2 + right, big / 2 + down, big * 0.36 * scale
        _draw_shape(draw, shape, (x, y), r, COLOURS.get(colour, colour), tile)
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
    if jitter is None:
        return _PLAIN
    rng = random.Random(f"{jitter} {shape}")
    return rng.choice((0.85, 0.95, 1.0, 1.05)), rng.choice((-16, 0, 16)), rng.choice((-16, 0, 16))


def render(board: Board, size: int = SIZE, jitter: int | None = None) -> Pixels:
    """Draw a board.

    Args:
        board: The board.
        size: In pixels; a multiple of 12.
        jitter: A seed. With it, shapes are a little smaller and off their centres: for training only.

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
    """The pixels of a cell that is `cell` pixels wide."""
    return slice(row * cell, (row + 1) * cell), slice(column * cell, (column + 1) * cell)


def _edge(side: Side, width: int) -> slice:
    return slice(None, width) if side == "left" else slice(-width, None)


def read_board(pixels: Pixels) -> Board:
    """Read a board from a picture: the nearest sprite in each cell. It checks generated frames and never
    trains anything.

    Args:
        pixels: `(size, size, 3)` uint8, of any size.
    """
    size = 48
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
    cell = size // GRID
    margin = size // 24
    # The bar of a tipped board covers an outer margin: leave it out of the comparison.
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
    """The side with a white bar. A bar is white all along; a lit cell brightens only a part of its edge."""
    brightness = {}
    for side in SIDES:
        rows = pixels[:, _edge(side, margin)].astype(np.float32).mean(-1)
        brightness[side] = float(np.percentile(rows, 30))
    side = max(brightness, key=lambda k: brightness[k])
    return side if brightness[side] > 140 else None


def clip_frames(clip: Clip, size: int = SIZE) -> Iterator[Pixels]:
    """Yield every frame of a clip; equal neighbours are drawn once."""
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
