"""The state that the worker of `TransformersReasoner` keeps for each request and each row of the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from act2see.agent.packing import Packed
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.reasoners.sampling import TokenSampler


@dataclass(slots=True)
class Job:
    """A request from its arrival at the worker until its end."""

    request: Request
    emit: Callable[[Delta | Done | BaseException], None]
    """Passes an item to the caller's event loop."""
    cancelled: bool = False
    """Whether the caller no longer needs the text. The caller sets it from its own thread."""
    written: list[int] = field(default_factory=list)
    """Ids of the tokens written so far."""
    decode: Callable[[int], str] = str
    """Decodes the next token; returns the text that it completes."""
    done: Done = field(default_factory=lambda: Done(StopReason.EOS))
    """The counts of its prefill."""
    packed: Packed | None = None
    """The packed rollout, if it was packed ahead of the worker."""
    patches: dict[str, Any] = field(default_factory=dict)
    """The patches of frames by their digests, if they were made ahead of the worker."""
    failure: Exception | None = None
    """The error of packing ahead of the worker."""
    sampler: Any = None
    """The `TokenSampler` of the request."""

    def prepare(
        self, prompt: Sequence[int], forbidden: Sequence[int], decode: Callable[[int], str], device: Any
    ) -> None:
        """Get ready to draw tokens.

        Args:
            prompt: The ids of the rollout.
            forbidden: Ids that are never written.
            decode: Decodes the next token.
            device: The torch device of the logits.
        """
        import torch

        ids = torch.tensor(prompt, dtype=torch.long, device=device)
        never = torch.tensor(forbidden, dtype=torch.long, device=device)
        self.sampler = TokenSampler(self.request.sampling, never, ids)
        self.decode = decode


@dataclass(slots=True)
class Row:
    """A row of the cache: the tokens whose keys and values it holds, and the job that uses it."""

    session: str = ""
    """The run whose tokens the row holds; empty if the tokens cannot be reused."""
    keys: list[int] = field(default_factory=list)
    """The tokens that the model has read into the row, as keys (`Packed.keys`)."""
    position: int = 0
    """The M-RoPE position of the next token."""
    used: int = 0
    """The worker's clock at the end of the row's last job. The least recently used row is reused first."""
    job: Job | None = None
    """The job that is decoding in the row; None if the row is idle."""
    pending: int = 0
    """The id of the last written token, which the next forward reads."""


def choose_job(waiting: Sequence[Job], rows: Sequence[Row]) -> int:
    """Return the index of the oldest waiting job of the owner that uses the fewest of these rows."""
    used = Counter(row.job.request.rollout.owner for row in rows if row.job)
    return min(range(len(waiting)), key=lambda i: used[waiting[i].request.rollout.owner])


def choose_row(rows: Sequence[Row], session: str) -> int:
    """Return the index of the session's own row, else of the least recently used idle row."""
    idle = [i for i, row in enumerate(rows) if row.job is None]
    own = [i for i in idle if session and rows[i].session == session]
    return own[0] if own else min(idle, key=lambda i: rows[i].used)
