"""The language of the board world: the steps of a chain, how they describe boards, and how queries name an
edit."""

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
"""Text, or a call."""


def describe(board: Board) -> str:
    """A board in full: "tipped to the left: northwest circle red, north ring blue."."""
    lead = f"tipped to the {board.tipped}: " if board.tipped else ""
    return lead + ", ".join(map(str, board.ordered())) + "."


def describe_view(clip: Clip, start: int = 0) -> str:
    """The initial view: every frame in full, second by second, counted from `start`.

    Naming only what changed is shorter, but makes each second a comparison of two frames, which micro does
    not learn well (one change in ten missed after 1,000 steps); it describes one frame at a time without
    fault.
    """
    seconds = [f"{second}: {describe(board)}" for second, board in enumerate(clip.view(), start)]
    return f"Second {' '.join(seconds)}"


def moved(first: Board, last: Board) -> str:
    """From where to where each piece of `first` moved until `last`: "From start to end: circle west to east
    moved circle."."""
    moves = []
    for p in first.ordered():
        if now := last.find(p.shape):
            verdict = "still" if now.cell == p.cell else "moved"
            moves.append(f"{p.shape} {cell_name(p.cell)} to {cell_name(now.cell)} {verdict} {p.shape}")
    return "From start to end: " + ", ".join(moves) + "."


def blinks(shape: str, view: list[Board], start: int = 0) -> tuple[str, str]:
    """Whether a shape blinks in a view.

    Args:
        shape: The shape; "shape" for any.
        view: One board a second.
        start: The number of the first second.

    Returns:
        How it is asked, and the answer: "no." or the second of the blink, in full.
    """
    asked = f"A {shape} blinks in these frames:"
    for second, board in enumerate(view, start):
        if board.lit and shape in ("shape", board.lit.shape):
            return asked, f"yes, {second}: {describe(board)}"
    return asked, "no."


def closing(lead: str, answer: str) -> str:
    """How a chain ends: the question's own words, then the answer, so that the asked word comes right after
    them.

    Answers are in words: to find the letter of an option is a skill that would have to be learnt too.
    """
    return f" {lead} {answer}.</think>\n<answer>{answer}</answer>"


def edit_query(edit: Edit, blinking: str | None = None) -> str:
    """The `<generate>` query for an edit, from the moment at which a shape blinks if one is named."""
    return f"{edit} when the {blinking} blinks" if blinking else str(edit)


def tipping(edit: Edit) -> str:
    """An edit as questions name it."""
    away = f"the {edit.without} is taken away and " if edit.without else ""
    return f"{away}the board is tipped to the {edit.side}"
