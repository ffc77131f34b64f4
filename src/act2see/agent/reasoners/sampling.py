"""Draw the next token from logits, on the device that computed them.

Only the drawn id is copied to the host: a copy and a sort of 151,936 logits there would take longer than a
small model's forward. Randomness comes from a generator on the CPU, one per request, so a seed draws the same
tokens on every device, whatever else is in the batch.

The order is that of transformers and vLLM: penalties, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from act2see.agent.reasoners.base import Sampling
from act2see.errors import ReasonerError

if TYPE_CHECKING:
    import torch

_COLDEST = 1e-4  # below this temperature sampling is greedy: logits divided by less overflow
_BLOCK = 128  # Qwen's vocabularies are multiples of it
_CANDIDATES = 1024  # top-p first looks at so many tokens, which nearly always hold the whole mass


class TokenSampler:
    """Draws the tokens of one request.

    Args:
        sampling: How tokens are drawn.
        forbidden: Ids that are never drawn, `(n,)`, on the device of the logits.
        prompt: Ids of the prompt, which the repetition penalty counts too.
    """

    def __init__(
        self, sampling: Sampling, forbidden: torch.Tensor, prompt: torch.Tensor | None = None
    ) -> None:
        import torch

        self.sampling = sampling
        self._forbidden = forbidden
        self._never = frozenset(forbidden.tolist())
        self._is_greedy = sampling.temperature < _COLDEST
        self._generator = torch.Generator("cpu").manual_seed(sampling.seed)
        self._is_penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty != 0
        self._repeated = _Ids(forbidden.device)  # of the prompt and of what was written
        self._written = _Ids(forbidden.device)
        if self._is_penalised and prompt is not None:
            self._repeated.add(*prompt.tolist())

    def draw(self, logits: torch.Tensor) -> int:
        """Return the id of the next token.

        Args:
            logits: Those of the last token, `(vocabulary,)`.
        """
        if self._is_penalised:
            logits = self._penalise(logits)
        token = self._largest(logits) if self._is_greedy else self._random(logits)
        if self._is_penalised:
            self._repeated.add(token)
            self._written.add(token)
        return token

    def _largest(self, logits: torch.Tensor) -> int:
        """Return the id with the largest logit."""
        token = int(find_largest(logits, 1))
        if token in self._never:
            token = int(find_largest(self._without_forbidden(logits), 1))
        _check_finite(logits[token])
        return token

    def _random(self, logits: torch.Tensor) -> int:
        """Draw from what top-k, top-p and min-p leave."""
        import torch

        s = self.sampling
        chances, ids = self._candidates(logits)
        if s.top_p < 1:
            before = chances.cumsum(0) - chances
            chances = torch.where(before >= s.top_p, 0, chances)  # NaN stays, and is found below
        if s.min_p > 0:
            chances = torch.where(chances >= s.min_p * chances.max(), chances, 0)
        sums = chances.double().cumsum(0)
        _check_finite(sums[-1])
        point = torch.rand(1, generator=self._generator, dtype=torch.float64).to(sums.device) * sums[-1]
        place = torch.searchsorted(sums, point, right=True).clamp_(max=len(sums) - 1)
        return int(place if ids is None else ids[place])

    def _candidates(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The chances of the tokens that may be drawn, and their ids; for top-p the largest first."""
        s = self.sampling
        if s.top_k:
            values, ids = self._top(logits, s.top_k)
            return (values / s.temperature).softmax(-1), ids
        chances = (self._without_forbidden(logits) / s.temperature).softmax(-1)
        if s.top_p == 1:
            return chances, None
        largest = chances.topk(min(_CANDIDATES, len(chances)))
        if float(largest.values.sum()) >= s.top_p:
            return largest.values, largest.indices
        everything = chances.sort(descending=True)
        return everything.values, everything.indices

    def _top(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the `count` largest logits that may be drawn among others of minus infinity, and their ids.

        Taking as many more as there are forbidden ids is cheaper than a copy of all logits without them.
        Nothing here waits for the device.
        """
        import torch

        ids = find_largest(logits, count + len(self._never))
        allowed = ~torch.isin(ids, self._forbidden)
        kept = allowed & (allowed.cumsum(0) <= count)
        return logits[ids].float().masked_fill(~kept, -torch.inf), ids

    def _without_forbidden(self, logits: torch.Tensor) -> torch.Tensor:
        """Return a copy in which the forbidden ids cannot be drawn."""
        import torch

        logits = logits.to(torch.float32, copy=True)
        logits[self._forbidden] = -torch.inf
        return logits

    def _penalise(self, logits: torch.Tensor) -> torch.Tensor:
        """Return a copy with the penalties applied."""
        import torch

        s = self.sampling
        logits = logits.to(torch.float32, copy=True)
        some = logits[self._repeated.ids]
        scaled = torch.where(some > 0, some / s.repetition_penalty, some * s.repetition_penalty)
        logits[self._repeated.ids] = scaled
        logits[self._written.ids] -= s.presence_penalty
        return logits


def find_largest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """Return the ids of the largest logits in descending order, `(count,)`, or all if there are fewer.

    On a CPU, a large vocabulary is searched in blocks: the `count` largest logits are in the `count` blocks
    with the largest maxima. That takes a seventh of the time of `topk` over 151,936 logits.

    Args:
        logits: The logits, `(vocabulary,)`.
        count: The number of ids.
    """
    blocks, rest = divmod(len(logits), _BLOCK)
    if logits.device.type != "cpu" or rest or blocks <= count:
        return logits.topk(min(count, len(logits))).indices
    rows = logits.view(blocks, _BLOCK)
    best = rows.amax(1).topk(count).indices  # (count,)
    places = rows[best].flatten().topk(count).indices  # (count,), within the best blocks
    return best[places // _BLOCK] * _BLOCK + places % _BLOCK


def _check_finite(value: torch.Tensor) -> None:
    """Raise `ReasonerError` unless the model computed probabilities."""
    if not bool(value.isfinite()):
        raise ReasonerError("the model computes no probabilities (NaN): its weights or dtype are wrong")


class _Ids:
    """A growing set of ids, as a tensor on a device."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.ids = torch.empty(0, dtype=torch.long, device=device)
        self._known: set[int] = set()

    def add(self, *ids: int) -> None:
        import torch

        new = [i for i in dict.fromkeys(ids) if i not in self._known]
        if new:
            self._known.update(new)
            self.ids = torch.cat([self.ids, torch.tensor(new, device=self.ids.device)])
