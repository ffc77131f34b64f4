"""Traces of board questions, made without clips or a graph: the boards are rendered into the store."""

from __future__ import annotations

from act2see.micro.questions import TAGS, Item, Seen, ToolCall, make_item
from act2see.micro.recipe.corpus import next_text, with_lines
from act2see.micro.words import describe_seen
from act2see.micro.world import Board, render
from act2see.tools.frames import FrameRef, Generated, Provenance, Retrieved
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.sft.settings import SftSettings

# A short run of micro. Dropout stays on, so that tests of resumed runs also cover its random numbers.
QUICK = SftSettings(
    base="micro:base",
    prompt="short",
    device="cpu",
    learning_rate=2e-3,
    batch=2,
    max_steps=3,
    log_steps=1,
    warmup=0,
    schedule="constant_with_warmup",
    gradient_checkpointing=False,
    save_steps=100,
)


def item_of(family: str, n: int = 0) -> Item:
    return with_lines(make_item(family, n, "train"))  # type: ignore[arg-type]


def expected_text(item: Item) -> str:
    """Return the text that the model writes in the item's chain."""
    return "".join(next_text(item, number) for number in range(len(item.needed) + 1))


def draw_trace(family: str, store: FrameStore, n: int = 0) -> Trace:
    """Return the reference chain of a training question, with the boards that its calls should return."""
    item = item_of(family, n)

    def shown(board: Board, seconds: float, provenance: Provenance | None = None) -> FrameRef:
        return store.ref(render(board, 48), seconds, provenance)

    initial = tuple(shown(board, float(s)) for s, board in enumerate(item.clip.view()))
    segments: list[Segment] = []
    call: ToolCall | None = None
    for step in item.chain:
        if isinstance(step, str):
            segments.append(Text(text=step))
            continue
        if isinstance(step, Seen):
            assert call is not None, "a chain describes a frame after it retrieved it"
            segments.append(Text(text=describe_seen(call.at, call.expect)))
            continue
        call = step
        found: Provenance = Retrieved(query=step.query, score=0.5)
        if step.tag == "generate":
            found = Generated(prompt=step.query, anchor=initial[0], seed=0, strength=0.3, model="drawn")
        segments += [
            Call(text=f"<{step.tag}>{step.query}</{step.tag}>", tag=step.tag, query=step.query),
            Frames(tag=step.tag, frames=(shown(step.expect, 2.5, found),)),
        ]
    said, _, answer = item.closing().partition("<answer>")
    segments += [Text(text=said), Answer(text=f"<answer>{answer}", body=item.answer)]
    seconds = float(len(initial))
    return Trace(
        id=f"{family}-{n}",
        video=Video(
            path=f"{family}-{n}.mp4",
            digest=f"{family}-{n}",
            seconds=seconds,
            width=48,
            height=48,
            frames=12,
            fps=12.0,
        ),
        question=Question(text=item.text, options=item.options),
        initial=initial,
        segments=tuple(segments),
        versions=Versions(tools=dict.fromkeys(TAGS, "1")),
    )
