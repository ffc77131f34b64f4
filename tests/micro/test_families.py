"""The answer of each everyday question follows from the frames of its clip."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from act2see.micro.drafts import REFUSAL
from act2see.micro.kinds import KINDS, slots_of
from act2see.micro.questions import EVERYDAY, FAMILIES, Family, Item, Seen, ToolCall, item_of, make_item
from act2see.micro.words import describe_view, view_of
from act2see.micro.world import FPS, Board, cell_name

COUNT = 250


def boards(item: Item) -> list[Board]:
    """Return the board of every frame."""
    return [item.clip.board(frame) for frame in range(item.clip.frames)]


def lasting(item: Item) -> list[Board]:
    """Return the board of every frame without short events."""
    return [item.clip.base(frame) for frame in range(item.clip.frames)]


def lit_frames(item: Item, shape: str) -> list[int]:
    """Return the numbers of the frames in which a shape ("" for any) is lit."""
    shown = enumerate(boards(item))
    return [frame for frame, board in shown if board.lit and shape in ("", board.lit.shape)]


def move_seconds(item: Item, shape: str) -> list[float]:
    """Return the times at which a shape changes its place."""
    places = [board.find(shape) for board in lasting(item)]
    times = []
    for frame in range(1, len(places)):
        before, now = places[frame - 1], places[frame]
        if before and now and before.cell != now.cell:
            times.append(frame / FPS)
    return times


def place_of(board: Board, shape: str) -> str:
    return cell_name(board.piece(shape).cell)


def content(board: Board, place: str) -> str:
    return next((p.shape for p in board.pieces if cell_name(p.cell) == place), "nothing")


def shows(item: Item, shape: str) -> bool:
    return any(board.find(shape) for board in boards(item))


def times_in(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def first_of(times: dict[str, float]) -> str:
    return min(times, key=lambda shape: times[shape])


def expected_outcome(item: Item, slots: dict[str, str]) -> str:
    """Return where a piece ends up, or which piece ends up at a place, on the tipped board."""
    before = lasting(item)[0]
    if lit := slots.get("y"):
        frames = lit_frames(item, lit)
        if not frames:
            return f"The {lit} does not blink in this clip."
        before = boards(item)[frames[0]]
    after = before.without(slots.get("z", "")).tip(slots["side"])
    if "place" in slots:
        return content(after, slots["place"])
    return place_of(after, slots["x"]) if after.find(slots["x"]) else "nowhere"


def expected_order(item: Item, kind: str, x: str, y: str) -> str:
    """Return whether a blink or a move of one shape comes before, or after, the blink of another."""
    moves, lit = move_seconds(item, x), {shape: lit_frames(item, shape) for shape in (x, y)}
    if kind != "blinks_before" and not moves:
        return f"The {x} does not move in this clip."
    for shape in (x, y) if kind == "blinks_before" else (y,):
        if not lit[shape]:
            return f"The {shape} does not blink in this clip."
    if kind == "blinks_before":
        return yes(lit[x][0] < lit[y][0])
    return yes(moves[0] < lit[y][0] / FPS if kind == "moves_before" else moves[-1] > lit[y][0] / FPS)


def expected_either(item: Item, kind: str, x: str, y: str) -> str:
    """Return where a shape is seen from another, or whether an event of it comes before one of the other."""
    if kind in ("above_or_below", "left_or_right"):
        axis = kind == "left_or_right"
        start = lasting(item)[0]
        a, b = start.piece(x).cell[axis], start.piece(y).cell[axis]
        if a == b:
            return f"in the same {('row', 'column')[axis]}"
        return (("above", "below"), ("left", "right"))[axis][a > b]
    moving = {"moves_before_or_after": x, "before_or_after_move": y}.get(kind)
    seconds = {}
    for shape in (x, y) if moving is None else (moving, x if moving == y else y):
        if shape == moving:
            moves = move_seconds(item, shape)
            if not moves:
                return f"The {shape} does not move in this clip."
            seconds[shape] = float(moves[0])
        elif frames := lit_frames(item, shape):
            seconds[shape] = frames[0] / FPS
        else:
            return f"The {shape} does not blink in this clip."
    return "before" if seconds[x] < seconds[y] else "after"


_OF_ALL = (
    *("which_blinks_first", "which_blinks_last", "which_moves_first", "which_moves_last", "which_moves"),
    *("still", "moved_colour", "any_happens", "is_tipped", "when_tips"),
)


def expected_of_all(item: Item, kind: str) -> str:
    """Return the answer to a question that names no shape."""
    shapes = [p.shape for p in boards(item)[0].ordered()]
    tips = [frame / FPS for frame, board in enumerate(boards(item)) if board.tipped]
    lit = {shape: frames[0] for shape in shapes if (frames := lit_frames(item, shape))}
    moves = {shape: times for shape in shapes if (times := move_seconds(item, shape))}
    if kind == "any_happens":
        return yes(bool(tips or lit or moves))
    if kind == "is_tipped":
        return yes(bool(tips))
    if kind == "when_tips":
        return f"at {tips[0]:g} s" if tips else "The board is not tipped in this clip."
    if "blinks" in kind:
        if not lit:
            return "Nothing blinks in this clip."
        return (min if "first" in kind else max)(lit, key=lambda shape: lit[shape])
    if kind == "still":
        staying = [shape for shape in shapes if shape not in moves]
        return " and ".join(staying) or "Every shape moves in this clip."
    if not moves:
        return "Nothing moves in this clip."
    if kind == "which_moves_first":
        return min(moves, key=lambda shape: moves[shape][0])
    if kind == "which_moves_last":
        return max(moves, key=lambda shape: moves[shape][-1])
    if kind == "moved_colour":
        return lasting(item)[0].piece(*moves).colour
    return " and ".join(moves)


def expected(item: Item) -> str | None:
    """Return the answer as the frames give it; None for a kind that is checked in another way."""
    slots = dict(item.asked.slots)
    x, y, z = (slots.get(name, "") for name in "xyz")
    kind = item.asked.kind
    first, last = lasting(item)[0], lasting(item)[-1]
    if kind == "colour":
        seen = next((p for board in boards(item) if (p := board.find(x)) and not p.lit), None)
        return seen.colour if seen else f"There is no {x} in this clip."
    if kind in ("start", "end"):
        board = first if kind == "start" else last
        return place_of(board, x) if board.find(x) else "nowhere"
    if kind in ("what_at_start", "what_at_end"):
        return content(first if kind == "what_at_start" else last, slots["place"])
    if kind == "what_at":
        before, after = content(first, slots["place"]), content(last, slots["place"])
        return before if before == after else f"{before} at the start, {after} at the end"
    if kind == "where_at":
        return place_of(lasting(item)[int(slots["n"]) * FPS], x)
    if kind == "which_tipped":
        return last.tipped or "The board is not tipped in this clip."
    if kind == "colour_at":
        seen = [content(board, slots["place"]) for board in (first, last)]
        colours = ["nothing" if shape == "nothing" else first.piece(shape).colour for shape in seen]
        return colours[0] if seen[0] == seen[1] else f"{colours[0]} at the start, {colours[1]} at the end"
    if kind in ("beside", "relation", "above_or_below", "left_or_right") and (
        absent := [s for s in (x, y) if s and not shows(item, s)]
    ):
        return f"There is no {absent[0]} in this clip."
    if kind == "beside":
        row, column = first.piece(x).cell
        cells = {
            "above": (row - 1, column),
            "below": (row + 1, column),
            "left of": (row, column - 1),
            "right of": (row, column + 1),
        }
        return next((p.shape for p in first.pieces if p.cell == cells[slots["direction"]]), "nothing")
    if kind == "any_colour":
        return yes(any(p.colour == slots["colour"] for p in first.pieces))
    if kind == "how_many":
        return str(len(first.pieces))
    if kind == "how_many_colour":
        return str(sum(p.colour == slots["colour"] for p in first.pieces))
    if kind == "how_many_moves":
        return str(len(move_seconds(item, x)))
    if kind == "how_many_blink":
        return str(len({board.lit.shape for board in boards(item) if board.lit}))
    if kind == "how_many_blinks":
        frames = [frame for frame, board in enumerate(boards(item)) if board.lit and board.lit.shape == x]
        return str(sum(frame - 1 not in frames for frame in frames))
    if kind == "is_there":
        return yes(shows(item, x))
    if kind == "is_there_colour":
        found = [p for board in boards(item) if (p := board.find(x)) and not p.lit]
        return yes(any(p.colour == slots["colour"] for p in found))
    if kind in ("is_colour", "is_at", "does_move") and not shows(item, x):
        return f"There is no {x} in this clip."
    if kind == "is_colour":
        return yes(first.piece(x).colour == slots["colour"])
    if kind == "is_at":
        return yes(any(place_of(board, x) == slots["place"] for board in lasting(item)))
    if kind == "does_move":
        return yes(bool(move_seconds(item, x)))
    if kind == "any_moves":
        return yes(any(move_seconds(item, p.shape) for p in first.pieces))
    if kind == "does_blink":
        return yes(bool(lit_frames(item, x)))
    if kind == "any_blinks":
        return yes(bool(lit_frames(item, "")))
    if kind == "which_first":
        lit = {shape: float(frames[0]) for shape in (x, y) if (frames := lit_frames(item, shape))}
        return first_of(lit) if lit else "Neither of them blinks in this clip."
    if kind == "which_first_moves":
        moved = {shape: times[0] for shape in (x, y) if (times := move_seconds(item, shape))}
        return first_of(moved) if moved else "Neither of them moves in this clip."
    if kind == "which_last":
        lit = {shape: -float(frames[0]) for shape in (x, y) if (frames := lit_frames(item, shape))}
        return first_of(lit) if lit else "Neither of them blinks in this clip."
    if kind == "which_last_moves":
        moved = {shape: -times[-1] for shape in (x, y) if (times := move_seconds(item, shape))}
        return first_of(moved) if moved else "Neither of them moves in this clip."
    if kind in ("two_blinks", "moved_between"):
        for shape in (y, z):
            if not lit_frames(item, shape):
                return f"The {shape} does not blink in this clip."
        places = [place_of(boards(item)[lit_frames(item, shape)[0]], x) for shape in (y, z)]
        if kind == "two_blinks":
            return ", then ".join(places)
        return yes(places[0] != places[1])
    if kind in ("blinks_before", "moves_before", "moves_after"):
        return expected_order(item, kind, x, y)
    if item.family == "either":
        return expected_either(item, kind, x, y)
    if kind == "relation":
        above, left = (a - b for a, b in zip(first.piece(x).cell, first.piece(y).cell, strict=True))
        return yes(
            {"above": above < 0, "below": above > 0, "left of": left < 0}.get(slots["direction"], left > 0)
        )
    if kind in _OF_ALL:
        return expected_of_all(item, kind)
    if kind == "tip_all":
        after = first.tip(slots["side"])
        return ", ".join(map(str, after.ordered()))
    if kind.startswith("tip_"):
        return expected_outcome(item, slots)
    if kind == "what_changed":
        changes = [f"The board is tipped to the {last.tipped}."] if last.tipped else []
        for p in first.ordered():
            if (now := last.piece(p.shape)).cell != p.cell:
                changes.append(f"The {p.shape} moves from {cell_name(p.cell)} to {cell_name(now.cell)}.")
        return " ".join(changes) or "Nothing changes."
    if kind == "describe":
        return describe_view(view_of(item.clip))
    if kind == "beyond":
        return REFUSAL
    return None


@pytest.mark.parametrize("family", EVERYDAY)
def test_answers_follow_from_the_frames(family: Family) -> None:
    checked = 0
    for index in range(COUNT):
        item = make_item(family, index, "validation")
        right = expected(item)
        if right is not None:
            assert item.answer == right, (index, item.text)
            checked += 1
    assert checked > COUNT / 4 or family == "when"


def test_all_shapes_that_blink_are_named() -> None:
    answers = set()
    for index in range(COUNT):
        item = make_item("whole", index, "validation")
        if item.asked.kind == "which_all_blink":
            lit = {board.lit.shape for board in boards(item) if board.lit}
            named = set(item.answer.split(" and ")) if lit else set()
            assert lit == named
            answers.add(len(named))
    assert answers == {0, 1, 2}


def test_times_lie_within_the_event() -> None:
    for index in range(COUNT):
        item = make_item("when", index, "validation")
        slots = dict(item.asked.slots)
        if item.asked.kind == "when_moves":
            assert times_in(item.answer) == move_seconds(item, slots["x"])
        elif item.asked.kind == "when_appears" and item.answer == "from the start":
            assert item.clip.board(0).find(slots["x"])
        else:
            (time,) = times_in(item.answer)
            board = item.clip.board(round(time * FPS))
            lit = board.lit
            if item.asked.kind == "when_appears":
                assert board.find(slots["x"])
            else:
                assert lit
                assert lit.shape in (slots.get("x"), lit.shape if "x" not in slots else None)


def test_false_premises_are_false() -> None:
    answers = Counter()
    for index in range(COUNT):
        item = make_item("false", index, "validation")
        shape = re.search(r"(?:The|no) (\w+) (?:does|in)", item.answer)
        if "does not blink" in item.answer or item.answer == "Nothing blinks in this clip.":
            assert not lit_frames(item, shape[1] if shape else ""), item
        elif "does not move" in item.answer:
            assert shape
            assert not move_seconds(item, shape[1])
        elif item.answer.startswith("There is no"):
            assert shape
            assert not shows(item, shape[1])
        answers[re.sub(r"(The|no) \w+", r"\1 _", item.answer)] += 1
    assert len(answers) >= 7
    assert "yes" not in answers


@pytest.mark.parametrize(
    "family", [f for f in EVERYDAY if f not in ("beyond", "describe", "changes", "plain")]
)
def test_wordings_do_not_reveal_whether_to_call(family: Family) -> None:
    """A kind that needs a look in some clips needs none in others."""
    looks: dict[str, Counter[bool]] = defaultdict(Counter)
    for index in range(600):
        item = make_item(family, index)
        looks[item.asked.kind][bool(item.needed)] += 1
    if family == "false":
        return
    for kind, counts in looks.items():
        # These always end with a look that shows nothing new.
        if kind in ("how_many_blink", "which_all_blink", "which_blinks_first", "which_blinks_last"):
            continue
        if kind.startswith("tip_") and kind.endswith("_when"):  # the clip's tipping is at another moment
            continue
        needed = counts[True] / counts.total()
        assert needed == 0 or 0.1 < needed < 0.95, (kind, counts)


@pytest.mark.parametrize("family", [*FAMILIES, *EVERYDAY])
def test_every_look_is_described_and_its_frame_is_sampled(family: Family) -> None:
    for index in range(100):
        item = make_item(family, index)
        for step, after in zip(item.chain, item.chain[1:], strict=False):
            if isinstance(step, ToolCall) and step.tag == "retrieve":
                assert isinstance(after, Seen)
                assert item.clip.at(step.at) == step.expect
                assert step.any_frame or step.expect not in item.clip.view()
        first = item.chain[0]
        assert isinstance(first, str)
        assert first.startswith(item.asked.text)


def test_seeds_name_their_items() -> None:
    for split in ("train", "validation", "test", "held_out"):
        for family in (*FAMILIES, *EVERYDAY):
            item = make_item(family, 7, split)  # type: ignore[arg-type]
            assert item_of(item.seed) == item
            if split == "train":
                assert make_item(family, 2_400_000).seed != make_item(family, 0, "validation").seed


def test_each_kind_has_its_slots() -> None:
    assert slots_of("where_when") == ("x", "y")
    assert slots_of("beyond") == ()
    asked = {make_item(f, i).asked.kind for f in (*FAMILIES, *EVERYDAY) for i in range(400)}
    assert asked == set(KINDS)


def test_long_clips_are_seen_in_twelve_frames() -> None:
    item = make_item("both", 3, seconds=60)
    view = view_of(item.clip)
    assert len(view) <= 12
    assert view[0][0] == 0
    assert view[-1][0] == 59
    changed = {
        second for second, board in enumerate(item.clip.view()) if board != item.clip.view()[second - 1]
    }
    assert changed - {0} <= {second for second, _ in view}
