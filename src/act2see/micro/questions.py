"""Questions about board clips, with the chain of thought that a careful person would write.

Four families. Each asks with the same words whether or not the initial frames hold the answer, so that the
decision to call a tool can only come from looking:

- *observe*: colours, places, movements. In some the asked shape is a guest that no initial frame shows.
- *blink*: what colour, which shape, where was Y when X blinked. In half the blink is in view.
- *imagine*: where does Y end up when the board is tipped. In two of five the clip shows the tipping.
- *both*: the same, from the moment X blinks. In a third the blink is in view and only imagining is needed.

A chain is a list of steps: what is said, and which tool is called with which query. What is said after a call
describes the frame that the world expects there; the corpus drops chains whose tool returned another one.
Chains name every piece of every frame (dense supervision: without it the micro VLM learns slowly).

Options never leak: the answer's letter is uniform, and distractors are things that the initial view rules
neither in nor out (a blink's colour is never the shape's usual one; places are places the shape has visited,
as far as the clip has enough of them).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from act2see.micro.recipe.learn_generator import edit_query
from act2see.micro.world import (
    CELLS,
    COLOURS,
    FPS,
    HELD_OUT,
    SHAPES,
    SIDES,
    Board,
    Clip,
    Edit,
    Piece,
    Short,
    Slow,
    cell_name,
    draw_board,
    draw_colour,
    draw_short,
)

Family = Literal["observe", "blink", "imagine", "both"]
Split = Literal["train", "validation", "test", "held_out"]
FAMILIES: tuple[Family, ...] = ("observe", "blink", "imagine", "both")
LETTERS = "ABCDEFGH"
TAGS = ("retrieve", "generate")
_SEED_OF: dict[Split, int] = {
    "train": 0,
    "validation": 10_000_000,
    "test": 20_000_000,
    "held_out": 30_000_000,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of a chain, and the board that the frame should show."""

    tag: str
    query: str
    expect: Board


Step = str | Call


@dataclass(frozen=True, slots=True)
class Item:
    """A clip, a question and its reference chain."""

    family: Family
    kind: str
    seed: int
    clip: Clip
    text: str
    options: tuple[str, ...]
    answer: str
    chain: tuple[Step, ...]
    in_view: bool
    lead: str

    @property
    def needed(self) -> tuple[str, ...]:
        """The tags that the reference chain calls, in order."""
        return tuple(s.tag for s in self.chain if isinstance(s, Call))

    @property
    def correct(self) -> str:
        """The letter of the true option, or the answer itself where there are none."""
        return LETTERS[self.options.index(self.answer)] if self.options else self.answer

    def closing(self) -> str:
        return closing(self.lead, self.answer)


def closing(lead: str, answer: str) -> str:
    """How a chain ends: the question's own words, then the answer, so that what is asked stands beside what
    is found.

    Answers are in words: finding the letter of an option is a skill that would have to be learnt too.
    """
    return f" {lead} {answer}.</think>\n<answer>{answer}</answer>"


def describe(board: Board) -> str:
    """Every piece in reading order: "northwest circle red, center ring lit blue."."""
    lead = f"tipped to the {board.tipped}: " if board.tipped else ""
    return lead + ", ".join(map(str, board.ordered())) + "."


def describe_view(clip: Clip, start: int = 0) -> str:
    """What the initial view shows: every frame in full, second by second, counted from `start`.

    Naming only what changed is shorter, but makes each second a comparison of two frames, which micro does
    not learn well (one change in ten missed after 1,000 steps); one frame at a time is what it sees without
    fault.
    """
    said = " ".join(f"{second}: {describe(board)}" for second, board in enumerate(clip.view(), start))
    return f"Second {said}"


def moved(first: Board, last: Board) -> str:
    """Where each piece of `first` stood and where it stands in `last`: "From start to end: circle west to
    east moved circle."."""
    said = []
    for p in first.ordered():
        if now := last.find(p.shape):
            verdict = "still" if now.cell == p.cell else "moved"
            said.append(f"{p.shape} {cell_name(p.cell)} to {cell_name(now.cell)} {verdict} {p.shape}")
    return "From start to end: " + ", ".join(said) + "."


def blinks(shape: str, view: list[Board], start: int = 0) -> tuple[str, str]:
    """Whether a shape blinks in a view: how it is asked, and "no" or the second of it, in full. `shape` may
    be "shape" for any."""
    seen = next(
        (
            f"yes, {second}: {describe(b)}"
            for second, b in enumerate(view, start)
            if b.lit and shape in ("shape", b.lit.shape)
        ),
        "no.",
    )
    return f"A {shape} blinks in these frames:", seen


def _choose(rng: random.Random, answer: str, others: list[str], n: int = 4) -> tuple[str, ...]:
    """`n` options in random order; `others` are candidates in order of preference."""
    pool = [o for o in dict.fromkeys(others) if o != answer][: n - 1]
    options = [answer, *pool]
    rng.shuffle(options)
    return tuple(options)


def _cells(rng: random.Random, answer: str, first: list[str]) -> tuple[str, ...]:
    rest = [cell_name(c) for c in CELLS]
    rng.shuffle(rest)
    first = list(dict.fromkeys(first))
    rng.shuffle(first)
    return _choose(rng, answer, first + rest)


def _colours(rng: random.Random, answer: str, never: str = "") -> tuple[str, ...]:
    rest = [c for c in COLOURS if c not in (answer, never)]
    rng.shuffle(rest)
    return _choose(rng, answer, rest)


def _shapes(rng: random.Random, answer: str, board: Board) -> tuple[str, ...]:
    here = [p.shape for p in board.pieces]
    rng.shuffle(here)
    rest = [s for s in SHAPES if s not in here]
    rng.shuffle(rest)
    return _choose(rng, answer, here + rest)


def _hops(rng: random.Random, board: Board, mover: str, frames: int, times: int) -> Slow:
    """The board over time while `mover` hops to `times` new cells, each on a whole second."""
    seconds = sorted(rng.sample(range(1, frames // FPS), times))
    slow, visited = [(0, board)], {board.piece(mover).cell}
    for s in seconds:
        free = [c for c in slow[-1][1].free if c not in visited] or slow[-1][1].free
        cell = rng.choice(free)
        visited.add(cell)
        slow.append((s * FPS, slow[-1][1].change(mover, cell=cell)))
    return tuple(slow)


def _visited(clip: Clip, shape: str) -> list[str]:
    return [cell_name(b.piece(shape).cell) for _, b in clip.slow if b.find(shape)]


def _blink(rng: random.Random, slow: Slow, shape: str, frames: int, in_view: bool, held_out: bool) -> Short:
    usual = slow[0][1].piece(shape).colour
    colour = draw_colour(rng, shape, False, usual)
    if held_out and rng.random() < 0.7:
        rare = next(c for s, c in HELD_OUT if s == shape)
        colour = rare if rare != usual else colour
    return draw_short(rng, "blink", Piece(shape, colour, (0, 0), True), frames, in_view, slow)


def _guest(rng: random.Random, slow: Slow, frames: int, in_view: bool, held_out: bool) -> Short:
    board = slow[0][1]
    shape = next(s for s in rng.sample(SHAPES, len(SHAPES)) if board.find(s) is None)
    # A guest's cell must be free all the time, however the others hop.
    taken = {p.cell for _, b in slow for p in b.pieces}
    free = [c for c in CELLS if c not in taken]
    piece = Piece(shape, draw_colour(rng, shape, held_out), rng.choice(free))
    if held_out:
        piece = replace(piece, colour=next(c for s, c in HELD_OUT if s == shape))
    return draw_short(rng, "guest", piece, frames, in_view, slow)


def _frame_of(clip: Clip, short: Short) -> Board:
    """What a frame taken during `short` shows."""
    return clip.board((short.start + short.stop) // 2)


_Made = tuple[
    Clip, str, str, tuple[str, ...], str, tuple[Step, ...], bool, str
]  # the fields of `Item`, from `clip` on


def _observe(rng: random.Random, frames: int, held_out: bool) -> _Made:
    board = draw_board(rng, held_out)
    mover = rng.choice(board.pieces).shape
    kind = rng.choice(("colour", "place", "which moves", "guest", "guest"))
    if kind == "which moves":
        clip = Clip(frames, _hops(rng, board, mover, frames, rng.choice((1, 2))))
        options, said = (
            _shapes(rng, mover, board),
            (describe_view(clip), f" {moved(board, clip.base(frames))}"),
        )
        return clip, kind, "Which shape moves?", options, mover, said, True, "It is the moved"
    slow = _hops(rng, board, mover, frames, rng.choice((0, 1, 2)))
    rare = [p.shape for p in board.pieces if (p.shape, p.colour) in HELD_OUT]
    if kind == "guest":
        in_view = rng.random() < 0.4
        guest = _guest(rng, slow, frames, in_view, held_out)
        clip = Clip(frames, slow, (guest,))
        shape = guest.piece.shape
        chain: tuple[Step, ...] = (
            describe_view(clip),
            f" A {shape} in these frames: {'yes' if in_view else 'no'}.",
        )
        if not in_view:
            seen = _frame_of(clip, guest)
            chain = (*chain, Call("retrieve", f"the {shape}", seen), describe(seen))
        if rng.random() < 0.6 or held_out:
            answer = guest.piece.colour
            return (
                clip,
                kind,
                f"What colour is the {shape}?",
                _colours(rng, answer),
                answer,
                chain,
                in_view,
                f"The {shape} is",
            )
        place = cell_name(guest.piece.cell)
        always = {p.cell for _, b in slow for p in b.pieces}
        free = [cell_name(c) for c in CELLS if c not in always]
        return (
            clip,
            kind,
            f"Where is the {shape}?",
            _cells(rng, place, free),
            place,
            chain,
            in_view,
            f"The {shape} is at",
        )
    shape = rng.choice(rare) if rare else rng.choice(board.pieces).shape
    if kind == "colour":
        clip = Clip(frames, slow)
        answer = board.piece(shape).colour
        chain = (describe_view(clip), f" A {shape} in these frames: yes.")
        return (
            clip,
            kind,
            f"What colour is the {shape}?",
            _colours(rng, answer),
            answer,
            chain,
            True,
            f"The {shape} is",
        )
    clip = Clip(frames, slow)
    end = rng.random() < 0.5
    answer = cell_name((slow[-1] if end else slow[0])[1].piece(shape).cell)
    when = "at the end" if end else "at the start"
    options = _cells(rng, answer, _visited(clip, shape))
    lead = f"{when.capitalize()} the {shape} is at"
    return clip, kind, f"Where is the {shape} {when}?", options, answer, (describe_view(clip),), True, lead


def _looked(shape: str, clip: Clip) -> str:
    asked, seen = blinks(shape, clip.view())
    return f" {asked} {seen}"


def _blinking(rng: random.Random, frames: int, held_out: bool) -> _Made:
    board = draw_board(rng, held_out)
    in_view = rng.random() < 0.5
    kind = rng.choice(("colour", "which", "where"))
    x = rng.choice(board.pieces).shape
    y = rng.choice([p.shape for p in board.pieces if p.shape != x])
    mover = y if kind == "where" else rng.choice(board.pieces).shape
    # Four places to choose from need three hops.
    slow = _hops(rng, board, mover, frames, 3 if kind == "where" else rng.choice((0, 1)))
    blink = _blink(rng, slow, x, frames, in_view, held_out)
    clip = Clip(frames, slow, (blink,))
    who = "a shape" if kind == "which" else f"the {x}"
    chain: tuple[Step, ...] = (describe_view(clip), _looked("shape" if kind == "which" else x, clip))
    if not in_view:
        seen = _frame_of(clip, blink)
        chain = (*chain, Call("retrieve", f"{who} blinks", seen), describe(seen))
    if kind == "colour":
        usual = board.piece(x).colour
        options = _colours(rng, blink.piece.colour, usual)
        asked, lead = f"What colour does the {x} turn when it blinks?", f"The lit {x} is glowing"
        return clip, kind, asked, options, blink.piece.colour, chain, in_view, lead
    if kind == "which":
        return clip, kind, "Which shape blinks?", _shapes(rng, x, board), x, chain, in_view, "It is the lit"
    place = cell_name(_frame_of(clip, blink).piece(y).cell)
    options, lead = _cells(rng, place, _visited(clip, y)), f"With the {x} lit the {y} is at"
    return clip, kind, f"Where is the {y} when the {x} blinks?", options, place, chain, in_view, lead


def _tipping(edit: Edit) -> str:
    away = f"the {edit.without} is taken away and " if edit.without else ""
    return f"{away}the board is tipped to the {edit.side}"


def _outcome(
    rng: random.Random, before: Board, after: Board, when: str, prefer: str = ""
) -> tuple[str, str, tuple[str, ...], str, str]:
    """Ask where a piece ends up, or which piece ends up somewhere."""
    p = after.piece(prefer) if prefer and after.find(prefer) else rng.choice(after.pieces)
    place = cell_name(p.cell)
    if rng.random() < 0.6:
        near = [cell_name(q.cell) for q in after.pieces] + [cell_name(before.piece(p.shape).cell)]
        options, lead = _cells(rng, place, near), f"On the tipped board the {p.shape} is at"
        return "where", f"Where does the {p.shape} end up when {when}?", options, place, lead
    lead = f"On the tipped board at {place} is the"
    return (
        "which",
        f"Which shape ends up at {place} when {when}?",
        _shapes(rng, p.shape, before),
        p.shape,
        lead,
    )


def _draw_edit(rng: random.Random, board: Board, keep: str = "") -> Edit:
    shapes = [p.shape for p in board.pieces if p.shape != keep]
    return Edit(rng.choice(SIDES), rng.choice(shapes) if rng.random() < 0.35 else None)


def _imagine(rng: random.Random, frames: int, held_out: bool) -> _Made:
    board = draw_board(rng, held_out)
    edit = _draw_edit(rng, board)
    after = edit.apply(board)
    in_view = rng.random() < 0.4
    slow: Slow = ((0, board),)
    if in_view:
        slow = (*slow, (rng.randrange(1, frames // FPS) * FPS, after))
    # A blink between the seconds now and then, so that a frame taken anywhere will not do.
    short: tuple[Short, ...] = ()
    if not in_view and rng.random() < 0.3:
        short = (_blink(rng, slow, rng.choice(board.pieces).shape, frames, False, held_out),)
    clip = Clip(frames, slow, short, edit)
    rare = [p.shape for p in board.pieces if (p.shape, p.colour) in HELD_OUT]
    kind, text, options, answer, lead = _outcome(
        rng, board, after, _tipping(edit), rng.choice(rare) if rare else ""
    )
    chain: tuple[Step, ...] = (
        describe_view(clip),
        f" A tipped board in these frames: {'yes' if in_view else 'no'}.",
    )
    if not in_view:
        chain = (*chain, Call("generate", edit_query(edit), after), describe(after))
    return clip, kind, text, options, answer, chain, in_view, lead


def _both(rng: random.Random, frames: int, held_out: bool) -> _Made:
    board = draw_board(rng, held_out)
    x = rng.choice(board.pieces).shape
    mover = rng.choice([p.shape for p in board.pieces if p.shape != x])
    slow = _hops(rng, board, mover, frames, rng.choice((1, 2, 3)))
    in_view = rng.random() < 1 / 3
    blink = _blink(rng, slow, x, frames, in_view, held_out)
    clip = Clip(frames, slow, (blink,))
    seen = _frame_of(clip, blink)
    edit = _draw_edit(rng, seen, keep=x)
    clip, after = replace(clip, edit=edit), edit.apply(seen)
    when = f"{_tipping(edit)} as the {x} blinks"
    kind, text, options, answer, lead = _outcome(rng, seen, after, when, mover if rng.random() < 0.5 else "")
    look: tuple[Step, ...] = () if in_view else (Call("retrieve", f"the {x} blinks", seen), describe(seen))
    imagine = (
        " A tipped board in these frames: no.",
        Call("generate", edit_query(edit, x), after),
        describe(after),
    )
    chain = (describe_view(clip), _looked(x, clip), *look, *imagine)
    return clip, kind, text, options, answer, chain, in_view, lead


_MAKERS = {"observe": _observe, "blink": _blinking, "imagine": _imagine, "both": _both}


def make_item(
    family: Family,
    index: int,
    split: Split = "train",
    options: bool | None = None,
    seconds: int | None = None,
) -> Item:
    """The item number `index` of a split: the same every time.

    `options` forces four options or none (by default one in five training questions has none); `seconds`
    forces the clip's length (6 to 10 by default).
    """
    seed = _SEED_OF[split] + index * 4 + FAMILIES.index(family)
    rng = random.Random(seed)
    frames = FPS * (seconds or rng.randint(6, 10))
    held_out = split == "held_out"
    clip, kind, text, choices, answer, chain, in_view, lead = _MAKERS[family](rng, frames, held_out)
    with_options = options if options is not None else (split != "train" or rng.random() < 0.8)
    return Item(family, kind, seed, clip, text, choices if with_options else (), answer, chain, in_view, lead)


def item_of(seed: int) -> Item:
    """The item with this seed, of whichever split."""
    split, first = max(((s, f) for s, f in _SEED_OF.items() if f <= seed), key=lambda pair: pair[1])
    return make_item(FAMILIES[seed % 4], (seed - first) // 4, split)


def items(n: int, split: Split, families: tuple[Family, ...] = FAMILIES) -> Iterator[Item]:
    """`n` items balanced over the families."""
    for i in range(n):
        yield make_item(families[i % len(families)], i // len(families), split)


def draw_tags(rng: random.Random) -> tuple[str, ...]:
    """Mostly both tools, sometimes one or none: a model must read which tools it has."""
    return rng.choice((TAGS, TAGS, TAGS, TAGS[:1], TAGS[1:], ()))


def sentences() -> Iterator[str]:
    """Enough of the world's language to learn tokenizers from."""
    for i in range(600):
        item = make_item(FAMILIES[i % 4], i)
        yield item.text
        yield "\n".join(f"{a}. {o}" for a, o in zip(LETTERS, item.options, strict=False))
        for step in item.chain:
            yield step if isinstance(step, str) else f"<{step.tag}>{step.query}</{step.tag}>"
        yield item.closing()
        yield "<frame><3.7 seconds></frame><frame><imagined></frame>\nTools: retrieve, generate.\nTools: none."
        yield "I cannot look again. I cannot imagine it. My guess is left. At top left is the circle."
