"""Draw the next token from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from act2see.agent.reasoners.base import Sampling

if TYPE_CHECKING:
    import torch

_MIN_TEMPERATURE = 1e-4  # sampling is greedy below it, since dividing the logits by less overflows


def sample_token(
    logits: torch.Tensor, sampling: Sampling, forbidden: Sequence[int], generator: torch.Generator
) -> int:
    """Draw the id of the next token.

    Args:
        logits: The logits of the last token, `(vocabulary,)`.
        sampling: The temperature and top-p.
        forbidden: Ids that are never drawn.
        generator: The request's own generator, so that other rows of the batch do not change the result.
    """
    import torch

    logits = logits.float().cpu()
    logits[forbidden] = -torch.inf
    if sampling.temperature < _MIN_TEMPERATURE:
        return int(logits.argmax())
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p >= 1:
        return int(torch.multinomial(probabilities, 1, generator=generator))
    ordered, ids = probabilities.sort(descending=True)
    # The first token is always kept: nothing comes before it.
    before = ordered.cumsum(0) - ordered
    ordered[before > sampling.top_p] = 0
    return int(ids[torch.multinomial(ordered, 1, generator=generator)])
