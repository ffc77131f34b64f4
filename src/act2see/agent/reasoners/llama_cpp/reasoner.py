"""A `llama-server` of llama.cpp as a reasoner: how laptops run such models (`act2see serve llama-cpp`).

The server gives a request the slot whose cache has the longest common prefix, so a run's next step finds the
tokens of its last one. No more requests are sent at once than there are slots: one that waits there sends
nothing, and could not be told from a server that hangs. The marker that stands for a frame is the server's
own and changes when it is restarted, so it is asked for again after a refusal that an old marker may have
caused. Leaving a stream early closes the connection, at which the server stops decoding.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx

from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.reasoners.connection import (
    BACKOFF,
    ServerConnection,
    ServerOptions,
    StatusError,
    is_slow,
    is_unreachable,
    read_options,
)
from act2see.agent.reasoners.faults import Backoff
from act2see.agent.reasoners.follow import Chunk, follow, read_chunk, require_tokens
from act2see.agent.reasoners.llama_cpp.preflight import ServerFacts, check_model, preflight, read_facts
from act2see.agent.reasoners.llama_cpp.wire import FIELDS, chunk_of, prompt, sampling_fields
from act2see.agent.rollout import Rollout
from act2see.errors import ContextError, ReasonerError, SetupError
from act2see.tools.runtime.text import first_line
from act2see.tools.video.store import FrameSource, frame_png

log = logging.getLogger(__name__)
T = TypeVar("T")
_TOO_LONG = "context size"
_WRONG_MARKER = "Failed to tokenize prompt"  # the text does not have one marker for each frame


class LlamaCppOptions(ServerOptions):
    """The keys of `reasoner.options`."""

    url: str = "http://localhost:8080"
    """The address of the server."""
    mmproj: str | None = None
    """The vision file of a model that is a local file; for `act2see serve llama-cpp`."""


@dataclass(slots=True)
class _Attempt:
    """A request that is sent until it is answered or given up."""

    rng: random.Random
    sent: int = 0
    """The number of failed attempts."""
    asked_again: bool = False
    """Whether the server was asked for its marker again."""
    began: bool = False
    """Whether text has arrived."""


class LlamaCppReasoner(Reasoner):
    """Continues rollouts on a llama.cpp server."""

    def __init__(
        self,
        url: str,
        model: str,
        frames: FrameSource,
        *,
        key: str | None = None,
        needs: Needs | None = None,
        backoff: Backoff = BACKOFF,
    ) -> None:
        """
        Args:
            url: The server's address (`http://host:8080`).
            model: The model's name, as traces give it.
            frames: Gives the pixels of a frame.
            key: The server's key.
            needs: What a run may send; the server is asked for its limits before the first one.
            backoff: When to send a request again.
        """
        self.name = model
        self.needs = needs
        self.backoff = backoff
        self.connection = ServerConnection(url, key=key, silence=backoff.silence)
        self._frames = frames
        self._facts: ServerFacts | None = None
        # By event loop: how many requests may be under way.
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @classmethod
    def from_options(
        cls,
        model: str,
        frames: FrameSource,
        options: Mapping[str, Any],
        *,
        needs: Needs | None = None,
    ) -> LlamaCppReasoner:
        """Build it from a config's `reasoner.options`; the other arguments are the constructor's.

        Raises:
            ConfigError: An option is wrong, or the variable with the key is not set.
        """
        given = read_options(LlamaCppOptions, options)
        backoff = replace(BACKOFF, silence=given.silence, requests=given.requests)
        return cls(given.url, model, frames, key=given.key, needs=needs, backoff=backoff)

    @property
    def url(self) -> str:
        return self.connection.url

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return follow(lambda rollout, tokens: self._chunks(request, rollout, tokens), request)

    async def check(self) -> None:
        """Ask the server for its limits, until it has met `needs` once. Waits while it loads the model."""
        if self._facts is not None:
            return
        facts = await self._ask(lambda: read_facts(self.connection))
        check_model(self.url, facts, self.name)
        if self.needs is not None:
            needs = self.needs
            await self._ask(lambda: preflight(self.connection, facts, needs))
        self._take(facts)

    def _take(self, facts: ServerFacts) -> None:
        self._facts = facts
        self.context = facts.context

    def _turn(self, slots: int) -> asyncio.Semaphore:
        """The semaphore of this event loop; it has as many places as the server has slots."""
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(slots))

    async def _server_facts(self) -> ServerFacts:
        """The server's facts; asks for them if `check` has not."""
        if self._facts is None:
            self._take(await self._ask(lambda: read_facts(self.connection)))
        assert self._facts is not None
        return self._facts

    async def _chunks(self, request: Request, rollout: Rollout, tokens: int) -> AsyncGenerator[Chunk]:
        """Stream one request, sent again if it fails before its first word and that may help."""
        attempt = _Attempt(random.Random(request.sampling.seed))
        pictures = await asyncio.to_thread(lambda: [frame_png(f, self._frames) for f in rollout.frames])
        while True:
            facts = await self._server_facts()
            body = self._body(request, tokens, facts)
            body["prompt"] = await asyncio.to_thread(prompt, rollout, pictures, facts.marker)
            try:
                async with self._turn(facts.slots), aclosing(require_tokens(self._events(body))) as chunks:
                    async for chunk in chunks:
                        attempt.began = attempt.began or bool(chunk.text or chunk.finish)
                        yield chunk
                    return
            except (StatusError, OSError, httpx.TransportError) as e:
                pause = self._pause(e, attempt, len(pictures))
            await asyncio.sleep(pause)

    def _body(self, request: Request, tokens: int, facts: ServerFacts) -> dict[str, Any]:
        """The request without its prompt."""
        return {
            **sampling_fields(request.sampling, facts.context),
            "n_predict": tokens,
            "stop": list(request.stops),
            "logit_bias": [[token, False] for token in facts.forbidden],
            "cache_prompt": True,
            "response_fields": list(FIELDS),
            "stream": True,
        }

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        finished = False
        async with aclosing(self.connection.events("/completion", body)) as events:
            async for data in events:
                chunk = read_chunk(chunk_of, data)
                finished |= chunk.finish is not None
                yield chunk
        if not finished:
            raise ConnectionError("the stream ended in the middle")

    def _pause(self, error: Exception, attempt: _Attempt, frames: int) -> float:
        """Seconds until the request is sent again.

        Raises:
            ReasonerError: It will not be.
        """
        if attempt.began or is_slow(error):
            raise self._to_error(error, frames, attempt.began) from error
        if is_wrong_marker(error) and not attempt.asked_again:
            log.info("%s has another media marker: asking for it again", self.url)
            attempt.asked_again = True
            self._facts = None
            return 0.0
        attempt.sent += 1
        wait = self.backoff.wait(error, attempt.sent, attempt.rng)
        if wait is None:
            raise self._to_error(error, frames, began=False) from error
        log.warning("%s: %s; request %d in %.1f s", self.name, first_line(error), attempt.sent + 1, wait)
        return wait

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return the server's reply to `ask`; wait while the server loads its model.

        Raises:
            SetupError: The server cannot serve this config.
            ReasonerError: The server cannot be asked.
        """
        deadline = asyncio.get_running_loop().time() + self.backoff.silence
        while True:
            try:
                return await ask()
            except StatusError as e:
                if e.status != 503 or asyncio.get_running_loop().time() > deadline:
                    raise self._to_error(e, 0, began=False) from e
                log.info("%s is loading its model", self.url)
            except (OSError, ValueError, httpx.TransportError) as e:
                raise self._to_error(e, 0, began=False) from e
            await asyncio.sleep(1.0)

    def _to_error(self, error: Exception, frames: int, began: bool) -> ReasonerError:
        """The error with which the run ends."""
        line = first_line(error, 160).rstrip(".")
        if isinstance(error, StatusError):
            return self._refusal(error, line, frames)
        if isinstance(error, ValueError):
            return SetupError(
                f"{self.url} does not answer in JSON: reasoner.options.url must be the address of a "
                "llama-server, without a path"
            )
        if is_unreachable(error):
            return SetupError(
                f"no server answers at {self.url} ({line}): start it with `act2see serve llama-cpp` and the "
                "same --preset or --config, or set reasoner.options.url"
            )
        if is_slow(error):
            return ReasonerError(
                f"{self.name} sent nothing for {self.backoff.silence:g} s: is {self.url} overloaded, or has "
                "it hung? Raise reasoner.options.silence on a slow machine"
            )
        broke = "broke off" if began else "failed"
        return ReasonerError(
            f"{self.name} {broke}: {line}; if the server has ended, start it again, then resume the run"
        )

    def _refusal(self, error: StatusError, line: str, frames: int) -> ReasonerError:
        if error.status in (401, 403):
            return SetupError(
                f"{self.url}: status {error.status}: check the key (reasoner.options.key_env names its "
                "variable)"
            )
        if error.status == 404:
            return SetupError(
                f"{self.url} answers 404: reasoner.options.url must be the address of a llama-server, "
                "without a path"
            )
        if error.status == 503:
            return ReasonerError(f"{self.url} is still loading its model: try again later")
        if _TOO_LONG in error.message:
            return ContextError(
                f"the rollout with {frames} frames is longer than {self.name} takes ({line}): show fewer "
                "initial frames (view.max_frames), smaller ones (view.max_side), or start the server with a "
                "larger --ctx-size"
            )
        return ReasonerError(f"{self.name} failed: status {error.status}, {line}")


def is_wrong_marker(error: Exception) -> bool:
    """Whether the server did not find as many markers as frames, because its marker is another now."""
    return isinstance(error, StatusError) and _WRONG_MARKER in error.message
