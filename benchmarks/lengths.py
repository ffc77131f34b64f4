"""What a training step gains on a CPU from parts of similar length (`training/sft/lengths.py`).

The batches of micro's three lessons of SFT: readings of questions, ends of chains, whole chains. Loss and
gradient are computed of the whole batch, padded to its longest row, and of its parts, by turns. Median of the
ratios.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from transformers import Qwen3VLForConditionalGeneration

from act2see.agent.packing import Packer
from act2see.micro.recipe.chain_lessons import Chains, Ends, Readings
from act2see.tools.runtime.weights import resolve_weights
from act2see.training.sft.forward import Batch, Ready
from act2see.training.sft.lengths import split_by_length
from act2see.training.sft.loop import loss_of
from benchmarks import Goal, at_most, require_weights


def step_seconds(model: Any, parts: list[Batch]) -> float:
    """Seconds of the loss of a step, and of its gradient."""
    model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    for part in parts:
        loss_of(model, part).backward()
    return time.perf_counter() - started


def run(quick: bool = False) -> dict[str, Any]:
    """Compare 12 batches of each lesson (quick: 3)."""
    require_weights("vlm")
    folder = resolve_weights("micro:vlm")
    packer = Packer.from_pretrained(folder)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).train()
    model.model.visual.requires_grad_(False)
    goals: dict[str, Goal] = {}
    lessons = {
        "96 readings": Readings(packer, 96, 1),
        "20 ends of chains": Ends(packer, 20, 1),
        "12 whole chains": Chains(packer, 12, 1),
    }
    for name, lesson in lessons.items():
        ratios = []
        for number in range(3 if quick else 12):
            batch = Ready(lesson)(number)
            whole = step_seconds(model, [batch])
            ratios.append(step_seconds(model, split_by_length(batch)) / whole)
        goals[f"{name}: a step in parts, compared with the whole batch"] = at_most(
            statistics.median(ratios), 0.8
        )
    return {"goals": goals}
