"""Rollouts for the base model, made without clips or a graph: frames are drawn, chains are written by the
world.

Each is a question about what its frames show, the description of every frame, and an answer that follows from
it. None holds a tool call.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np

from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.micro.questions import draw_tags
from act2see.micro.recipe.learn_encoder import draw_shown
from act2see.micro.recipe.models import IMAGE
from act2see.micro.words import closing, describe, describe_view
from act2see.micro.world import FPS, Board, Clip, Pixels, cell_name, render as draw
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Question, Text, Video
from act2see.trace.trace import Trace


class DrawnFrames:
    """A frame source that draws boards on demand, with the noise that compression leaves."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.boards: dict[str, Board] = {}
        """By digest."""
        self.noise = np.random.default_rng(seed)

    def ref(self, board: Board) -> FrameRef:
        """A reference to a new frame that shows a board."""
        digest = f"drawn-{self.seed}-{len(self.boards)}"
        self.boards[digest] = board
        return FrameRef(digest=digest, width=IMAGE, height=IMAGE, seconds=0.0)

    def __call__(self, ref: FrameRef) -> Pixels:
        pixels = draw(self.boards[ref.digest], IMAGE) + self.noise.normal(0, 4.0, (IMAGE, IMAGE, 3))
        noisy: Pixels = pixels.clip(0, 255).astype(np.uint8)
        return noisy


def busy_clip(rng: random.Random, seconds: int) -> Clip:
    """A clip that shows another board at most seconds, so that no description can be copied from the last
    one.

    Without such clips a model learns to repeat itself, and reads each frame vaguely.
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


class Ask(NamedTuple):
    """A question about boards."""

    text: str
    lead: str
    """How its conclusion begins."""
    answer: str


def ask_shown(board: Board, rng: random.Random, when: str = "") -> Ask:
    """A question about one board; `when` says which one, as in "At the end"."""
    p = rng.choice(board.pieces)
    place, kind = cell_name(p.cell), rng.random()
    lead = f"{when} the" if when else "The"
    asked = f" {when.lower()}" if when else ""
    if kind < 0.3:
        return Ask(f"What colour is the {p.shape}{asked}?", f"{lead} {p.shape} is", p.colour)
    if kind < 0.7:
        return Ask(f"Where is the {p.shape}{asked}?", f"{lead} {p.shape} is at", place)
    lead = f"{when} at {place} is the".strip().capitalize()
    return Ask(f"Which shape is at {place}{asked}?", lead, p.shape)


def ask_observed(clip: Clip, rng: random.Random) -> Ask:
    """A question about the start or the end of a clip."""
    view = clip.view()
    if rng.random() < 0.5:
        return ask_shown(view[0], rng, "At the start")
    return ask_shown(view[-1], rng, "At the end")


def base_rollout(
    clip: Clip,
    ask: Ask,
    options: tuple[str, ...],
    frames: DrawnFrames,
    rng: random.Random,
    reasoning: str = "",
    start: int | None = None,
) -> Rollout:
    """A clip's initial frames, their description second by second, and an answer that follows from it.

    Args:
        clip: The clip.
        ask: The question.
        options: Its options, if it has any.
        frames: Get the frames of the clip; equal boards are one frame.
        rng: The source of randomness.
        reasoning: Follows the description.
        start: The number of the first second. Default: any that leaves room for one digit, so that short
            clips teach every second's name.
    """
    view = clip.view()
    if start is None:
        start = rng.randint(0, 10 - len(view))
    known: dict[Board, FrameRef] = {}
    initial = []
    for second, board in enumerate(view, start):
        if board not in known:
            known[board] = frames.ref(board)
        initial.append(known[board].model_copy(update={"seconds": float(second)}))
    segments, answer = concluded(describe_view(clip, start) + reasoning, ask.lead, ask.answer)
    return closed_rollout(Question(text=ask.text, options=options), initial, segments, answer, rng)


def glance_rollout(frames: DrawnFrames, rng: random.Random) -> Rollout:
    """One frame of anything that the world can show, described in full, with conclusions from it."""
    board = draw_shown(rng)
    second = rng.randrange(10)
    *more, ask = (ask_shown(board, rng) for _ in range(5))
    conclusions = " ".join(f"{other.lead} {other.answer}." for other in more)
    segments, answer = concluded(f"Second {second}: {describe(board)} {conclusions}", ask.lead, ask.answer)
    frame = frames.ref(board).model_copy(update={"seconds": float(second)})
    return closed_rollout(Question(text=ask.text), [frame], segments, answer, rng)


def concluded(thought: str, lead: str, answer: str) -> tuple[list[Text], Answer]:
    """The segments of a thought that ends with a conclusion."""
    text, tag, rest = (thought + closing(lead, answer)).partition("<answer>")
    return [Text(text=text)], Answer(text=tag + rest, body="")


def closed_rollout(
    question: Question, initial: list[FrameRef], segments: list[Text], answer: Answer, rng: random.Random
) -> Rollout:
    """A rollout with its end of turn; which tools its prompt names is drawn."""
    video = Video(
        path="",
        digest="",
        seconds=float(len(initial)),
        width=IMAGE,
        height=IMAGE,
        frames=len(initial) * FPS,
        fps=FPS,
    )
    trace = Trace(
        id="base", video=video, question=question, initial=tuple(initial), segments=(*segments, answer)
    )
    usages: dict[str, Any] = dict.fromkeys(draw_tags(rng), "")
    return render(trace, Prompt(usages, "short"), end_of_turn=True)
