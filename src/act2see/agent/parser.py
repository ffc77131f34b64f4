"""The parser of the tag grammar: finds the call or the answer at which a turn of the model ends.

It follows the table of `grammar.py`. The parser reads character by character and never looks ahead, so the
result does not depend on how the text is split into chunks, and no character is copied more than a few times.
It reads a prefix of the text; the texts of the segments, joined, are that prefix.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from math import inf
from typing import Literal, NamedTuple

from act2see.agent.names import NAME, RESERVED, call_key, join_spaces
from act2see.agent.talk import (
    FORMATTING,
    CodeSpans,
    is_aside,
    is_mention,
    is_placeholder,
    is_placeholder_answer,
    opens_quotation,
)
from act2see.trace.record import Answer, Call, Outcome, Text


class StopReason(StrEnum):
    """The reason why decoding, or the parsing of the decoded text, ended. Traces hold the values."""

    CALL = "call"
    """A tool call is complete, or can no longer become valid."""
    ANSWER = "answer"
    """The answer is complete."""
    UNTIL = "until"
    """The caller of the model ended the text; the caller's parser has the reason, `CALL` or `ANSWER`."""
    EOS = "eos"
    """The model ended its turn."""
    LENGTH = "length"
    """The token limit, or the end of the model's context, was reached."""
    LOOP = "loop"
    """The model repeated the same passage again and again."""


_TAG = re.compile(rf"<(/?)({NAME.pattern})>")
# Chat APIs can send a lone surrogate in JSON, and neither a trace nor UTF-8 can hold one.
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Opened(NamedTuple):
    """An opened tag."""

    name: str
    start: int
    """The index of its `<`."""
    inner: int
    """The index after its `>`."""
    starts_line: bool = False
    """Whether only whitespace precedes it in its line."""


class _Doubtful(NamedTuple):
    """An answer that counts only if no better one follows."""

    start: int
    """The index of its `<answer>`."""
    end: int
    """The index after its `</answer>`."""
    body: str


class Parser:
    """Parses one turn. `Grammar.parser` makes it, and `grammar.py` has the table that it follows."""

    def __init__(
        self,
        tags: Sequence[str],
        max_query: int,
        answering: bool,
        thinking: bool,
        earlier: frozenset[tuple[str, str]],
        told: frozenset[str] = frozenset(),
        closes_thought: bool = False,
    ) -> None:
        self.stopped: StopReason | None = None
        """The reason why the parser stopped; None while it reads."""
        self.copied = 0
        """The number of characters copied so far. It is linear in the length of the text."""
        self._tags = tags
        self._max_query = max_query
        self._forced = answering
        self._earlier = earlier
        self._told = told
        self._closes_thought = closes_thought
        self._read: list[str] = []
        self._code = CodeSpans()
        self._angle: int | None = None  # the index of the last "<", until a ">" follows
        self._is_angle_talk = False  # in code, or behind a quotation mark
        self._angle_starts_line = False
        self._line = 0  # the index at which the line begins
        self._is_line_blank = True
        self._thoughts = int(thinking)  # how many <think> are open
        self._thought_end: int | None = None  # the index after the </think> that closed the thought
        self._open = _Opened("answer", 0, 0) if answering else None
        self._call_in_answer: _Opened | None = None
        self._doubtful: _Doubtful | None = None  # the last answer that looks like a placeholder
        self._tried: _Doubtful | None = None  # the last answer in an open thought that must be closed
        self._first: int | None = None  # the index of the first character that is no space
        self._is_query_over = False  # a blank line ended the words of the open call
        self._limit = inf  # the number of characters after which the open call may be over-long
        self._unknown: dict[str, _Opened] = {}  # the last opened tag of each name that is not a tool's
        self._end: Call | Answer | None = None
        self._only_thought = False

    def feed(self, text: str) -> bool:
        """Read more text. Return True when decoding must stop; the parser reads nothing after that."""
        for char in _SURROGATE.sub("\ufffd", text):
            if self.stopped:
                break
            self._read_character(char)
        return self.stopped is not None

    def finish(self, reason: Literal[StopReason.EOS, StopReason.LENGTH]) -> None:
        """End the text, as the model ended its turn or reached the token limit.

        Does nothing if the parser has stopped.
        """
        if self.stopped:
            return
        self.stopped = reason
        if self._open:
            self._end = self._finish_open(self._open)
        if self._end:
            return
        doubtful = self._doubtful
        # In an open thought it must be the last word: what ends a turn is meant.
        is_last_word = doubtful and reason == StopReason.EOS and not self._slice(doubtful.end).strip()
        if doubtful and (not self._thoughts or is_last_word):
            self._end = Answer(text=self._slice(doubtful.start), body=doubtful.body)
        elif self._thoughts:
            self._finish_thought(reason)
        elif reason == StopReason.EOS and self._thought_end is not None:
            words = self._slice(self._thought_end)
            last = words.rpartition("</think>")[2]  # a model may close its thought twice
            words = last if last.strip() else words
            body = words.replace("</think>", "").strip()
            tags = {tag[2] for tag in _TAG.finditer(body)}
            if body and not any(self._is_known(tag) for tag in tags):
                self._end = Answer(text=words, body=body)
            elif not body:
                self._finish_thought(reason)

    def _finish_thought(self, reason: StopReason) -> None:
        """Take the answer that was tried in the thought, since the turn ended without another."""
        if self._tried and reason == StopReason.EOS:
            self._end = Answer(text=self._slice(self._tried.start), body=self._tried.body)

    def _finish_open(self, opened: _Opened) -> Call | Answer | None:
        """Return the call or the answer that was left open; None if the model only mentioned its tag."""
        inner = self._slice(opened.inner)
        if opened.name == "answer":
            answer = self._make_answer(opened, len(self._read))
            if not answer.body:  # `<answer>` again, at the very end
                answer = answer.model_copy(update={"body": inner.replace("<answer>", "").strip()})
            is_talk = self._thoughts and (is_placeholder_answer(inner) or is_aside(inner))
            return answer if answer.body and not is_talk else None
        is_talk = self._is_query_over or is_mention(inner)
        return None if is_talk else self._make_call(opened, len(self._read), "unclosed")

    @property
    def open_thoughts(self) -> int:
        """The number of `<think>` that have no `</think>` yet."""
        return self._thoughts

    def follow_thought(self, text: str) -> None:
        """Read only the tags of the thought; calls and answers are text."""
        self._only_thought = True
        self.feed(text)

    @property
    def text(self) -> str:
        """The text read so far: a prefix of the text that was fed."""
        return self._slice(0)

    @property
    def segments(self) -> tuple[Text | Call | Answer, ...]:
        """The segments of the text read so far. Until the parser stops, all of it is one Text."""
        end = () if self._end is None else (self._end,)
        before = self._slice(0, len(self._read) - sum(len(s.text) for s in end))
        return (Text(text=before), *end) if before else end

    def _slice(self, start: int, stop: int | None = None) -> str:
        part = "".join(self._read[start:stop])
        self.copied += len(part)
        return part

    def _read_character(self, char: str) -> None:
        self._read.append(char)
        self._code.feed(char)
        if char == "<":
            self._angle = len(self._read) - 1
            self._is_angle_talk = self._code.inside or self._is_quoted()
            self._angle_starts_line = self._is_line_blank
        elif char == ">" and self._angle is not None:
            start, self._angle = self._angle, None
            if tag := _TAG.fullmatch(self._slice(start)):
                opened = _Opened(tag[2], start, len(self._read), self._angle_starts_line)
                self._read_tag(opened, closing=bool(tag[1]))
        elif char == "\n":
            self._end_line()
        if not char.isspace():
            self._is_line_blank = False
            if self._first is None:
                self._first = len(self._read) - 1
            if self._is_query_over and self._angle is None and not self.stopped:
                self._abandon()
        if len(self._read) > self._limit and self._open and not self.stopped:
            self._check_length(self._open)

    def _end_line(self) -> None:
        """Read the end of a line. A query is one paragraph: if words follow a blank line, it was talk."""
        opened = self._open
        is_call = opened and opened.name != "answer" and not self._is_query_over
        if opened and is_call and self._is_line_blank and self._slice(opened.inner, self._line).strip():
            self._is_query_over = True
        self._line = len(self._read)
        self._is_line_blank = True

    def _read_tag(self, tag: _Opened, closing: bool) -> None:
        """Read a tag that ends with the last character read."""
        if self._thoughts and self._is_angle_talk and not (closing and self._closes_open(tag)):
            return
        if self._only_thought:
            if tag.name == "think":
                self._read_think_tag(tag, closing)
        elif self._open is None:
            self._read_tag_in_text(tag, closing)
        elif self._open.name == "answer":
            self._read_tag_in_answer(self._open, tag, closing)
        else:
            self._read_tag_in_call(self._open, tag, closing)

    def _is_quoted(self) -> bool:
        """Whether the last character stands right behind an opening quotation mark."""
        before = self._read[-3:-1]
        return bool(before) and opens_quotation(before[-1], before[0] if len(before) > 1 else "")

    def _closes_open(self, tag: _Opened) -> bool:
        return self._open is not None and self._open.name == tag.name

    def _read_tag_in_text(self, tag: _Opened, closing: bool) -> None:
        if tag.name == "think":
            self._read_think_tag(tag, closing)
        elif tag.name in self._tags or tag.name == "answer":
            self._unknown.clear()
            if not closing:
                self._begin(tag)
        elif not closing:
            self._unknown[tag.name] = tag
        elif opened := self._unknown.pop(tag.name, None):
            self._end_unknown(opened, tag)

    def _end_unknown(self, opened: _Opened, closing: _Opened) -> None:
        """Read the closing tag of a name that is not a tool's."""
        words = self._slice(opened.inner, closing.start)
        if opened.name == "frame":
            if not is_placeholder(words):
                self._stop_at_call(opened, closing.start, "forged")
            return
        is_call = self._thoughts and opened.name not in FORMATTING and opened.name not in self._told
        if is_call and len(words) <= self._max_query and not is_placeholder(words):
            self._stop_at_call(opened, closing.start, "unknown")

    def _read_tag_in_call(self, opened: _Opened, tag: _Opened, closing: bool) -> None:
        if closing and tag.name == opened.name:
            self._end_call(opened, tag.start)
        elif closing and tag.name in self._tags:
            self._stop_at_call(opened, tag.start, "nested")
        elif tag.name in self._tags or tag.name in ("think", "frame") or self._opens_answer(tag, closing):
            self._abandon()
            self._read_tag_in_text(tag, closing)

    def _read_tag_in_answer(self, opened: _Opened, tag: _Opened, closing: bool) -> None:
        if closing and tag.name == "answer":
            self._end_answer(opened, tag)
        elif self._opens_answer(tag, closing) and not self._forced:
            self._begin(tag)
        elif self._thoughts and tag.name == "think":
            self._abandon()
            self._read_tag_in_text(tag, closing)
        elif tag.name in self._tags and not self._forced:
            self._read_tool_tag_in_answer(tag, closing)

    def _end_answer(self, opened: _Opened, closing: _Opened) -> None:
        """Read the end of an answer; it may be talk, or a first try."""
        answer = self._make_answer(opened, closing.start)
        is_placeholder = is_placeholder_answer(answer.body) and not self._forced
        is_try = self._closes_thought and bool(self._thoughts)
        if not is_placeholder and not is_try:
            self._end, self.stopped = answer, StopReason.ANSWER
            return
        found = _Doubtful(opened.start, len(self._read), answer.body)
        if not is_placeholder:
            self._tried = found
        elif answer.body.strip(".… "):
            self._doubtful = found
        self._abandon()

    def _read_tool_tag_in_answer(self, tag: _Opened, closing: bool) -> None:
        """Read a tool's tag in an answer: after a complete call, `<answer>` was talk."""
        called = self._call_in_answer
        if not closing:
            self._call_in_answer = tag
        elif called and called.name == tag.name and not is_placeholder(self._slice(called.inner, tag.start)):
            self._stop_at_call(called, tag.start, "ok")

    def _opens_answer(self, tag: _Opened, closing: bool) -> bool:
        return tag.name == "answer" and not closing

    def _read_think_tag(self, tag: _Opened, closing: bool) -> None:
        """Open the thought once more, or close it."""
        self._unknown.clear()
        if not closing:
            # At the beginning of its text a model only repeats the <think> of the prompt, if it is open.
            if tag.start != self._first or not self._thoughts:
                self._thoughts += 1
        elif self._thoughts:
            self._thoughts -= 1
            if not self._thoughts:
                self._thought_end = tag.inner
                self._doubtful = None  # what was quoted in the thought

    def _is_known(self, name: str) -> bool:
        return name in self._tags or name in RESERVED

    def _begin(self, tag: _Opened) -> None:
        self._open = tag
        self._call_in_answer = None
        self._is_query_over = False
        self._limit = inf if tag.name == "answer" else tag.inner + self._max_query

    def _abandon(self) -> None:
        """Take the open tag for talk."""
        self._open = None
        self._is_query_over = False
        self._limit = inf

    def _end_call(self, opened: _Opened, end: int) -> None:
        """Read the end of a tool's call; it may be talk."""
        query = join_spaces(self._slice(opened.inner, end))
        if query and is_placeholder(query):
            self._abandon()
        elif query or opened.starts_line:
            self._stop_at_call(opened, end, "ok")
        else:
            self._abandon()

    def _check_length(self, opened: _Opened) -> None:
        """Stop at a call that exceeds its limit. A partial closing tag at its end does not count."""
        angle = self._angle
        closing = f"</{opened.name}>"
        if angle is not None and angle <= self._limit and closing.startswith(self._slice(angle)):
            return
        if is_mention(self._slice(opened.inner)):
            self._abandon()
        else:
            self._stop_at_call(opened, len(self._read), "over_long")

    def _stop_at_call(self, opened: _Opened, end: int, outcome: Outcome) -> None:
        self._end, self.stopped = self._make_call(opened, end, outcome), StopReason.CALL

    def _make_call(self, opened: _Opened, end: int, outcome: Outcome) -> Call:
        """Return the call of an opened tag, whose query ends at `end`."""
        query = join_spaces(self._slice(opened.inner, end)[: self._max_query])
        if outcome == "ok" and not query:
            outcome = "empty"
        elif outcome == "ok" and call_key(opened.name, query) in self._earlier:
            outcome = "repeated"
        return Call(text=self._slice(opened.start), tag=opened.name, query=query, outcome=outcome)

    def _make_answer(self, opened: _Opened, end: int) -> Answer:
        body = self._slice(opened.inner, end).rpartition("<answer>")[2].strip()
        return Answer(text=self._slice(opened.start), body=body, forced=self._forced)


def count_open_thoughts(text: str, is_open: bool = True) -> int:
    """Return how many thoughts are open after a text of the model.

    Args:
        text: The text, from the model's turn.
        is_open: Whether a thought was open before it.

    `<think>` and `</think>` count as they do for `Parser`: not in code, nor in quotation marks, and a
    `<think>` that begins the text only repeats that of the prompt, if the thought is open.
    """
    parser = Parser((), 0, answering=False, thinking=is_open, earlier=frozenset())
    parser.follow_thought(text)
    return parser.open_thoughts
