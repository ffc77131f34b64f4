"""Draw the next token from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from act2see.agent.reasoners.base import Sampling

if TYPE_CHECKING:
    import torch

_COLDEST = 1e-4  # below this temperature sampling is greedy: logits divided by less overflow


def sample_token(
    logits: torch.Tensor, sampling: Sampling, forbidden: Sequence[int], generator: torch.Generator
) -> int:
    """The id of the next token.

    Args:
        logits: Of the last token, `(vocabulary,)`.
        sampling: Temperature and top-p.
        forbidden: Ids that are never drawn.
        generator: The request's own, so that neighbours in a batch change nothing.
    """
    import torch

    logits = logits.float().cpu()
    logits[forbidden] = -torch.inf
    if sampling.temperature < _COLDEST:
        return int(logits.argmax())
    chances = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p >= 1:
        return int(torch.multinomial(chances, 1, generator=generator))
    ordered, index = chances.sort(descending=True)
    ordered[ordered.cumsum(0) - ordered > sampling.top_p] = 0
    return int(index[torch.multinomial(ordered, 1, generator=generator)])
