"""The tag grammar: the model's text becomes a thought and, at its end, a tool call or the answer.

It is the syntax of the paper's instruction template (Table 1), and decides when the first loop of the paper's
decoding ends (Algorithm 1).

A tag is `<name>` or `</name>`, the name a lower-case letter, then lower-case letters, digits and `_`;
everything else is words. Known names are the run's tool tags and the reserved ones: think, answer, frame,
tool_call.

    in           text                                    becomes                 outcome
    -----------  --------------------------------------  ----------------------  ----------
    a thought    <tool> query </tool>                    Call, stop              ok
                 the same call of earlier in this run    Call, stop              repeated
                 <other> query </other>, at most         Call, stop              unknown
                   `max_query` characters, no known tag
                 <frame>                                 Call, stop              forged
                 <answer> body </answer>                 Answer, stop
                 any other tag, whole or not             Text
    a call       only whitespace, then </tool>           Call, stop              empty
                 any other tag of a known name           Call, stop after it     nested
                 more than `max_query` characters        Call, stop at once      over_long
                   before </tool>
                 end of turn, token limit                Call                    unclosed
                 a tag of another name                   part of the query
    <answer>     any tag but </answer>                   part of the body
                 end of turn, token limit                Answer; Text if empty

Every call and every answer ends the reading, so a turn is at most one Text and then a Call or an Answer. If a
model speaks of `<answer>` before it gives one, the body is the text after the last `<answer>`.

The parser goes character by character and never looks ahead: chunks cannot matter, and no character is copied
more than a few times. The parser reads a prefix of the text, and the texts of the segments, joined, are that
prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Literal, NamedTuple

from act2see.errors import ConfigError
from act2see.trace.record import Answer, Call, Outcome, Text


class StopReason(StrEnum):
    """Why decoding, or the reading of what was decoded, ended. Traces hold the values."""

    CALL = "call"
    """A tool call is complete, or can no longer become one."""
    ANSWER = "answer"
    """The answer is complete."""
    UNTIL = "until"
    """The caller of the model ended the text; its parser knows whether at a call or at the answer."""
    EOS = "eos"
    """The model ended its turn."""
    LENGTH = "length"
    """The token limit, or the end of the model's context, was reached."""


RESERVED = {
    "think": "it marks the thought",
    "answer": "it marks the answer",
    "frame": "it holds what the tools return",
    "tool_call": "reasoning parsers end the thought on it",
}
"""Names that no tool may have, and why."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAG = re.compile(rf"<(/?)({_NAME.pattern})>")
# A lone surrogate: chat APIs can send one in JSON, and neither a trace nor UTF-8 can hold it.
_SURROGATE = re.compile("[\ud800-\udfff]")
_ECHO = 40  # characters of the model's own words that feedback repeats


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tags of a run. Raises `ConfigError` for a tag that cannot be used."""

    tags: Sequence[str]
    """The tools' tags."""
    max_query: int = 400
    """The most characters of a query, whitespace included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(self.tags))
        for tag in self.tags:
            if tag in RESERVED:
                raise ConfigError(f"tool tag {tag!r} is reserved: {RESERVED[tag]}; choose another")
            if not _NAME.fullmatch(tag):
                raise ConfigError(
                    f"tool tag {tag!r}: write a lower-case letter, then lower-case letters, digits or "
                    "underscores"
                )
            if self.tags.count(tag) > 1:
                raise ConfigError(f"duplicate tool tag {tag!r}; give each tool a tag of its own")
        if self.max_query < 1:
            raise ConfigError(f"max_query is {self.max_query}; a query needs at least 1 character")

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings for engines that can only stop on strings; they stay in the text.

        The parser decides: in an answer `</tool>` is plain text, and `<frame>` or an unknown call stops the
        reading without a stop string.
        """
        return (*(f"</{tag}>" for tag in self.tags), "</answer>")

    def parser(self, *, answering: bool = False, earlier: Iterable[tuple[str, str]] = ()) -> Parser:
        """A parser for one turn.

        Args:
            answering: Whether `<answer>` has been written for the model, so that its text begins with the
                answer's body.
            earlier: Tag and query of each call made in this run.
        """
        return Parser(self, answering, frozenset(_same(tag, query) for tag, query in earlier))


class _Opened(NamedTuple):
    """A tag that was opened."""

    name: str
    start: int
    """The place of its `<`."""
    inner: int
    """The place behind its `>`."""


class Parser:
    """Reads one turn. Made by `Grammar.parser`."""

    def __init__(self, grammar: Grammar, answering: bool, earlier: frozenset[tuple[str, str]]) -> None:
        self.stopped: StopReason | None = None
        """Why the reading ended; None while it goes on."""
        self._grammar = grammar
        self._forced = answering
        self._earlier = earlier
        self._read: list[str] = []
        self._angle: int | None = None  # the place of the last "<", until a ">" follows
        self._open = _Opened("answer", 0, 0) if answering else None
        self._limit = inf  # beyond so many characters the open call may be over-long
        self._strangers: dict[str, _Opened] = {}  # opened tags of unknown names
        self._end: Call | Answer | None = None

    def feed(self, text: str) -> bool:
        """Read on. Returns True when decoding must stop; nothing is read after that."""
        for char in _SURROGATE.sub("\ufffd", text):
            if self.stopped:
                break
            self._read.append(char)
            if char == "<":
                self._angle = len(self._read) - 1
            elif char == ">" and self._angle is not None:
                start, self._angle = self._angle, None
                if tag := _TAG.fullmatch(self._slice(start)):
                    self._tag(start, tag[2], closing=bool(tag[1]))
            if len(self._read) > self._limit and self._open and not self.stopped:
                self._measure(self._open)
        return self.stopped is not None

    def finish(self, reason: Literal[StopReason.EOS, StopReason.LENGTH]) -> None:
        """The model ended its turn, or met the token limit. Does nothing if the reading has stopped."""
        if self.stopped:
            return
        self.stopped = reason
        if self._open and self._open.name == "answer":
            answer = self._answer(self._open, len(self._read))
            self._end = answer if answer.body else None
        elif self._open:
            self._end = self._call(self._open, len(self._read), "unclosed")

    @property
    def text(self) -> str:
        """The text that was read: a prefix of the text that was fed."""
        return self._slice(0)

    @property
    def segments(self) -> tuple[Text | Call | Answer, ...]:
        """The segments of that text. Until the reading stops it is all Text."""
        end = () if self._end is None else (self._end,)
        before = self._slice(0, len(self._read) - sum(len(s.text) for s in end))
        return (Text(text=before), *end) if before else end

    def _slice(self, start: int, stop: int | None = None) -> str:
        return "".join(self._read[start:stop])

    def _tag(self, start: int, name: str, closing: bool) -> None:
        """A tag has just ended; it began at `start`."""
        if self._open is None:
            self._tag_in_thought(_Opened(name, start, len(self._read)), closing)
        elif self._open.name != "answer":
            self._tag_in_call(self._open, start, name, closing)
        elif closing and name == "answer":
            self._end, self.stopped = self._answer(self._open, start), StopReason.ANSWER

    def _tag_in_thought(self, tag: _Opened, closing: bool) -> None:
        if tag.name == "frame" and not closing:
            self._stop(tag, tag.inner, "forged")
        elif self._is_known(tag.name):
            self._strangers.clear()
            if not closing and (tag.name in self._grammar.tags or tag.name == "answer"):
                self._open = tag
                self._limit = inf if tag.name == "answer" else tag.inner + self._grammar.max_query
        elif not closing:
            self._strangers[tag.name] = tag
        else:
            opened = self._strangers.get(tag.name)
            if opened and tag.start - opened.inner <= self._grammar.max_query:
                self._stop(opened, tag.start, "unknown")

    def _tag_in_call(self, opened: _Opened, start: int, name: str, closing: bool) -> None:
        if closing and name == opened.name:
            self._stop(opened, start, "ok")
        elif self._is_known(name):
            self._stop(opened, start, "nested")

    def _is_known(self, name: str) -> bool:
        return name in self._grammar.tags or name in RESERVED

    def _measure(self, opened: _Opened) -> None:
        """Stop a call that has outgrown its limit. The beginning of its closing tag does not count."""
        angle = self._angle
        if angle is None or angle > self._limit or not f"</{opened.name}>".startswith(self._slice(angle)):
            self._stop(opened, len(self._read), "over_long")

    def _stop(self, opened: _Opened, end: int, outcome: Outcome) -> None:
        self._end, self.stopped = self._call(opened, end, outcome), StopReason.CALL

    def _call(self, opened: _Opened, end: int, outcome: Outcome) -> Call:
        """The call of an opened tag, whose query ends at `end`."""
        query = _tidy(self._slice(opened.inner, end)[: self._grammar.max_query])
        if outcome == "ok" and not query:
            outcome = "empty"
        elif outcome == "ok" and _same(opened.name, query) in self._earlier:
            outcome = "repeated"
        return Call(text=self._slice(opened.start), tag=opened.name, query=query, outcome=outcome)

    def _answer(self, opened: _Opened, end: int) -> Answer:
        body = self._slice(opened.inner, end).rpartition("<answer>")[2].strip()
        return Answer(text=self._slice(opened.start), body=body, forced=self._forced)


def feedback(call: Call, tags: Sequence[str]) -> str:
    """One sentence of plain text to the model: what was wrong with its call, and what to do.

    Args:
        call: The call.
        tags: The tools of the run.

    Returns:
        Empty for a call that is ok. At most 40 characters of the model's own words are repeated.
    """
    tag = _cut(call.tag)
    names = [f"<{t}>" for t in tags]
    listed = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
    have = f"you have {listed}" if tags else "you have none, so answer from what you have seen"
    match call.outcome:
        case "unknown":
            return f"There is no tool <{tag}>; {have}."
        case "forged":
            return f"Only a tool can show a frame; {have}."
        case "empty":
            return f"The query was empty; say between <{tag}> and </{tag}> what you want to see."
        case "unclosed":
            return f"The call was not closed; write the query between <{tag}> and </{tag}>."
        case "nested":
            return f"The query held another tag; write only words between <{tag}> and </{tag}>."
        case "over_long":
            wish = f"say in a few words between <{tag}> and </{tag}> what you want to see"
            return f"The query was too long; {wish}."
        case "repeated":
            return (
                f'You have already asked <{tag}> for "{_cut(call.query)}"; ask for something else, or answer.'
            )
        case "over_budget":
            return "No calls are left; answer from what you have seen."
        case "ok":
            return ""


def _tidy(query: str) -> str:
    return " ".join(query.split())


def _same(tag: str, query: str) -> tuple[str, str]:
    """A key that is equal for calls that ask for the same."""
    return tag, _tidy(query).casefold()


def _cut(text: str) -> str:
    return text if len(text) <= _ECHO else f"{text[: _ECHO - 1]}…"
