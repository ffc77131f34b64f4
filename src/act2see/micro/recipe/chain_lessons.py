"""The lessons of SFT: whole chains with their calls, the ends of chains, and questions in people's words.

Most chains are drawn: their frames are drawings of what the tools should return, so that no chain comes
twice. The others are traces of the real graph with the real tools (`corpus`), whose frames have the faults of
compression and generation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.micro.kinds import Asked
from act2see.micro.questions import EVERYDAY, FAMILIES, TAGS, Family, Item, Seen, ToolCall, draw_tags
from act2see.micro.recipe.corpus import after_view, shuffle_options, tools_line, with_tools
from act2see.micro.recipe.lessons import RolloutLesson, draw_item, draw_length
from act2see.micro.recipe.models import IMAGE
from act2see.micro.recipe.rollouts import DrawnFrames, frames_of
from act2see.micro.wordings import Wordings, load_wordings
from act2see.micro.words import describe_seen, view_of
from act2see.micro.world import FPS
from act2see.tools.frames import FrameRef
from act2see.tools.retrieve import no_match
from act2see.tools.video.store import FrameSource
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text, Turn, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.sft.forward import Batch

# Everyday families whose chains go on after the view.
_IN_CHAINS: tuple[Family, ...] = (
    "plain",
    "when",
    "count",
    "exists",
    "first",
    "two",
    "false",
    "again",
    "order",
    "relation",
    "whole",
    "either",
)
CHAIN_FAMILIES: tuple[Family, ...] = (*FAMILIES, *FAMILIES, *_IN_CHAINS, *_IN_CHAINS, "plain", "changes")
"""The families of chains that go on after the view, as often as they are drawn."""
ALL_FAMILIES: tuple[Family, ...] = (*CHAIN_FAMILIES, "describe", "beyond", "beyond")
# Families of many kinds, and the refusals, are drawn more often.
_MANY_KINDS: tuple[Family, ...] = ("plain", "exists", "beyond", "order", "whole", "either")
_READ_FAMILIES: tuple[Family, ...] = (
    *(*FAMILIES, *EVERYDAY),
    *("plain", "plain", "when", "count", "first", "order", "whole"),
    *_MANY_KINDS,
    *_MANY_KINDS,
    *("beyond", "beyond", "beyond", "beyond", "beyond"),
)
"""The families of readings, so that each kind of question comes about equally often; one of five is
beyond the board, since that may be about anything."""
_NO_MATCH = 0.8
"""Share of the searches for what a clip does not show that return no frame."""
_DRAWN = 7
"""Items that are drawn for each one of an even batch."""
_ALL_TAGS = dict.fromkeys(TAGS, "")


def question_of(item: Item) -> Question:
    """Return the question of an item as a trace records it."""
    turns = tuple(Turn(question=question, answer=answer) for question, answer in item.earlier)
    return Question(text=item.text, options=item.options, earlier=turns)


def draw_trace(item: Item, frames: DrawnFrames) -> Trace:
    """Return the reference chain of an item as a trace with both tools.

    Args:
        item: The item.
        frames: The source to which the frames are added.
    """
    initial = frames_of(view_of(item.clip), frames)
    segments: list[Segment] = []
    text = ""
    call: ToolCall | None = None
    returned = Frames(tag="")
    for step in item.chain:
        if isinstance(step, Seen):
            assert call is not None, "a chain describes a frame after it retrieved it"
            text += describe_seen(call.at, call.expect) if returned.frames else ""
        elif isinstance(step, str):
            text += step
        else:
            call = step
            returned = _draw_result(step, frames, initial[0])
            written = f"<{step.tag}>{step.query}</{step.tag}>"
            segments += [
                Text(text=text + tools_line(TAGS)),
                Call(text=written, tag=step.tag, query=step.query),
                returned,
            ]
            text = ""
    text, tag, rest = (text + item.closing()).partition("<answer>")
    segments += [Text(text=text), Answer(text=tag + rest, body=item.given)]
    video = Video(
        path="",
        digest="",
        seconds=item.clip.seconds,
        width=IMAGE,
        height=IMAGE,
        frames=item.clip.frames,
        fps=FPS,
    )
    return Trace(
        id=f"drawn-{item.seed}",
        video=video,
        question=question_of(item),
        initial=tuple(initial),
        segments=tuple(segments),
        versions=Versions(tools=_ALL_TAGS),
    )


def _draw_result(call: ToolCall, frames: DrawnFrames, anchor: FrameRef) -> Frames:
    """Draw what a call returns. If the clip does not show what it looks for, that is mostly a note."""
    if call.tag == "generate":
        return Frames(tag=call.tag, frames=(frames.imagined(call.expect, anchor),))
    if call.any_frame and frames.rng.random() < _NO_MATCH:
        needed = frames.rng.uniform(0.25, 0.6)
        return Frames(tag=call.tag, note=no_match(frames.rng.uniform(-0.3, needed), needed, seen=True))
    return Frames(tag=call.tag, frames=(frames.ref(call.expect, call.at),))


def render_trace(trace: Trace) -> Rollout:
    """Return the rollout of a trace with the end of its turn."""
    return render(trace, Prompt(dict.fromkeys(trace.versions.tools, ""), "short"), end_of_turn=True)


@dataclass(frozen=True, slots=True)
class Chains(RolloutLesson):
    """Drawn chains of all families, with questions in people's words and tools drawn anew."""

    families: tuple[Family, ...] = ALL_FAMILIES

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        length = draw_length(rng)
        rollouts = []
        for _ in range(self.batch):
            item = draw_item(rng, self.families, length if length > 10 else rng.randint(6, 10))
            trace = draw_trace(load_wordings().reword(item, rng), frames)
            rollouts.append(render_trace(with_tools(trace, draw_tags(rng), rng)))
        return rollouts


@dataclass(frozen=True, slots=True)
class Ends(RolloutLesson):
    """Drawn chains without their initial frames: the view is text, and only what follows it is trainable.

    A chain is mostly description, which the base model has learned.
    """

    families: tuple[Family, ...] = CHAIN_FAMILIES

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        rollouts = []
        for _ in range(self.batch):
            item = draw_item(rng, self.families, draw_length(rng))
            rollouts.append(_end_of(draw_trace(item, frames), rng))
        return rollouts


@dataclass(frozen=True, slots=True)
class EvenEnds(RolloutLesson):
    """Ends of chains in which each kind of question comes about equally often.

    Drawn by family, some kinds come once in a hundred chains ("Is the circle red?"), and their last step, a
    comparison of two words, is learnt late.
    """

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        length = rng.randint(5, 9) if rng.random() < 0.85 else rng.randint(10, 40)
        kinds: dict[str, Item] = {}
        for _ in range(_DRAWN * self.batch):
            item = draw_item(rng, CHAIN_FAMILIES, length)
            kinds[item.asked.kind] = item
        chosen = rng.sample(sorted(kinds), min(self.batch, len(kinds)))
        return [_end_of(draw_trace(kinds[kind], frames), rng) for kind in chosen]


def _end_of(trace: Trace, rng: random.Random) -> Rollout:
    return render_trace(after_view(with_tools(trace, draw_tags(rng), rng)))


@dataclass(frozen=True, slots=True)
class Readings(RolloutLesson):
    """Questions in people's words, and the same in the world's own. No frame is shown."""

    wordings: Wordings | None = field(default=None, compare=False, repr=False)
    """The lines; by default those of the package."""

    def rollouts(self, rng: random.Random, frames: DrawnFrames) -> list[Rollout]:
        return [self._rollout(rng) for _ in range(self.batch)]

    def _rollout(self, rng: random.Random) -> Rollout:
        item = (self.wordings or load_wordings()).reword(draw_item(rng, _READ_FAMILIES), rng)
        return render_reading(question_of(item), item.asked, draw_tags(rng))


def render_reading(question: Question, asked: Asked, tools: Sequence[str]) -> Rollout:
    """Return the rollout of a question and its reading in the world's own words, without a frame."""
    trace = Trace(
        id="reading",
        video=Video(path="", digest="", seconds=1.0, width=IMAGE, height=IMAGE, frames=FPS, fps=FPS),
        question=question,
        initial=(),
        segments=(Text(text=asked.text),),
    )
    return render(trace, Prompt(dict.fromkeys(tools, ""), "short"))


@dataclass(frozen=True, slots=True)
class Traces(RolloutLesson):
    """Traces of the real graph, those of a batch of similar length.

    Each time that a trace is used, its options are shuffled and its tools are drawn again.
    """

    traces: Sequence[Trace] = field(default=(), compare=False)
    """The traces, sorted by length."""
    store: FrameSource | None = field(default=None, compare=False)
    """The store of their frames."""

    def __call__(self, number: int) -> Batch:
        assert self.store is not None, "the lesson has a store"
        rng = random.Random(f"traces {self.seed} {number}")
        start = rng.randrange(max(1, len(self.traces) - self.batch))
        rollouts = []
        for trace in self.traces[start : start + self.batch]:
            varied = with_tools(shuffle_options(trace, rng), draw_tags(rng), rng)
            rollouts.append(render_trace(varied))
        return self.collate(rollouts, self.store)
