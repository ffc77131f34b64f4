"""The reasoner: a model that continues a rollout, streaming, until it is told to stop.

`Reasoner` is the base class of all of them, and `stream` is its one abstract method. An engine passes each
piece of text to `Request.until` at the moment it is decoded and stops when that returns True; no token is
written past the end of a call. `Request.stops` are the same ends as strings, for engines that can only stop
on strings.

A reasoner knows neither tools nor the tag grammar nor the trace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from act2see.agent.grammar import StopReason
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError
from act2see.tools.runtime.weights import Wanted

FRAME_TEXT = 16
"""Tokens around a frame: its time, its marks, the tags of a tool's answer."""
QUESTION = 1024
"""Tokens reserved for the question, its options and the instruction."""


def _never(text: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability are drawn."""
    seed: int = 0
    """Belongs to one request, so that a resumed run draws the same tokens."""
    top_k: int = 0
    """Only so many of the most probable tokens are drawn; 0 is all."""
    min_p: float = 0.0
    """Only tokens with at least this share of the largest probability are drawn."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that the rollout has already; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that were written already."""


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation of a rollout, as it is asked of a reasoner."""

    rollout: Rollout
    max_tokens: int
    """The most tokens that may be written."""
    until: Callable[[str], bool] = _never
    """Called with each piece of text as it is decoded; decoding ends when it returns True."""
    stops: Sequence[str] = ()
    """The strings at which `until` may return True. They stay in the text."""
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that was just decoded."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one continuation."""

    stop: StopReason
    """One of `UNTIL`, `EOS` and `LENGTH`."""
    prefilled: int = 0
    """Tokens of the rollout that were read."""
    cached: int = 0
    """Tokens of the rollout that were still in the cache."""
    decoded: int = 0
    """Tokens that were written."""
    repeated: int = 0
    """Tokens that were read although an earlier request of the same session had read them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The most that one run of a config may send to a reasoner."""

    images: int
    side: int
    """The longer side of a frame, in pixels."""
    tokens: int
    """Tokens that may be written."""

    def context(self, frame_tokens: int) -> int:
        """The context that a run needs, in tokens, if a frame takes `frame_tokens`."""
        return self.images * (frame_tokens + FRAME_TEXT) + QUESTION + self.tokens


class Reasoner(ABC):
    """A model that continues rollouts."""

    name: str
    """The model's name, as traces give it."""
    context: int | None = None
    """How many tokens the model can read and write in all; None if that is unknown."""

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        """Yield text as it is decoded, then one `Done`. Closing the generator early stops the decoding.

        Raises:
            ReasonerError: The model cannot continue.
        """

    async def check(self) -> None:  # noqa: B027 - optional
        """Before each run: whether it can begin. Load nothing.

        Raises:
            SetupError: The model's server cannot be reached, refuses the key, or is set up for less.
        """

    async def prepare(self) -> None:  # noqa: B027 - optional
        """Load what the first request would load: a run's time is measured from here on."""

    def forget(self, session: str) -> None:  # noqa: B027 - optional
        """The run of this session is over; its cache may be reused."""

    def close(self) -> None:  # noqa: B027 - optional
        """Free memory and processes while no run is under way; the next run would load them again."""

    def wanted(self) -> Iterator[Wanted]:
        """The weights that the next request would load from disk."""
        return iter(())


class WrappedReasoner(Reasoner):
    """Passes everything on to another reasoner: derive from it and override what differs."""

    def __init__(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner
        self.name = reasoner.name
        self.context = reasoner.context

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return self.reasoner.stream(request)

    async def check(self) -> None:
        await self.reasoner.check()

    async def prepare(self) -> None:
        await self.reasoner.prepare()

    def forget(self, session: str) -> None:
        self.reasoner.forget(session)

    def close(self) -> None:
        self.reasoner.close()

    def wanted(self) -> Iterator[Wanted]:
        return self.reasoner.wanted()


def check_reasoner(reasoner: object) -> None:
    """Raises `ConfigError` if `reasoner` does not derive from `Reasoner`."""
    if not isinstance(reasoner, Reasoner):
        raise ConfigError(
            f"{reasoner!r:.80} is not a Reasoner: derive its class from "
            "act2see.Reasoner and implement `stream(request)` (docs/models.md)"
        )
