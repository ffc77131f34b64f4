"""A `TransformersReasoner` that is told what to write, and what its forwards cost.

Random weights write no tags, so no trace would come of them. This one reads and decodes as always, chooses a
token from the logits as always, and then takes the script's token instead: each forward is as long as that of
a trained model which wrote the same. A line is a tuple of segments, each tokenised by itself, as the renderer
does when the line comes back to be read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from act2see.agent.packing import Packed
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import TextPiece
from benchmarks.gpu.common import sync


class Forced(TransformersReasoner):
    """Which line comes next is told by how often something came back. `prefills` holds tokens and seconds of
    each reading."""

    lines: Sequence[Sequence[str]] = ((),)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.prefills: list[tuple[int, float]] = []
        self.decodes: list[tuple[int, float]] = []

    def script(self, line: int) -> list[int]:
        return [i for part in self.lines[line] for i in self.packer.codec.encode(part, "model")]

    def rewind(self, session: str, length: int) -> None:
        """Forget what a run has read beyond this many tokens, when nothing is under way."""
        for row in self._rows:
            if row.session == session:
                row.keys = row.keys[:length]

    def known(self, session: str) -> int:
        """How many tokens of a run are in the cache."""
        return max((len(row.keys) for row in self._rows if row.session == session), default=0)

    def _prefill(self, row: Any, packed: Packed, job: Any) -> Any:
        sync()
        started = time.perf_counter()
        logits = super()._prefill(row, packed, job)
        sync()
        self.prefills.append((job.done.prefilled, time.perf_counter() - started))
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
        came = sum(
            isinstance(p, TextPiece) and p.trust == "plain" and p.text.endswith("</frame>")
            for p in job.request.rollout.pieces
        )
        ids = self.script(min(came, len(self.lines) - 1))
        return ids[len(job.written)] if len(job.written) < len(ids) else min(self._ends)
