"""Train the micro VLM: first to see (base), then to use its tools (SFT).

The base model learns to name what initial frames show, to recall it, and to answer what they hold, on boards
drawn at its own resolution. It never sees a tool tag. SFT learns from traces that the real graph made with
the real tools (see `corpus`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.micro.questions import (
    FAMILIES,
    blinks,
    closing,
    describe,
    describe_view,
    draw_tags,
    make_item,
    moved,
    sentences,
)
from act2see.micro.recipe.learn_encoder import draw_shown
from act2see.micro.recipe.learn_eyes import train_eyes
from act2see.micro.recipe.models import IMAGE, PATCH, build_vlm
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.micro.world import FPS, SHAPES, Board, Clip, Short, cell_name, draw_colour, render as draw
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Question, Text, Video
from act2see.trace.trace import Trace
from act2see.training.sft.collate import collate
from act2see.training.sft.loop import Progress, fit

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration


def image_processor() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = IMAGE * IMAGE
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=2,
        temporal_patch_size=2,
        min_pixels=pixels,
        max_pixels=pixels,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


class Drawn:
    """Frames drawn on demand: boards by digest, with the noise that compression leaves."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.boards: dict[str, Board] = {}
        self.noise = np.random.default_rng(seed)

    def ref(self, board: Board) -> FrameRef:
        digest = f"drawn-{self.seed}-{len(self.boards)}"
        self.boards[digest] = board
        return FrameRef(digest=digest, width=IMAGE, height=IMAGE, seconds=0.0)

    def __call__(self, ref: FrameRef) -> np.ndarray[Any, np.dtype[np.uint8]]:
        pixels = draw(self.boards[ref.digest], IMAGE) + self.noise.normal(0, 4.0, (IMAGE, IMAGE, 3))
        return pixels.clip(0, 255).astype(np.uint8)


def busy_clip(rng: random.Random, seconds: int) -> Clip:
    """A clip that shows another board at most seconds, so that nothing said of one second can be copied from
    the last.

    Without such clips a model learns to repeat itself, and its look at each frame stays vague.
    """
    board = draw_shown(rng)
    slow = [(0, board)]
    for second in range(1, seconds):
        kind = rng.random()
        if kind < 0.7:
            board = draw_shown(rng)
        elif kind < 0.9 and not board.tipped:
            board = board.change(rng.choice(board.pieces).shape, cell=rng.choice(board.free))
        slow.append((second * FPS, board))
    return Clip(seconds * FPS, tuple(slow))


Asked = tuple[str, str, str]  # a question, how its conclusion begins, and its answer


def ask_shown(board: Board, rng: random.Random, when: str = "") -> Asked:
    """A question about one board."""
    p = rng.choice(board.pieces)
    place, kind, led = cell_name(p.cell), rng.random(), f"{when} the" if when else "The"
    asked = f" {when.lower()}" if when else ""
    if kind < 0.3:
        return f"What colour is the {p.shape}{asked}?", f"{led} {p.shape} is", p.colour
    if kind < 0.7:
        return f"Where is the {p.shape}{asked}?", f"{led} {p.shape} is at", place
    return f"Which shape is at {place}{asked}?", f"{when} at {place} is the".strip().capitalize(), p.shape


def ask_observed(clip: Clip, rng: random.Random) -> Asked:
    """A question about the start or the end of a clip."""
    view = clip.view()
    return (
        ask_shown(view[0], rng, "At the start")
        if rng.random() < 0.5
        else ask_shown(view[-1], rng, "At the end")
    )


def base_rollout(
    clip: Clip,
    asked: Asked,
    options: tuple[str, ...],
    frames: Drawn,
    rng: random.Random,
    said: str = "",
    start: int | None = None,
) -> Rollout:
    """A clip's initial frames, what they show second by second, perhaps what that comes to, and an answer
    that follows from it.

    The clip begins at `start`, or at any second that leaves room for one digit, so that short clips teach
    every second's name.
    """
    known: dict[Board, FrameRef] = {}
    initial = []
    start = rng.randint(0, 10 - len(clip.view())) if start is None else start
    for second, board in enumerate(clip.view(), start):
        if board not in known:
            known[board] = frames.ref(board)
        initial.append(known[board].model_copy(update={"seconds": float(second)}))
    return _rollout(
        Question(text=asked[0], options=options),
        initial,
        *_concluded(describe_view(clip, start) + said, *asked[1:]),
        rng,
    )


def glance_rollout(frames: Drawn, rng: random.Random) -> Rollout:
    """One frame of anything the world can show, described in full, and conclusions: how one looks things
    up."""
    board = draw_shown(rng)
    second = rng.randrange(10)
    *more, (text, lead, answer) = (ask_shown(board, rng) for _ in range(5))
    said = f"Second {second}: {describe(board)} " + " ".join(f"{begun} {found}." for _, begun, found in more)
    frame = frames.ref(board).model_copy(update={"seconds": float(second)})
    return _rollout(Question(text=text), [frame], *_concluded(said, lead, answer), rng)


def _rollout(
    question: Question, initial: list[FrameRef], segments: list[Text], answer: Answer, rng: random.Random
) -> Rollout:
    trace = Trace(
        id="base",
        video=Video(
            path="",
            digest="",
            seconds=float(len(initial)),
            width=IMAGE,
            height=IMAGE,
            frames=len(initial) * FPS,
            fps=FPS,
        ),
        question=question,
        initial=tuple(initial),
        segments=(*segments, answer),
    )
    return render(trace, Prompt(dict.fromkeys(draw_tags(rng), ""), "short"), end_of_turn=True)


def _concluded(said: str, lead: str, answer: str) -> tuple[list[Text], Answer]:
    thought, mark, rest = (said + closing(lead, answer)).partition("<answer>")
    return [Text(text=thought)], Answer(text=mark + rest, body="")


def glance_batches(
    packer: Packer, pad: int, end: int, batch: int, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    rng = random.Random(seed)
    while True:
        frames = Drawn(rng.randrange(2**31))
        yield collate(packer, [glance_rollout(frames, rng) for _ in range(batch)], frames, pad, end)


def base_batches(
    packer: Packer, pad: int, end: int, batch: int, seed: int, seconds: tuple[int, int], busy: float = 0.6
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of clips of one length each, drawn from `seconds` (shortest and longest), a share of
    them busy.

    One batch in eight is of single frames.
    """
    rng = random.Random(seed)
    glances = glance_batches(packer, pad, end, 48, seed)
    index = seed % 20 * 100_000  # well below the numbers of the other splits
    while True:
        if rng.random() < 1 / 8:
            yield next(glances)
        frames = Drawn(rng.randrange(2**31))
        length = rng.randint(*seconds)
        rollouts = []
        for _ in range(batch):
            index += 1
            if rng.random() < busy:
                clip = busy_clip(rng, length)
                rollouts.append(base_rollout(clip, ask_observed(clip, rng), (), frames, rng))
                continue
            item = make_item(rng.choice(FAMILIES), 100_000 + index, "train", seconds=length)
            if item.family == "observe" and item.in_view:
                said = "".join(s for s in item.chain[1:] if isinstance(s, str))
                rollouts.append(
                    base_rollout(
                        item.clip, (item.text, item.lead, item.answer), item.options, frames, rng, said
                    )
                )
            else:
                rollouts.append(base_rollout(item.clip, ask_observed(item.clip, rng), (), frames, rng))
        yield collate(packer, rollouts, frames, pad, end)


Fact = tuple[str, str]  # how a sentence begins, and how it goes on


def facts(view: list[Board], rng: random.Random, start: int = 0) -> tuple[list[list[Fact]], list[list[Fact]]]:
    """What a described view tells: first what events ask for, then what is plain of its start and end.

    Facts of one group are said one after another, for they speak of what the first has said again.
    """
    events = [[("A tipped board in these frames:", "yes." if any(b.tipped for b in view) else "no.")]]
    events.append([("", moved(view[0], view[-1]))])
    movers = [p.shape for p in view[0].pieces if (now := view[-1].find(p.shape)) and now.cell != p.cell]
    if len(movers) == 1:
        events[-1].append(("It is the moved", f"{movers[0]}."))
    lit = [b for b in view if b.lit]
    if not lit:
        events += [[blinks(shape, view)] for shape in rng.sample(("shape", *SHAPES), 2)]
    elif len(lit) == 1 and (x := lit[0].lit):
        known = [("It is the lit", f"{x.shape}."), (f"The lit {x.shape} is glowing", f"{x.colour}.")]
        known += [
            (f"With the {x.shape} lit the {p.shape} is at", f"{cell_name(p.cell)}.")
            for p in lit[0].pieces
            if p != x
        ]
        events.append([blinks(rng.choice(("shape", x.shape)), view, start), *rng.sample(known, len(known))])
    plain = []
    for board, when in ((view[0], "At the start"), (view[-1], "At the end")):
        for p in board.pieces:
            place = cell_name(p.cell)
            plain += [
                (f"{when} the {p.shape} is at", place),
                (f"{when} the {p.shape} is", p.colour),
                (f"{when} at {place} is the", p.shape),
            ]
    for shape in SHAPES:
        pieces = [found for b in view if (found := b.find(shape))]
        events.append([(f"A {shape} in these frames:", "yes." if pieces else "no.")])
        if len(colours := {p.colour for p in pieces if not p.lit}) == 1:
            plain.append((f"The {shape} is", colours.pop()))
        if len(cells := {p.cell for p in pieces}) == 1:
            plain.append((f"The {shape} is at", cell_name(cells.pop())))
    if len(tipped := {b for b in view if b.tipped}) == 1:
        for p in tipped.pop().pieces:
            place = cell_name(p.cell)
            plain += [
                (f"On the tipped board the {p.shape} is at", place),
                (f"On the tipped board at {place} is the", p.shape),
            ]
    return events, [[(begun, f"{found}.")] for begun, found in rng.sample(plain, min(16, len(plain)))]


def with_blink(clip: Clip, rng: random.Random) -> Clip:
    """The clip with a blink in view, where it has none."""
    view = clip.view()
    if any(b.lit for b in view):
        return clip
    second = rng.randrange(len(view))
    p = rng.choice(clip.base(second * FPS).pieces)
    lit = replace(p, colour=draw_colour(rng, p.shape, False, p.colour), lit=True)
    return replace(clip, short=(*clip.short, Short("blink", lit, second * FPS, second * FPS + 6)))


def facts_batches(
    packer: Packer,
    pad: int,
    end: int,
    batch: int,
    seed: int,
    seconds: tuple[int, int],
    with_events: bool = True,
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of described clips, as text alone, and what follows from each; only the ends of
    sentences are learnt.

    Looking a thing up in what was written is a skill of its own, which chains with one conclusion each hardly
    teach.
    """
    rng = random.Random(seed)
    index = seed % 20 * 100_000
    while True:
        length = rng.randint(*seconds)
        rollouts = []
        for _ in range(batch):
            index += 1
            busy = (
                length < 5 or rng.random() < 0.2
            )  # the families' clips have room for their events from five seconds on
            clip = (
                busy_clip(rng, length)
                if busy
                else make_item(rng.choice(FAMILIES), 100_000 + index, "train", seconds=length).clip
            )
            if rng.random() < 0.5:
                clip = with_blink(clip, rng)
            start = rng.randint(0, 10 - length)
            events, plain = facts(clip.view(), rng, start)
            groups = [*events, *plain[1:]] if with_events else plain[1:]
            rng.shuffle(groups)
            segments = [Text(text=describe_view(clip, start), author="graph")]
            for begun, found in chain.from_iterable([*groups, plain[0]]):
                segments += [Text(text=f" {begun}", author="graph")] if begun else []
                segments.append(Text(text=f" {found}"))
            segments.append(Text(text="</think>\n"))
            answer = plain[0][0][1].rstrip(".")
            question = Question(text="What do you know?")
            rollouts.append(
                _rollout(question, [], segments, Answer(text=f"<answer>{answer}</answer>", body=""), rng)
            )
        yield collate(packer, rollouts, Drawn(0), pad, end)


def answer_batches(
    packer: Packer, pad: int, end: int, batch: int, seed: int, shown: bool
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of questions whose view holds the answer: shown, or as text alone and then learnt from
    there on.

    So SFT has to teach the calls alone, as it does where the base is a large model.
    """
    rng = random.Random(seed)
    index = seed % 20 * 100_000
    while True:
        frames = Drawn(rng.randrange(2**31))
        rollouts: list[Rollout] = []
        length = rng.randint(6, 10)
        while len(rollouts) < batch:
            index += 1
            item = make_item(rng.choice(FAMILIES), 100_000 + index, seconds=length)
            if item.needed:
                continue
            view, *rest = (s for s in item.chain if isinstance(s, str))
            if shown:
                asked = (item.text, item.lead, item.answer)
                rollouts.append(
                    base_rollout(item.clip, asked, item.options, frames, rng, "".join(rest), start=0)
                )
                continue
            concluded, answer = _concluded("".join(rest), item.lead, item.answer)
            segments = [Text(text=view, author="graph"), *concluded]
            rollouts.append(
                _rollout(Question(text=item.text, options=item.options), [], segments, answer, rng)
            )
        yield collate(packer, rollouts, frames, pad, end)


def train_base(
    steps: int = 3200, answers: int = 490, batch: int = 32, seed: int = 0, progress: Progress | None = None
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    import torch

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer(sentences())
    model = build_vlm(tokenizer)
    packer = Packer(tokenizer, image_processor(), model.config.image_token_id, cached_images=2048)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.pad_token_id
    part = steps // 16
    train_eyes(model, packer, 2 * part, seed=seed, progress=progress)
    # First single frames, many a second, then short clips, then whole ones. At twice this rate seeing is not
    # learnt at all.
    frames = glance_batches(packer, pad, end, 48, seed)
    fit(model, frames, 2 * part, rate=1e-3, warmup=60, name="frames", progress=progress)
    short = base_batches(packer, pad, end, batch, seed + 1, (2, 5), busy=1.0)
    fit(model, short, 2 * part, rate=1e-3, warmup=20, name="short clips", progress=progress)
    whole = base_batches(packer, pad, end, batch, seed + 2, (6, 10))
    fit(model, whole, 2 * part, rate=1e-3, warmup=20, name="clips", progress=progress)
    # The place of a shape stands before it and is the hardest to look up: at chance after 400 mixed steps,
    # learnt in 50 of these.
    plain = facts_batches(packer, pad, end, 48, seed + 5, (1, 2), with_events=False)
    fit(model, plain, part, rate=1e-3, warmup=20, name="recall", progress=progress)
    few = facts_batches(packer, pad, end, batch, seed + 3, (1, 3))
    many = facts_batches(packer, pad, end, batch, seed + 4, (4, 8))
    # Clips go on between the facts: seeing is soon worn away by text alone.
    mixed = chain.from_iterable(zip(few, many, few, many, whole, strict=False))
    fit(model, mixed, steps - 9 * part, rate=1e-3, warmup=20, name="facts", progress=progress)
    # Last, to answer what its view holds. As text alone it is learnt in no time, and not carried over to
    # frames.
    text, shown = (answer_batches(packer, pad, end, batch, seed + 6 + s, shown=bool(s)) for s in (0, 1))
    few = facts_batches(packer, pad, end, batch, seed + 13, (1, 3))
    many = facts_batches(packer, pad, end, batch, seed + 14, (4, 8))
    whole = base_batches(packer, pad, end, batch, seed + 12, (6, 10))
    mixed = chain.from_iterable(zip(text, shown, few, whole, text, shown, many, strict=False))
    fit(model, mixed, answers, rate=1e-3, warmup=20, name="answers", progress=progress)
    return model, packer


def save(model: Qwen3VLForConditionalGeneration, packer: Packer, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    packer.codec.tokenizer.save_pretrained(folder)
    packer.image_processor.save_pretrained(folder)
