"""Questions about what happens: when, how many, is there, which first, two moments, what changed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from act2see.micro.drafts import (
    DARK,
    NEITHER_BLINKS,
    NEITHER_MOVES,
    NO_BLINK,
    STILL,
    Draft,
    absent_shape,
    board_and_mover,
    draft,
    draw_blinks,
    draw_options,
    draw_yes_or_no,
    is_seen_once,
    shown_second,
    yes_or_no,
)
from act2see.micro.draws import draw_board, draw_guest, draw_hops
from act2see.micro.looks import (
    board_during,
    find_blink,
    look_for_all_blinks,
    look_for_blink,
    look_for_shape,
    sampled_frames,
    seconds_of,
)
from act2see.micro.plain import add_tipping
from act2see.micro.words import (
    Step,
    count_colour,
    count_pieces,
    describe_moves,
    describe_path,
    describe_view,
    list_seconds,
    move_times,
    name_changes,
    name_times,
    view_of,
)
from act2see.micro.world import COLOURS, FPS, Board, Clip, Short, Slow, cell_name


def draw_when(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question for a time."""
    kind = rng.choice(
        ("when_blinks", "when_blinks", "when_any_blinks", "when_moves", "when_moves", "when_appears")
    )
    if kind == "when_moves":
        return when_moves(rng, frames, held_out, rng.choice((1, 1, 2)))
    if kind == "when_appears":
        return _when_appears(rng, frames, held_out)
    return when_blinks(rng, frames, held_out, kind, blinks=True)


def when_blinks(rng: random.Random, frames: int, held_out: bool, kind: str, blinks: bool) -> Draft:
    """Draw a question for the time of a blink; without `blinks` there is none."""
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1, 2)))
    x = rng.choice(board.pieces).shape
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, [x] if blinks else _others(rng, board, x, kind)))
    name = "shape" if kind == "when_any_blinks" else x
    chain = look_for_blink(clip, name, rng)
    slots = {} if name == "shape" else {"x": x}
    if not blinks:
        answer = NO_BLINK if name == "shape" else DARK.format(x=x)
        return draft(clip, kind, chain, "", answer, **slots)
    event = find_blink(clip, name)
    assert event is not None, "the clip was drawn with a blink"
    answer = name_times([seconds_of(sampled_frames(event)[0])])
    return draft(clip, kind, chain, f"A {name} blinks", answer, **slots)


def _others(rng: random.Random, board: Board, x: str, kind: str) -> list[str]:
    """Return the shapes that blink in a clip in which `x` does not: sometimes another one."""
    if kind in ("when_any_blinks", "any_blinks", "which_blinks") or rng.random() < 0.5:
        return []
    return [rng.choice([p.shape for p in board.pieces if p.shape != x])]


def when_moves(rng: random.Random, frames: int, held_out: bool, times: int) -> Draft:
    """Draw a question for the times at which a shape moves, `times` of them."""
    board, x = board_and_mover(rng, held_out)
    other = rng.choice([p.shape for p in board.pieces if p.shape != x])
    slow = draw_hops(rng, board, x, frames, times) if times else draw_hops(rng, board, other, frames, 1)
    clip = Clip(frames, slow)
    view = view_of(clip)
    chain = (f" {describe_path(x, view)}",)
    if not times:
        return draft(clip, "when_moves", chain, "", STILL.format(x=x), x=x)
    return draft(clip, "when_moves", chain, f"The {x} moves", name_times(move_times(x, view)), x=x)


def _when_appears(rng: random.Random, frames: int, held_out: bool) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 1)))
    if rng.random() < 0.3:
        x = rng.choice(board.pieces).shape
        clip = Clip(frames, slow)
        chain = (*look_for_shape(clip, x, rng), f" {describe_path(x, view_of(clip))}")
        return draft(clip, "when_appears", chain, f"The {x} is there", "from the start", x=x)
    guest = draw_seen_guest(rng, slow, frames, rng.random() < 0.4, held_out)
    clip = Clip(frames, slow, (guest,))
    x = guest.piece.shape
    chain = look_for_shape(clip, x, rng)
    if guest.in_view:
        chain += (f" {describe_path(x, view_of(clip))}",)
    answer = name_times([seconds_of(sampled_frames(guest)[0])])
    return draft(clip, "when_appears", chain, f"The {x} appears", answer, x=x)


def draw_seen_guest(rng: random.Random, slow: Slow, frames: int, in_view: bool, held_out: bool) -> Short:
    """Draw a guest that retrieval sees in exactly one frame."""
    while True:
        guest = draw_guest(rng, slow, frames, in_view, held_out)
        if is_seen_once(guest):
            return guest


def draw_count(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question for a number."""
    kind = rng.choice(
        (
            "how_many",
            "how_many_colour",
            "how_many_colour",
            "how_many_moves",
            "how_many_moves",
            "how_many_blink",
        )
    )
    if kind == "how_many_blink":
        return _how_many_blink(rng, frames, held_out)
    board, mover = board_and_mover(rng, held_out)
    if rng.random() < 0.4:
        # Pieces of one colour, so that there is something to count.
        board = _repeat_colour(rng, board)
    clip = Clip(frames, draw_hops(rng, board, mover, frames, rng.choice((0, 1, 2, 3))))
    numbers = ["0", "1", "2", "3", "4", "5"]
    if kind == "how_many":
        answer = str(len(board.pieces))
        options = draw_options(rng, answer, numbers)
        return draft(clip, kind, (f" {count_pieces(board)}",), "Their number is", answer, options)
    if kind == "how_many_colour":
        colour = rng.choice(board.pieces).colour if rng.random() < 0.75 else rng.choice(list(COLOURS))
        answer = str(sum(p.colour == colour for p in board.pieces))
        options = draw_options(rng, answer, numbers)
        chain = (f" {count_colour(board, colour)}",)
        return draft(clip, kind, chain, "Their number is", answer, options, colour=colour)
    x = mover if rng.random() < 0.75 else rng.choice(board.pieces).shape
    view = view_of(clip)
    answer = str(len(move_times(x, view)))
    options = draw_options(rng, answer, numbers)
    return draft(clip, kind, (f" {describe_path(x, view)}",), "Its moves are", answer, options, x=x)


def _repeat_colour(rng: random.Random, board: Board) -> Board:
    """Return the board with the colour of one piece given to others that may have it."""
    from act2see.micro.draws import is_allowed

    colour = rng.choice(board.pieces).colour
    for p in board.pieces:
        if rng.random() < 0.6 and is_allowed(p.shape, colour, False):
            board = board.change(p.shape, colour=colour)
    return board


def _how_many_blink(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask how many shapes blink, or how often one of them does.

    The chain counts those in view and, one after the other, those that a look shows.
    """
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    shapes = rng.sample([p.shape for p in board.pieces], rng.choice((0, 1, 1, 2, 2)))
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, shapes))
    if rng.random() < 0.5:
        # Each shape blinks once at most in the board world.
        x = rng.choice(shapes) if shapes and rng.random() < 0.7 else rng.choice(board.pieces).shape
        answer = "1" if x in shapes else "0"
        options = draw_options(rng, answer, ["0", "1", "2", "3"])
        return draft(
            clip, "how_many_blinks", look_for_blink(clip, x, rng), "Its blinks are", answer, options, x=x
        )
    chain = look_for_all_blinks(clip, rng)
    return draft(clip, "how_many_blink", chain, "Their number is", str(len(clip.short)))


def draw_exists(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question whether something is there or happens."""
    kind = rng.choice(
        (
            "is_there",
            "is_there",
            "is_there_colour",
            "does_move",
            "does_blink",
            "does_blink",
            "any_moves",
            "any_blinks",
        )
    )
    if kind in ("is_there", "is_there_colour"):
        return _is_there(rng, frames, held_out, kind)
    board, mover = board_and_mover(rng, held_out)
    happens = rng.random() < 0.5
    if kind in ("does_move", "any_moves"):
        hops = rng.choice((1, 2)) if happens or kind == "does_move" else 0
        slow = draw_hops(rng, board, mover, frames, hops)
        clip = Clip(frames, slow, draw_blinks(rng, slow, frames, _others(rng, board, mover, "")))
        if kind == "any_moves":
            chain = (f" {describe_moves(board, slow[-1][1])}",)
            return draft(clip, kind, chain, "A shape moved:", yes_or_no(happens), draw_yes_or_no(rng))
        x = mover if happens else rng.choice([p.shape for p in board.pieces if p.shape != mover])
        path = (f" {describe_path(x, view_of(clip))}",)
        return draft(clip, kind, path, f"The {x} moved:", yes_or_no(happens), draw_yes_or_no(rng), x=x)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1, 2)))
    x = rng.choice(board.pieces).shape
    clip = Clip(
        frames, slow, draw_blinks(rng, slow, frames, [x] if happens else _others(rng, board, x, kind))
    )
    name = "shape" if kind == "any_blinks" else x
    slots = {} if name == "shape" else {"x": x}
    found = look_for_blink(clip, name, rng)
    return draft(clip, kind, found, f"A {name} blinks:", yes_or_no(happens), draw_yes_or_no(rng), **slots)


def _is_there(rng: random.Random, frames: int, held_out: bool, kind: str) -> Draft:
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 1)))
    clip = Clip(frames, slow)
    draw = rng.random()
    if draw < 0.35:
        guest = draw_seen_guest(rng, slow, frames, rng.random() < 0.3, held_out)
        clip = replace(clip, short=(guest,))
        x, colour = guest.piece.shape, guest.piece.colour
    elif draw < 0.65:
        p = rng.choice(board.pieces)
        x, colour = p.shape, p.colour
    else:
        x, colour = absent_shape(rng, board), ""
    chain = look_for_shape(clip, x, rng)
    if kind == "is_there":
        return draft(clip, kind, chain, f"A {x} is there:", yes_or_no(bool(colour)), draw_yes_or_no(rng), x=x)
    asked = colour if colour and rng.random() < 0.6 else rng.choice(list(COLOURS))
    if colour:
        chain += (f" The {x} is {colour}.",)
    lead = f"A {asked} {x} is there:"
    answer = yes_or_no(asked == colour)
    return draft(clip, kind, chain, lead, answer, draw_yes_or_no(rng), colour=asked, x=x)


_FIRST_OR_LAST = ("which_first", "which_first", "which_first", "which_last")


def draw_first(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question which of two shapes blinks or moves first, or last."""
    if rng.random() < 0.4:
        return first_to_move(rng, frames, held_out, rng.choice((2, 2, 2, 1)))
    return first_to_blink(rng, frames, held_out, rng.choice((2, 2, 2, 2, 1)))


def first_to_blink(rng: random.Random, frames: int, held_out: bool, blinking: int) -> Draft:
    """Draw a question which of two shapes blinks first, or last; `blinking` of them do."""
    kind = rng.choice(_FIRST_OR_LAST)
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 0, 1)))
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    shapes = rng.sample([x, y], blinking)
    events = draw_blinks(rng, slow, frames, shapes)
    clip = Clip(frames, slow, events)
    chain = (*look_for_blink(clip, x, rng), *look_for_blink(clip, y, rng))
    seconds = {event.piece.shape: shown_second(event) for event in events}
    chain += (list_seconds({shape: seconds.get(shape, "never") for shape in (x, y)}),)
    if not seconds:
        return draft(clip, kind, chain, "", NEITHER_BLINKS, x=x, y=y)
    lead, answer = name_extreme(seconds, kind)
    return draft(clip, kind, chain, lead, answer, rng.choice(((x, y), (y, x))), x=x, y=y)


def first_to_move(rng: random.Random, frames: int, held_out: bool, moving: int) -> Draft:
    """Draw a question which of two shapes moves first, or last; `moving` of them do."""
    kind = f"{rng.choice(_FIRST_OR_LAST)}_moves"
    asked = 0 if kind == "which_first_moves" else -1
    board, _ = board_and_mover(rng, held_out)
    x, y = rng.sample([p.shape for p in board.pieces], 2)
    clip = Clip(frames, draw_moves(rng, board, rng.sample([x, y], moving), frames))
    view = view_of(clip)
    seconds = {shape: times[asked] for shape in (x, y) if (times := move_times(shape, view))}
    said = list_seconds({shape: seconds.get(shape, "never") for shape in (x, y)})
    chain = (f" {describe_path(x, view)} {describe_path(y, view)}{said}",)
    if not seconds:
        return draft(clip, kind, chain, "", NEITHER_MOVES, x=x, y=y)
    lead, answer = name_extreme(seconds, kind)
    return draft(clip, kind, chain, lead, answer, rng.choice(((x, y), (y, x))), x=x, y=y)


def name_extreme(seconds: Mapping[str, int], kind: str) -> tuple[str, str]:
    """Return the beginning of the conclusion, and the shape of the first or the last second."""
    if "last" in kind:
        return "Last is the", max(seconds, key=lambda shape: seconds[shape])
    return "First is the", min(seconds, key=lambda shape: seconds[shape])


def draw_moves(rng: random.Random, board: Board, movers: list[str], frames: int) -> Slow:
    """Draw a board over time on which each mover hops once or twice, one at a time."""
    hops = [shape for shape in movers for _ in range(rng.choice((1, 1, 2)))]
    rng.shuffle(hops)
    del hops[frames // FPS - 1 :]  # nothing hops before the first second
    seconds = sorted(rng.sample(range(1, frames // FPS), len(hops)))
    slow = [(0, board)]
    for second, shape in zip(seconds, hops, strict=True):
        last = slow[-1][1]
        slow.append((second * FPS, last.change(shape, cell=rng.choice(last.free))))
    return tuple(slow)


def draw_two(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question about the moments of two blinks."""
    return two_moments(rng, frames, held_out, rng.choice(("two_blinks", "moved_between")), 2)


def two_moments(rng: random.Random, frames: int, held_out: bool, kind: str, blinking: int) -> Draft:
    """Draw a question about the place of a shape at two blinks; `blinking` of them take place."""
    board = draw_board(rng, held_out)
    x, y, z = rng.sample([p.shape for p in board.pieces], 3)
    slow = draw_hops(rng, board, x, frames, rng.choice((1, 2, 3)))
    shapes = rng.sample([y, z], blinking)
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, shapes))
    chain: tuple[Step, ...] = ()
    places = []
    for shape in (y, z):
        chain += look_for_blink(clip, shape, rng)
        event = find_blink(clip, shape)
        if event is None:
            return draft(clip, kind, chain, "", DARK.format(x=shape), x=x, y=y, z=z)
        place = cell_name(board_during(clip, event).piece(x).cell)
        places.append(place)
        chain += (f" With the {shape} lit the {x} is at {place}.",)
    if kind == "two_blinks":
        return draft(clip, kind, chain, f"The {x} is at", f"{places[0]}, then {places[1]}", x=x, y=y, z=z)
    answer = yes_or_no(places[0] != places[1])
    chain += (f" {places[0]} to {places[1]}.",)
    return draft(clip, kind, chain, f"The {x} moved:", answer, draw_yes_or_no(rng), x=x, y=y, z=z)


def draw_changes(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask what changes from start to end."""
    board, mover = board_and_mover(rng, held_out)
    movers = [mover] if rng.random() < 0.6 else rng.sample([p.shape for p in board.pieces], 2)
    slow: Slow = ((0, board),) if rng.random() < 0.15 else draw_moves(rng, board, movers, frames)
    clip = Clip(frames, slow)
    if rng.random() < 0.2:
        clip = add_tipping(rng, clip)
    first, last = clip.slow[0][1], clip.slow[-1][1]
    tipped = " A tipped board in these frames: " + ("yes." if last.tipped else "no.")
    chain = (tipped, f" {describe_moves(first, last)}")
    return draft(clip, "what_changed", chain, "", name_changes(first, last))


def draw_describe(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Ask for a description of the clip. The answer is the description of the view, written only once."""
    board, mover = board_and_mover(rng, held_out)
    slow = draw_hops(rng, board, mover, frames, rng.choice((0, 1, 2, 3)))
    x = rng.choice(board.pieces).shape
    clip = Clip(frames, slow, draw_blinks(rng, slow, frames, rng.choice(([], [x]))))
    if rng.random() < 0.15:
        clip = add_tipping(rng, clip)
    made = draft(clip, "describe", (), "", describe_view(view_of(clip)))
    return replace(made, chain=())
