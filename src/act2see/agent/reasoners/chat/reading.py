"""Read the stream of a chat model as the continuation of a thought.

A model opens a `<think>` anew with each of its turns, and the thought is open already: that tag is left out.
Stop strings, which APIs cut off, are put back if a tag was left open. Characters that a server has split
between two chunks are put together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Done, Request
from act2see.agent.reasoners.chat.metadata import LIMIT_REASONS, REFUSAL_REASONS, done_of, finish_reason

_OPENED = re.compile(r"\A\s*<think>\n?")
_DRAIN = 8  # chunks read after the end of a call, for the token counts that come last
_CHARACTERS = 8  # of a token, at most: more than that for each token of the limit, and the reading ends


class Reading:
    """What has been read of one stream."""

    def __init__(self, request: Request, continues: bool) -> None:
        """
        Args:
            request: The request that it answers.
            continues: Whether the server continues the turn itself, so that its text is taken as it is.
        """
        self.text = ""
        self.ended = False
        """Whether `until` has ended the text."""
        self.message: Any = None
        """The sum of the chunks that hold counts or reasons."""
        self._request, self._continues = request, continues
        self._opening, self._halves = _Opening(not continues), _Halves()
        self._chunks = self._drained = 0

    def take(self, chunk: Any) -> str:
        """Read a chunk of LangChain; returns its new text, up to where the text ends."""
        # Of the message only counts and reasons are summed: summing whole texts takes longer than a token.
        if chunk.usage_metadata or chunk.additional_kwargs or finish_reason(chunk):
            self.message = chunk if self.message is None else self.message + chunk
        if self.ended:
            self._drained += 1
            return ""
        self._chunks += bool(chunk.text)
        return self._feed(self._opening.read(self._halves.read(str(chunk.text))))

    @property
    def is_over(self) -> bool:
        """Whether nothing more is needed of the stream."""
        return self._drained >= _DRAIN if self.ended else self.is_too_long

    @property
    def is_too_long(self) -> bool:
        return not self.ended and len(self.text) > _CHARACTERS * self._request.max_tokens

    @property
    def refusal(self) -> str:
        """Why the model refuses to answer; empty if it does not."""
        reason = finish_reason(self.message)
        return reason if reason in REFUSAL_REASONS and not self.ended else ""

    def rest(self) -> str:
        """The text that was held back, once the stream has ended."""
        return (
            "" if self.ended else self._feed(self._opening.read(self._halves.rest()) + self._opening.rest())
        )

    def close_tag(self) -> str:
        """The closing tag that the API has cut off, if a tag was left open."""
        if self.ended or self._continues or finish_reason(self.message) in LIMIT_REASONS:
            return ""
        tag = _closing_tag(self.text, self._request.stops)
        if tag:
            self._request.until(tag)
            self.text += tag
            self.ended = True
        return tag

    def done(self) -> Done:
        """The end, once the stream has ended."""
        stop = StopReason.EOS
        if self.ended:
            stop = StopReason.UNTIL
        elif self.is_too_long or finish_reason(self.message) in LIMIT_REASONS:
            stop = StopReason.LENGTH
        return done_of(stop, self.message, self._chunks)

    def _feed(self, text: str) -> str:
        """Read text up to where `until` ends it."""
        kept, self.ended = _until(text, self._request.until)
        self.text += kept
        return kept


class _Opening:
    """Leaves out the `<think>` with which a model opens a thought that is open."""

    def __init__(self, wanted: bool) -> None:
        self._held: str | None = "" if wanted else None

    def read(self, text: str) -> str:
        """The text that may be passed on: none while it may still become `<think>`."""
        if self._held is None:
            return text
        self._held += text
        return "" if "<think>\n".startswith(self._held.lstrip()) else self.rest()

    def rest(self) -> str:
        held, self._held = self._held or "", None
        return _OPENED.sub("", held)


class _Halves:
    """Puts characters together that a server has split between two chunks, as JSON's escapes allow. A lone
    surrogate can be kept neither in a checkpoint nor in a trace, and is replaced."""

    def __init__(self) -> None:
        self._held = ""

    def read(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return _join_surrogates(text)

    def rest(self) -> str:
        held, self._held = self._held, ""
        return _join_surrogates(held)


def _join_surrogates(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _until(text: str, until: Callable[[str], bool]) -> tuple[str, bool]:
    """The text up to where `until` ends it, and whether it does."""
    for n, char in enumerate(text, start=1):
        if until(char):
            return text[:n], True
    return text, False


def _closing_tag(text: str, stops: Sequence[str]) -> str:
    """Of these closing tags, the one of the last tag that is open in the text; empty if none is."""
    opened = [(text.rfind(stop.replace("</", "<", 1)), stop) for stop in stops]
    at, closing = max(opened, default=(-1, ""))
    return closing if at >= 0 and closing not in text[at:] else ""
