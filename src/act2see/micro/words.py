"""The language of the board world: the steps of a chain, descriptions of boards, and queries for edits.

A chain looks up what it needs step by step, and says each result: micro finds a word by its neighbour, so a
step brings the words together that the next one needs (`docs/decisions.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from act2see.micro.world import Board, Cell, Clip, Edit, Piece, cell_name

View = Sequence[tuple[int, Board]]
"""The frames that a model sees first: the second and the board of each."""
LONGEST_VIEW = 12
"""The largest number of frames in a view. The view of a longer clip leaves out seconds without a change."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of a chain."""

    tag: str
    query: str
    expect: Board
    """The board that the returned frame should show."""
    at: float = 0.0
    """The time of that frame in seconds; without meaning for an imagined one."""
    any_frame: bool = False
    """Whether the clip does not show what the query looks for: then a frame of any time may come back, or
    none."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A step that describes the frame of the last retrieval, whichever it is. Without a frame it is empty."""


Step = str | ToolCall | Seen
"""A step of a chain: text, a tool call, or the description of a retrieved frame."""


def describe(board: Board) -> str:
    """Return the full description of a board, like "tipped to the left: northwest circle red, north ring
    blue."."""
    lead = f"tipped to the {board.tipped}: " if board.tipped else ""
    return lead + ", ".join(map(str, board.ordered())) + "."


def describe_seen(seconds: float, board: Board) -> str:
    """Return the description of a retrieved frame, like " 3.7: north ring blue."."""
    return f" {seconds:.1f}: {describe(board)}"


def view_of(clip: Clip, start: int = 0) -> list[tuple[int, Board]]:
    """Return the initial view of a clip, with the seconds counted from `start`.

    It has a frame for each whole second. If these are more than `LONGEST_VIEW`, it has only those that differ
    from the one before, and the last.
    """
    every = list(enumerate(clip.view(), start))
    if len(every) <= LONGEST_VIEW:
        return every
    changed = [every[0]]
    for second, board in every[1:-1]:
        if board != changed[-1][1]:
            changed.append((second, board))
    return [*changed[: LONGEST_VIEW - 1], every[-1]]


def describe_view(view: View) -> str:
    """Return the description of a view: each frame in full, with its second.

    Descriptions of changes alone would be shorter, but each would compare two frames, which micro does not
    learn well (after 1,000 steps it missed one change in ten). It describes single frames without errors.
    """
    return "Second " + " ".join(f"{second}: {describe(board)}" for second, board in view)


def describe_moves(first: Board, last: Board) -> str:
    """Return the moves of all pieces, like "From start to end: circle west to east moved circle."."""
    moves = []
    for p in first.ordered():
        if now := last.find(p.shape):
            verdict = "still" if now.cell == p.cell else "moved"
            moves.append(f"{p.shape} {cell_name(p.cell)} to {cell_name(now.cell)} {verdict} {p.shape}")
    return "From start to end: " + ", ".join(moves) + "."


def describe_blink(shape: str, view: View) -> tuple[str, str]:
    """State whether a shape blinks in a view.

    Args:
        shape: The shape; "shape" for any.
        view: The view.

    Returns:
        The question, and its answer: "no.", or "yes" with the full description of the second of the blink.
    """
    asked = f"A {shape} blinks in these frames:"
    for second, board in view:
        if board.lit and shape in ("shape", board.lit.shape):
            return asked, f"yes, {second}: {describe(board)}"
    return asked, "no."


def describe_path(shape: str, view: View) -> str:
    """Return the place of a shape in each second, like "ring: 0 north, 1 east moved 1, 2 none.".

    A change of place is counted. A second in which the shape is not on the board is none, and no move.
    """
    moves = move_times(shape, view)
    steps = []
    for second, board in view:
        p = board.find(shape)
        step = f"{second} {cell_name(p.cell) if p else 'none'}"
        if second in moves:
            step += f" moved {moves.index(second) + 1}"
        steps.append(step)
    return f"{shape}: {', '.join(steps)}."


def describe_row(cell: Cell) -> str:
    """Return a place with its row and column, from the top left: "north row 1 column 2"."""
    row, column = cell
    return f"{cell_name(cell)} row {row + 1} column {column + 1}"


def describe_level(view: View) -> str:
    """Return whether the board is tipped in each second, like "board: 0 level, 1 level, 2 tipped."."""
    steps = (f"{second} {'tipped' if board.tipped else 'level'}" for second, board in view)
    return f"board: {', '.join(steps)}."


def moved_shapes(first: Board, last: Board) -> list[str]:
    """Return the shapes that have another place at the end than at the start, in the order of the board."""
    pairs = ((p, last.find(p.shape)) for p in first.ordered())
    return [p.shape for p, now in pairs if now and now.cell != p.cell]


def move_times(shape: str, view: View) -> list[int]:
    """Return the seconds of a view at which a shape has another place than before."""
    times = []
    last: Piece | None = None
    for second, board in view:
        p = board.find(shape)
        if p and last and p.cell != last.cell:
            times.append(second)
        last = p or last
    return times


def places_on_path(shape: str, view: View) -> list[str]:
    """Return the places of a shape in a view, in order, each only once in a row."""
    places: list[str] = []
    for _, board in view:
        p = board.find(shape)
        if p and places[-1:] != [cell_name(p.cell)]:
            places.append(cell_name(p.cell))
    return places


def count_pieces(board: Board) -> str:
    """Return the pieces of a board, numbered, like "Shapes: circle 1, ring 2."."""
    return "Shapes: " + ", ".join(f"{p.shape} {n}" for n, p in enumerate(board.ordered(), 1)) + "."


def count_colour(board: Board, colour: str) -> str:
    """Return the pieces with their colours, and number those of one colour.

    For example "Shapes that are red: circle red 1, square blue, ring red 2.".
    """
    parts = []
    count = 0
    for p in board.ordered():
        part = f"{p.shape} {p.colour}"
        if p.colour == colour:
            count += 1
            part += f" {count}"
        parts.append(part)
    return f"Shapes that are {colour}: {', '.join(parts)}."


def list_pieces(board: Board) -> str:
    """Return the pieces of a board without their places: "circle red, ring blue"."""
    return ", ".join(f"{p.shape} {p.colour}" for p in board.ordered())


def list_shapes(pieces: Sequence[Piece]) -> str:
    """Return the shapes of pieces: "circle and ring"."""
    return " and ".join(p.shape for p in pieces)


def list_seconds(seconds: Mapping[str, int | str]) -> str:
    """Return the second of each shape, like " In second: ring 2, circle never."."""
    return f" In second: {', '.join(f'{shape} {second}' for shape, second in seconds.items())}."


def name_changes(first: Board, last: Board) -> str:
    """Return what differs between two boards in sentences, or "Nothing changes."."""
    sentences = [f"The board is tipped to the {last.tipped}."] if last.tipped != first.tipped else []
    for p in first.ordered():
        now = last.find(p.shape)
        if now and now.cell != p.cell:
            sentences.append(f"The {p.shape} moves from {cell_name(p.cell)} to {cell_name(now.cell)}.")
    return " ".join(sentences) or "Nothing changes."


def name_times(times: Sequence[float]) -> str:
    """Return times as an answer: "at 3.7 s", "at 2 and 5 s"."""
    return f"at {' and '.join(f'{round(t, 1):g}' for t in times)} s"


def closing(lead: str, answer: str, named: str = "") -> str:
    """Return the end of a chain: the lead, in the question's own words, and the answer right after it.

    The answer is a word: micro would have to learn separately to find the letter of an option. Without a
    lead the answer is a sentence, which is written only once. An option can name the answer in other words:
    then the answer tag holds these (`named`).
    """
    conclusion = f" {lead} {answer}." if lead else ""
    return f"{conclusion}</think>\n<answer>{named or answer}</answer>"


def edit_query(edit: Edit, blinking: str | None = None) -> str:
    """Return the `<generate>` query for an edit, from the moment when `blinking` blinks if it is given."""
    return f"{edit} when the {blinking} blinks" if blinking else str(edit)


def describe_tipping(edit: Edit) -> str:
    """Return an edit in the words of questions."""
    away = f"the {edit.without} is taken away and " if edit.without else ""
    return f"{away}the board is tipped to the {edit.side}"
