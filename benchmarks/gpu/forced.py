"""A `TransformersReasoner` that writes a script and times its forward passes.

Models with random weights write no tags, so they would produce no trace. This reasoner prefills, decodes and
samples as usual, and then replaces the sampled token by that of the script: each forward pass costs as much
as that of a trained model that writes the same text. A line is a tuple of segments, which are tokenised as
one text, as the renderer does when the line becomes part of the next prompt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from act2see.agent.reasoners.prefill import Prefill
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import TextPiece
from benchmarks.gpu.common import sync


class Forced(TransformersReasoner):
    """A reasoner that writes one line per visit; the number of frames returned so far selects the line."""

    lines: Sequence[Sequence[str]] = ((),)
    """The script."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.prefills: list[tuple[int, float]] = []
        """Tokens and seconds of each prefill, or of each of its chunks while others decode."""
        self.decodes: list[tuple[int, float]] = []
        """The longest context, in tokens, and the seconds of each decoding step."""

    def script(self, line: int) -> list[int]:
        """Return the token ids of a line."""
        return self.packer.codec.encode("".join(self.lines[line]), "model")

    def rewind(self, session: str, length: int) -> None:
        """Truncate a run's cache to this many tokens. The engine must be idle."""
        for row in self._rows:
            if row.session == session:
                row.keys = row.keys[:length]

    def cached_tokens(self, session: str) -> int:
        """Return the number of a run's tokens in the cache."""
        return max((len(row.keys) for row in self._rows if row.session == session), default=0)

    def _advance(self, prefill: Prefill, at: int) -> Any:
        sync()
        started, before = time.perf_counter(), prefill.done
        logits = super()._advance(prefill, at)
        sync()
        self.prefills.append((prefill.done - before, time.perf_counter() - started))
        return logits

    def _decode(self, at: Sequence[int]) -> Any:
        sync()
        started = time.perf_counter()
        logits = super()._decode(at)
        sync()
        self.decodes.append((max(len(self._rows[i].keys) for i in at), time.perf_counter() - started))
        return logits

    def _sample(self, logits: Any, job: Any) -> int:
        super()._sample(logits, job)
        returned = sum(
            isinstance(p, TextPiece) and p.trust == "plain" and p.text.endswith("</frame>")
            for p in job.request.rollout.pieces
        )
        ids = self.script(min(returned, len(self.lines) - 1))
        if len(job.written) < len(ids):
            return ids[len(job.written)]
        return min(self._ends)
