"""Handwritten chains about boards: a human chain, and a teacher's chain with frames."""

from __future__ import annotations

from act2see.micro.world import Board, Piece, render
from act2see.tools.frames import FrameRef, Generated, Retrieved
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Attempt, Chain, Cost
from act2see.training.corpus.sources import Sample


def board_frame(n: int, store: FrameStore | None = None) -> FrameRef:
    """Return a frame of the `n`-th board; its pixels are in the store if one is given."""
    if store is None:
        return FrameRef(digest=f"{n + 1:032x}", width=96, height=96, seconds=n)
    board = Board(
        (
            Piece("circle", "red", divmod(n % 9, 3)),
            Piece("ring", "green", divmod((n + 1 + n // 9 % 8) % 9, 3)),
        )
    )
    return store.ref(render(board, 96), float(n))


def call_and_frames(n: int, tag: str = "retrieve", store: FrameStore | None = None) -> tuple[Call, Frames]:
    """Return a call and its returned frame."""
    frame, query = board_frame(n, store), f"board {n}"
    if tag == "generate":
        source = Generated(
            prompt=query, anchor=board_frame(n + 9, store), seed=0, strength=0.5, model="micro-sd3"
        )
    else:
        source = Retrieved(query=query, score=0.4)
    frame = frame.model_copy(update={"provenance": source})
    return Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query), Frames(
        tag=tag, frames=(frame,), seconds=0.2
    )


def build_trace(sample: Sample, *segments: Segment, store: FrameStore | None = None) -> Trace:
    return Trace(
        id=sample.id,
        video=Video(
            path=sample.video, digest="0" * 32, seconds=6.0, width=192, height=192, frames=72, fps=12.0
        ),
        question=Question(text=sample.question, options=sample.options),
        initial=(board_frame(0, store), board_frame(1, store)),
        segments=segments,
        versions=Versions(tools={"retrieve": "1", "generate": "1"}),
    )


def closing(sample: Sample) -> tuple[Text, Answer]:
    return Text(text=" So that is it.</think>\n"), Answer(
        text=f"<answer>{sample.answer}</answer>", body=sample.answer
    )


def build_chain(
    sample: Sample, *tags: str, thought: str | None = None, store: FrameStore | None = None, **changes: object
) -> Chain:
    """Return a well-formed chain: `thought` (default: the human chain), a call of each tag, the answer."""
    segments: list[Segment] = [Text(text=sample.chain if thought is None else thought)]
    for n, tag in enumerate(tags, start=2):
        segments += call_and_frames(n, tag, store)
    attempt = Attempt(
        outcome="right",
        answer=sample.answer,
        seconds=2.0,
        cost=Cost(read=100, written=10, requests=1, dollars=0.01),
    )
    fields: dict[str, object] = {"attempts": (attempt,), "teacher": "scripted", **changes}
    return Chain(sample=sample, trace=build_trace(sample, *segments, *closing(sample), store=store), **fields)  # type: ignore[arg-type]


def make_sample(n: int, human: str = "The ring turns green.", **changes: object) -> Sample:
    """Return a question without a clip."""
    fields = {
        "id": f"q{n}",
        "source": "jsonl",
        "video": "clip.mp4",
        "question": "What colour does the ring turn?",
    }
    return Sample(**{**fields, "options": ("red", "green"), "answer": "green", "chain": human, **changes})  # type: ignore[arg-type]
