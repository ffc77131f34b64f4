"""Questions about the tipping of a board that is tipped in the clip already.

The clip's own tipping answers the question if it goes to the same side, with the same pieces. Any other is
imagined. The order along each row is kept, so the outcome is the same from each frame of the clip.
"""

from __future__ import annotations

import random

from act2see.micro.drafts import Draft
from act2see.micro.draws import draw_blink, draw_board, draw_tipping
from act2see.micro.families import draw_outcome
from act2see.micro.looks import board_during, generate, look_for_blink, state_tipping
from act2see.micro.words import Step, describe_view, edit_query, view_of
from act2see.micro.world import FPS, SIDES, Board, Clip, Edit, Slow

_SAME = 0.3  # share of the questions about the tipping that the clip shows
_WITH_BLINK = 0.3


def draw_again(rng: random.Random, frames: int, held_out: bool) -> Draft:
    """Draw a question about a tipping, for a clip that shows one."""
    board = draw_board(rng, held_out)
    same = rng.random() < _SAME
    shown = draw_tipping(rng, board) if same else Edit(rng.choice(SIDES))
    slow: Slow = ((0, board), (rng.randrange(1, frames // FPS) * FPS, shown.apply(board)))
    if not same and rng.random() < _WITH_BLINK:
        return _at_a_blink(rng, slow, frames, shown, held_out)
    edit = shown if same else _draw_other(rng, board, shown)
    clip = Clip(frames, slow, edit=edit)
    after = edit.apply(board)
    view = view_of(clip)
    chain: tuple[Step, ...] = (describe_view(view), state_tipping(view, edit))
    if edit != shown:
        chain += generate(edit_query(edit), after)
    return Draft(draw_outcome(rng, board, after, edit), clip, chain, edit == shown)


def _at_a_blink(rng: random.Random, slow: Slow, frames: int, shown: Edit, held_out: bool) -> Draft:
    x = rng.choice(slow[0][1].pieces).shape
    in_view = rng.random() < 0.4
    blink = draw_blink(rng, slow, x, frames, in_view, held_out)
    clip = Clip(frames, slow, (blink,))
    seen = board_during(clip, blink)
    edit = _draw_other(rng, seen, shown, keep=x)
    after = edit.apply(seen)
    view = view_of(clip)
    chain: tuple[Step, ...] = (describe_view(view), *look_for_blink(clip, x, rng))
    chain += (state_tipping(view, edit), *generate(edit_query(edit, x), after))
    clip = Clip(frames, slow, (blink,), edit)
    return Draft(draw_outcome(rng, seen, after, edit, x), clip, chain, in_view)


def _draw_other(rng: random.Random, board: Board, shown: Edit, keep: str = "") -> Edit:
    """Draw a tipping other than the one that a clip shows."""
    while True:
        edit = draw_tipping(rng, board, keep)
        if edit != shown:
            return edit
