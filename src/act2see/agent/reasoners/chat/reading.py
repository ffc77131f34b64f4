"""Read the stream of a chat model as the continuation of a thought.

A model opens each of its turns with `<think>`, although the thought is open already: that tag is left out.
APIs cut off stop strings: they are restored if a tag was left open. Characters that a server split between
two chunks are joined. Local servers send the thought of a model apart from its reply: the two are joined with
the tags of a thought, since a model calls tools while it thinks. Some send the thought a second time, at the
beginning of the reply: that copy is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from act2see.agent.parser import StopReason, count_open_thoughts
from act2see.agent.reasoners.base import Done, Request
from act2see.agent.reasoners.chat.metadata import LIMIT_REASONS, REFUSAL_REASONS, finish_reason, make_done
from act2see.agent.rollout import Rollout, TextPiece

_OPENING_TAG = re.compile(r"\A\s*<think>\n?")
_CLOSING_TAG = "</think>"
_MAX_DRAINED = 8  # chunks that are read after the end of the text, for the token counts that come last
# A token has at most this many characters. Some servers ignore the token limit: their text is ended when it
# is longer than the limit allows.
_CHARACTERS_PER_TOKEN = 8


class Reading:
    """The state of reading one stream."""

    def __init__(self, request: Request, continues: bool, thinks_apart: bool = False) -> None:
        """
        Args:
            request: The request that the stream answers.
            continues: Whether the server itself continues the turn, so that its text is used unchanged.
            thinks_apart: Whether the server sends the thought apart from the reply.
        """
        self.text = ""
        self.ended = False
        """Whether `until` has ended the text."""
        self.message: Any = None
        """The sum of the chunks with counts or finish reasons; None if none has come."""
        self._request = request
        self._continues = continues
        self._opening = _OpeningFilter(not continues)
        self._surrogates = _SurrogateJoiner()
        self._thoughts = _ThoughtJoiner(request.rollout) if thinks_apart else None
        self._copy = _CopyFilter()
        self._chunks = 0
        self._drained = 0

    def take(self, chunk: Any) -> str:
        """Read a chunk of LangChain. Return its new text, up to the end of the text."""
        # Only chunks with counts and reasons are summed: summing all texts takes longer than a token.
        has_facts = bool(chunk.additional_kwargs.keys() - {"reasoning_content"})
        if chunk.usage_metadata or has_facts or finish_reason(chunk):
            self.message = chunk if self.message is None else self.message + chunk
        if self.ended:
            self._drained += 1
            return ""
        reply = self._opening.read(str(chunk.text))
        thought = str(chunk.additional_kwargs.get("reasoning_content") or "") if self._thoughts else ""
        self._copy.add(thought)
        reply = self._copy.read(reply)
        self._chunks += bool(chunk.text or thought)
        return self._feed(self._surrogates.read(self._join(thought, reply)))

    @property
    def is_over(self) -> bool:
        """Whether the rest of the stream is not needed."""
        return self._drained >= _MAX_DRAINED if self.ended else self.is_too_long

    @property
    def is_too_long(self) -> bool:
        """Whether the text exceeds the token limit by its number of characters."""
        return not self.ended and len(self.text) > _CHARACTERS_PER_TOKEN * self._request.max_tokens

    @property
    def refusal(self) -> str:
        """The reason for which the model refuses to answer; empty if it does not refuse."""
        reason = finish_reason(self.message)
        return reason if reason in REFUSAL_REASONS and not self.ended else ""

    def flush(self) -> str:
        """Return the text that was held back, at the end of the stream."""
        if self.ended:
            return ""
        reply = self._copy.read(self._opening.flush()) + self._copy.flush()
        text = self._surrogates.read(self._join("", reply))
        return self._feed(text + self._surrogates.flush())

    def close_tag(self) -> str:
        """Return the closing tag that the API has cut off; empty if no tag was left open."""
        if self.ended or self._continues or finish_reason(self.message) in LIMIT_REASONS:
            return ""
        tag = _missing_tag(self.text, self._request.stops)
        if tag:
            self._request.until(tag)
            self.text += tag
            self.ended = True
        return tag

    def done(self) -> Done:
        """Return the end of the continuation, at the end of the stream."""
        stop = StopReason.EOS
        if self.ended:
            stop = StopReason.UNTIL
        elif self.is_too_long or finish_reason(self.message) in LIMIT_REASONS:
            stop = StopReason.LENGTH
        return make_done(stop, self.message, self._chunks, shown=self._thoughts is not None)

    def _join(self, thought: str, reply: str) -> str:
        return self._thoughts.join(thought, reply) if self._thoughts else reply

    def _feed(self, text: str) -> str:
        """Read text until `until` ends it. Return the text that was read."""
        kept, self.ended = _cut_at_end(text, self._request.until)
        self.text += kept
        return kept


def is_silent(rollout: Rollout, text: str) -> bool:
    """Return whether the model has written nothing, although the graph has opened the answer for it.

    After an empty turn the graph opens the answer, so the model was asked twice.

    Args:
        rollout: The rollout that the model continued.
        text: The continuation.
    """
    last = rollout.pieces[-1] if rollout.pieces else None
    is_opened = isinstance(last, TextPiece) and not last.trainable and last.text.endswith("<answer>")
    return is_opened and not (text.strip() or _written(rollout).strip())


def _written(rollout: Rollout) -> str:
    """Return what the model has written in earlier turns."""
    return "".join(piece.text for piece in rollout.pieces if isinstance(piece, TextPiece) and piece.trainable)


class _OpeningFilter:
    """Leaves out the `<think>` with which a model opens a thought that is open already."""

    def __init__(self, active: bool) -> None:
        # The text so far, while it may still become `<think>`; None once that is decided.
        self._held: str | None = "" if active else None

    def read(self, text: str) -> str:
        """Return the text to pass on: nothing while it may still become `<think>`."""
        if self._held is None:
            return text
        self._held += text
        return "" if "<think>\n".startswith(self._held.lstrip()) else self.flush()

    def flush(self) -> str:
        """Return the text that was held back."""
        held, self._held = self._held or "", None
        return _OPENING_TAG.sub("", held)


class _CopyFilter:
    """Leaves out a copy of the thought, up to its closing tag, with which a reply may begin.

    Spaces do not count, since servers trim the thought.
    """

    def __init__(self) -> None:
        self._thought: list[str] = []  # without spaces
        self._held: str | None = ""  # the reply, while it may still be a copy; None once that is decided
        self._matched = 0  # characters of the copy, without spaces
        self._has_removed = False  # a copy, and nothing but spaces has come since

    def add(self, thought: str) -> None:
        """Add to the thought."""
        if thought and self._held is not None:
            self._thought.append(_without_spaces(thought))

    def read(self, reply: str) -> str:
        """Return the reply to pass on: nothing while it may still be a copy."""
        if self._held is None and self._has_removed:
            reply = reply.lstrip()  # the tags are followed by empty lines of our own
            self._has_removed = not reply
        if not reply or self._held is None or not self._thought:
            return reply
        self._held += reply
        self._thought = ["".join(self._thought)]
        rest = f"{self._thought[0]}{_CLOSING_TAG}"[self._matched :]
        new = _without_spaces(reply)
        if not new.startswith(rest):
            self._matched += len(new)
            return "" if rest.startswith(new) else self.flush()
        _, _, after = self._held.partition(_CLOSING_TAG)
        self._held = None
        self._has_removed = True
        return self.read(after)

    def flush(self) -> str:
        """Return the reply that was held back."""
        held, self._held = self._held or "", None
        return held


class _ThoughtJoiner:
    """Joins a thought with the reply that comes after it, by the tags that a model writes itself."""

    def __init__(self, rollout: Rollout) -> None:
        # The prompt has opened the thought; the model may have closed it in an earlier turn.
        self._is_open = count_open_thoughts(_written(rollout)) > 0
        self._is_thinking = False  # in this turn

    def join(self, thought: str, reply: str) -> str:
        """Return the text of a chunk."""
        text = thought
        if thought and not self._is_open:
            text = f"<think>\n{thought}"
            self._is_open = True
        self._is_thinking |= bool(thought)
        if reply and self._is_thinking:
            self._is_thinking = self._is_open = False
            text += "</think>\n\n"
        return text + reply


class _SurrogateJoiner:
    """Joins characters that a server split between two chunks, as JSON's escapes allow.

    A lone surrogate is replaced: neither a checkpoint nor a trace can hold one.
    """

    def __init__(self) -> None:
        self._held = ""

    def read(self, text: str) -> str:
        """Return the text to pass on; the first half of a character at its end is held back."""
        text = self._held + text
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._held = text[-1]
            text = text[:-1]
        return _join_surrogates(text)

    def flush(self) -> str:
        """Return the text that was held back."""
        held, self._held = self._held, ""
        return _join_surrogates(held)


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _join_surrogates(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _cut_at_end(text: str, until: Callable[[str], bool]) -> tuple[str, bool]:
    """Return the text up to the character at which `until` returns True, and whether it returns True."""
    for n, char in enumerate(text, start=1):
        if until(char):
            return text[:n], True
    return text, False


def _missing_tag(text: str, stops: Sequence[str]) -> str:
    """Return the closing tag of the last tag that is open in the text; empty if none is open."""
    opened = [(text.rfind(stop.replace("</", "<", 1)), stop) for stop in stops]
    at, closing = max(opened, default=(-1, ""))
    return closing if at >= 0 and closing not in text[at:] else ""
