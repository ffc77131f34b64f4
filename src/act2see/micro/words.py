"""The language of the board world: the steps of a chain, descriptions of boards, and queries for edits."""

from __future__ import annotations

from dataclasses import dataclass

from act2see.micro.world import Board, Clip, Edit, cell_name


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of a chain."""

    tag: str
    query: str
    expect: Board
    """The board that the returned frame should show."""


Step = str | ToolCall
"""A step of a chain: text, or a tool call."""


def describe(board: Board) -> str:
    """Return the full description of a board, like "tipped to the left: northwest circle red, north ring
    blue."."""
    lead = f"tipped to the {board.tipped}: " if board.tipped else ""
    return lead + ", ".join(map(str, board.ordered())) + "."


def describe_view(clip: Clip, start: int = 0) -> str:
    """Return the description of the initial view: each frame in full, by the second, counted from `start`.

    Descriptions of changes alone would be shorter, but each would compare two frames, which micro does not
    learn well (after 1,000 steps it missed one change in ten). It describes single frames without errors.
    """
    seconds = [f"{second}: {describe(board)}" for second, board in enumerate(clip.view(), start)]
    return f"Second {' '.join(seconds)}"


def describe_moves(first: Board, last: Board) -> str:
    """Return the moves of all pieces, like "From start to end: circle west to east moved circle."."""
    moves = []
    for p in first.ordered():
        if now := last.find(p.shape):
            verdict = "still" if now.cell == p.cell else "moved"
            moves.append(f"{p.shape} {cell_name(p.cell)} to {cell_name(now.cell)} {verdict} {p.shape}")
    return "From start to end: " + ", ".join(moves) + "."


def describe_blink(shape: str, view: list[Board], start: int = 0) -> tuple[str, str]:
    """State whether a shape blinks in a view.

    Args:
        shape: The shape; "shape" for any.
        view: One board for each second.
        start: The number of the first second.

    Returns:
        The question, and its answer: "no.", or "yes" with the full description of the second of the blink.
    """
    asked = f"A {shape} blinks in these frames:"
    for second, board in enumerate(view, start):
        if board.lit and shape in ("shape", board.lit.shape):
            return asked, f"yes, {second}: {describe(board)}"
    return asked, "no."


def closing(lead: str, answer: str) -> str:
    """Return the end of a chain: the lead, in the question's own words, and the answer right after it.

    The answer is a word: micro would have to learn separately to find the letter of an option.
    """
    return f" {lead} {answer}.</think>\n<answer>{answer}</answer>"


def edit_query(edit: Edit, blinking: str | None = None) -> str:
    """Return the `<generate>` query for an edit, from the moment when `blinking` blinks if it is given."""
    return f"{edit} when the {blinking} blinks" if blinking else str(edit)


def describe_tipping(edit: Edit) -> str:
    """Return an edit in the words of questions."""
    away = f"the {edit.without} is taken away and " if edit.without else ""
    return f"{away}the board is tipped to the {edit.side}"
