"""Chains with real pictures, and a hypothesis strategy for arbitrary chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from act2see.tools.frames import Curve, FrameRef, Generated, Initial, Retrieved
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Loop, Question, Text, Usage, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.corpus.records import Attempt, Chain, Cost
from act2see.training.corpus.sources import Sample

VIDEO = Video(path="clip.mp4", digest="0" * 32, seconds=6.0, width=24, height=16, frames=72, fps=12.0)
SIZES = ((24, 16), (16, 24), (8, 8))
# Texts that trainers read as placeholders or control tokens, or Markdown as markup.
SPECIAL_TEXTS = [
    "<image>",
    "<video>",
    "<|im_end|>",
    "<|image_pad|>",
    "<",
    "<|",
    "image>",
    "```",
    "|",
    "\n",
    "\u2028",
    "{{QUERY}}",
]


def picture(n: int) -> np.ndarray:
    """Return noise, `(h, w, 3)`, seeded with `n`."""
    width, height = SIZES[n % len(SIZES)]
    return np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8)


def put(store: FrameStore, n: int, seconds: float = 0.0, provenance: Any = None) -> FrameRef:
    return store.ref(picture(n), seconds, provenance)


def make_chain(store: FrameStore, n: int = 0, **changes: Any) -> Chain:
    """Return a chain with two initial frames, a retrieved frame, and a frame imagined from an anchor that is
    not in view."""
    anchor = put(store, 10 * n + 3, 2.0)
    imagined = Generated(
        prompt="gone", anchor=anchor, seed=1, strength=0.3, model="micro", faithfulness=0.5, anchor_score=0.4
    )
    trace = Trace(
        id=f"run-{n}",
        video=VIDEO,
        question=Question(text=f"What moves in clip {n}?", options=("the ring", "the cross")),
        initial=(put(store, 10 * n), put(store, 10 * n + 1, 1.0)),
        segments=(
            Text(text="I look closer."),
            Call(text="<retrieve>the ring</retrieve>", tag="retrieve", query="the ring"),
            Frames(
                tag="retrieve", frames=(put(store, 10 * n + 2, 1.7, Retrieved(query="the ring", score=0.9)),)
            ),
            Text(text="Were it gone:"),
            Call(text="<generate>gone</generate>", tag="generate", query="gone"),
            Frames(tag="generate", frames=(put(store, 10 * n + 4, 2.0, imagined),)),
            Text(text="So it moves.</think>\n"),
            Answer(text="<answer>A</answer>", body="A"),
        ),
        versions=Versions(tools={"retrieve": "1", "generate": "1"}),
    )
    sample = Sample(
        id=f"q{n}",
        source="world",
        video="clip.mp4",
        question=trace.question.text,
        options=trace.question.options,
        answer="the ring",
        chain="The ring moves.",
        trim=(0.5, 5.25),
        licence="CC0-1.0",
    )
    attempts = (
        Attempt(outcome="wrong", answer="B", why="it is A"),
        Attempt(outcome="right", answer="A", cost=Cost(read=7, dollars=0.1)),
    )
    return Chain(
        sample=sample, trace=trace, attempts=attempts, similarity=0.9, teacher="scripted"
    ).model_copy(update=changes)


def without_calls(chain: Chain) -> Chain:
    assert chain.trace is not None
    segments = (Text(text="It is seen.</think>\n"), Answer(text="<answer>A</answer>", body="A"))
    return chain.model_copy(update={"trace": chain.trace.model_copy(update={"segments": segments})})


words = st.lists(
    st.sampled_from(SPECIAL_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5
).map("".join)
number = st.floats(-1e6, 1e6)
second = st.floats(0, 3600).map(lambda s: round(s, 3))


def chains(store: FrameStore) -> st.SearchStrategy[Chain]:
    """Return a strategy for chains that end with the model's answer, with frames of `store`."""
    refs = [put(store, n) for n in range(6)]
    frame = st.builds(lambda ref, s: ref.model_copy(update={"seconds": s}), st.sampled_from(refs), second)
    provenance = st.builds(Initial) | st.builds(Retrieved, query=words, score=number)
    real = st.builds(lambda f, p: f.model_copy(update={"provenance": p}), frame, provenance)
    imagined = st.builds(
        Generated,
        prompt=words,
        anchor=real,
        seed=st.integers(0, 2**31),
        strength=number,
        model=words,
        faithfulness=st.none() | number,
    )
    shown = st.builds(lambda f, p: f.model_copy(update={"provenance": p}), frame, provenance | imagined)
    curve = st.none() | st.builds(
        Curve, start=number, step=number, values=st.lists(number, max_size=4).map(tuple)
    )
    segment = (
        st.builds(Text, text=words, author=st.sampled_from(["model", "model", "graph"]))
        | st.builds(
            Call,
            text=words,
            tag=st.sampled_from(["retrieve", "generate"]),
            query=words,
            outcome=st.sampled_from(["ok", "empty"]),
        )
        | st.builds(
            Frames,
            tag=words,
            frames=st.lists(shown, max_size=3).map(tuple),
            note=words,
            curve=curve,
            seconds=number,
        )
    )
    answer = st.builds(lambda body: Answer(text=f"<answer>{body}</answer>", body=body), words)
    trace = st.builds(
        Trace,
        id=words,
        video=st.just(VIDEO),
        question=st.builds(Question, text=words, options=st.lists(words, max_size=3).map(tuple)),
        initial=st.lists(frame, max_size=3).map(tuple),
        segments=st.builds(lambda body, end: (*body, end), st.lists(segment, max_size=6), answer),
        usage=st.builds(
            Usage,
            loops=st.lists(
                st.builds(
                    Loop,
                    prefilled=st.just(1),
                    cached=st.just(0),
                    decoded=st.just(2),
                    seconds=number,
                    stop=words,
                )
            ).map(tuple),
        ),
        versions=st.builds(
            Versions,
            tools=st.sampled_from([{}, {"retrieve": "1"}, {"retrieve": "1", "generate": "2"}]),
            seed=st.just(3),
        ),
    )
    sample = st.builds(
        Sample,
        id=words,
        source=words,
        video=words,
        question=words,
        options=st.lists(words, max_size=3).map(tuple),
        answer=words,
        chain=words,
        trim=st.none() | st.tuples(second, second),
        licence=words,
    )
    attempt = st.builds(
        Attempt,
        outcome=st.sampled_from(["right", "wrong"]),
        answer=st.none() | words,
        why=words,
        seconds=number,
    )
    return st.builds(
        Chain,
        sample=sample,
        trace=trace,
        attempts=st.lists(attempt, max_size=2).map(tuple),
        dropped=st.just(""),
        similarity=st.none() | number,
        teacher=words,
    )
