"""The four families of questions: their clips, wordings, options and chains.

A question has the same words whether or not the initial frames hold the answer, so that only looking at them
can decide whether to call a tool:

- *observe*: colours, places, movements. Some ask about a guest that no initial frame shows.
- *blink*: the colour, the shape, or the place of Y when X blinks. In half of them the blink is in view.
- *imagine*: the place of Y after the board is tipped. In two of five the clip shows the tipping.
- *both*: the same, from the moment when X blinks. In a third the blink is in view, and only imagining is
  needed.

Options do not reveal the answer: its letter is uniform, and the initial view neither confirms nor excludes a
distractor (a shape's usual colour is not among the colours of its blink; places are those that the shape has
visited, if the clip has enough of them).

A seed identifies a question, so the order of the random draws in this module must never change.
"""

from __future__ import annotations

import random
from dataclasses import replace

from act2see.micro.drafts import Draft, Wording
from act2see.micro.draws import (
    always_free_cells,
    draw_blink,
    draw_board,
    draw_guest,
    draw_hops,
    draw_tipping,
)
from act2see.micro.kinds import Asked, ask
from act2see.micro.looks import (
    board_during,
    generate,
    look_for_blink,
    look_for_shape,
    state_tipping,
    state_whether,
)
from act2see.micro.words import (
    Step,
    describe_moves,
    describe_path,
    describe_view,
    edit_query,
    view_of,
)
from act2see.micro.world import (
    CELLS,
    COLOURS,
    FPS,
    HELD_OUT,
    SHAPES,
    Board,
    Clip,
    Edit,
    Short,
    Slow,
    cell_name,
)


def _choose(rng: random.Random, answer: str, others: list[str], n: int = 4) -> tuple[str, ...]:
    """Return `n` options in random order; `others` are the distractors in order of preference."""
    pool = [o for o in dict.fromkeys(others) if o != answer][: n - 1]
    options = [answer, *pool]
    rng.shuffle(options)
    return tuple(options)


def _choose_cells(rng: random.Random, answer: str, preferred: list[str]) -> tuple[str, ...]:
    rest = [cell_name(c) for c in CELLS]
    rng.shuffle(rest)
    first = list(dict.fromkeys(preferred))
    rng.shuffle(first)
    return _choose(rng, answer, first + rest)


def _choose_colours(rng: random.Random, answer: str, never: str = "") -> tuple[str, ...]:
    rest = [c for c in COLOURS if c not in (answer, never)]
    rng.shuffle(rest)
    return _choose(rng, answer, rest)


def _choose_shapes(rng: random.Random, answer: str, board: Board) -> tuple[str, ...]:
    here = [p.shape for p in board.pieces]
    rng.shuffle(here)
    rest = [s for s in SHAPES if s not in here]
    rng.shuffle(rest)
    return _choose(rng, answer, here + rest)


def _visited_places(clip: Clip, shape: str) -> list[str]:
    return [cell_name(b.piece(shape).cell) for _, b in clip.slow if b.find(shape)]


def _rare_shapes(board: Board) -> list[str]:
    """Return the shapes of held-out pairs on the board."""
    return [p.shape for p in board.pieces if (p.shape, p.colour) in HELD_OUT]


def _observe(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board = draw_board(rng, held_out)
    mover = rng.choice(board.pieces).shape
    kind = rng.choice(("colour", "place", "which moves", "guest", "guest"))
    if kind == "which moves":
        return _observe_movement(rng, board, mover, frames)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 1, 2)))
    if kind == "guest":
        return _observe_guest(rng, slow, frames, held_out)
    clip = Clip(frames, slow)
    rare = _rare_shapes(board)
    shape = rng.choice(rare) if rare else rng.choice(board.pieces).shape
    if kind == "colour":
        chain: tuple[Step, ...] = (describe_view(view_of(clip)), state_whether(shape, True))
        return Draft(_ask_colour(rng, shape, board.piece(shape).colour, kind), clip, chain, True)
    return _observe_place(rng, clip, shape)


def _ask_colour(rng: random.Random, shape: str, colour: str, kind: str) -> Wording:
    options = _choose_colours(rng, colour)
    return Wording(kind, ask("colour", x=shape), options, colour, f"The {shape} is")


def _observe_movement(rng: random.Random, board: Board, mover: str, frames: int) -> Draft:
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((1, 2))))
    options = _choose_shapes(rng, mover, board)
    chain = (describe_view(view_of(clip)), f" {describe_moves(board, clip.base(frames))}")
    wording = Wording("which moves", ask("which_moves"), options, mover, "It is the moved")
    return Draft(wording, clip, chain, True)


def _observe_guest(rng: random.Random, slow: Slow, frames: int, held_out: bool) -> Draft:
    in_view = rng.random() < 0.4
    guest = draw_guest(rng, slow, frames, in_view, held_out)
    clip = Clip(frames, slow, (guest,))
    shape = guest.piece.shape
    chain: tuple[Step, ...] = (describe_view(view_of(clip)), *look_for_shape(clip, shape, rng))
    if rng.random() < 0.6 or held_out:
        return Draft(_ask_colour(rng, shape, guest.piece.colour, "guest"), clip, chain, in_view)
    if in_view:
        chain += (f" {describe_path(shape, view_of(clip))}",)
    place = cell_name(guest.piece.cell)
    options = _choose_cells(rng, place, [cell_name(c) for c in always_free_cells(slow)])
    wording = Wording("guest", ask("where", x=shape), options, place, f"The {shape} is at")
    return Draft(wording, clip, chain, in_view)


def _observe_place(rng: random.Random, clip: Clip, shape: str) -> Draft:
    at_end = rng.random() < 0.5
    _, board = clip.slow[-1] if at_end else clip.slow[0]
    answer = cell_name(board.piece(shape).cell)
    when = "at the end" if at_end else "at the start"
    options = _choose_cells(rng, answer, _visited_places(clip, shape))
    lead = f"{when.capitalize()} the {shape} is at"
    wording = Wording("place", ask("end" if at_end else "start", x=shape), options, answer, lead)
    return Draft(wording, clip, (describe_view(view_of(clip)),), True)


def _blink(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board = draw_board(rng, held_out)
    in_view = rng.random() < 0.5
    kind = rng.choice(("colour", "which", "where"))
    x = rng.choice(board.pieces).shape
    y = rng.choice([p.shape for p in board.pieces if p.shape != x])
    mover = y if kind == "where" else rng.choice(board.pieces).shape
    # Four places to choose from need three hops.
    slow = draw_hops(rng, board, mover, frames, 3 if kind == "where" else rng.choice((0, 1)))
    blink = draw_blink(rng, slow, x, frames, in_view, held_out)
    clip = Clip(frames, slow, (blink,))
    looked_for = "shape" if kind == "which" else x
    chain: tuple[Step, ...] = (describe_view(view_of(clip)), *look_for_blink(clip, looked_for, rng))
    if kind == "colour":
        options = _choose_colours(rng, blink.piece.colour, never=board.piece(x).colour)
        asked, lead = ask("blink_colour", x=x), f"The lit {x} is glowing"
        wording = Wording(kind, asked, options, blink.piece.colour, lead)
    elif kind == "which":
        wording = Wording(kind, ask("which_blinks"), _choose_shapes(rng, x, board), x, "It is the lit")
    else:
        place = cell_name(board_during(clip, blink).piece(y).cell)
        options = _choose_cells(rng, place, _visited_places(clip, y))
        lead = f"With the {x} lit the {y} is at"
        wording = Wording(kind, ask("where_when", x=y, y=x), options, place, lead)
    return Draft(wording, clip, chain, in_view)


def draw_outcome(
    rng: random.Random, before: Board, after: Board, edit: Edit, blinking: str = "", prefer: str = ""
) -> Wording:
    """Ask where a piece ends up, or which piece ends up at a place; about `prefer` if it is on the board."""
    p = after.piece(prefer) if prefer and after.find(prefer) else rng.choice(after.pieces)
    place = cell_name(p.cell)
    if rng.random() < 0.6:
        near = [cell_name(q.cell) for q in after.pieces] + [cell_name(before.piece(p.shape).cell)]
        options, lead = _choose_cells(rng, place, near), f"On the tipped board the {p.shape} is at"
        return Wording("where", ask_outcome("tip_where", edit, blinking, x=p.shape), options, place, lead)
    options, lead = _choose_shapes(rng, p.shape, before), f"On the tipped board at {place} is"
    asked = ask_outcome("tip_which", edit, blinking, place=place)
    return Wording("which", asked, options, p.shape, lead)


def ask_outcome(kind: str, edit: Edit, blinking: str = "", **slots: str) -> Asked:
    """Return a question about the outcome of an edit, from the moment when a shape blinks if it is given."""
    if edit.without:
        kind += "_without"
    if blinking:
        kind += "_when"
    return ask(kind, side=edit.side, z=edit.without or "", y=blinking, **slots)


def _imagine(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board = draw_board(rng, held_out)
    edit = draw_tipping(rng, board)
    after = edit.apply(board)
    in_view = rng.random() < 0.4
    slow: Slow = ((0, board),)
    if in_view:
        slow = (*slow, (rng.randrange(1, frames // FPS) * FPS, after))
    # Sometimes a blink between two seconds, so that a frame of any time is not good enough as the source.
    short: tuple[Short, ...] = ()
    if not in_view and rng.random() < 0.3:
        short = (draw_blink(rng, slow, rng.choice(board.pieces).shape, frames, False, held_out),)
    clip = Clip(frames, slow, short, edit)
    rare = _rare_shapes(board)
    wording = draw_outcome(rng, board, after, edit, prefer=rng.choice(rare) if rare else "")
    chain: tuple[Step, ...] = (describe_view(view_of(clip)), state_tipping(view_of(clip), edit))
    if not in_view:
        chain += generate(edit_query(edit), after)
    return Draft(wording, clip, chain, in_view)


def _both(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board = draw_board(rng, held_out)
    x = rng.choice(board.pieces).shape
    mover = rng.choice([p.shape for p in board.pieces if p.shape != x])
    slow = draw_hops(rng, board, mover, frames, rng.choice((1, 2, 3)))
    in_view = rng.random() < 1 / 3
    blink = draw_blink(rng, slow, x, frames, in_view, held_out)
    clip = Clip(frames, slow, (blink,))
    seen = board_during(clip, blink)
    edit = draw_tipping(rng, seen, keep=x)
    clip, after = replace(clip, edit=edit), edit.apply(seen)
    wording = draw_outcome(rng, seen, after, edit, x, mover if rng.random() < 0.5 else "")
    chain: tuple[Step, ...] = (describe_view(view_of(clip)), *look_for_blink(clip, x, rng))
    chain += (state_whether("tipped board", False), *generate(edit_query(edit, x), after))
    return Draft(wording, clip, chain, in_view)


MAKERS = {"observe": _observe, "blink": _blink, "imagine": _imagine, "both": _both}
"""For each family, the function that draws a question.

Its arguments are the source of randomness, the length of the clip in frames, and whether the clip must show a
held-out pair.
"""
