"""Any LangChain chat model as a reasoner: a teacher, or a model that is reached by an API key.

Most chat APIs cannot continue a turn that holds an image. So the result of a tool becomes a user's turn, the
model's next turn continues from there, and the trace joins the turns to one thought (`reading.py`). Ollama
takes one picture in a message, and sends a model's thought apart from its reply.

With `continuation` the server can continue an unfinished turn, as `act2see serve openai` does. It then reads
the rollout itself and uses the run's temperature, seed and token limit. Other servers use the settings of the
chat model.

A request that fails before its first word by a transient error (rate limit, overload, lost connection) is
sent again, after the wait for which the server asks (`Retry-After`); a wait applies to all questions of the
reasoner. After the first word nothing is sent again, since text would be streamed twice: the run ends at its
last saved step. Token counts are those that the provider reports.
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
    finish_reason,
    is_cut,
    is_other_model,
    requested_model,
)
from act2see.agent.reasoners.chat.probe import probe
from act2see.agent.reasoners.chat.reading import Reading, is_silent
from act2see.agent.reasoners.chat.setup import provider_of
from act2see.agent.reasoners.chat.thinking import thinking_settings
from act2see.agent.reasoners.chat.turns import (
    Blocks,
    chat_messages,
    continuation_messages,
    split_at_pictures,
)
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
_MAX_STOPS = 4  # every API accepts this many; at other tags the stream is closed


@dataclass(slots=True)
class ChatModelReasoner(Reasoner):
    """Continues rollouts with a LangChain chat model.

    Raises:
        ConfigError: `continuation` is set for a model without an OpenAI-compatible server.
    """

    model: BaseChatModel
    source: InitVar[FrameSource]
    """Returns the pixels of a frame."""
    name: str = "chat"
    backoff: Backoff = field(default_factory=Backoff)
    """The rules for sending a failed request again."""
    continuation: bool = False
    """Whether the server can continue an unfinished turn."""
    in_background: bool = False
    """Whether requests run on the process's background loop instead of the caller's. A client's connections
    belong to the loop that opened them, so a model that only this reasoner uses can then serve callers on
    many loops."""
    ask_first: bool = False
    """Whether to check before the first run that the server answers and accepts the key."""
    _blocks: Blocks = field(init=False)
    _process: int = field(default=0, init=False)  # id of the process that has sent a request
    _is_checked: bool = field(default=False, init=False)
    _has_answered: bool = field(default=False, init=False)  # the server has sent a response or an error
    _earliest: float = field(default=0.0, init=False)  # time of the next request (monotonic clock)
    _no_stops: bool = field(default=False, init=False)  # the model does not support stop strings
    _has_warned: bool = field(default=False, init=False)  # that another model answers

    def __post_init__(self, source: FrameSource) -> None:
        self._blocks = Blocks(source)
        if self.continuation and not hasattr(self.model, "extra_body"):
            raise ConfigError(
                f"{self.name}: reasoner.continuation needs an OpenAI-compatible server: set the weights to "
                "`openai:NAME`, and its base_url"
            )

    async def check(self) -> None:
        """Check that the server answers and accepts the key, until one check has succeeded."""
        if self.ask_first and not self._is_checked:
            await probe(self.model, self.name)
            self._is_checked = True
            if self._is_ollama and not getattr(self.model, "num_ctx", None):
                log.warning(
                    "%s: without `options: {num_ctx: ...}`, Ollama may read only 4,096 tokens and drop the "
                    "rest of the frames",
                    self.name,
                )

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        self._check_process()
        messages, settings = await asyncio.to_thread(self._messages, request)
        chunks = self._chunks(messages, settings, random.Random(request.sampling.seed))
        if self.in_background:
            chunks = relay(chunks)
        reading = Reading(request, self.continuation, thinks_apart=self._thinks_apart)
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
            if held := reading.flush():
                yield Delta(held)
            self._check_model(reading.message)
            if reading.refusal:
                raise RefusedError(f"{self.name} refused to answer ({reading.refusal})")
            if tag := reading.close_tag():
                yield Delta(tag)
        done = reading.done()
        if is_silent(request.rollout, reading.text) and not done.thinking:
            raise ReasonerError(
                f"{self.name} sent no text, asked twice: its log may say why (no chat template, a thought "
                "that it does not send, a filter); or set reasoner.weights to another model"
            )
        yield done

    @property
    def _thinks_apart(self) -> bool:
        """Whether the chunks have the thought apart from the reply."""
        return self._is_ollama or bool(getattr(self.model, "keeps_thought", False))

    @property
    def _is_ollama(self) -> bool:
        return provider_of(self.model) == "ollama"

    def _check_process(self) -> None:
        self._process = self._process or os.getpid()
        if self._process != os.getpid():
            raise SetupError(
                f"{self.name}: its connections belong to the parent process, which has already used it: fork "
                'before the first question, or start processes with the "spawn" method'
            )

    def _messages(self, request: Request) -> tuple[list[Any], dict[str, Any]]:
        """Return the messages of a request, and its settings."""
        stops = list(request.stops)
        settings: dict[str, Any] = {"stop": stops if self.continuation else stops[:_MAX_STOPS]}
        # By default LangChain asks only OpenAI's own servers for token counts.
        if hasattr(self.model, "stream_usage") and "stream_usage" not in self.model.model_fields_set:
            settings["stream_usage"] = True
        settings |= thinking_settings(self.model, request.max_thinking)
        if not self.continuation:
            turns = chat_messages(request.rollout, self._blocks)
            return split_at_pictures(turns) if self._is_ollama else turns, settings
        messages, plain = continuation_messages(request.rollout, self._blocks)
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
        """Yield the model's chunks. A transient error before the first word sends the request again."""
        started = time.monotonic()
        sent = 0
        while True:
            await self._wait_for_server()
            if self._no_stops:
                settings.pop("stop", None)
            began = False
            try:
                async with aclosing(self._chunks_once(messages, settings)) as chunks:
                    async for chunk in chunks:
                        began |= bool(chunk.text)
                        yield chunk
                return
            except Exception as e:
                if not began and not self._no_stops and refuses_stops(e):
                    self._no_stops = True
                    log.warning("%s does not support stop strings: the stream is closed instead", self.name)
                    continue
                sent += 1
                wait = None if began else self._backoff_wait(e, sent, started, rng)
                if wait is None:
                    silence = self.backoff.silence
                    raise to_reasoner_error(e, self.name, began=began, silence=silence) from e
                log.warning("%s: %s; request %d in %.1f s", self.name, describe_error(e), sent + 1, wait)
                self._earliest = max(self._earliest, time.monotonic() + wait)

    async def _chunks_once(self, messages: list[Any], settings: dict[str, Any]) -> AsyncGenerator[Any]:
        """Yield the chunks of one request.

        Raises:
            CutError: The stream ended without a finish reason.
            TimeoutError: The server sent nothing for `backoff.silence` seconds.
            Exception: Any other error of the model's package.
        """
        last: Any = None
        stream = self.model.astream(messages, **settings)
        try:
            while True:
                async with asyncio.timeout(self.backoff.silence):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                self._has_answered = True
                if last is None or finish_reason(chunk):
                    last = chunk
                yield chunk
        finally:
            if close := getattr(stream, "aclose", None):
                await close()
        if is_cut(last):
            raise CutError("the stream ended without its last part")

    async def _wait_for_server(self) -> None:
        """Wait until the server accepts requests. Another question may prolong the wait meanwhile."""
        wait = self._earliest - time.monotonic()
        while wait > 0:
            await asyncio.sleep(wait)
            wait = self._earliest - time.monotonic()

    def _backoff_wait(self, error: Exception, sent: int, started: float, rng: random.Random) -> float | None:
        """Return the seconds until the next request; None if the request is given up.

        Args:
            error: The error of the last request.
            sent: The number of failed requests.
            started: The time of the first request (monotonic clock).
            rng: Varies the wait.
        """
        wait = self.backoff.wait(error, sent, rng)
        self._has_answered |= status_of(error) is not None
        # A server that has answered before is expected to come back.
        is_late = wait is not None and time.monotonic() + wait - started > self.backoff.absent
        return None if is_late and not self._has_answered else wait

    def _check_model(self, message: Any) -> None:
        """Report an answer from another model: some servers answer with any model that they have.

        Raises:
            SetupError: The server continues rollouts, which only the configured model was trained to read.
        """
        requested = requested_model(self.model)
        answering = answering_model(message)
        if not is_other_model(requested, answering):
            return
        words = f"{self.name}: {answering!r} answered instead of {requested!r}"
        if self.continuation:
            raise SetupError(f"{words}: set reasoner.weights to the model that the server has")
        if not self._has_warned:
            self._has_warned = True
            log.warning("%s: traces record the requested model", words)
