"""What the reasoning node needs of a model: continue this rollout, streaming, until told to stop.

An engine passes each piece of text to `until` at the moment it is decoded, and stops when that says so; no
token is written past the end of a call. `stops` are the same ends as strings, for engines that can only stop
on those.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from act2see.agent.rollout import Rollout

Stop = Literal["until", "eos", "length"]


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text, decoded just now."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one continuation.

    `prefilled` tokens were read, `cached` were still known; `repeated` of those read had been known before.
    """

    stop: Stop
    prefilled: int = 0
    cached: int = 0
    decoded: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature 0 is greedy. The seed is of this continuation alone, so that a resumed run draws the
    same."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Reasoner(Protocol):
    """A model that continues rollouts."""

    name: str

    def stream(
        self,
        rollout: Rollout,
        *,
        until: Callable[[str], bool],
        stops: Sequence[str],
        max_tokens: int,
        sampling: Sampling,
    ) -> AsyncIterator[Delta | Done]:
        """Text as it is decoded, then one `Done`. Raises `ReasonerError` where the model cannot go on."""
        ...

    def forget(self, session: str) -> None:
        """The run is over: its cache may be reused."""
        ...
