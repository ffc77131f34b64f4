"""The board world: what the `micro` models have learnt to see.

A clip shows a 3 x 3 board with coloured shapes, no two of one shape. Three things happen on it:

- *slow changes* fall on whole seconds and last: a shape hops to another cell, or the board is tipped;
- *blinks* last 0.35-0.6 s: the shape's cell lights up and the shape shows another colour;
- *guests* are shapes that stand on the board for 0.35-0.6 s only.

The initial view takes one frame at each whole second, so a short event between two seconds is invisible
in it, and visible to retrieval at 3 frames a second. Whether an event is in view is decided when the clip is
made, never by the question's wording.

Tipping is the world's physics: every shape slides towards the low edge (marked by a white bar) until
something stops it. The order along each line is kept. Nobody states the outcome; the generator learns it.

Choices: one cell is 64 x 64 pixels of the 192 x 192 clip and exactly one merged vision token of the micro
VLM at 48 x 48. Times are frame numbers at 12 fps inside this module and seconds outside it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]
Side = str

FPS = 12
GRID = 3
CELL = 64
SIZE = GRID * CELL
COLOURS: dict[str, tuple[int, int, int]] = {
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
# Never shown in training or validation, in any role: what is left out is a pair, not a colour or a shape.
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
        """ "northwest circle red", and where it is lit "northwest lit circle glowing red".

        What is asked of a piece stands right after what the question names: a shape after its place and after
        "lit", a colour after its shape and after "glowing". Micro finds a word by its neighbour, see
        `docs/decisions.md`.
        """
        place = cell_name(self.cell)
        return (
            f"{place} lit {self.shape} glowing {self.colour}"
            if self.lit
            else f"{place} {self.shape} {self.colour}"
        )


@dataclass(frozen=True, slots=True)
class Board:
    """What one frame shows. `tipped` is the low side, if any."""

    pieces: tuple[Piece, ...]
    tipped: Side | None = None

    def find(self, shape: str) -> Piece | None:
        return next((p for p in self.pieces if p.shape == shape), None)

    def piece(self, shape: str) -> Piece:
        found = self.find(shape)
        if found is None:
            raise KeyError(f"no {shape} on this board")
        return found

    @property
    def lit(self) -> Piece | None:
        return next((p for p in self.pieces if p.lit), None)

    @property
    def free(self) -> list[Cell]:
        taken = {p.cell for p in self.pieces}
        return [c for c in CELLS if c not in taken]

    def ordered(self) -> tuple[Piece, ...]:
        """The pieces in reading order: how chains name them."""
        return tuple(sorted(self.pieces, key=lambda p: p.cell))

    def change(self, shape: str, **fields: object) -> Board:
        return replace(
            self,
            pieces=tuple(replace(p, **fields) if p.shape == shape else p for p in self.pieces),  # type: ignore[arg-type]
        )

    def without(self, shape: str) -> Board:
        return replace(self, pieces=tuple(p for p in self.pieces if p.shape != shape))

    def tip(self, side: Side) -> Board:
        """Every piece slides to `side`; the order along each row is kept."""
        left = side == "left"
        rows: dict[int, list[Piece]] = {}
        for p in sorted(self.pieces, key=lambda p: p.cell, reverse=not left):
            rows.setdefault(p.cell[0], []).append(p)
        moved = [
            replace(p, cell=(row, i if left else GRID - 1 - i))
            for row, pieces in rows.items()
            for i, p in enumerate(pieces)
        ]
        return Board(tuple(moved), side)


Slow = tuple[tuple[int, Board], ...]  # the lasting board from each frame number on


@dataclass(frozen=True, slots=True)
class Edit:
    """A counterfactual: the board tipped to `side`, perhaps with one shape taken away first."""

    side: Side
    without: str | None = None

    def apply(self, board: Board) -> Board:
        return (board.without(self.without) if self.without else board).tip(self.side)

    def __str__(self) -> str:
        """As the generator reads it."""
        return f"the board tipped to the {self.side}" + (
            f" without the {self.without}" if self.without else ""
        )


@dataclass(frozen=True, slots=True)
class Short:
    """A blink or a guest: `piece` is shown in frames `start` to `stop` (exclusive)."""

    kind: str
    piece: Piece
    start: int
    stop: int

    @property
    def in_view(self) -> bool:
        """True where a whole second falls inside."""
        return any(f % FPS == 0 for f in range(self.start, self.stop))


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as facts. `slow` holds the lasting board from each frame number on."""

    frames: int
    slow: Slow
    short: tuple[Short, ...] = ()
    edit: Edit | None = field(default=None)

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    def base(self, frame: int) -> Board:
        """The lasting board at `frame`, short events aside."""
        return [b for at, b in self.slow if at <= frame][-1]

    def board(self, frame: int) -> Board:
        board = self.base(frame)
        for s in self.short:
            if s.start <= frame < s.stop:
                if s.kind == "blink":
                    board = board.change(s.piece.shape, colour=s.piece.colour, lit=True)
                else:
                    board = replace(board, pieces=(*board.pieces, s.piece))
        return board

    def at(self, seconds: float) -> Board:
        """The board in the last frame shown at or before `seconds`, which traces round to a tenth of a
        millisecond."""
        return self.board(min(self.frames - 1, int((seconds + 1e-3) * FPS)))

    def view(self) -> list[Board]:
        """What the initial view shows: one board a whole second."""
        return [self.board(f) for f in range(0, self.frames, FPS)]


Look = tuple[float, int, int]  # scale, and shift to the right and down in quarter pixels of a cell
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
        x, y, r, fill = big / 2 + right, big / 2 + down, big * 0.36 * scale, COLOURS.get(colour, colour)
        if shape in ("circle", "ring"):
            draw.ellipse([x - r, y - r, x + r, y + r], fill=fill)
            if shape == "ring":
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
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def _look(shape: str, jitter: int | None) -> Look:
    if jitter is None:
        return _PLAIN
    rng = random.Random(f"{jitter} {shape}")
    return rng.choice((0.85, 0.95, 1.0, 1.05)), rng.choice((-16, 0, 16)), rng.choice((-16, 0, 16))


def render(board: Board, size: int = SIZE, jitter: int | None = None) -> Pixels:
    """The board as `(size, size, 3)` uint8; `size` is a multiple of 12.

    With `jitter`, a seed, shapes are a little smaller and stand a little aside: for training only.
    """
    cell = size // GRID
    out = np.empty((size, size, 3), np.uint8)
    for r, c in CELLS:
        out[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] = _sprite("", "", False, cell)
    for p in board.pieces:
        r, c = p.cell
        out[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] = _sprite(
            p.shape, p.colour, p.lit, cell, _look(p.shape, jitter)
        )
    if board.tipped:
        bar = size // 24
        out[:, _edge(board.tipped, bar)] = _BAR
    return out


def _edge(side: Side, width: int) -> slice:
    return slice(None, width) if side == "left" else slice(-width, None)


def read_board(pixels: Pixels) -> Board:
    """The board that a picture shows: nearest sprite in each cell. Used to check generated frames.

    `pixels` is `(size, size, 3)`; any square size. The check never trains anything.
    """
    size = 48
    if pixels.shape[:2] != (size, size):
        pixels = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))
    cell = size // GRID
    kinds = [("", "", False)] + [(s, c, lit) for s in SHAPES for c in COLOURS for lit in (False, True)]
    sprites = np.stack([_sprite(*k, cell) for k in kinds]).astype(np.float32)
    pieces = []
    margin = size // 24
    for r, c in CELLS:
        patch = pixels[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell].astype(np.float32)
        # The bar of a tipped board covers an outer margin: leave it out of the comparison.
        inner = np.s_[:, margin:-margin, margin:-margin]
        distance = ((sprites[inner] - patch[None][inner]) ** 2).mean((1, 2, 3))
        shape, colour, lit = kinds[int(distance.argmin())]
        if shape:
            pieces.append(Piece(shape, colour, (r, c), lit))
    # A bar is white all along; a lit cell brightens a part of its edge at most.
    brightness = {
        side: float(np.percentile(pixels[:, _edge(side, margin)].astype(np.float32).mean(-1), 30))
        for side in SIDES
    }
    side = max(brightness, key=lambda k: brightness[k])
    return Board(tuple(pieces), side if brightness[side] > 140 else None)


def allowed(shape: str, colour: str, held_out: bool) -> bool:
    """Whether a pair may appear: the held-out ones only where they are asked for."""
    return held_out or (shape, colour) not in HELD_OUT


def draw_colour(rng: random.Random, shape: str, held_out: bool, other_than: str = "") -> str:
    return rng.choice([c for c in COLOURS if c != other_than and allowed(shape, c, held_out)])


def draw_board(rng: random.Random, held_out: bool = False, pieces: int = 4) -> Board:
    """A random untipped board; with `held_out`, at least one held-out pair is on it."""
    shapes = rng.sample(SHAPES, pieces)
    cells = rng.sample(CELLS, pieces)
    out = [Piece(s, draw_colour(rng, s, False), c) for s, c in zip(shapes, cells, strict=True)]
    if held_out:
        k = rng.randrange(pieces)
        colour = next(c for s, c in HELD_OUT if s == out[k].shape)
        out[k] = replace(out[k], colour=colour)
    return Board(tuple(out))


def draw_short(
    rng: random.Random, kind: str, piece: Piece, frames: int, in_view: bool, slow: Slow = ()
) -> Short:
    """A short event of 5-7 frames (0.42-0.58 s), around a whole second or strictly between two.

    Between seconds it always covers one of the two frames that sampling at 3 fps takes there. None of the
    slow changes falls inside, so that every frame of the event shows the same board.
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


def clip_frames(clip: Clip, size: int = SIZE) -> Iterator[Pixels]:
    """Every frame of the clip; equal neighbours are drawn once."""
    last: tuple[Board, Pixels] | None = None
    for f in range(clip.frames):
        board = clip.board(f)
        if last is None or last[0] != board:
            last = (board, render(board, size))
        yield last[1]


def write_clip(clip: Clip, path: str | Path, size: int = SIZE) -> Path:
    """Encode the clip as H.264 in MP4 (yuv420p, 12 fps, a keyframe a second)."""
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
