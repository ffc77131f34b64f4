"""Make one continuation from several requests. vLLM's engine and the clients of vLLM and llama.cpp share it.

These engines stop on strings, but the caller of `stream` decides where the text ends. If a stop string was
not the end (`</retrieve>` in plain words), the rollout is sent again with the text written so far, which the
prefix cache makes cheap. If the caller ends the text first, the rest of the request is aborted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.rollout import ENDS, Rollout

_MAX_DRAINED = 8  # chunks that are read after the end of the text, for the token counts that come last


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a reply."""

    text: str = ""
    """The new text."""
    finish: str | None = None
    """The engine's reason for the end: `stop` or `length`, in the last chunk with text."""
    stopped_at: str | None = None
    """The stop string at which the engine stopped."""
    prompt: int = 0
    """The number of tokens of the prompt."""
    cached: int = 0
    """The number of the prompt's tokens that were in the engine's cache."""
    decoded: int = 0
    """The number of tokens of the reply so far."""


Send = Callable[[Rollout, int], AsyncGenerator[Chunk]]
"""Streams one request, given a rollout and the maximum number of tokens to write."""


def read_chunk(read: Callable[[dict[str, Any]], Chunk], data: dict[str, Any]) -> Chunk:
    """Return the chunk of an event that a server has sent.

    Args:
        read: Reads an event of the right form.
        data: The event.

    Raises:
        ConnectionError: The event has another form.
    """
    try:
        chunk = read(data)
    except (TypeError, AttributeError, LookupError) as e:
        raise ConnectionError("sent an event of an unknown form") from e
    texts = (chunk.text, chunk.finish or "", chunk.stopped_at or "")
    counts = (chunk.prompt, chunk.cached, chunk.decoded)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int) for n in counts):
        raise ConnectionError("sent an event of an unknown form")
    return chunk


async def require_tokens(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    """Yield the chunks of one reply, from its first token on.

    A model that has nothing to say ends its turn, and servers count the token of that end. So a reply without
    any token is one that the server never made, and no empty answer of the model.

    Raises:
        ConnectionError: The reply has no token.
    """
    early: list[Chunk] = []  # they must not pass for the beginning, as a request is sent again only before it
    has_begun = False
    async with aclosing(chunks):
        async for chunk in chunks:
            has_begun = has_begun or bool(chunk.text or chunk.decoded or chunk.finish == "length")
            early.append(chunk)
            if has_begun:
                for ready in early:
                    yield ready
                early.clear()
    if not has_begun:
        raise ConnectionError("the server ended the reply before its first token")


def is_regular(finish: str | None) -> bool:
    """Return whether a finish reason ends a text; False if the engine aborted the request."""
    return finish in (None, "stop", "length")


@dataclass(slots=True)
class _Reply:
    """The reply to one request so far. Fields without a docstring are those of `Chunk`."""

    request: Request
    budget: int
    """The maximum number of tokens to write."""
    text: str = ""
    ended: bool = False
    """Whether `until` has ended the text."""
    drained: int = 0
    """The number of chunks that came after the end of the text."""
    finish: str | None = None
    stopped_at: str | None = None
    prompt: int = 0
    cached: int = 0
    decoded: int = 0

    def take(self, chunk: Chunk) -> str:
        """Add a chunk to the reply. Return its new text."""
        self.finish = chunk.finish or self.finish
        self.stopped_at = chunk.stopped_at or self.stopped_at
        self.prompt = chunk.prompt or self.prompt
        self.cached = chunk.cached or self.cached
        self.decoded = max(chunk.decoded, self.decoded)
        if self.ended:
            self.drained += 1
            return ""
        new = _strip_end(chunk)
        self.text += new
        return new

    @property
    def is_over(self) -> bool:
        """Whether the rest of the stream is not needed."""
        if self.ended:
            # At a stop string the engine has stopped as well, and its counts still come; otherwise it must be
            # aborted.
            has_stopped = bool(self.finish) or self.text.endswith(tuple(self.request.stops))
            return not has_stopped or self.drained >= _MAX_DRAINED
        return self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether the token limit is reached although the engine has not stopped.

        A request is sent without `max_tokens` if the engine refuses it.
        """
        return self.finish is None and self.decoded >= self.budget

    @property
    def is_unfinished(self) -> bool:
        """Whether the engine stopped at a string that is not the end of the text, with tokens left."""
        stopped = self.finish == "stop" and self.stopped_at in self.request.stops
        return stopped and not self.ended and self.written < self.budget

    @property
    def written(self) -> int:
        """The number of tokens of the reply; at least one if it has text."""
        return self.decoded or bool(self.text)

    @property
    def reason(self) -> StopReason:
        """The reason of the end."""
        if self.ended:
            return StopReason.UNTIL
        if self.finish == "length" or self.is_cut or self.stopped_at in self.request.stops:
            return StopReason.LENGTH
        return StopReason.EOS

    def add_to(self, done: Done) -> Done:
        """Return the counts of all requests so far, given those of the earlier requests.

        Cached tokens are those of the first request, since later requests read its text from the cache.
        """
        return Done(
            self.reason,
            prefilled=done.prefilled + self.prompt - self.cached,
            cached=done.cached or self.cached,
            decoded=done.decoded + self.written,
        )


async def follow(send: Send, request: Request) -> AsyncGenerator[Delta | Done]:
    """Yield the text of one continuation, then its `Done`.

    Args:
        send: Streams one request.
        request: The continuation.
    """
    rollout, done = request.rollout, Done(StopReason.EOS)
    while True:
        reply = _Reply(request, request.max_tokens - done.decoded)
        async with aclosing(send(rollout, reply.budget)) as chunks:
            async for chunk in chunks:
                if new := reply.take(chunk):
                    yield Delta(new)
                    reply.ended = request.until(new)
                if reply.is_over:
                    break
        done = reply.add_to(done)
        if not reply.is_unfinished:
            yield done
            return
        rollout = rollout.extend(reply.text)


def _strip_end(chunk: Chunk) -> str:
    """Return the chunk's text without the end-of-turn mark, which vLLM sends as it keeps stop strings."""
    text = chunk.text
    if chunk.finish == "stop" and chunk.stopped_at is None:
        for mark in ENDS:
            text = text.removesuffix(mark)
    return text
