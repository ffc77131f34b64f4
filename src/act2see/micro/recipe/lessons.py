"""The lessons of the micro VLM: endless streams of batches, each drawn from its own seed.

The base model learns to describe frames (`glance_batches`, `base_batches`), to look up facts in a description
(`facts_batches`), and to answer from it (`answer_batches`). SFT uses traces of the real graph
(`trace_batches`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.micro.draws import draw_colour
from act2see.micro.questions import FAMILIES, draw_tags, make_item
from act2see.micro.recipe.corpus import shuffle_options, with_tools
from act2see.micro.recipe.rollouts import (
    Ask,
    DrawnFrames,
    ask_about_clip,
    base_rollout,
    busy_clip,
    conclude,
    finish_rollout,
    glance_rollout,
)
from act2see.micro.words import describe_blink, describe_moves, describe_view
from act2see.micro.world import FPS, SHAPES, Board, Clip, Short, cell_name
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Question, Text
from act2see.trace.trace import Trace
from act2see.training.sft.collate import collate
from act2see.training.sft.samples import similar_batches

if TYPE_CHECKING:
    import torch

Batches = Iterator["dict[str, torch.Tensor]"]
"""Batches as `collate` makes them."""

_FIRST_INDEX = 100_000
"""Number of the lessons' first question, beyond those of any corpus."""


def _first_index(seed: int) -> int:
    """Return the number of a stream's first question. It stays well below the seeds of the other splits."""
    return seed % 20 * 100_000


def glance_batches(packer: Packer, pad: int, end: int, batch: int, seed: int) -> Batches:
    """Yield batches of single frames.

    Args:
        packer: The inference packer.
        pad: The id of the padding token.
        end: The id of the token that ends a turn.
        batch: The number of rollouts in a batch.
        seed: The seed of the stream.
    """
    rng = random.Random(seed)
    while True:
        frames = DrawnFrames(rng.randrange(2**31))
        yield collate(packer, [glance_rollout(frames, rng) for _ in range(batch)], frames, pad, end)


def base_batches(
    packer: Packer, pad: int, end: int, batch: int, seed: int, seconds: tuple[int, int], busy: float = 0.6
) -> Batches:
    """Yield batches of described clips of one length, each with a question.

    One batch in eight has single frames instead.

    Args:
        packer: The inference packer.
        pad: The id of the padding token.
        end: The id of the token that ends a turn.
        batch: The number of rollouts in a batch.
        seed: The seed of the stream.
        seconds: The shortest and the longest clip.
        busy: The share of clips that change at almost every second.
    """
    rng = random.Random(seed)
    glances = glance_batches(packer, pad, end, 48, seed)
    index = _first_index(seed)
    while True:
        if rng.random() < 1 / 8:
            yield next(glances)
        frames = DrawnFrames(rng.randrange(2**31))
        length = rng.randint(*seconds)
        rollouts = []
        for _ in range(batch):
            index += 1
            if rng.random() < busy:
                clip = busy_clip(rng, length)
                rollouts.append(base_rollout(clip, ask_about_clip(clip, rng), (), frames, rng))
                continue
            item = make_item(rng.choice(FAMILIES), _FIRST_INDEX + index, "train", seconds=length)
            if item.family == "observe" and item.in_view:
                ask = Ask(item.text, item.lead, item.answer)
                reasoning = "".join(s for s in item.chain[1:] if isinstance(s, str))
                rollouts.append(base_rollout(item.clip, ask, item.options, frames, rng, reasoning))
            else:
                rollouts.append(base_rollout(item.clip, ask_about_clip(item.clip, rng), (), frames, rng))
        yield collate(packer, rollouts, frames, pad, end)


Fact = tuple[str, str]
"""The beginning and the end of a sentence."""


def facts(view: list[Board], rng: random.Random, start: int = 0) -> tuple[list[list[Fact]], list[list[Fact]]]:
    """Return the facts that follow from a described view.

    Args:
        view: One board for each second.
        rng: The source of randomness.
        start: The number of the first second.

    Returns:
        Groups of facts about events, and groups of one plain fact about a single board. The facts of a group
        stay in order, since the later ones refer to the first.
    """
    tipped = any(board.tipped for board in view)
    events = [
        [("A tipped board in these frames:", "yes." if tipped else "no.")],
        _movement_facts(view),
        *_blink_facts(view, rng, start),
    ]
    plain = _place_facts(view)
    for shape in SHAPES:
        pieces = [found for board in view if (found := board.find(shape))]
        events.append([(f"A {shape} in these frames:", "yes." if pieces else "no.")])
        if len(colours := {p.colour for p in pieces if not p.lit}) == 1:
            plain.append((f"The {shape} is", colours.pop()))
        if len(cells := {p.cell for p in pieces}) == 1:
            plain.append((f"The {shape} is at", cell_name(cells.pop())))
    if len(outcomes := {board for board in view if board.tipped}) == 1:
        plain += _outcome_facts(outcomes.pop())
    drawn = rng.sample(plain, min(16, len(plain)))
    return events, [[(begin, f"{end}.")] for begin, end in drawn]


def _movement_facts(view: list[Board]) -> list[Fact]:
    first, last = view[0], view[-1]
    group = [("", describe_moves(first, last))]
    movers = []
    for p in first.pieces:
        now = last.find(p.shape)
        if now and now.cell != p.cell:
            movers.append(p.shape)
    if len(movers) == 1:
        group.append(("It is the moved", f"{movers[0]}."))
    return group


def _blink_facts(view: list[Board], rng: random.Random, start: int) -> list[list[Fact]]:
    lit_boards = [board for board in view if board.lit]
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
    return [[describe_blink(asked, view, start), *rng.sample(known, len(known))]]


def _place_facts(view: list[Board]) -> list[Fact]:
    plain = []
    for board, when in ((view[0], "At the start"), (view[-1], "At the end")):
        for p in board.pieces:
            place = cell_name(p.cell)
            plain += [
                (f"{when} the {p.shape} is at", place),
                (f"{when} the {p.shape} is", p.colour),
                (f"{when} at {place} is the", p.shape),
            ]
    return plain


def _outcome_facts(board: Board) -> list[Fact]:
    plain = []
    for p in board.pieces:
        place = cell_name(p.cell)
        plain += [
            (f"On the tipped board the {p.shape} is at", place),
            (f"On the tipped board at {place} is the", p.shape),
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


def facts_batches(
    packer: Packer,
    pad: int,
    end: int,
    batch: int,
    seed: int,
    seconds: tuple[int, int],
    with_events: bool = True,
) -> Batches:
    """Yield batches of clips as text alone: descriptions, and the facts that follow from them.

    Only the ends of sentences are trainable. Looking things up in a text is a separate skill, which chains
    with one conclusion each hardly train.

    Args:
        packer: The inference packer.
        pad: The id of the padding token.
        end: The id of the token that ends a turn.
        batch: The number of rollouts in a batch.
        seed: The seed of the stream.
        seconds: The shortest and the longest clip.
        with_events: Whether facts about events are included.
    """
    rng = random.Random(seed)
    index = _first_index(seed)
    while True:
        length = rng.randint(*seconds)
        rollouts = []
        for _ in range(batch):
            index += 1
            clip = _fact_clip(rng, length, index)
            rollouts.append(_fact_rollout(clip, rng, length, with_events))
        yield collate(packer, rollouts, DrawnFrames(0), pad, end)


def _fact_clip(rng: random.Random, length: int, index: int) -> Clip:
    # A family's clip needs at least five seconds for its events.
    if length < 5 or rng.random() < 0.2:
        clip = busy_clip(rng, length)
    else:
        clip = make_item(rng.choice(FAMILIES), _FIRST_INDEX + index, "train", seconds=length).clip
    return with_blink(clip, rng) if rng.random() < 0.5 else clip


def _fact_rollout(clip: Clip, rng: random.Random, length: int, with_events: bool) -> Rollout:
    start = rng.randint(0, 10 - length)
    events, plain = facts(clip.view(), rng, start)
    groups = [*events, *plain[1:]] if with_events else plain[1:]
    rng.shuffle(groups)
    segments = [Text(text=describe_view(clip, start), author="graph")]
    for begin, end in chain.from_iterable([*groups, plain[0]]):
        if begin:
            segments.append(Text(text=f" {begin}", author="graph"))
        segments.append(Text(text=f" {end}"))
    segments.append(Text(text="</think>\n"))
    answer = plain[0][0][1].rstrip(".")
    closing = Answer(text=f"<answer>{answer}</answer>", body="")
    return finish_rollout(Question(text="What do you know?"), [], segments, closing, rng)


def answer_batches(packer: Packer, pad: int, end: int, batch: int, seed: int, shown: bool) -> Batches:
    """Yield batches of questions whose view holds the answer.

    After them, SFT only has to train the calls, as it does for a large base model.

    Args:
        packer: The inference packer.
        pad: The id of the padding token.
        end: The id of the token that ends a turn.
        batch: The number of rollouts in a batch.
        seed: The seed of the stream.
        shown: Whether the view consists of frames. Otherwise it is text, and only the text after it is
            trainable.
    """
    rng = random.Random(seed)
    index = _first_index(seed)
    while True:
        frames = DrawnFrames(rng.randrange(2**31))
        rollouts: list[Rollout] = []
        length = rng.randint(6, 10)
        while len(rollouts) < batch:
            index += 1
            item = make_item(rng.choice(FAMILIES), _FIRST_INDEX + index, seconds=length)
            if item.needed:
                continue
            view, *rest = (s for s in item.chain if isinstance(s, str))
            reasoning = "".join(rest)
            if shown:
                ask = Ask(item.text, item.lead, item.answer)
                rollouts.append(base_rollout(item.clip, ask, item.options, frames, rng, reasoning, start=0))
                continue
            segments, answer = conclude(reasoning, item.lead, item.answer)
            segments = [Text(text=view, author="graph"), *segments]
            question = Question(text=item.text, options=item.options)
            rollouts.append(finish_rollout(question, [], segments, answer, rng))
        yield collate(packer, rollouts, frames, pad, end)


def trace_batches(
    traces: Sequence[Trace], packer: Packer, store: FrameStore, batch: int, seed: int
) -> Batches:
    """Yield shuffled batches of traces of similar length.

    Each time that a trace is used, its options are shuffled and its tools are drawn again.

    Args:
        traces: The traces.
        packer: The inference packer.
        store: The store of their frames.
        batch: The number of traces in a batch.
        seed: The seed of the stream.
    """
    tokenizer = packer.codec.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    def rollout(trace: Trace) -> Rollout:
        return render(trace, Prompt(dict.fromkeys(trace.versions.tools, ""), "short"), end_of_turn=True)

    def varied(trace: Trace) -> Rollout:
        return rollout(with_tools(shuffle_options(trace, rng), draw_tags(rng), rng))

    lengths = [len(packer.pack(rollout(trace)).ids) for trace in traces]
    by_length = sorted(range(len(traces)), key=lambda i: lengths[i])
    rng = random.Random(seed)
    while True:
        for group in similar_batches(by_length, batch, rng):
            rollouts = [varied(traces[i]) for i in group]
            yield collate(packer, rollouts, store, tokenizer.pad_token_id, end)
