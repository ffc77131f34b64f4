"""One continuation from as many requests as it takes; what vLLM's two ways, in process and HTTP, share.

vLLM stops on strings, and the caller of `stream` decides: if a string was no end (`</retrieve>` in plain
words), the rollout is sent again with the text that was written, which the prefix cache makes cheap. If the
caller ends the text first, the rest of the request is aborted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.rollout import ENDS, Rollout, TextPiece

_DRAIN = 8  # chunks read after the end of a call, for the token counts that come last


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a reply."""

    text: str = ""
    finish: str | None = None
    """`stop` or `length`, in the last chunk with text."""
    stopped_at: str | None = None
    """The stop string at which vLLM ended."""
    prompt: int = 0
    """Tokens of the prompt."""
    cached: int = 0
    """How many of them were in vLLM's cache."""
    decoded: int = 0
    """Tokens of the reply so far."""


Send = Callable[[Rollout, int], AsyncGenerator[Chunk]]
"""Streams one request: a rollout, and the most tokens that may be written."""


def is_regular(finish: str | None) -> bool:
    """False if the engine has given the request up (`abort`, `error`), which does not end a text."""
    return finish in (None, "stop", "length")


@dataclass(slots=True)
class _Reply:
    """What one request has brought so far."""

    request: Request
    budget: int
    """The most tokens that may be written."""
    text: str = ""
    ended: bool = False
    """Whether `until` has ended the text."""
    drained: int = 0
    """Chunks that came after that."""
    finish: str | None = None
    stopped_at: str | None = None
    prompt: int = 0
    cached: int = 0
    decoded: int = 0

    def take(self, chunk: Chunk) -> str:
        """Count a chunk; returns its new text."""
        self.finish = chunk.finish or self.finish
        self.stopped_at = chunk.stopped_at or self.stopped_at
        self.prompt = chunk.prompt or self.prompt
        self.cached = chunk.cached or self.cached
        self.decoded = max(chunk.decoded, self.decoded)
        if self.ended:
            self.drained += 1
            return ""
        new = _without_end(chunk)
        self.text += new
        return new

    @property
    def is_over(self) -> bool:
        """Whether nothing more is needed of the engine."""
        if self.ended:
            # At a stop string the engine has ended as well, and its counts are coming; else it is aborted.
            ends_itself = bool(self.finish) or self.text.endswith(tuple(self.request.stops))
            return not ends_itself or self.drained >= _DRAIN
        return self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether the token limit is reached before the engine says so."""
        return self.finish is None and self.decoded >= self.budget

    @property
    def goes_on(self) -> bool:
        """Whether the engine stopped at a string that was no end, with tokens left."""
        stopped = self.finish == "stop" and self.stopped_at in self.request.stops
        return stopped and not self.ended and self.written < self.budget

    @property
    def written(self) -> int:
        """Tokens of the reply; one at least if there is text, whatever the engine has counted."""
        return self.decoded or bool(self.text)

    @property
    def reason(self) -> StopReason:
        if self.ended:
            return StopReason.UNTIL
        if self.finish == "length" or self.is_cut or self.stopped_at in self.request.stops:
            return StopReason.LENGTH
        return StopReason.EOS

    def added_to(self, done: Done) -> Done:
        """The counts of all requests. Cached tokens are those of the first: later ones read its text."""
        return Done(
            self.reason,
            prefilled=done.prefilled + self.prompt - self.cached,
            cached=done.cached or self.cached,
            decoded=done.decoded + self.written,
        )


async def follow(send: Send, request: Request) -> AsyncGenerator[Delta | Done]:
    """Yield the text of one continuation, then its `Done`."""
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
        done = reply.added_to(done)
        if not reply.goes_on:
            yield done
            return
        rollout = replace(rollout, pieces=(*rollout.pieces, TextPiece(reply.text, "model")))


def _without_end(chunk: Chunk) -> str:
    """The chunk's text without the end of the turn, which comes along because stop strings are kept."""
    text = chunk.text
    if chunk.finish == "stop" and chunk.stopped_at is None:
        for mark in ENDS:
            text = text.removesuffix(mark)
    return text
