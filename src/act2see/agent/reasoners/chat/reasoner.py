"""Any LangChain chat model as a reasoner: a teacher, or the model of whoever has only an API key.

Most chat APIs cannot continue a turn that holds an image. So what a tool returned becomes a user's turn, the
model's next turn continues from there, and in the trace it is one thought again (`reading.py`).

With `continuation` the server can continue an unfinished turn, as `act2see serve openai` does: it reads the
rollout itself, and the run's temperature, seed and token limit hold. Otherwise these are the chat model's
own.

Before the first word of an answer, transient errors (rate limits, overload, lost connections) are waited for,
as long as the server asks (`Retry-After`); one wait holds for all questions of the reasoner. After it nothing
is sent again, since the streamed text would be there twice: the run ends at its last saved step. Token counts
are those that the provider reports.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.reasoners.chat.metadata import (
    answering_model,
    asked_model,
    finish_reason,
    is_cut,
    is_other_model,
)
from act2see.agent.reasoners.chat.probe import probe
from act2see.agent.reasoners.chat.reading import Reading
from act2see.agent.reasoners.chat.turns import Blocks, chat_messages, continued_messages
from act2see.agent.reasoners.faults import (
    Backoff,
    CutError,
    describe_error,
    refuses_stops,
    status_of,
    to_reasoner_error,
)
from act2see.errors import ConfigError, ReasonerError, RefusedError, SetupError
from act2see.tools.runtime.background import relay
from act2see.tools.video.store import FrameSource

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

log = logging.getLogger(__name__)
_STOPS = 4  # every API takes so many; at other tags the reading ends, and the connection with it


@dataclass(slots=True)
class ChatModelReasoner(Reasoner):
    """Continues rollouts with a LangChain chat model."""

    model: BaseChatModel
    source: InitVar[FrameSource]
    """Gives the pixels of a frame."""
    name: str = "chat"
    backoff: Backoff = field(default_factory=Backoff)
    continuation: bool = False
    """Whether the server can continue an unfinished turn."""
    in_background: bool = False
    """Whether requests run on the process's background loop, whichever loop the caller is in. A client keeps
    connections, and they belong to the loop that opened them; so a model that is shared with nobody else can
    serve callers from many loops."""
    ask_first: bool = False
    """Whether the server is asked, before the first run, if it is there and takes the key."""
    _blocks: Blocks = field(init=False)
    _process: int = field(default=0, init=False)  # the one that has sent a request
    _is_checked: bool = field(default=False, init=False)
    _met: bool = field(default=False, init=False)  # the server has answered, if only with an error
    _free: float = field(default=0.0, init=False)  # nobody sends before this time (monotonic clock)
    _stopless: bool = field(default=False, init=False)  # the model takes no stop strings
    _warned: bool = field(default=False, init=False)  # of another model that answers

    def __post_init__(self, source: FrameSource) -> None:
        self._blocks = Blocks(source)
        if self.continuation and not hasattr(self.model, "extra_body"):
            raise ConfigError(
                f"{self.name}: reasoner.continuation needs an OpenAI-compatible server, weights "
                "`openai:NAME` and its base_url"
            )

    async def check(self) -> None:
        """Ask the server for its models, until it has answered once."""
        if self.ask_first and not self._is_checked:
            await probe(self.model, self.name)
            self._is_checked = True

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        self._check_process()
        messages, settings = await asyncio.to_thread(self._messages, request)
        chunks = self._chunks(messages, settings, random.Random(request.sampling.seed))
        if self.in_background:
            chunks = relay(chunks)
        reading = Reading(request, self.continuation)
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if new := reading.take(chunk):
                        yield Delta(new)
                    if reading.is_over:
                        break
        except ReasonerError as e:
            if not reading.ended:
                raise
            log.debug("%s, after the end of the text", e)
        if not reading.is_too_long:
            if held := reading.rest():
                yield Delta(held)
            self._check_model(reading.message)
            if reading.refusal:
                raise RefusedError(f"{self.name} refused to answer ({reading.refusal})")
            if tag := reading.close_tag():
                yield Delta(tag)
        yield reading.done()

    def _check_process(self) -> None:
        self._process = self._process or os.getpid()
        if self._process != os.getpid():
            raise SetupError(
                f"{self.name}: the connections to it belong to the process that this one was forked from, "
                'where it has been asked: fork before the first question, or start processes by "spawn"'
            )

    def _messages(self, request: Request) -> tuple[list[Any], dict[str, Any]]:
        """The messages of a request, and its settings."""
        stops = list(request.stops)
        settings: dict[str, Any] = {"stop": stops if self.continuation else stops[:_STOPS]}
        # LangChain asks servers other than OpenAI's own for their token counts only if told to.
        if hasattr(self.model, "stream_usage") and "stream_usage" not in self.model.model_fields_set:
            settings["stream_usage"] = True
        if not self.continuation:
            return chat_messages(request.rollout, self._blocks), settings
        messages, plain = continued_messages(request.rollout, self._blocks)
        settings["max_tokens"] = request.max_tokens
        settings["temperature"] = request.sampling.temperature
        settings["top_p"] = request.sampling.top_p
        settings["seed"] = request.sampling.seed
        settings["extra_body"] = {
            **(getattr(self.model, "extra_body", None) or {}),
            "continue_final_message": True,
            "add_generation_prompt": False,
            "include_stop_str_in_output": True,
            "plain_parts": plain,
        }
        return messages, settings

    async def _chunks(
        self, messages: list[Any], settings: dict[str, Any], rng: random.Random
    ) -> AsyncGenerator[Any]:
        """The model's stream; a request that fails before its first word is sent again if that may help."""
        started, sent = time.monotonic(), 0
        while True:
            await self._turn()
            if self._stopless:
                settings.pop("stop", None)
            began = False
            try:
                async with aclosing(self._chunks_once(messages, settings)) as chunks:
                    async for chunk in chunks:
                        began |= bool(chunk.text)
                        yield chunk
                return
            except Exception as e:
                if not began and not self._stopless and refuses_stops(e):
                    self._stopless = True
                    log.warning("%s takes no stop strings: its stream is ended by hanging up", self.name)
                    continue
                sent += 1
                wait = None if began else self._wait(e, sent, started, rng)
                if wait is None:
                    silence = self.backoff.silence
                    raise to_reasoner_error(e, self.name, began=began, silence=silence) from e
                log.warning("%s: %s; request %d in %.1f s", self.name, describe_error(e), sent + 1, wait)
                self._free = max(self._free, time.monotonic() + wait)

    async def _chunks_once(self, messages: list[Any], settings: dict[str, Any]) -> AsyncGenerator[Any]:
        """The chunks of one request. Raises whatever the model's package raises, and `CutError`."""
        last: Any = None
        stream = self.model.astream(messages, **settings)
        try:
            while True:
                async with asyncio.timeout(self.backoff.silence):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                self._met = True
                if last is None or finish_reason(chunk):
                    last = chunk
                yield chunk
        finally:
            if close := getattr(stream, "aclose", None):
                await close()
        if is_cut(last):
            raise CutError("the stream ended without its last part")

    async def _turn(self) -> None:
        """Wait while the server has asked for a pause, which another question may have prolonged."""
        wait = self._free - time.monotonic()
        while wait > 0:
            await asyncio.sleep(wait)
            wait = self._free - time.monotonic()

    def _wait(self, error: Exception, sent: int, started: float, rng: random.Random) -> float | None:
        """Seconds until the next request; None if there will be none.

        Args:
            error: Why the last one failed.
            sent: How many requests have failed.
            started: When the first one was sent.
            rng: Varies the wait.
        """
        wait = self.backoff.wait(error, sent, rng)
        self._met |= status_of(error) is not None
        # A server that has answered before is expected to come back.
        late = wait is not None and time.monotonic() + wait - started > self.backoff.absent
        return None if late and not self._met else wait

    def _check_model(self, message: Any) -> None:
        """Whether the model that answered is the one that was asked: some servers answer with whichever they
        have."""
        asked, answered = asked_model(self.model), answering_model(message)
        if not is_other_model(asked, answered):
            return
        words = f"{self.name}: {answered!r} answered, and {asked!r} was asked"
        if self.continuation:
            raise SetupError(f"{words}: set reasoner.weights to the model that the server has")
        if not self._warned:
            self._warned = True
            log.warning("%s: traces name the one that was asked", words)
