"""Supervised fine-tuning on rollouts: a simple loop for models that fit on one machine.

The loss is the token-level negative log-likelihood over the positions that `collate` marks as trainable;
logits are computed only for those positions. Weights stay in float32. On processors with tiles for bfloat16
(AMX), matrix products use it. With AVX512-BF16 alone a micro step would take 1.6 to 2 times as long. On a GPU
they use TF32: casts to bfloat16 would add more kernels than they make faster, since a micro step is bound by
the launches of its kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from act2see.training.sft.forward import Batch, last_hidden, ready, to_device
from act2see.training.sft.lengths import split_by_length

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int, float], None]
"""A function that is called with the name of the stage, the step, the number of steps, and the loss."""


def fast_bf16(device: str) -> bool:
    """Whether this device multiplies bfloat16 matrices faster than float32 ones."""
    import torch

    return torch.cpu._is_amx_tile_supported() if device == "cpu" else torch.cuda.is_bf16_supported()


@contextmanager
def fast_products(device: str) -> Iterator[None]:
    """Within the context, multiply float32 matrices in TF32 if the device is a GPU."""
    import torch

    before = torch.get_float32_matmul_precision()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


def loss_of(model: Any, batch: Batch) -> Any:
    """Return the loss of a ready batch, summed over its targets."""
    import torch

    device = model.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cpu" and fast_bf16(device)):
        hidden = last_hidden(model, batch).flatten(0, 1)[batch["places"]]  # (N, D)
        logits = model.lm_head(hidden).float()  # (N, V)
        return torch.nn.functional.cross_entropy(logits, batch["targets"], reduction="sum")


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
        model: A Qwen3-VL, on the device that trains it.
        batches: Batches of `collate`, best made `Ready` by worker processes; at most `steps` are used.
        steps: The number of steps.
        rate: The peak of the learning rate.
        warmup: Steps until the peak.
        weight_decay: The weight decay of AdamW.
        name: The name of the stage, for `progress`.
        progress: Called every 25 steps and at the last step.
    """
    import torch

    device = model.device
    on_gpu = device.type == "cuda"
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98), fused=on_gpu or None
    )
    model.train()
    with fast_products(device.type):
        for step, batch in enumerate(islice(batches, steps)):
            for group in optimiser.param_groups:
                group["lr"] = warm_cosine(step, steps, rate, warmup)
            whole = ready(batch)
            parts = [to_device(whole, device)] if on_gpu else split_by_length(whole)
            count = len(whole["targets"])
            loss = torch.zeros((), device=device)
            for part in parts:
                part_loss = loss_of(model, part) / count
                part_loss.backward()
                loss += part_loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            # Nothing else waits for the device.
            if progress and (step % 25 == 0 or step == steps - 1):
                progress(name, step, steps, loss.item())
    model.eval()
