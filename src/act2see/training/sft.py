"""Supervised fine-tuning on rollouts: one plain loop, for models that fit one machine.

The loss is token-level negative log-likelihood over what `collate` marks as learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from act2see.training.collate import equal_frames

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int, float], None]


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
    """Train `model` in place on `steps` batches; cosine decay to a tenth of `rate`."""
    import torch

    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, betas=(0.9, 0.98))
    model.train()
    with equal_frames(model):
        for step, batch in enumerate(batches):
            if step >= steps:
                break
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / warmup) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            model.model.rope_deltas = None
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if progress and (step % 25 == 0 or step == steps - 1):
                progress(name, step, steps, loss.item())
    model.eval()
