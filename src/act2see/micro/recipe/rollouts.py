"""Rollouts for the base model, made from drawn frames and the world's own chains, without videos or a graph.

Each holds a question about its frames, a description of every frame, and an answer that follows from the
description. None holds a tool call.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np

from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.micro.questions import draw_tags
from act2see.micro.recipe.learn_encoder import draw_seen_board
from act2see.micro.recipe.models import IMAGE
from act2see.micro.words import View, closing, describe, describe_view
from act2see.micro.world import FPS, Board, Clip, Pixels, cell_name, render as draw
from act2see.tools.frames import FrameRef, Generated
from act2see.trace.record import Answer, Question, Text, Video
from act2see.trace.trace import Trace


class DrawnFrames:
    """A source of frames that draws boards on demand, each as another recording would show it.

    A frame is brighter or darker, a little blurred or noisy, so that a model reads recordings of every kind.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.boards: dict[str, Board] = {}
        """The board of each digest."""
        self.rng = np.random.default_rng(seed)

    def ref(self, board: Board, seconds: float = 0.0) -> FrameRef:
        """Return a reference to a new frame that shows a board."""
        digest = f"drawn-{self.seed}-{len(self.boards)}"
        self.boards[digest] = board
        return FrameRef(digest=digest, width=IMAGE, height=IMAGE, seconds=seconds)

    def imagined(self, board: Board, anchor: FrameRef) -> FrameRef:
        """Return a reference to a new imagined frame that shows a board."""
        made = Generated(prompt="", anchor=anchor, seed=0, strength=0.0, model="drawn")
        return self.ref(board, anchor.seconds).model_copy(update={"provenance": made})

    def __call__(self, ref: FrameRef) -> Pixels:
        pixels: Any = draw(self.boards[ref.digest], IMAGE).astype(np.float32)
        if self.rng.random() < 0.3:
            pixels = _soften(pixels, self.rng.uniform(0.1, 0.5))
        if self.rng.random() < 0.4:
            pixels = pixels * self.rng.uniform(0.8, 1.15) + self.rng.uniform(-12, 12)
        noise = self.rng.uniform(1, 9)
        pixels = pixels + self.rng.normal(0, noise, (IMAGE, IMAGE, 3))
        noisy: Pixels = pixels.clip(0, 255).astype(np.uint8)
        return noisy


def _soften(pixels: Any, share: float) -> Any:
    """Mix each pixel with the mean of its four neighbours, which take `share` of it."""
    padded = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    return (1 - share) * pixels + share * around


def busy_clip(rng: random.Random, seconds: int) -> Clip:
    """Draw a clip that shows a new board at most seconds.

    Its descriptions cannot be copied from the second before. Without such clips a model learns to repeat
    itself, and reads each frame vaguely.
    """
    board = draw_seen_board(rng)
    slow = [(0, board)]
    for second in range(1, seconds):
        kind = rng.random()
        if kind < 0.7:
            board = draw_seen_board(rng)
        elif kind < 0.9 and not board.tipped:
            board = board.change(rng.choice(board.pieces).shape, cell=rng.choice(board.free))
        slow.append((second * FPS, board))
    return Clip(seconds * FPS, tuple(slow))


class Ask(NamedTuple):
    """A question about boards."""

    text: str
    lead: str
    """The beginning of the conclusion."""
    answer: str


def ask_about_board(board: Board, rng: random.Random, when: str = "") -> Ask:
    """Draw a question about one board of a clip; `when` names it, like "At the end"."""
    p = rng.choice(board.pieces)
    place = cell_name(p.cell)
    kind = rng.random()
    lead = f"{when} the" if when else "The"
    asked = f" {when.lower()}" if when else ""
    if kind < 0.3:
        return Ask(f"What colour is the {p.shape}{asked}?", f"{lead} {p.shape} is", p.colour)
    if kind < 0.7:
        return Ask(f"Where is the {p.shape}{asked}?", f"{lead} {p.shape} is at", place)
    lead = f"{when} at {place} is".strip().capitalize()
    return Ask(f"Which shape is at {place}{asked}?", lead, p.shape)


def ask_about_clip(clip: Clip, rng: random.Random) -> Ask:
    """Draw a question about the start or the end of a clip."""
    view = clip.view()
    if rng.random() < 0.5:
        return ask_about_board(view[0], rng, "At the start")
    return ask_about_board(view[-1], rng, "At the end")


LONGEST = 60
"""Seconds of the longest clip."""


def draw_start(rng: random.Random, seconds: int) -> int:
    """Draw the number of a view's first second: 0, or one that trains all numbers."""
    kind = rng.random()
    if kind < 0.3:
        return 0
    return rng.randint(0, 10 - seconds) if kind < 0.7 else rng.randint(0, LONGEST - seconds)


def frames_of(view: View, frames: DrawnFrames) -> list[FrameRef]:
    """Return references to the frames of a view; equal boards share one drawing."""
    known: dict[Board, FrameRef] = {}
    refs = []
    for second, board in view:
        if board not in known:
            known[board] = frames.ref(board)
        refs.append(known[board].model_copy(update={"seconds": float(second)}))
    return refs


def base_rollout(
    view: View,
    ask: Ask,
    options: tuple[str, ...],
    frames: DrawnFrames,
    rng: random.Random,
    reasoning: str = "",
) -> Rollout:
    """Make a rollout of a clip: its initial frames, their description by the second, and an answer.

    Args:
        view: The initial view.
        ask: The question.
        options: The options of the question; empty for none.
        frames: The source to which the frames are added.
        rng: The source of randomness.
        reasoning: Text between the description and the conclusion.
    """
    thought = f"{ask.text} {describe_view(view)}{reasoning}"
    segments, answer = conclude(thought, ask.lead, ask.answer)
    return finish_rollout(
        Question(text=ask.text, options=options), frames_of(view, frames), segments, answer, rng
    )


def glance_rollout(frames: DrawnFrames, rng: random.Random) -> Rollout:
    """Make a rollout of one frame, its full description, and conclusions from it."""
    board = draw_seen_board(rng)
    second = rng.randrange(10) if rng.random() < 0.7 else rng.randrange(LONGEST)
    *more, ask = (ask_about_board(board, rng) for _ in range(5))
    conclusions = " ".join(f"{other.lead} {other.answer}." for other in more)
    segments, answer = conclude(
        f"{ask.text} Second {second}: {describe(board)} {conclusions}", ask.lead, ask.answer
    )
    frame = frames.ref(board).model_copy(update={"seconds": float(second)})
    return finish_rollout(Question(text=ask.text), [frame], segments, answer, rng)


def conclude(thought: str, lead: str, answer: str) -> tuple[list[Text], Answer]:
    """Return the segments of a thought that ends with a conclusion."""
    text, tag, rest = (thought + closing(lead, answer)).partition("<answer>")
    return [Text(text=text)], Answer(text=tag + rest, body="")


def finish_rollout(
    question: Question, initial: list[FrameRef], segments: list[Text], answer: Answer, rng: random.Random
) -> Rollout:
    """Make a rollout with its end of turn; the tools in its prompt are drawn.

    Args:
        question: The question.
        initial: References to the initial frames.
        segments: The text before the answer.
        answer: The answer.
        rng: The source of randomness.
    """
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
