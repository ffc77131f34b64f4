"""A local checkpoint that answers chats, with limits and stop strings.

`TransformersReasoner` generates the text. Concurrent requests are decoded together, in the reasoner's rows.
When all rows are busy, requests wait. When `waiting` requests are under way, more are refused with 429, and
clients retry. The row of a cancelled request is free after the next token.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request as ReasonerRequest, Sampling
from act2see.errors import ConfigError
from act2see.graphs.parts import LazyReasoner, build_reasoner
from act2see.graphs.sampling import resolve_sampling
from act2see.graphs.sections import ReasonerConfig
from act2see.serve.openai.rollout import ChatPrompt, RequestPictures
from act2see.serve.openai.wire import ChatRequest, ProtocolError, StopStrings, TextPart

PATCH_CACHE = 16 << 20
"""Bytes of patches that the server keeps. A chat's pictures are already in its row of the cache when it comes
back, so patches would only fill the memory: of all that grows under load, they grow the longest."""
_MAX_CHARACTERS = 16  # an upper bound of the average characters per token, in any text that people write


@dataclass(frozen=True, slots=True)
class End:
    """The end of an answer."""

    done: Done
    stopped_by: str | None
    """The stop string that ended it, if any."""

    @property
    def finish(self) -> str:
        """OpenAI's reason for the end: "stop" or "length"."""
        reached_limit = self.stopped_by is None and self.done.stop == StopReason.LENGTH
        return "length" if reached_limit else "stop"


@dataclass(slots=True)
class ServedModel:
    """A reasoner, and the settings with which it is served."""

    reasoner: Reasoner
    pictures: RequestPictures
    """The frame source of the reasoner."""
    name: str
    """The model's name for clients."""
    context: int | None = None
    """The maximum number of tokens of a chat and its answer together."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling settings of requests that do not set their own."""
    key: str | None = None
    """The key that clients must send. None if they need no key."""
    waiting: int = 256
    """The maximum number of requests under way, including those that wait for a row."""
    under_way: int = field(default=0, init=False)
    """The number of requests under way."""
    started: int = field(default_factory=lambda: int(time.time()), init=False)
    """The start time, in seconds since the epoch."""

    @classmethod
    def load(
        cls, config: ReasonerConfig, name: str, *, key: str | None = None, waiting: int = 256
    ) -> ServedModel:
        """Load the weights of a configuration.

        Args:
            config: The reasoner's configuration.
            name: The model's name for clients.
            key: The key that clients must send. None if they need no key.
            waiting: The maximum number of requests under way, including those that wait for a row.

        Raises:
            WeightsError: The weights cannot be loaded.
            ConfigError: The weights are not local, or clients cannot send the name.
        """
        if not name.isprintable():
            raise ConfigError(f"clients cannot send the model name {name!r}: choose another with --name")
        pictures = RequestPictures()
        store: Any = pictures
        lazy = build_reasoner(config, store) if config.use == "transformers" else None
        if not isinstance(lazy, LazyReasoner):
            raise ConfigError(
                f"the reasoner {config.use!r} cannot be served: "
                "choose a local checkpoint (reasoner.use: transformers)"
            )
        engine: Any = lazy.reasoner()
        engine.packer.cache_bytes = PATCH_CACHE
        sampling = resolve_sampling(config)
        return cls(engine, pictures, name, engine.context, sampling, key, waiting)

    @property
    def card(self) -> dict[str, Any]:
        """The model's entry in OpenAI's list of models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "act2see",
            "max_model_len": self.context,
        }

    def check_room(self) -> None:
        """Raise `ProtocolError` (429) if too many requests are under way.

        This check is made before anything is read or decoded, because both cost memory and time.
        """
        if self.under_way >= self.waiting:
            raise ProtocolError(
                429, f"{self.under_way} requests are under way: try again in a second", "server_busy"
            )

    def check_length(self, chat: ChatRequest) -> None:
        """Raise `ProtocolError` (400) for a chat that is far longer than the context.

        This check is made before pictures are decoded and the text is tokenized, because both block others.
        """
        if not self.context:
            return
        characters = count = 0
        for message in chat.messages:
            parts = message.parts
            count += len(parts) + 1
            characters += sum(len(part.text) for part in parts if isinstance(part, TextPart))
        if count > self.context:  # each message and nearly every part has a token or more
            raise self._too_long(f"{count:,} messages and parts")
        if characters > self.context * _MAX_CHARACTERS:
            raise self._too_long(f"{characters:,} characters")

    def _too_long(self, what: str) -> ProtocolError:
        return ProtocolError(
            400,
            f"the chat has {what}, too many for this model's context of {self.context:,} tokens: shorten it",
            "context_length_exceeded",
            "messages",
        )

    def _sampling(self, chat: ChatRequest) -> Sampling:
        """Return the chat's sampling settings, with the model's own for those that the chat leaves out."""
        own = self.sampling
        return replace(
            own,
            temperature=own.temperature if chat.temperature is None else chat.temperature,
            top_p=own.top_p if chat.top_p is None else chat.top_p,
            seed=own.seed if chat.seed is None else chat.seed % 2**63,
        )

    async def answer(self, chat: ChatRequest, prompt: ChatPrompt) -> AsyncGenerator[Delta | End]:
        """Yield the text that the model writes, up to a stop string, then its end.

        Args:
            chat: The request.
            prompt: The prompt of `build_prompt` for this request.

        Raises:
            ProtocolError: Too many requests are under way (429).
        """
        self.check_room()
        self.under_way += 1
        # The reasoner calls `ends_at` before it yields the same text, so each side needs its own matcher.
        generated = StopStrings(chat.stops)
        sent = StopStrings(chat.stops, bool(chat.include_stop_str_in_output))

        def ends_at(piece: str) -> bool:
            generated.feed(piece)
            return generated.found is not None

        limit = chat.max_completion_tokens or chat.max_tokens or self.context or 4096
        request = ReasonerRequest(prompt.rollout, limit, ends_at, chat.stops, self._sampling(chat))
        stream = self.reasoner.stream(request)
        try:
            async for item in stream:
                if isinstance(item, Delta):
                    if text := sent.feed(item.text):
                        yield Delta(text)
                else:
                    if text := sent.rest():
                        yield Delta(text)
                    yield End(item, sent.found)
        finally:
            self.under_way -= 1
            # Free the pictures now: the traceback of a cancelled request would hold them longer.
            del prompt
            await stream.aclose()
