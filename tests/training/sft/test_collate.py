"""Training batches: labels are the model's own text, and token ids equal those at inference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tests.training.rollouts import QUICK, draw_trace, expected_text, item_of

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import render
from act2see.graphs.config import Config
from act2see.graphs.parts import build_parts
from act2see.micro.questions import FAMILIES
from act2see.micro.recipe.corpus import (
    CORPUS_FAMILIES,
    corpus_config,
    corpus_item,
    make_chains,
    with_lines,
)
from act2see.micro.study.evaluate import micro_config
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Text, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.sft.collate import IGNORED
from act2see.training.sft.finetune import load_base
from act2see.training.sft.samples import Reader, RolloutCollator
from act2see.training.sft.trainer import without_mask

VIDEO = Video(path="clip.mp4", digest="0", seconds=4.0, width=48, height=48, frames=48, fps=12.0)
# Texts that spell special tokens or tags, or parts of them.
SPECIAL_TEXTS = [
    "<|im_end|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<",
    "<|",
    "<think>",
    "</think>",
    "<frame>",
    "</answer>",
    "\n",
]
words = st.lists(
    st.sampled_from(SPECIAL_TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=5
).map("".join)

Collate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:base"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FrameStore:
    return FrameStore(tmp_path_factory.mktemp("frames"))


@pytest.fixture(scope="module")
def make(packer: Packer, store: FrameStore) -> Collate:
    def build(
        *traces: Trace, vary: Any = None, epoch: int = 0, source: FrameStore = store, **changes: Any
    ) -> dict[str, Any]:
        chosen = QUICK.model_copy(update=changes)
        collator = RolloutCollator(Reader(packer, chosen.prompt), source, chosen, 4096, vary)
        collator.epoch = epoch
        return collator([{"trace": t.to_json(), "number": n} for n, t in enumerate(traces)])

    return build


def labelled_text(packer: Packer, batch: dict[str, Any], row: int = 0) -> str:
    return packer.codec.decode([i for i in batch["labels"][row].tolist() if i != IGNORED])


def read(batch: dict[str, Any], row: int = 0) -> list[int]:
    return batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, tuple[Trace, int]]]:
    """The config of a corpus and, for each family, a trace of the real graph with the number of its item."""
    folder = tmp_path_factory.mktemp("corpus")
    config = corpus_config(folder, Path(resolve_weights("micro:vlm")).parent)
    numbers = {"observe": 0, "blink": 1, "imagine": 0, "both": 0}
    indices = [CORPUS_FAMILIES.index(f) + len(CORPUS_FAMILIES) * n for f, n in numbers.items()]  # type: ignore[arg-type]
    made = asyncio.run(make_chains(config, indices, folder))
    assert not made.dropped
    return config, {f: (t, i) for f, t, i in zip(numbers, made.traces, indices, strict=True)}


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_a_real_run_are_what_the_model_wrote(
    asked: tuple[Config, dict[str, tuple[Trace, int]]], packer: Packer, make: Collate, family: str
) -> None:
    config, runs = asked
    trace, number = runs[family]
    item = with_lines(corpus_item(number))
    if family != "observe":
        assert item.needed, "a run without a call does not test returned frames"
    batch = make(trace, source=build_parts(config).resources.store)
    assert labelled_text(packer, batch) == expected_text(item) + "<|im_end|>"
    # Each returned frame is in the inputs, and none of its tokens in the labels.
    assert (batch["labels"] != packer.image_token_id).all()
    assert len(batch["image_grid_thw"]) == len(trace.initial) + len(item.needed)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_many_chains_are_what_the_model_wrote(
    store: FrameStore, packer: Packer, make: Collate, family: str
) -> None:
    traces = [draw_trace(family, store, n) for n in range(4)]
    batch = make(*traces)
    for n in range(4):
        assert labelled_text(packer, batch, n) == expected_text(item_of(family, n)) + "<|im_end|>"


def test_text_of_the_graph_is_masked(store: FrameStore, packer: Packer, make: Collate) -> None:
    """The graph closes the thought, and returns a note about an invalid call."""
    first = draw_trace("observe", store)
    segments = (
        Text(text="Hm. "),
        Call(text="<retrieve> </retrieve>", tag="retrieve", query="", outcome="empty"),
        Frames(tag="retrieve", note="The query is empty."),
        Text(text="</think>\n\n<answer>", author="graph"),
        Answer(text="west</answer>", body="west", forced=True),
    )
    batch = make(first.model_copy(update={"segments": segments}))
    assert labelled_text(packer, batch) == "Hm. <retrieve> </retrieve>west</answer><|im_end|>"
    assert "The query is empty." in packer.codec.decode(read(batch))


def test_loss_on_frames_labels_everything_after_the_prompt(
    store: FrameStore, packer: Packer, make: Collate
) -> None:
    trace = draw_trace("both", store)
    plain, whole = make(trace), make(trace, loss_on_frames=True)
    assert whole["input_ids"].tolist() == plain["input_ids"].tolist()
    learnt = [i for i in whole["labels"][0].tolist() if i != IGNORED]
    assert learnt.count(packer.image_token_id) == 9 * len(trace.calls)
    assert packer.codec.decode(learnt).startswith(f"{item_of('both').asked.text} Second 0:")
    assert packer.codec.decode(learnt).count("<frame>") == len(trace.calls)


def test_traces_are_varied_each_epoch_but_not_held_out_ones(
    store: FrameStore, packer: Packer, make: Collate
) -> None:
    def add_number(trace: Trace, rng: Any) -> Trace:
        question = trace.question.model_copy(update={"text": f"{trace.question.text} {rng.random()}"})
        return trace.model_copy(update={"question": question})

    trace = draw_trace("observe", store)
    seen = [read(make(trace, vary=add_number, epoch=e)) for e in (0, 1, 1)]
    assert seen[0] != seen[1] == seen[2]
    batch = make(trace, trace, vary=add_number)
    assert read(batch, 0) != read(batch, 1)
    collator = RolloutCollator(Reader(packer, "short"), store, QUICK, 4096, add_number)
    assert read(collator([{"trace": trace.to_json(), "number": -1}])) == read(make(trace))


def test_a_variation_longer_than_the_context_is_not_used(
    store: FrameStore, packer: Packer, make: Collate
) -> None:
    trace = draw_trace("observe", store)

    def lengthen(trace: Trace, _: Any) -> Trace:
        return trace.model_copy(update={"question": Question(text="why " * 500)})

    length = len(read(make(trace)))
    assert read(make(trace, vary=lengthen, max_context=length)) == read(make(trace))


def test_right_padding_needs_no_attention_mask(store: FrameStore, packer: Packer, make: Collate) -> None:
    import torch

    model: Any = load_base(resolve_weights("micro:base"), QUICK).eval()
    batch = make(draw_trace("observe", store), draw_trace("both", store))
    labels, padded = batch.pop("labels"), batch["attention_mask"] == 0
    assert padded.any()
    with torch.inference_mode():
        masked = model(**batch).logits
        with without_mask(model):
            plain = model(**batch).logits
        again = model(**batch).logits
    assert torch.allclose(masked[labels != IGNORED], plain[labels != IGNORED], atol=1e-4)
    assert not torch.allclose(masked[padded], plain[padded], atol=1e-4), "the mask was not dropped"
    assert again.equal(masked)


@st.composite
def runs(draw: st.DrawFn, store: FrameStore) -> Trace:
    """A strategy for traces that the graph can save, with arbitrary text of a model or a person."""
    frame = st.sampled_from(
        [store.ref(np.full((h, w, 3), h + w, np.uint8), 0.0) for h, w in ((48, 48), (24, 48), (96, 64))]
    )
    moment = st.floats(0, 99).map(lambda s: round(s, 2))
    framed = st.builds(lambda f, s: f.model_copy(update={"seconds": s}), frame, moment)
    tag = st.sampled_from(["retrieve", "generate"])
    call = st.builds(lambda t, q: Call(text=f"<{t}>{q}</{t}>", tag=t, query=q), tag, words)
    shown = st.builds(Frames, tag=tag, frames=st.lists(framed, max_size=2).map(tuple), note=words)
    segments: list[Any] = []
    for _ in range(draw(st.integers(0, 3))):
        segments += [Text(text=draw(words)), draw(call), draw(shown)]
    forced = draw(st.booleans())
    segments.append(Text(text="</think>\n\n<answer>", author="graph") if forced else Text(text=draw(words)))
    segments.append(Answer(text=draw(words), body="", forced=forced))
    tools = draw(st.sampled_from([("retrieve", "generate"), ("retrieve",), ()]))
    question = Question(text=draw(words), options=tuple(draw(st.lists(words, max_size=3))))
    initial = tuple(draw(st.lists(framed, max_size=3)))
    versions = Versions(tools=dict.fromkeys(tools, "1"))
    return Trace(
        id="run", video=VIDEO, question=question, initial=initial, segments=tuple(segments), versions=versions
    )


@pytest.fixture(scope="module")
def usages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The usage lines of the graph's tools."""
    return {
        tag: tool.usage
        for tag, tool in build_parts(micro_config(None, tmp_path_factory.mktemp("cache"))).tools.items()
    }


@settings(max_examples=50, deadline=None)
@given(data=st.data(), style=st.sampled_from(["paper", "short"]))
def test_token_ids_at_training_equal_those_at_inference(
    data: st.DataObject, style: str, usages: dict[str, str], packer: Packer, store: FrameStore
) -> None:
    """At each visit to the reasoning node, the graph renders a prefix of the text that training renders."""
    trace = data.draw(runs(store))
    prompt = Prompt({tag: usages[tag] for tag in usages if tag in trace.versions.tools}, style)
    collator = RolloutCollator(
        Reader(packer, style), store, QUICK.model_copy(update={"prompt": style}), 1 << 20
    )
    batch = collator([{"trace": trace.to_json(), "number": 0}])
    trained = read(batch)
    for n, segment in enumerate(trace.segments):
        if isinstance(segment, Frames):
            continue
        # The model writes a text and the call or the answer after it in one visit.
        goes_on = isinstance(segment, Call) or (isinstance(segment, Answer) and not segment.forced)
        if goes_on and n and isinstance(trace.segments[n - 1], Text):
            continue
        asked = packer.pack(render(trace.model_copy(update={"segments": trace.segments[:n]}), prompt)).ids
        assert trained[: len(asked)] == asked
    model = [
        s.text
        for s in trace.segments
        if not isinstance(s, Frames) and getattr(s, "author", "model") == "model"
    ]
    assert labelled_text(packer, batch) == "".join(model) + "<|im_end|>"
