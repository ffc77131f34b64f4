"""What the worker of `TransformersReasoner` keeps of each request and of each row of the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request


@dataclass(slots=True)
class Job:
    """One request under way."""

    request: Request
    emit: Callable[[Delta | Done | BaseException], None]
    """Hands an item to the caller's event loop."""
    cancelled: bool = False
    written: list[int] = field(default_factory=list)
    """Ids of the tokens written so far."""
    decode: Callable[[int], str] = str
    """Decodes the next token; returns the text that it completes."""
    done: Done = field(default_factory=lambda: Done(StopReason.EOS))
    """The counts of its prefill."""
    sampler: Any = None
    """The `TokenSampler` of the request."""


@dataclass(slots=True)
class Row:
    """One row of the cache."""

    session: str = ""
    """The run whose tokens it holds; empty if they are nobody's."""
    keys: list[int] = field(default_factory=list)
    """The tokens that have been read, as `Packed.keys` gives them."""
    position: int = 0
    """Where the next token stands."""
    used: int = 0
    """The worker's clock when the last job ended here."""
    job: Job | None = None
    """The job that is decoding in this row."""
    pending: int = 0
    """The token that was written last and has not been read yet."""
