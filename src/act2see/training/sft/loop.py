"""Supervised fine-tuning on rollouts: a simple loop for models that fit on one machine.

The loss is the token-level negative log-likelihood over the positions that `collate` marks as trainable;
logits are computed only for those positions. Weights stay in float32. On processors with tiles for bfloat16
(AMX), matrix products use it. With AVX512-BF16 alone a micro step would take 1.6 to 2 times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from act2see.training.sft.collate import IGNORED, equal_frames

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int, float], None]
"""A function that is called with the name of the stage, the step, the number of steps, and the loss."""


def fast_bf16(device: str) -> bool:
    """Whether this device multiplies bfloat16 matrices faster than float32 ones."""
    import torch

    return torch.cpu._is_amx_tile_supported() if device == "cpu" else torch.cuda.is_bf16_supported()


def warm_cosine(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the learning rate of a step: a linear rise, times a cosine decay to a tenth of the peak.

    Args:
        step: The step, from 0.
        steps: The number of steps.
        peak: The peak of the learning rate.
        warmup: Steps until the peak.
    """
    rise = min(1.0, (step + 1) / warmup)
    decay = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * rise * decay


def fit(
    model: Any,
    batches: Iterable[dict[str, torch.Tensor]],
    steps: int,
    *,
    rate: float,
    warmup: int = 50,
    weight_decay: float = 0.01,
    name: str = "sft",
    progress: Progress | None = None,
) -> None:
    """Train `model` in place, with cosine decay to a tenth of `rate`.

    Args:
        model: A Qwen3-VL.
        batches: Batches of `collate`; at most `steps` of them are used.
        steps: The number of steps.
        rate: The peak of the learning rate.
        warmup: Steps until the peak.
        weight_decay: The weight decay of AdamW.
        name: The name of the stage, for `progress`.
        progress: Called every 25 steps and at the last step.
    """
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98))
    model.train()
    with equal_frames(model):
        for step, batch in enumerate(batches):
            if step >= steps:
                break
            for group in optimiser.param_groups:
                group["lr"] = warm_cosine(step, steps, rate, warmup)
            # transformers stores the position offsets of the last batch here and would reuse them.
            model.model.rope_deltas = None
            labels = batch.pop("labels")[:, 1:]  # (B, T - 1)
            # Padding is on the right, and no other token attends to it. Without a mask, attention uses its
            # causal path, and a step takes a quarter less time.
            del batch["attention_mask"]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=fast_bf16(model.device.type)):
                hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]  # (B, T - 1, D)
                hidden = hidden[labels != IGNORED]  # (N, D): the trainable positions
                logits = model.lm_head(hidden).float()  # (N, V)
                loss: Any = torch.nn.functional.cross_entropy(logits, labels[labels != IGNORED])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if progress and (step % 25 == 0 or step == steps - 1):
                progress(name, step, steps, loss.item())
    model.eval()
