"""The reasoner: a model that continues a rollout and streams its text until the caller stops it.

`Reasoner` is the base class of all reasoners, and `stream` is its only abstract method. A reasoner passes
each piece of text to `Request.until` as soon as it is decoded and stops when that returns True, so no token
is written past the end of a call. `Request.stops` are the same ends as strings, for engines that can only
stop on strings.

A reasoner does not depend on tools, the tag grammar or the trace.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from act2see.agent.parser import StopReason
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError
from act2see.tools.runtime.weights import Wanted

FRAME_TEXT = 16
"""The tokens reserved for the text around a frame: its time, its marks, the tags of a tool's answer."""
QUESTION = 1024
"""The tokens reserved for the question, its options and the instruction."""


def _never(text: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings for drawing tokens."""

    temperature: float = 0.0
    """The temperature; 0 is greedy."""
    top_p: float = 1.0
    """Only the most probable tokens that together have this probability are drawn."""
    seed: int = 0
    """Belongs to one request, so that a resumed run draws the same tokens."""
    top_k: int = 0
    """The number of most probable tokens that may be drawn; 0 is all."""
    min_p: float = 0.0
    """Only tokens with at least this share of the largest probability are drawn."""
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that the rollout has already; 1 changes nothing."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens that were written already."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a reasoner to continue a rollout."""

    rollout: Rollout
    """The sequence to continue."""
    max_tokens: int
    """The maximum number of tokens to write."""
    until: Callable[[str], bool] = _never
    """Called with each piece of text as it is decoded; decoding stops when it returns True."""
    stops: Sequence[str] = ()
    """The strings at which `until` may return True. The text keeps them."""
    sampling: Sampling = Sampling()
    """The settings for drawing tokens."""
    max_thinking: int | None = None
    """The maximum number of tokens of thinking that the model does not show, which only chat models have;
    None is no limit."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A newly decoded piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one continuation."""

    stop: StopReason
    """Why the text ended: `UNTIL`, `EOS` or `LENGTH`."""
    prefilled: int = 0
    """The number of the rollout's tokens that were read (prefilled)."""
    cached: int = 0
    """The number of the rollout's tokens that were still in the cache."""
    decoded: int = 0
    """The number of tokens that were written."""
    repeated: int = 0
    """The number of tokens that were read although an earlier request of the session had read them."""
    thinking: int = 0
    """The number of tokens of thinking that the model did not show. `decoded` does not include them."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The most that one run of a config may send to a reasoner."""

    images: int
    """The maximum number of frames."""
    side: int
    """The longer side of a frame, in pixels."""
    tokens: int
    """The maximum number of tokens that the model writes."""

    def context(self, frame_tokens: int) -> int:
        """Return the context that a run needs, in tokens, if a frame takes `frame_tokens` tokens."""
        return self.images * (frame_tokens + FRAME_TEXT) + QUESTION + self.tokens


class Reasoner(ABC):
    """A model that continues rollouts."""

    name: str
    """The model's name in traces."""
    context: int | None = None
    """The number of tokens that the model can read and write in all; None if it is unknown."""

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        """Yield text as it is decoded, then one `Done`. Closing the generator early stops the decoding.

        Raises:
            ReasonerError: The model cannot continue.
        """

    async def check(self) -> None:  # noqa: B027 - optional
        """Check that a run can start. Called before each run; it must load nothing.

        Raises:
            SetupError: The server cannot be reached, refuses the key, or allows less than a run needs.
        """

    async def prepare(self) -> None:  # noqa: B027 - optional
        """Load the model, so that the run's time does not include it."""

    def forget(self, session: str) -> None:  # noqa: B027 - optional
        """Release the cache of a session whose run has ended."""

    def close(self) -> None:  # noqa: B027 - optional
        """Free memory and processes. No run is active; the next one loads them again."""

    def wanted(self) -> Iterator[Wanted]:
        """Return the weights that the next request would load from disk."""
        return iter(())


class WrappedReasoner(Reasoner):
    """Passes every call on to another reasoner. Derive from it and override the methods that differ."""

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
    """Raise `ConfigError` if `reasoner` does not derive from `Reasoner`."""
    if not isinstance(reasoner, Reasoner):
        raise ConfigError(
            f"{reasoner!r:.80} is not a Reasoner: derive its class from act2see.Reasoner and implement "
            "`stream(request)` (docs/models.md)"
        )
