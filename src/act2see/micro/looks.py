"""The steps with which a chain finds something out: from the view, or else from a retrieved frame.

Each search in the view says its result, "yes" or "no". After "no" the chain retrieves a frame, describes it,
and says whether it shows what was looked for. A clip need not show it: then any frame comes back.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from act2see.micro.words import Seen, Step, ToolCall, View, describe, describe_blink, view_of
from act2see.micro.world import FPS, Board, Clip, Edit, Short

SAMPLES = (4, 8)
"""The frames within a second, besides its first, that retrieval at 3 frames a second sees."""


def board_during(clip: Clip, event: Short) -> Board:
    """Return the board in the middle of a short event."""
    return clip.board((event.start + event.stop) // 2)


def sampled_frames(event: Short) -> list[int]:
    """Return the numbers of the frames of an event that sampling at 3 frames a second takes."""
    return [frame for frame in range(event.start, event.stop) if frame % (FPS // 3) == 0]


def seconds_of(frame: int) -> float:
    """Return the time of a frame, as traces round it."""
    return round(frame / FPS, 4)


def retrieve(query: str, seen: Board, at: float = 0.0) -> tuple[Step, ...]:
    """Return the retrieval of a frame and its description."""
    return ToolCall("retrieve", query, seen, at), Seen()


def retrieve_any(query: str, clip: Clip, rng: random.Random) -> tuple[Step, ...]:
    """Return a retrieval that cannot find what it looks for."""
    second = rng.randrange(clip.frames // FPS)
    frame = second * FPS + rng.choice(SAMPLES)
    return ToolCall("retrieve", query, clip.board(frame), seconds_of(frame), any_frame=True), Seen()


def generate(query: str, outcome: Board) -> tuple[Step, ...]:
    """Return the generation of a frame and its description."""
    return ToolCall("generate", query, outcome), f" {describe(outcome)}"


def find_blink(clip: Clip, shape: str) -> Short | None:
    """Return the first blink of a shape ("shape" for any) in a clip, or None."""
    blinks = [e for e in clip.short if e.kind == "blink" and shape in ("shape", e.piece.shape)]
    return min(blinks, key=lambda e: e.start, default=None)


def look_for_blink(clip: Clip, shape: str, rng: random.Random, view: View | None = None) -> tuple[Step, ...]:
    """Return the steps that find the blink of a shape.

    Args:
        clip: The clip.
        shape: The shape; "shape" for any.
        rng: The source of randomness.
        view: The initial view. Default: the clip's own.
    """
    asked, seen = describe_blink(shape, view_of(clip) if view is None else view)
    steps: tuple[Step, ...] = (f" {asked} {seen}",)
    if seen != "no.":
        return steps
    query = "a shape blinks" if shape == "shape" else f"the {shape} blinks"
    event = find_blink(clip, shape)
    if event is None:
        return (*steps, *retrieve_any(query, clip, rng), f" A {shape} is lit in it: no.")
    at = seconds_of(sampled_frames(event)[0])
    return (*steps, *retrieve(query, board_during(clip, event), at), f" A {shape} is lit in it: yes.")


def look_for_all_blinks(clip: Clip, rng: random.Random) -> tuple[Step, ...]:
    """Return the steps that find all blinks: those in view, then a look for each of the other shapes.

    The same call twice gets no second frame, so each look names its shape. The shapes that blink are counted
    as they are found, in the order of `blinks_found`.
    """
    found = blinks_found(clip)
    in_view = [event.piece.shape for event in found if event.in_view]
    others = [p.shape for p in clip.base(0).ordered() if p.shape not in in_view]
    lit = ", ".join(f"{shape} {n}" for n, shape in enumerate(in_view, 1)) or "none"
    steps: tuple[Step, ...] = (f" Lit in these frames: {lit}. Not lit: {', '.join(others) or 'none'}.",)
    count = len(in_view)
    for shape in others:
        query = f"the {shape} blinks"
        event = find_blink(clip, shape)
        if event is None:
            steps += (*retrieve_any(query, clip, rng), f" A {shape} is lit in it: no.")
            continue
        count += 1
        at = seconds_of(sampled_frames(event)[0])
        steps += retrieve(query, board_during(clip, event), at)
        steps += (f" A {shape} is lit in it: yes, {shape} {count}.",)
    return steps


def blinks_found(clip: Clip) -> list[Short]:
    """Return the blinks of a clip in the order in which a chain finds them: those in view come first."""
    order = [p.shape for p in clip.base(0).ordered()]
    blinks = [event for event in clip.short if event.kind == "blink"]
    return sorted(blinks, key=lambda e: (not e.in_view, e.start if e.in_view else order.index(e.piece.shape)))


def time_of_blink(clip: Clip, shape: str, view: View) -> float | None:
    """Return the time at which `look_for_blink` sees a blink, or None."""
    for second, board in view:
        if board.lit and shape in ("shape", board.lit.shape):
            return second
    event = find_blink(clip, shape)
    return seconds_of(sampled_frames(event)[0]) if event else None


def look_for_shape(clip: Clip, shape: str, rng: random.Random) -> tuple[Step, ...]:
    """Return the steps that find a shape: on the board, or as a guest between two seconds."""
    steps = (state_whether(shape, is_in_view(clip, shape)),)
    if is_in_view(clip, shape):
        return steps
    guest = find_guest(clip, shape)
    if guest is None:
        return (*steps, *retrieve_any(f"the {shape}", clip, rng), f" A {shape} is in it: no.")
    at = seconds_of(sampled_frames(guest)[0])
    return (*steps, *retrieve(f"the {shape}", board_during(clip, guest), at), f" A {shape} is in it: yes.")


def find_guest(clip: Clip, shape: str) -> Short | None:
    """Return the short visit of a shape, or None."""
    return next((e for e in clip.short if e.kind == "guest" and e.piece.shape == shape), None)


def is_in_view(clip: Clip, shape: str) -> bool:
    """Return whether a frame of the initial view shows a shape."""
    return any(board.find(shape) for _, board in view_of(clip))


def state_whether(what: str, present: bool) -> str:
    """Return whether the view shows something, like " A ring in these frames: no."."""
    return f" A {what} in these frames: {'yes' if present else 'no'}."


def state_tipping(view: View, edit: Edit) -> str:
    """Return whether the view shows a tipped board, and its side.

    For example " A tipped board in these frames: yes, left.".

    For an edit without a shape it also says whether the shape is on a board that is tipped to the asked side.
    """
    tipped = next((board for _, board in view if board.tipped), None)
    if tipped is None:
        return state_whether("tipped board", False)
    text = f" A tipped board in these frames: yes, {tipped.tipped}."
    if edit.without and tipped.tipped == edit.side:
        text += f" The {edit.without} is on it: {'yes' if tipped.find(edit.without) else 'no'}."
    return text


def calls_of(chain: Sequence[Step]) -> list[ToolCall]:
    """Return the tool calls of a chain."""
    return [step for step in chain if isinstance(step, ToolCall)]
