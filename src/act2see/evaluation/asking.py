"""Ask a question of a benchmark: what the model is told, in which way of working, and what comes back.

A way of working is an `Arm`: the graph with a preset, or a peer. It takes one question about one video and
returns a trace, so that all are scored, counted and shown in the same way.

A sample may need several questions: EgoNormia asks for a behaviour, then for its justification, then for all
that would be sensible. Their options are shuffled by the sample's id and the seed alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from act2see.errors import RefusedError
from act2see.evaluation.reading import AnswerKind
from act2see.evaluation.replies import Order, Reply, ask_next, show_options, shuffle_order
from act2see.evaluation.samples import Sample
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.graphs.state import AskContext
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace

_FORMS: dict[AnswerKind, str] = {
    "choice": "",
    "choices": "Several options may be right. Answer with the letters of all that are.",
    "interval": "Answer with the start and the end in seconds, such as [12.5, 20].",
    "box": "Answer with a box: [left, top, right, bottom].",
    "number": "Answer with a number, and its unit if it has one.",
    "size": "Answer with a number and its unit.",
    "text": "",
}
"""What a question says about the form of its answer."""
_SENSIBLE = "Which of these behaviours are sensible here?"


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one video, as it is put to an arm."""

    video: str
    """The path; `clip.mp4#t=10,20` for a part of it."""
    text: str
    options: tuple[str, ...] = ()
    """As they are shown, all different."""
    frames: int | None = None
    """How many frames the benchmark shows at the start; None for the configuration's own rule."""
    seed: int = 0
    name: str = ""
    """The id of the trace; the same for the same question of the same run."""


class Arm(Protocol):
    """A way of working."""

    name: str
    """The name in tables: that of the preset, or of the peer."""
    config: Config
    """Its models, budgets and frames."""

    @property
    def store(self) -> FrameStore | None:
        """What holds the pictures of its traces; None if there are none."""

    async def ask(self, question: Question) -> Trace:
        """Answer a question."""

    async def close(self) -> None:
        """Free the models."""


@runtime_checkable
class SpendsAside(Protocol):
    """An arm that also spends tokens which serve all questions about a video, such as those of captions."""

    def take_aside(self, video: str) -> int:
        """Return the tokens spent on a video, by its digest, since this was last called."""


class GraphArm:
    """The graph, with a configuration. Its models are built once, whatever number of frames is shown."""

    def __init__(
        self,
        config: Config,
        name: str | None = None,
        context: AskContext | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.config = config
        self.name = name or config.name
        self.context = context or AskContext()
        self.parts = build_parts(config) if parts is None else parts
        self._own = parts is None
        self._graphs: dict[int | None, Graph] = {}

    @property
    def store(self) -> FrameStore | None:
        """The store of the graph's frames."""
        return self.parts.resources.store

    async def ask(self, question: Question) -> Trace:
        """Run the graph."""
        return await aask(
            self._graph(question.frames),
            question.video,
            question.text,
            question.options,
            context=replace(self.context, seed=question.seed),
            thread_id=question.name or None,
        )

    async def close(self) -> None:
        """Close the reasoner, if these parts were built here."""
        if self._own:
            await asyncio.to_thread(self.parts.reasoner.close)

    def _graph(self, frames: int | None) -> Graph:
        """Return the graph that starts with so many frames."""
        if frames not in self._graphs:
            view = self.config.view
            if frames is not None:
                view = view.model_copy(update={"frames": frames, "max_frames": min(frames, view.max_frames)})
            config = self.config.model_copy(update={"view": view})
            self._graphs[frames] = create_act2see(config, parts=self.parts)
        return self._graphs[frames]


@dataclass(frozen=True, slots=True)
class Told:
    """The answers to a sample, and the traces that they come from."""

    reply: Reply
    traces: tuple[Trace, ...]
    aside: int = 0
    """Tokens that were spent for all questions about the video, while this one was asked."""


async def ask_sample(
    arm: Arm, sample: Sample, seed: int, name: str, *, shuffle: bool = False, chains: bool = False
) -> Told:
    """Ask all questions of a sample.

    Args:
        arm: The way of working.
        sample: The sample; its video exists.
        seed: The seed of the run and, with `shuffle`, of the order of options.
        name: The id of the first trace. Those of further questions have `-2` and `-3` behind it.
        shuffle: Whether options are shown in a drawn order.
        chains: Whether the reply carries the reasoning, because a judge reads it.

    Raises:
        Act2SeeError: The video or the model failed.
    """
    traces: list[Trace] = []

    async def put(text: str, options: Sequence[str], order: Order) -> str | None:
        number = "" if not traces else f"-{len(traces) + 1}"
        shown = tell_apart(show_options(tuple(options), order))
        question = Question(sample.clip, text, shown, sample.frames, seed, name + number)
        traces.append(await arm.ask(question))
        return traces[-1].answer

    drawn = seed if shuffle else None
    order = shuffle_order(sample.options, sample.id, drawn) if shuffle else ()
    try:
        body = await put(question_text(sample), sample.options, order)
        reply = Reply(body=body, order=order, refused=traces[0].refused)
        if chains:
            reply = reply.model_copy(update={"chain": traces[0].text})
        if (then := ask_next(sample, reply)) is not None and not reply.refused:
            then_order = shuffle_order(then.options, f"{sample.id} then", drawn) if shuffle else ()
            second = await put(then.question, then.options, then_order)
            third = await put(f"{_SENSIBLE} {_FORMS['choices']}", sample.options, order)
            reply = reply.model_copy(update={"then": second, "then_order": then_order, "sensible": third})
    except RefusedError:
        reply = Reply(order=order, refused=True)
    aside = arm.take_aside(traces[0].video.digest) if traces and isinstance(arm, SpendsAside) else 0
    return Told(reply, tuple(traces), aside)


def question_text(sample: Sample) -> str:
    """Return the question, with the form of its answer."""
    form = _FORMS[sample.kind]
    return f"{sample.question}\n{form}" if form else sample.question


def tell_apart(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return options that all differ. Some published questions have the same words twice."""
    told: list[str] = []
    for option in options:
        number = 2
        words = option
        while words in told:
            words = f"{option} ({number})"
            number += 1
        told.append(words)
    return tuple(told)
