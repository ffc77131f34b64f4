"""The lessons of the base model: it learns to describe frames, to look up facts, and to answer from them.

A lesson makes each of its batches from the batch's own number and seed, so that any process can make it.
`chain_lessons` has the lessons of SFT.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING

from act2see.agent.packing import Packer
from act2see.agent.rollout import Rollout
from act2see.micro.drafts import yes_or_no
from act2see.micro.draws import draw_colour
from act2see.micro.kinds import DIRECTIONS
from act2see.micro.questions import EVERYDAY, FAMILIES, Family, Item, make_item
from act2see.micro.recipe.rollouts import (
    Ask,
    DrawnFrames,
    ask_about_clip,
    base_rollout,
    busy_clip,
    conclude,
    draw_start,
    finish_rollout,
    glance_rollout,
)
from act2see.micro.relations import compare_places, describe_neighbour
from act2see.micro.words import (
    View,
    count_colour,
    count_pieces,
    describe_blink,
    describe_moves,
    describe_path,
    describe_row,
    describe_view,
    moved_shapes,
    view_of,
)
from act2see.micro.world import COLOURS, FPS, SHAPES, Board, Clip, Short, cell_name
from act2see.tools.video.store import FrameSource
from act2see.trace.record import Answer, Question, Text
from act2see.training.sft.collate import collate

if TYPE_CHECKING:
    from act2see.training.sft.forward import Batch

FIRST_INDEX = 100_000
"""Number of the lessons' first question, beyond those of any corpus."""
_LAST_INDEX = 2_400_000  # the training split's seeds end a little above it


@dataclass(frozen=True, slots=True)
class RolloutLesson:
    """What all lessons share. A lesson overrides `rollouts`."""

    packer: Packer = field(compare=False)
    """The inference packer."""
    batch: int
    """The number of rollouts in a batch."""
    seed: int
    """The seed of the stream of batches."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        """Return the rollouts of a batch; their drawn frames are added to `frames`."""
        raise NotImplementedError("a lesson says what its batches hold")

    def __call__(self, number: int) -> Batch:
        rng = random.Random(f"{type(self).__name__} {self.seed} {number}")
        frames = DrawnFrames(rng.randrange(2**31))
        return self.collate(self.rollouts(rng, frames), frames)

    def collate(self, rollouts: Sequence[Rollout], source: FrameSource) -> Batch:
        """Return rollouts as a batch."""
        tokenizer = self.packer.codec.tokenizer
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        return collate(self.packer, rollouts, source, tokenizer.pad_token_id, end)


def draw_item(rng: random.Random, families: Sequence[Family], seconds: int | None = None) -> Item:
    """Draw a training item that no corpus holds."""
    index = rng.randrange(FIRST_INDEX, _LAST_INDEX)
    return make_item(rng.choice(families), index, "train", seconds=seconds)


def draw_length(rng: random.Random) -> int:
    """Draw the length of a clip in seconds: mostly 6 to 10, sometimes up to a minute."""
    return rng.randint(6, 10) if rng.random() < 0.88 else rng.randint(11, 60)


@dataclass(frozen=True, slots=True)
class Glances(RolloutLesson):
    """Single frames."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        return [glance_rollout(frames, rng) for _ in range(self.batch)]


@dataclass(frozen=True, slots=True)
class Clips(RolloutLesson):
    """Described clips of one length, each with a question."""

    seconds: tuple[int, int] = (6, 10)
    """The shortest and the longest clip."""
    busy: float = 0.6
    """The share of clips that change at almost every second."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        length = rng.randint(*self.seconds)
        return [self._rollout(rng, frames, length) for _ in range(self.batch)]

    def _rollout(self, rng: random.Random, frames: DrawnFrames, length: int) -> Rollout:
        if rng.random() < self.busy:
            clip = busy_clip(rng, length)
        else:
            item = draw_item(rng, FAMILIES, length)
            if item.family == "observe" and item.in_view:
                return _answered(item, frames, rng)
            clip = item.clip
        view = view_of(clip, draw_start(rng, length))
        return base_rollout(view, ask_about_clip(clip, rng), (), frames, rng)


def _answered(item: Item, frames: DrawnFrames, rng: random.Random) -> Rollout:
    """Return the rollout of an item whose view holds the answer."""
    _, *rest = (s for s in item.chain if isinstance(s, str))
    ask = Ask(item.asked.text, item.lead, item.answer)
    return base_rollout(view_of(item.clip), ask, item.options, frames, rng, "".join(rest))


Fact = tuple[str, str]
"""The beginning and the end of a sentence."""


def facts(view: View, rng: random.Random) -> tuple[list[list[Fact]], list[list[Fact]]]:
    """Return the facts that follow from a described view.

    Args:
        view: The view.
        rng: The source of randomness.

    Returns:
        Groups of facts about events, and groups of one plain fact about a single board. The facts of a group
        stay in order, since the later ones refer to the first.
    """
    boards = [board for _, board in view]
    tipped = any(board.tipped for board in boards)
    events = [
        [("A tipped board in these frames:", "yes." if tipped else "no.")],
        _movement_facts(view),
        _count_facts(boards[0], rng),
        *_path_facts(view, rng),
        *_blink_facts(view, rng),
        *_relation_facts(boards[0], rng),
    ]
    plain = _place_facts(boards)
    for shape in SHAPES:
        pieces = [found for board in boards if (found := board.find(shape))]
        events.append([(f"A {shape} in these frames:", "yes." if pieces else "no.")])
        if len(colours := {p.colour for p in pieces if not p.lit}) == 1:
            plain.append((f"The {shape} is", colours.pop()))
        if len(cells := {p.cell for p in pieces}) == 1:
            plain.append((f"The {shape} is at", cell_name(cells.pop())))
    if len(outcomes := {board for board in boards if board.tipped}) == 1:
        plain += _outcome_facts(outcomes.pop())
    drawn = rng.sample(plain, min(16, len(plain)))
    return events, [[(begin, f"{end}.")] for begin, end in drawn]


def _movement_facts(view: View) -> list[Fact]:
    first, last = view[0][1], view[-1][1]
    group = [("", describe_moves(first, last))]
    movers = moved_shapes(first, last)
    if len(movers) == 1:
        group.append(("It is the moved", f"{movers[0]}."))
    return group


def _count_facts(board: Board, rng: random.Random) -> list[Fact]:
    colour = rng.choice((*(p.colour for p in board.pieces), rng.choice(list(COLOURS))))
    begin, _, end = count_colour(board, colour).partition(":")
    count = sum(p.colour == colour for p in board.pieces)
    pieces = count_pieces(board).removeprefix("Shapes: ")
    return [("Shapes:", pieces), (f"{begin}:", end.strip()), ("Their number is", f"{count}.")]


def _path_facts(view: View, rng: random.Random) -> list[list[Fact]]:
    shape = rng.choice(SHAPES)
    begin, _, end = describe_path(shape, view).partition(":")
    return [[(f"{begin}:", end.strip())]]


def _blink_facts(view: View, rng: random.Random) -> list[list[Fact]]:
    lit_boards = [board for _, board in view if board.lit]
    if not lit_boards:
        return [[describe_blink(shape, view)] for shape in rng.sample(("shape", *SHAPES), 2)]
    lit = lit_boards[0].lit
    if len(lit_boards) > 1 or lit is None:
        return []
    known = [("It is the lit", f"{lit.shape}."), (f"The lit {lit.shape} is glowing", f"{lit.colour}.")]
    for p in lit_boards[0].pieces:
        if p != lit:
            known.append((f"With the {lit.shape} lit the {p.shape} is at", f"{cell_name(p.cell)}."))
    asked = rng.choice(("shape", lit.shape))
    return [[describe_blink(asked, view), *rng.sample(known, len(known))]]


def _relation_facts(board: Board, rng: random.Random) -> list[list[Fact]]:
    """Return which place is beside a piece, and how two pieces lie to each other, as `relations` says it."""
    p, q = rng.sample(board.pieces, 2)
    direction = rng.choice(list(DIRECTIONS))
    at = [(f"At the start the {piece.shape} is at", f"{describe_row(piece.cell)}.") for piece in (p, q)]
    begin, _, end = describe_neighbour(p.cell, direction).partition(" is ")
    rows, is_so = compare_places(p.cell, q.cell, direction)
    name, _, compared = rows.partition(" is ")
    lead = f"The {p.shape} is {direction} the {q.shape}:"
    related = [(f"{name} is", f"{compared}."), (lead, f"{yes_or_no(is_so)}.")]
    return [[at[0], (f"{begin} is", f"{end}.")], [*at, *related]]


def _place_facts(boards: Sequence[Board]) -> list[Fact]:
    plain = []
    for board, when in ((boards[0], "At the start"), (boards[-1], "At the end")):
        for p in board.pieces:
            place = cell_name(p.cell)
            plain += [
                (f"{when} the {p.shape} is at", place),
                (f"{when} the {p.shape} is", p.colour),
                (f"{when} at {place} is", p.shape),
            ]
        plain += [(f"{when} at {cell_name(cell)} is", "nothing") for cell in board.free[:3]]
        plain += [(f"{when} the {shape} is at", "nowhere") for shape in SHAPES if not board.find(shape)]
    return plain


def _outcome_facts(board: Board) -> list[Fact]:
    plain = []
    for p in board.pieces:
        place = cell_name(p.cell)
        plain += [
            (f"On the tipped board the {p.shape} is at", place),
            (f"On the tipped board at {place} is", p.shape),
        ]
    return plain


def with_blink(clip: Clip, rng: random.Random) -> Clip:
    """Return the clip with a blink in view; a clip that already shows one is unchanged."""
    view = clip.view()
    if any(board.lit for board in view):
        return clip
    second = rng.randrange(len(view))
    p = rng.choice(clip.base(second * FPS).pieces)
    lit = replace(p, colour=draw_colour(rng, p.shape, False, p.colour), lit=True)
    blink = Short("blink", lit, second * FPS, second * FPS + 6)
    return replace(clip, short=(*clip.short, blink))


@dataclass(frozen=True, slots=True)
class Facts(RolloutLesson):
    """Clips as text alone: descriptions, and the facts that follow from them.

    Only the ends of sentences are trainable. Looking things up in a text is a separate skill, which chains
    with one conclusion each hardly train.
    """

    seconds: tuple[int, int] = (4, 8)
    """The shortest and the longest clip."""
    with_events: bool = True
    """Whether facts about events are included."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        length = rng.randint(*self.seconds)
        return [self._rollout(rng, length) for _ in range(self.batch)]

    def _rollout(self, rng: random.Random, length: int) -> Rollout:
        view = view_of(_fact_clip(rng, length), draw_start(rng, length))
        events, plain = facts(view, rng)
        groups = [*events, *plain[1:]] if self.with_events else plain[1:]
        rng.shuffle(groups)
        segments = [Text(text=describe_view(view), author="graph")]
        for begin, end in chain.from_iterable([*groups, plain[0]]):
            if begin:
                segments.append(Text(text=f" {begin}", author="graph"))
            segments.append(Text(text=f" {end}"))
        segments.append(Text(text="</think>\n"))
        answer = plain[0][0][1].rstrip(".")
        closing = Answer(text=f"<answer>{answer}</answer>", body="")
        return finish_rollout(Question(text="What do you know?"), [], segments, closing, rng)


def _fact_clip(rng: random.Random, length: int) -> Clip:
    # A family's clip needs at least five seconds for its events.
    if length < 5 or rng.random() < 0.2:
        clip = busy_clip(rng, length)
    else:
        clip = draw_item(rng, FAMILIES, length).clip
    return with_blink(clip, rng) if rng.random() < 0.5 else clip


def _describes_view(item: Item) -> bool:
    head = item.chain[0]
    return isinstance(head, str) and head.startswith(f"{item.asked.text} Second")


@dataclass(frozen=True, slots=True)
class Answers(RolloutLesson):
    """Questions whose view holds the answer.

    After them, SFT only has to train the calls, as it does for a large base model.
    """

    shown: bool = True
    """Whether the view consists of frames. Otherwise it is text, and only the text after it is trainable."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        rollouts: list[Rollout] = []
        while len(rollouts) < self.batch:
            families = FAMILIES if rng.random() < 0.5 else EVERYDAY
            item = draw_item(rng, families, rng.randint(6, 10))
            if item.needed or not _describes_view(item):
                continue
            if self.shown:
                rollouts.append(_answered(item, frames, rng))
                continue
            view, *rest = (s for s in item.chain if isinstance(s, str))
            segments, answer = conclude("".join(rest), item.lead, item.answer)
            segments = [Text(text=view, author="graph"), *segments]
            question = Question(text=item.asked.text, options=item.options)
            rollouts.append(finish_rollout(question, [], segments, answer, rng))
        return rollouts
