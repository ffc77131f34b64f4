"""Packing: training and inference read the same ids, and the trainable ids are those that the model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.errors import WeightsError
from act2see.tools.frames import FrameRef
from act2see.trace.record import Answer, Call, Frames, Question, Text
from act2see.trace.trace import Trace
from act2see.training.sft.collate import IGNORED, collate, equal_frames

Source = Callable[[FrameRef], np.ndarray]
PROMPT = Prompt({"retrieve": "a real frame"}, "short")


@pytest.fixture
def rollouts(trace: Callable[..., Trace], frame: Callable[..., FrameRef]) -> list[Rollout]:
    """Return a short run and a long run, with frames of different sizes."""
    short = trace(
        question=Question(text="What colour is the ring?", options=("red", "blue")),
        initial=(frame(1),),
        segments=(Text(text="It is <|im_end|> red.</think>\n"), Answer(text="<answer>A</answer>", body="A")),
    )
    long = trace(
        question=Question(text="Where is the circle?"),
        initial=(frame(2), frame(3, 1.0)),
        segments=(
            Text(text="No circle blinks. "),
            Call(text="<retrieve>the circle blinks</retrieve>", tag="retrieve", query="the circle blinks"),
            Frames(tag="retrieve", frames=(frame(4, 1.67, 96, 64),), note="a note"),
            Text(text=" Top left."),
            Text(text="\nTime is up.</think>\n<answer>", author="graph"),
            Answer(text="top left</answer>", body="top left", forced=True),
        ),
    )
    return [render(t, PROMPT, end_of_turn=True) for t in (short, long)]


def batch(packer: Packer, rollouts: list[Rollout], source: Source) -> dict[str, Any]:
    tokenizer = packer.codec.tokenizer
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return collate(packer, rollouts, source, tokenizer.pad_token_id, end_of_turn)


def test_ids_at_training_are_ids_at_inference(
    packer: Packer, rollouts: list[Rollout], source: Source
) -> None:
    made = batch(packer, rollouts, source)
    for row, rollout in enumerate(rollouts):
        read = made["input_ids"][row][made["attention_mask"][row].bool()].tolist()
        packed = packer.pack(rollout)
        assert read == packed.ids
        assert {int(made["input_ids"][row][i]) for i in packed.starts} == {packer.image_token_id}
    padding = ~made["attention_mask"].bool()
    assert padding.any()
    assert (made["labels"][padding] == IGNORED).all()


def test_trainable_tokens_are_the_models_text_and_its_end(
    packer: Packer, rollouts: list[Rollout], source: Source
) -> None:
    labels = batch(packer, rollouts, source)["labels"]
    learnt = [packer.codec.decode([i for i in row.tolist() if i != IGNORED]) for row in labels]
    assert learnt == [
        "It is <|im_end|> red.</think>\n<answer>A</answer><|im_end|>",
        "No circle blinks. <retrieve>the circle blinks</retrieve> Top left.top left</answer><|im_end|>",
    ]


def test_end_of_an_open_turn_is_not_trained(
    packer: Packer, trace: Callable[..., Trace], frame: Callable[..., FrameRef], source: Source
) -> None:
    run = trace(
        question=Question(text="Where?"),
        initial=(frame(1),),
        segments=(Text(text="Hm."), Frames(tag="retrieve", note="none")),
    )
    labels = batch(packer, [render(run, PROMPT, end_of_turn=True)], source)["labels"]
    assert packer.codec.decode([i for i in labels[0].tolist() if i != IGNORED]) == "Hm."


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(8, 300), st.integers(8, 300))
def test_grid_equals_the_image_processors(packer: Packer, source: Source, width: int, height: int) -> None:
    ref = FrameRef(digest=f"{width:08x}{height:024x}", width=width, height=height, seconds=0.0)
    made = packer.image_processor(images=[source(ref)], return_tensors="pt")
    assert packer.grid(width, height) == tuple(made["image_grid_thw"][0].tolist())


def test_patches_are_in_order_and_those_used_last_are_kept(
    vlm_folder: Path, frame: Callable[..., FrameRef], source: Source
) -> None:
    packer = Packer.from_pretrained(vlm_folder)
    asked: list[str] = []

    def counted(ref: FrameRef) -> np.ndarray:
        asked.append(ref.digest)
        return source(ref)

    a, b, c = frame(1), frame(2, 0.0, 96, 48), frame(3)
    packer.cache_bytes = sum(packer.patches([ref], source).nbytes for ref in (a, b))
    packer.patches([c, a, b], source)  # one request may have more than is kept
    assert packer.cached_bytes == packer.cache_bytes
    packer.cache_bytes, kept = 0, packer.cache_bytes
    packer.patches([a], source)
    assert packer.cached_bytes == 0
    packer.cache_bytes = kept
    first = packer.patches([a, b, a], counted)
    assert asked == [a.digest, b.digest]
    n = packer.grid(48, 48)[1] * packer.grid(48, 48)[2]
    assert (first[:n] == first[-n:]).all()
    assert (first[n:-n] == packer.patches([b], counted)).all()
    assert len(asked) == 2
    packer.patches([c], counted)
    packer.patches([a], counted)
    assert asked[2:] == [c.digest, a.digest]


def test_joint_attention_for_equal_frames_changes_nothing(
    vlm_folder: Path, packer: Packer, rollouts: list[Rollout], source: Source
) -> None:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    model = Qwen3VLForConditionalGeneration.from_pretrained(vlm_folder, dtype=torch.float32).eval()
    for chosen in (rollouts[:1], rollouts):  # one size, several sizes
        made = batch(packer, chosen, source)
        with torch.inference_mode():
            plain = model(**made).logits
            with equal_frames(model):
                together = model(**made).logits
        seen = made["attention_mask"].bool()
        assert torch.allclose(plain[seen], together[seen], atol=1e-4)


def test_another_kind_of_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="is a bert checkpoint; this reasoner needs a Qwen3-VL one"):
        Packer.from_pretrained(tmp_path)
