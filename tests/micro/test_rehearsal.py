"""Rehearsal: lines that the model misreads are repeated, the others are not."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration

from act2see.agent.packing import Packer
from act2see.micro.recipe.chain_lessons import Readings
from act2see.micro.recipe.rehearsal import repeat_misread
from act2see.micro.wordings import Wordings, load_wordings
from act2see.tools.runtime.weights import resolve_weights

READ = "Where is the {x} at the end?"
WRONG = "What colour is the {x}?"
LINES = Wordings(
    {
        # A label that the text does not have is misread for certain.
        "end": [READ, WRONG],
        "beyond": ["What is the capital of France?"],
        "before": ["hello there, "],
        "find_blink": ["the {x} blinks"],
    }
)


@pytest.fixture(scope="module")
def model() -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration.from_pretrained(
        resolve_weights("micro:vlm"), dtype=torch.float32
    ).eval()


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer.from_pretrained(resolve_weights("micro:vlm"))


def test_misread_lines_are_repeated(model: Qwen3VLForConditionalGeneration, packer: Packer) -> None:
    repeated = repeat_misread(model, packer, LINES)
    assert repeated.lines == {**LINES.lines, "end": [READ, WRONG, WRONG, WRONG, WRONG]}


def test_lines_beyond_the_limit_are_left_as_they_are(
    model: Qwen3VLForConditionalGeneration, packer: Packer
) -> None:
    counts = {len(repeat_misread(model, packer, LINES, seed, limit=1).lines["end"]) for seed in range(8)}
    assert counts == {2, 5}
    assert repeat_misread(model, packer, LINES, limit=0).lines == LINES.lines


def test_readings_draw_from_the_lines_that_they_are_given(packer: Packer) -> None:
    wordings = Wordings({kind: ["xylophone"] for kind in load_wordings().lines})
    batch = Readings(packer, 12, 0, wordings=wordings)(0)
    texts = packer.codec.tokenizer.batch_decode(batch["input_ids"])
    assert sum("ylopho" in text.lower() for text in texts) >= 8
