"""What pictures that are not boards consist of (`negatives.py`): contents of cells, and whole pictures."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import ImageDraw, ImageFont

from act2see.micro.world import COLOURS, Colour

Cell = Callable[[random.Random, ImageDraw.ImageDraw, float, float, float], None]
"""Draws the content of a cell, from its centre and its half size."""
Draw = Callable[[random.Random, ImageDraw.ImageDraw, int], None]
"""Draws on a square of a size in pixels."""
GROUND, TILE, WHITE, BLACK = (18, 18, 22), (38, 38, 46), (255, 255, 255), (0, 0, 0)
_WORDS = ("the", "plan", "of", "this", "week", "is", "to", "write", "tests", "for", "all", "parts", "again")
_NAMES = tuple(COLOURS)


def draw_colour(rng: random.Random) -> Colour:
    return COLOURS[rng.choice(_NAMES)]


def draw_any_colour(rng: random.Random) -> Colour:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def write(draw: ImageDraw.ImageDraw, x: float, y: float, text: str, height: float, fill: Colour) -> None:
    """Write a text around a place."""
    draw.text((x, y), text, fill=fill, font=ImageFont.load_default(max(6, height)), anchor="mm")


def _letter(
    rng: random.Random, draw: Any, x: float, y: float, half: float, of: str = "ABCDEFGHKMRSTWZ"
) -> None:
    write(draw, x, y, rng.choice(of), half * 1.3, draw_colour(rng))


def pale_letter(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    write(draw, x, y, rng.choice("123456789"), half * 1.2, (220, 220, 220))


def dark_letter(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    write(draw, x, y, rng.choice("0123456789ABCDEF"), half * 1.1, (20, 20, 20))


def _mark(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """A nought or a cross (diagonal)."""
    r, thick, colour = half * 0.6, round(half * 0.2), draw_colour(rng)
    if rng.random() < 0.5:
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=thick)
    else:
        draw.line((x - r, y - r, x + r, y + r), fill=colour, width=thick)
        draw.line((x - r, y + r, x + r, y - r), fill=colour, width=thick)


def star(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    points = []
    for i in range(10):
        r, angle = half * (0.75 if i % 2 == 0 else 0.32), np.pi * (i / 5 - 0.5)
        points.append((x + r * np.cos(angle), y + r * np.sin(angle)))
    draw.polygon(points, fill=draw_colour(rng))


def _heart(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    r, colour = half * 0.35, draw_colour(rng)
    draw.ellipse((x - 2 * r, y - 1.5 * r, x, y + 0.5 * r), fill=colour)
    draw.ellipse((x, y - 1.5 * r, x + 2 * r, y + 0.5 * r), fill=colour)
    draw.polygon([(x - 1.9 * r, y), (x + 1.9 * r, y), (x, y + 2 * r)], fill=colour)


def _face(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    r = half * 0.72
    draw.ellipse((x - r, y - r, x + r, y + r), fill=COLOURS["yellow"])
    for side in (-0.4, 0.4):
        draw.ellipse((x + side * r - 5, y - 0.4 * r, x + side * r + 5, y - 0.1 * r), fill=BLACK)
    draw.arc((x - 0.6 * r, y - 0.5 * r, x + 0.6 * r, y + 0.6 * r), 20, 160, fill=BLACK, width=4)


def _arrow(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    r, colour = half * 0.7, draw_colour(rng)
    draw.rectangle((x - r, y - 0.2 * r, x, y + 0.2 * r), fill=colour)
    draw.polygon([(x, y - r), (x, y + r), (x + r, y)], fill=colour)


def _dots(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """A face of dice."""
    r, colour = half * 0.15, draw_colour(rng)
    for dx, dy in rng.sample([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)], rng.randint(2, 6)):
        across, down = x + dx * half * 0.5, y + dy * half * 0.5
        draw.ellipse((across - r, down - r, across + r, down + r), fill=colour)


def icon(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """An app's icon: a rounded square with a letter."""
    r = half * 0.72
    draw.rounded_rectangle((x - r, y - r, x + r, y + r), r * 0.4, fill=draw_any_colour(rng))
    write(draw, x, y, rng.choice("aefgmopqtw"), half, WHITE)


def photo(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """Something like a photograph: sky, ground and a few blots."""
    top, bottom, r = draw_any_colour(rng), draw_any_colour(rng), half * 0.92
    horizon = y + rng.uniform(-0.4, 0.4) * half
    draw.rectangle((x - r, y - r, x + r, horizon), fill=top)
    draw.rectangle((x - r, horizon, x + r, y + r), fill=bottom)
    for _ in range(6):
        a, b, s = x + rng.uniform(-0.7, 0.6) * r, y + rng.uniform(-0.7, 0.6) * r, rng.uniform(0.1, 0.3) * r
        draw.ellipse((a, b, a + s, b + s), fill=draw_any_colour(rng))


def _outline(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """A shape of the world, but only its outline."""
    r, colour = half * 0.7, draw_colour(rng)
    kind = rng.choice(("square", "triangle"))
    if kind == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), outline=colour, width=4)
    else:
        draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], outline=colour, width=4)


def _tiny(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    """Four small discs instead of one shape."""
    r = half * 0.25
    for dx in (-1, 1):
        for dy in (-1, 1):
            colour = draw_colour(rng)
            a, b = x + dx * half * 0.4, y + dy * half * 0.4
            draw.ellipse((a - r, b - r, a + r, b + r), fill=colour)


def _whole_tile(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    draw.rectangle(
        (x - 0.92 * half, y - 0.92 * half, x + 0.92 * half, y + 0.92 * half), fill=draw_colour(rng)
    )


def disc(rng: random.Random, draw: Any, x: float, y: float, half: float) -> None:
    r = half * 0.72
    draw.ellipse((x - r, y - r, x + r, y + r), fill=draw_colour(rng))


def _bars(rng: random.Random, draw: Any, size: int) -> None:
    for i in range(6):
        height = rng.uniform(0.2, 0.9) * size
        draw.rectangle((20 + i * 35, size - height, 44 + i * 35, size - 8), fill=draw_colour(rng))
    draw.line((12, 8, 12, size - 8, size - 8, size - 8), fill=(200, 200, 200), width=2)


def _lines(rng: random.Random, draw: Any, size: int) -> None:
    for _ in range(3):
        points = [(x, rng.uniform(0.1, 0.9) * size) for x in range(10, size, 20)]
        draw.line(points, fill=draw_colour(rng), width=3)


def _pie(rng: random.Random, draw: Any, size: int) -> None:
    start = 0.0
    while start < 360:
        stop = start + rng.uniform(30, 120)
        draw.pieslice((20, 20, size - 20, size - 20), start, min(360, stop), fill=draw_colour(rng))
        start = stop


def _scatter(rng: random.Random, draw: Any, size: int) -> None:
    for _ in range(60):
        x, y = rng.uniform(5, size - 5), rng.uniform(5, size - 5)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=draw_colour(rng))


def _slide(rng: random.Random, draw: Any, size: int, fill: Colour = (30, 30, 30)) -> None:
    write(draw, size / 2, 30, rng.choice(("Results", "Plan", "Summary")), 26, fill)
    for i in range(6):
        write(draw, size / 2, 70 + i * 26, " ".join(rng.sample(_WORDS, 5)), 14, fill)


def _terminal(rng: random.Random, draw: Any, size: int) -> None:
    for i in range(14):
        draw.text((6, 4 + 16 * i), "$ " + " ".join(rng.choices(_WORDS, k=5)), fill=COLOURS["green"])


def _flag(rng: random.Random, draw: Any, size: int, down: bool) -> None:
    for i in range(3):
        a, b = round(i * size / 3), round((i + 1) * size / 3)
        draw.rectangle((0, a, size, b) if down else (a, 0, b, size), fill=draw_colour(rng))


def _cross_flag(rng: random.Random, draw: Any, size: int) -> None:
    colour = draw_colour(rng)
    draw.rectangle((size * 0.3, 0, size * 0.45, size), fill=colour)
    draw.rectangle((0, size * 0.42, size, size * 0.57), fill=colour)


def _lights(rng: random.Random, draw: Any, size: int) -> None:
    draw.rounded_rectangle((80, 8, 160, 232), 20, fill=(30, 30, 30))
    on = rng.randrange(3)
    for i, name in enumerate(("red", "yellow", "green")):
        colour = COLOURS[name] if i == on else (60, 60, 60)
        draw.ellipse((92, 16 + i * 74, 148, 72 + i * 74), fill=colour)


def _tetris(rng: random.Random, draw: Any, size: int) -> None:
    cell = size / 12
    for row in range(12):
        for column in range(12):
            if rng.random() < row / 14:
                x, y = column * cell, row * cell
                draw.rectangle((x + 1, y + 1, x + cell - 1, y + cell - 1), fill=draw_colour(rng))


def _snake(rng: random.Random, draw: Any, size: int) -> None:
    x, y = 6, 6
    for _ in range(40):
        draw.rectangle((x * 20 + 1, y * 20 + 1, x * 20 + 19, y * 20 + 19), fill=COLOURS["green"])
        if rng.random() < 0.5:
            x = min(11, max(0, x + rng.choice((-1, 1))))
        else:
            y = min(11, max(0, y + rng.choice((-1, 1))))
    draw.ellipse((44, 180, 60, 196), fill=COLOURS["red"])


def _noughts(rng: random.Random, draw: Any, size: int, line: Colour = (90, 90, 90)) -> None:
    third = size / 3
    for i in (1, 2):
        draw.line((i * third, 8, i * third, size - 8), fill=line, width=5)
        draw.line((8, i * third, size - 8, i * third), fill=line, width=5)
    for row in range(3):
        for column in range(3):
            if rng.random() < 0.6:
                _mark(rng, draw, (column + 0.5) * third, (row + 0.5) * third, third / 2)


def _big(rng: random.Random, draw: Any, size: int, kind: str = "circle") -> None:
    """One shape over the whole picture."""
    box = (30, 30, size - 30, size - 30)
    if kind == "circle":
        draw.ellipse(box, fill=draw_colour(rng))
    elif kind == "square":
        draw.rectangle(box, fill=draw_colour(rng))
    else:
        draw.polygon([(size / 2, 20), (20, size - 20), (size - 20, size - 20)], fill=draw_colour(rng))


def _free_shapes(rng: random.Random, draw: Any, size: int) -> None:
    """Shapes of the world without tiles, anywhere."""
    for _ in range(4):
        x, y, r = rng.uniform(40, size - 40), rng.uniform(40, size - 40), 26
        draw.ellipse((x - r, y - r, x + r, y + r), fill=draw_colour(rng))


def _bullseye(rng: random.Random, draw: Any, size: int) -> None:
    for i in range(6):
        r = size / 2 - i * 20
        draw.ellipse((size / 2 - r, size / 2 - r, size / 2 + r, size / 2 + r), fill=draw_colour(rng))


CELLS: dict[str, Cell] = {
    "letters": _letter,
    "pale digits": pale_letter,
    "noughts and crosses on tiles": _mark,
    "stars": star,
    "hearts": _heart,
    "faces": _face,
    "arrows": _arrow,
    "dice": _dots,
    "icons on tiles": icon,
    "photos on tiles": photo,
    "outlines": _outline,
    "four discs": _tiny,
    "coloured tiles": _whole_tile,
}
"""Contents of cells."""
PICTURES: dict[str, tuple[Colour, Draw]] = {
    "bar chart": (WHITE, _bars),
    "dark bar chart": (GROUND, _bars),
    "line chart": (WHITE, _lines),
    "dark line chart": (GROUND, _lines),
    "pie chart": (WHITE, _pie),
    "dark pie chart": (GROUND, _pie),
    "scatter plot": (GROUND, _scatter),
    "slide": (WHITE, _slide),
    "dark slide": (GROUND, partial(_slide, fill=(220, 220, 220))),
    "terminal": (BLACK, _terminal),
    "flag of rows": (WHITE, partial(_flag, down=True)),
    "flag of columns": (WHITE, partial(_flag, down=False)),
    "flag with a cross": (WHITE, _cross_flag),
    "traffic light": ((90, 140, 190), _lights),
    "dark traffic light": (GROUND, _lights),
    "falling blocks": (BLACK, _tetris),
    "snake": (GROUND, _snake),
    "noughts and crosses": (WHITE, _noughts),
    "dark noughts and crosses": (TILE, partial(_noughts, line=GROUND)),
    "big disc": (TILE, _big),
    "big square": (GROUND, partial(_big, kind="square")),
    "big triangle": (GROUND, partial(_big, kind="triangle")),
    "free discs": (TILE, _free_shapes),
    "target": (GROUND, _bullseye),
}
"""Whole pictures: their ground, and what draws them."""
