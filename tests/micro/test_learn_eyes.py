"""The eyes' lesson: its batches in worker processes, and what the loss does to the tower."""

from __future__ import annotations

import pickle

import pytest
import torch

from act2see.agent.packing import Packer
from act2see.micro.questions import sentences
from act2see.micro.recipe.learn_eyes import OUTPUT_RMS, Looks, train_eyes
from act2see.micro.recipe.models import build_vlm, vlm_image_processor
from act2see.micro.recipe.prefetch import Workers
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.training.sft.forward import see


@pytest.fixture(scope="module")
def packer() -> Packer:
    tokenizer = qwen_tokenizer(sentences())
    return Packer(tokenizer, vlm_image_processor(), tokenizer.convert_tokens_to_ids("<|image_pad|>"))


def test_batches_are_drawn_from_their_number_in_any_process(packer: Packer) -> None:
    looks = Looks(packer, 3, seed=4)
    wanted = [looks(i) for i in range(3)]
    assert not torch.equal(wanted[0]["labels"], wanted[1]["labels"])
    assert wanted[0]["pixel_values"].shape == (3 * 36, 384)
    with Workers(1) as workers:
        made = list(workers.batches(looks, 3))
    for one, other in zip(wanted, made, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_a_packer_keeps_is_not_sent(packer: Packer) -> None:
    Looks(packer, 2, seed=0)(0)
    assert packer.cached_bytes
    sent = pickle.loads(pickle.dumps(packer))
    assert sent.cached_bytes == 0
    assert sent.codec.encode("the circle", "model") == packer.codec.encode("the circle", "model")


def test_the_tower_learns_and_ends_frozen_with_the_size_of_words(packer: Packer) -> None:
    torch.manual_seed(0)
    model = build_vlm(packer.codec.tokenizer)
    losses: list[float] = []
    train_eyes(model, packer, 12, batch=24, progress=lambda *report: losses.append(report[3]))
    assert losses[-1] < losses[0] - 1
    assert not any(p.requires_grad for p in model.model.visual.parameters())
    drawn = Looks(packer, 24, seed=9)(0)
    with torch.inference_mode():
        merged, deep = see(model.model.visual, drawn["pixel_values"], drawn["image_grid_thw"])
    for tokens in (merged, *deep):
        assert tokens.pow(2).mean().sqrt() == pytest.approx(OUTPUT_RMS, rel=0.2)
