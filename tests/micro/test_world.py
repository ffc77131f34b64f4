"""The board world: pictures that can be read back, tipping, and events in and out of view."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.micro.draws import draw_board, draw_short
from act2see.micro.questions import FAMILIES, make_item
from act2see.micro.world import (
    CELLS,
    COLOURS,
    FPS,
    GRID,
    HELD_OUT,
    SHAPES,
    SIDES,
    Board,
    Clip,
    Edit,
    Piece,
    Short,
    cell_name,
    read_board,
    render,
    write_clip,
)
from act2see.tools.video.reader import frames_at, open_video


def equal_boards(a: Board, b: Board) -> bool:
    return set(a.pieces) == set(b.pieces) and a.tipped == b.tipped


@st.composite
def boards(draw: st.DrawFn) -> Board:
    shapes = draw(st.lists(st.sampled_from(SHAPES), unique=True, max_size=5))
    cells = draw(st.permutations(CELLS))
    colours = [draw(st.sampled_from(sorted(COLOURS))) for _ in shapes]
    return Board(tuple(map(Piece, shapes, colours, cells)))


@pytest.mark.parametrize("size", [48, 192])
@pytest.mark.parametrize("shape", SHAPES)
def test_read_board_reads_every_piece(shape: str, size: int) -> None:
    for n, (colour, lit) in enumerate(product(COLOURS, (False, True))):
        for tipped in (None, *SIDES):
            board = Board((Piece(shape, colour, CELLS[n % len(CELLS)], lit),), tipped)
            assert equal_boards(read_board(render(board, size)), board)


@settings(max_examples=40, deadline=None)
@given(boards(), st.sampled_from((None, *SIDES)), st.integers(0, 4))
def test_read_board_reads_whole_boards(board: Board, side: str | None, lit: int) -> None:
    if side:
        board = board.tip(side)
    if lit < len(board.pieces):
        board = board.change(board.pieces[lit].shape, lit=True)
    assert equal_boards(read_board(render(board, 48)), board)


@settings(max_examples=100, deadline=None)
@given(boards(), st.sampled_from(SIDES))
def test_tipping_keeps_the_order_and_loses_nothing(board: Board, side: str) -> None:
    after = board.tip(side)
    assert after.tipped == side
    assert {(p.shape, p.colour, p.cell[0]) for p in after.pieces} == {
        (p.shape, p.colour, p.cell[0]) for p in board.pieces
    }
    for row in range(GRID):
        before_row = [p.shape for p in board.ordered() if p.cell[0] == row]
        after_row = [p for p in after.ordered() if p.cell[0] == row]
        assert [p.shape for p in after_row] == before_row
        columns = [p.cell[1] for p in after_row]
        n = len(columns)
        assert columns == (list(range(n)) if side == "left" else list(range(GRID - n, GRID)))
    assert equal_boards(after.tip(side), after)


def test_an_edit_can_remove_a_shape_first() -> None:
    board = Board((Piece("circle", "red", (0, 0)), Piece("ring", "green", (0, 2))))
    edit = Edit("left", "circle")
    assert edit.apply(board) == Board((Piece("ring", "green", (0, 0)),), "left")
    assert str(edit) == "the board tipped to the left without the circle"
    assert [cell_name(c) for c in ((0, 0), (2, 2))] == ["northwest", "southeast"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_as_h264_shows_the_right_board_at_every_third_of_a_second(family: str, tmp_path: Path) -> None:
    clip = make_item(family, 3, "validation", seconds=6).clip  # type: ignore[arg-type]
    video = open_video(write_clip(clip, tmp_path / "clip.mp4"))
    assert video.frames == clip.frames
    assert video.seconds == pytest.approx(clip.seconds, abs=0.01)
    wanted = frames_at(video.timestamps, [n / 3 for n in range(3 * clip.frames // FPS)])
    assert wanted == list(range(0, clip.frames, FPS // 3))
    for n, seconds, pixels in video.read(wanted):
        assert equal_boards(read_board(np.asarray(pixels)), clip.at(seconds)), f"at {seconds} s"
        assert clip.at(seconds) == clip.board(n)


@pytest.mark.parametrize("kind", ["blink", "guest"])
@pytest.mark.parametrize("seconds", [6, 12])
@pytest.mark.parametrize("in_view", [False, True])
def test_short_events_are_in_view_only_around_whole_seconds(kind: str, seconds: int, in_view: bool) -> None:
    rng = random.Random(seconds)
    base = Board((Piece("circle", "red", (0, 0)), Piece("square", "blue", (1, 1))))
    piece = Piece("circle", "green", (0, 0), True) if kind == "blink" else Piece("ring", "green", (2, 2))
    frames = seconds * FPS
    for _ in range(200):
        short = draw_short(rng, kind, piece, frames, in_view)
        assert 0.35 <= (short.stop - short.start) / FPS <= 0.6
        assert short.in_view == in_view
        clip = Clip(frames, ((0, base),), (short,))
        assert any(b != base for b in clip.view()) == in_view
        # Retrieval at 3 fps must be able to see the event.
        assert any(clip.board(f) != base for f in range(0, frames, FPS // 3))
        assert clip.board(0) == base
        assert clip.board(frames - 1) == base


@pytest.mark.parametrize("in_view", [False, True])
def test_nothing_else_changes_during_a_short_event(in_view: bool) -> None:
    rng = random.Random(0)
    piece = Piece("circle", "green", (0, 0), True)
    base = Board((Piece("circle", "red", (0, 0)),))
    slow = tuple((at * FPS, base.change("circle", cell=CELLS[at])) for at in (0, 1, 3, 4))
    for _ in range(50):
        short = draw_short(rng, "blink", piece, 72, in_view, slow)
        assert not any(short.start < at < short.stop for at, _ in slow)
    everywhere = tuple((at, base) for at in range(0, 72, 2))
    with pytest.raises(ValueError, match="no room for another guest"):
        draw_short(rng, "guest", piece, 72, in_view, everywhere)


def test_the_board_changes_over_time() -> None:
    base = Board((Piece("circle", "red", (0, 0)),))
    later = base.change("circle", cell=(2, 2))
    clip = Clip(
        48, ((0, base), (24, later)), (Short("blink", Piece("circle", "blue", (0, 0), True), 28, 33),)
    )
    assert clip.at(1.99) == base
    assert clip.at(2.0) == later
    # Traces round seconds: 28 / 12 is 2.3333 there, and still shows the blink's first frame.
    assert clip.at(2.3333) == clip.board(28) != later
    # A blink lights the shape in its current cell.
    assert clip.board(30) == Board((Piece("circle", "blue", (2, 2), True),))
    assert clip.at(99.0) == later
    assert clip.seconds == 4.0


def test_held_out_pairs_are_one_for_each_shape_and_drawn_on_request_only() -> None:
    assert sorted(s for s, _ in HELD_OUT) == sorted(SHAPES)
    rng = random.Random(0)
    for held_out in (False, True):
        for _ in range(100):
            pairs = {(p.shape, p.colour) for p in draw_board(rng, held_out).pieces}
            assert bool(pairs & HELD_OUT) == held_out
