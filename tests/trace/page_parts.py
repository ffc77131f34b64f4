"""Traces to draw, and a strict parser of pages."""

from __future__ import annotations

import hashlib
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.micro.world import Board, Edit, Piece, render
from act2see.tools.frames import Curve, FrameRef, Generated, Initial, Provenance, Retrieved
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Text, Usage, Versions, Video
from act2see.trace.trace import Trace

Pixels = NDArray[np.uint8]
BOARD = Board(
    (Piece("circle", "red", (0, 0)), Piece("ring", "green", (1, 2)), Piece("square", "blue", (2, 1)))
)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='f()'></style></title>&lt;\x00\x1b\ud800\u202e"


class Store:
    """Pixels by digest, like a frame store."""

    def __init__(self) -> None:
        self.pixels: dict[str, Pixels] = {}

    def ref(self, pixels: Pixels, seconds: float, provenance: Provenance | None = None) -> FrameRef:
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
        self.pixels[digest] = pixels
        return FrameRef(
            digest=digest,
            width=pixels.shape[1],
            height=pixels.shape[0],
            seconds=seconds,
            provenance=provenance or Initial(),
        )

    def board(
        self, n: int, seconds: float, size: int = 192, provenance: Provenance | None = None
    ) -> FrameRef:
        row, column = divmod(n % 9, 3)
        circle = Piece("circle", "red", (row, column))
        ring = Piece("ring", "green", (row, 2 - column))
        return self.ref(render(Board((circle, ring)), size), seconds, provenance)

    def __call__(self, frame: FrameRef) -> Pixels:
        if frame.digest not in self.pixels:
            raise StoreError(f"no frame {frame.digest}")
        return self.pixels[frame.digest]


class Page(HTMLParser):
    """A page, parsed strictly: every element must be closed, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.style: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({k for k, _ in attrs}) == len(attrs), f"<{tag}> repeats an attribute"
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            (self.style if self.open[-1] == "style" else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    @property
    def css(self) -> str:
        return "".join(self.style)

    def classed(self, name: str) -> list[dict[str, str]]:
        return [a for _, a in self.tags if name in a.get("class", "").split()]


def make(
    store: Store, *segments: Text | Call | Frames | Answer, initial: int = 6, question: Question | None = None
) -> Trace:
    return Trace(
        id="t1",
        video=Video(
            path="/videos/someone/clips/board.mp4",
            digest="9f3a",
            seconds=6.0,
            width=192,
            height=192,
            frames=72,
            fps=12.0,
        ),
        question=question
        or Question(text="What colour does the ring turn?", options=("red", "green", "blue")),
        initial=tuple(store.board(i, float(i)) for i in range(initial)),
        segments=segments,
        usage=Usage(
            loops=(
                Loop(prefilled=820, cached=0, decoded=64, seconds=0.61, stop="</retrieve>"),
                Loop(prefilled=40, cached=884, decoded=31, seconds=0.31, stop="</answer>"),
            ),
            node_seconds={"view": 0.1, "reason": 0.92, "retrieve": 0.2},
        ),
        versions=Versions(
            act2see="0.1.0",
            reasoner="micro-vlm",
            tools={"retrieve": "retrieve micro"},
            config="b1946",
            seed=7,
        ),
    )


def curve(peak: int = 8) -> Curve:
    return Curve(start=0.0, step=1 / 3, values=tuple(0.43 if i == peak else 0.15 for i in range(18)))


def retrieved(store: Store, seconds: float = 2.7) -> tuple[Call, Frames]:
    frame = store.board(7, seconds, provenance=Retrieved(query="the ring blinks", score=0.43, index_id="i"))
    call = Call(text="<retrieve> the ring blinks </retrieve>", tag="retrieve", query="the ring blinks")
    return call, Frames(tag="retrieve", frames=(frame,), curve=curve(), seconds=0.21)


def imagined(store: Store, anchor: FrameRef) -> tuple[Call, Frames]:
    edit = Edit("right")
    made = Generated(
        prompt=str(edit),
        anchor=anchor,
        seed=11,
        strength=0.5,
        model="micro-sd3",
        faithfulness=0.31,
        anchor_score=0.35,
        scores=(0.2, 0.31),
    )
    frame = store.ref(render(edit.apply(BOARD), 48), anchor.seconds, made)
    call = Call(text=f"<generate>{edit}</generate>", tag="generate", query=str(edit))
    return call, Frames(tag="generate", frames=(frame,), curve=curve(7), seconds=0.9)


def both(store: Store) -> Trace:
    call, frames = retrieved(store)
    return make(
        store,
        Text(text="No ring blinks in these frames. "),
        call,
        frames,
        Text(text="It turns green.\n\nNow the board is tipped. "),
        *imagined(store, frames.frames[0]),
        Text(text="So it is green.</think>\n"),
        Answer(text="<answer>B</answer>", body="B"),
    )
