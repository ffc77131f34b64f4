"""Plain questions: what is on the board, what colour it has, and where it is.

Pieces may hop: then a place without a time ("Where is the ring?") is answered with all places in order.
"""

from __future__ import annotations

import random
from dataclasses import replace

from act2see.micro.drafts import (
    LEVEL,
    NOTHING,
    Draft,
    board_and_mover,
    draft,
    draw_options,
    draw_yes_or_no,
    yes_or_no,
)
from act2see.micro.draws import draw_hops
from act2see.micro.looks import state_tipping, state_whether
from act2see.micro.relations import ask_beside
from act2see.micro.words import (
    count_colour,
    describe_path,
    list_pieces,
    list_shapes,
    move_times,
    places_on_path,
    view_of,
)
from act2see.micro.world import CELLS, COLOURS, FPS, SHAPES, SIDES, Board, Clip, Edit, cell_name


def draw_plain(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1, 2))))
    if rng.random() < 0.15:
        clip = add_tipping(rng, clip)
    return rng.choice(_PLAIN)(rng, clip, board)


def add_tipping(rng: random.Random, clip: Clip) -> Clip:
    """Return the clip with its board tipped after the last change, if there is time for it."""
    last, board = clip.slow[-1]
    seconds = range(last // FPS + 1, clip.frames // FPS)
    if not seconds:
        return clip
    tipped = board.tip(rng.choice(SIDES))
    return replace(clip, slow=(*clip.slow, (rng.choice(seconds) * FPS, tipped)))


def _plain_colour(rng: random.Random, clip: Clip, board: Board) -> Draft:
    p = rng.choice(board.pieces)
    options = draw_options(rng, p.colour, list(COLOURS))
    return draft(
        clip, "colour", (state_whether(p.shape, True),), f"The {p.shape} is", p.colour, options, x=p.shape
    )


def _plain_where(rng: random.Random, clip: Clip, board: Board) -> Draft:
    view = view_of(clip)
    x = _asked_shape(rng, clip, board)
    places = places_on_path(x, view)
    chain = (state_whether(x, True), f" {describe_path(x, view)}")
    options = draw_options(rng, places[0], list(map(cell_name, CELLS))) if len(places) == 1 else ()
    return draft(clip, "where", chain, f"The {x} is at", ", then ".join(places), options, x=x)


def _plain_where_at(rng: random.Random, clip: Clip, board: Board) -> Draft:
    view = view_of(clip)
    x = _asked_shape(rng, clip, board)
    second, shown = rng.choice(view)
    place = cell_name(shown.piece(x).cell)
    chain = (f" {describe_path(x, view)}",)
    options = draw_options(rng, place, list(map(cell_name, CELLS)))
    slots = {"x": x, "n": str(second)}
    return draft(clip, "where_at", chain, f"At second {second} the {x} is at", place, options, **slots)


def _plain_which_tipped(rng: random.Random, clip: Clip, board: Board) -> Draft:
    if rng.random() < 0.7:
        clip = add_tipping(rng, Clip(clip.frames, clip.slow[:1]))
    side = clip.slow[-1][1].tipped
    chain = (state_tipping(view_of(clip), Edit("left")),)
    if not side:
        return draft(clip, "which_tipped", chain, "", LEVEL)
    return draft(clip, "which_tipped", chain, "The board is tipped to the", side, rng.choice((SIDES, ())))


def _asked_shape(rng: random.Random, clip: Clip, board: Board) -> str:
    """Return a shape to ask about: in half of the draws one that moves, if there is one."""
    view = view_of(clip)
    movers = [p.shape for p in board.pieces if move_times(p.shape, view)]
    if movers and rng.random() < 0.5:
        return rng.choice(movers)
    return rng.choice(board.pieces).shape


def _plain_end(rng: random.Random, clip: Clip, board: Board) -> Draft:
    kind, when, shown = rng.choice(
        (("start", "At the start", board), ("end", "At the end", clip.slow[-1][1]))
    )
    p = rng.choice(shown.pieces)
    options = draw_options(rng, cell_name(p.cell), list(map(cell_name, CELLS)))
    return draft(clip, kind, (), f"{when} the {p.shape} is at", cell_name(p.cell), options, x=p.shape)


def _content(board: Board, place: str) -> str:
    """Return the shape at a place, or "nothing"."""
    return next((p.shape for p in board.pieces if cell_name(p.cell) == place), NOTHING)


def _asked_place(rng: random.Random, board: Board) -> str:
    if rng.random() < 0.65:
        return cell_name(rng.choice(board.pieces).cell)
    return cell_name(rng.choice(CELLS))


def _plain_what_at(rng: random.Random, clip: Clip, board: Board) -> Draft:
    first, last = board, clip.slow[-1][1]
    kind = rng.choice(("what_at", "what_at_start", "what_at_end"))
    place = _asked_place(rng, last if kind == "what_at_end" else rng.choice((first, last)))
    before, after = _content(first, place), _content(last, place)
    if kind != "what_at":
        when, answer = ("At the start", before) if kind == "what_at_start" else ("At the end", after)
        options = () if answer == NOTHING else draw_options(rng, answer, list(SHAPES))
        return draft(clip, kind, (), f"{when} at {place} is", answer, options, place=place)
    chain = (f" At the start at {place} is {before}. At the end at {place} is {after}.",)
    if before == after:
        return draft(clip, kind, chain, f"At {place} is", before, place=place)
    both = f"{before} at the start, {after} at the end"
    return draft(clip, kind, chain, f"At {place} is", both, place=place)


def _plain_colour_at(rng: random.Random, clip: Clip, board: Board) -> Draft:
    last = clip.slow[-1][1]
    place = _asked_place(rng, rng.choice((board, last)))
    before, after = _content(board, place), _content(last, place)
    seen = f" At the start at {place} is {before}. At the end at {place} is {after}."
    if before != after:
        colours = [shape if shape == NOTHING else board.piece(shape).colour for shape in (before, after)]
        for shape, colour in zip((before, after), colours, strict=True):
            if shape != NOTHING:
                seen += f" The {shape} is {colour}."
        both = f"{colours[0]} at the start, {colours[1]} at the end"
        return draft(clip, "colour_at", (seen,), f"At {place} is", both, place=place)
    if before == NOTHING:
        return draft(clip, "colour_at", (seen,), f"At {place} is", NOTHING, place=place)
    colour = board.piece(before).colour
    options = draw_options(rng, colour, list(COLOURS))
    return draft(clip, "colour_at", (seen,), f"The {before} is", colour, options, place=place)


def _plain_beside(rng: random.Random, clip: Clip, board: Board) -> Draft:
    # Neighbours change with each hop, so nothing hops here.
    return ask_beside(rng, Clip(clip.frames, ((0, board),)), board)


def _plain_which_colour(rng: random.Random, clip: Clip, board: Board) -> Draft:
    colour = _asked_colour(rng, board)
    same = [p for p in board.ordered() if p.colour == colour]
    chain = (f" {count_colour(board, colour)}",)
    if not same:
        return draft(clip, "which_colour", chain, "", f"No shape is {colour}.", colour=colour)
    options = draw_options(rng, same[0].shape, list(SHAPES)) if len(same) == 1 else ()
    return draft(clip, "which_colour", chain, f"{colour} is the", list_shapes(same), options, colour=colour)


def _plain_any_colour(rng: random.Random, clip: Clip, board: Board) -> Draft:
    colour = _asked_colour(rng, board) if rng.random() < 0.6 else rng.choice(list(COLOURS))
    answer = yes_or_no(any(p.colour == colour for p in board.pieces))
    chain = (f" {count_colour(board, colour)}",)
    lead = f"A {colour} shape is there:"
    return draft(clip, "any_colour", chain, lead, answer, draw_yes_or_no(rng), colour=colour)


def _asked_colour(rng: random.Random, board: Board) -> str:
    if rng.random() < 0.75:
        return rng.choice(board.pieces).colour
    return rng.choice(list(COLOURS))


def _plain_list(rng: random.Random, clip: Clip, board: Board) -> Draft:
    return draft(clip, "list", (), "On the board:", list_pieces(board))


def _plain_is_colour(rng: random.Random, clip: Clip, board: Board) -> Draft:
    p = rng.choice(board.pieces)
    colour = p.colour if rng.random() < 0.5 else rng.choice([c for c in COLOURS if c != p.colour])
    chain = (state_whether(p.shape, True), f" The {p.shape} is {p.colour}.")
    answer = yes_or_no(colour == p.colour)
    return draft(
        clip, "is_colour", chain, f"It is {colour}:", answer, draw_yes_or_no(rng), x=p.shape, colour=colour
    )


def _plain_is_at(rng: random.Random, clip: Clip, board: Board) -> Draft:
    view = view_of(clip)
    x = _asked_shape(rng, clip, board)
    places = places_on_path(x, view)
    place = rng.choice(places) if rng.random() < 0.5 else cell_name(rng.choice(CELLS))
    chain = (state_whether(x, True), f" {describe_path(x, view)}")
    answer = yes_or_no(place in places)
    return draft(clip, "is_at", chain, f"It is at {place}:", answer, draw_yes_or_no(rng), x=x, place=place)


_PLAIN = (
    _plain_colour,
    _plain_where,
    _plain_where,
    _plain_where_at,
    _plain_where_at,
    _plain_end,
    _plain_which_tipped,
    _plain_what_at,
    _plain_what_at,
    _plain_colour_at,
    _plain_colour_at,
    _plain_beside,
    _plain_which_colour,
    _plain_which_colour,
    _plain_any_colour,
    _plain_list,
    _plain_is_colour,
    _plain_is_at,
)
