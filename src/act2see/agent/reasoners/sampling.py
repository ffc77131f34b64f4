"""Draw the next token from logits, on the device that computed them.

Only the drawn id is copied to the host: a copy and a sort of 151,936 logits there would take longer than a
small model's forward. Randomness comes from a generator on the CPU, one per request, so a seed draws the same
tokens on every device, whatever else is in the batch.

The order is that of transformers and vLLM: penalties, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from act2see.agent.reasoners.base import Sampling

if TYPE_CHECKING:
    import torch

_COLDEST = 1e-4  # below this temperature sampling is greedy: logits divided by less overflow
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
        self._prompt = prompt
        self._generator = torch.Generator("cpu").manual_seed(sampling.seed)
        self._seen: torch.Tensor | None = None  # (vocabulary,) bool: in the prompt or written
        self._written: torch.Tensor | None = None  # (vocabulary,) bool

    def draw(self, logits: torch.Tensor) -> int:
        """Return the id of the next token.

        Args:
            logits: Those of the last token, `(vocabulary,)`.
        """
        import torch

        logits = logits.float()
        logits = self._penalised(logits)
        logits = logits.index_fill(0, self._forbidden, -torch.inf)
        if self.sampling.temperature < _COLDEST:
            token = logits.argmax()
        else:
            token = self._random(logits / self.sampling.temperature)
        self._note(token)
        return int(token)

    def _random(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw from what top-k, top-p and min-p leave."""
        import torch

        s = self.sampling
        chances = logits.softmax(-1)
        ids: torch.Tensor | None = None
        if s.top_k or s.top_p < 1:
            chances, ids = self._largest(chances)
            if s.top_p < 1:
                before = chances.cumsum(0) - chances
                chances = torch.where(before < s.top_p * chances.sum(), chances, 0)
        if s.min_p > 0:
            chances = torch.where(chances >= s.min_p * chances.max(), chances, 0)
        sums = chances.double().cumsum(0)
        point = torch.rand(1, generator=self._generator, dtype=torch.float64).to(sums.device) * sums[-1]
        place = torch.searchsorted(sums, point, right=True).clamp_(max=len(sums) - 1)[0]
        return place if ids is None else ids[place]

    def _largest(self, chances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The candidates of top-k and top-p, largest first, with their ids."""
        s = self.sampling
        if s.top_k:
            largest = chances.topk(min(s.top_k, len(chances)))
            return largest.values, largest.indices
        largest = chances.topk(min(_CANDIDATES, len(chances)))
        if float(largest.values.sum()) >= s.top_p:
            return largest.values, largest.indices
        everything = chances.sort(descending=True)
        return everything.values, everything.indices

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply the repetition penalty (of the prompt and of what was written) and the presence penalty (of
        what was written)."""
        import torch

        s = self.sampling
        if s.repetition_penalty == 1 and s.presence_penalty == 0:
            return logits
        if self._seen is None or self._written is None:
            self._written = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
            self._seen = self._written.clone()
            if self._prompt is not None:
                self._seen[self._prompt] = True
        if s.repetition_penalty != 1:
            scaled = torch.where(logits > 0, logits / s.repetition_penalty, logits * s.repetition_penalty)
            logits = torch.where(self._seen, scaled, logits)
        return logits - s.presence_penalty * self._written

    def _note(self, token: torch.Tensor) -> None:
        """Remember a token that was written, for the penalties."""
        if self._seen is not None and self._written is not None:
            self._seen[token] = True
            self._written[token] = True
