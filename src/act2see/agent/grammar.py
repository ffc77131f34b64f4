"""The tag grammar: splits the model's text into a thought and, at its end, a tool call or the answer.

It implements the syntax of the paper's instruction template (Table 1), and decides when the first loop of the
paper's decoding ends (Algorithm 1).

A tag is `<name>` or `</name>`. A name is a lower-case letter, then lower-case letters, digits and `_`. All
other text is words. Known names are the run's tool tags and the reserved ones: think, answer, frame,
tool_call.

    in           text                                    becomes                 outcome
    -----------  --------------------------------------  ----------------------  ----------
    a thought    <tool> query </tool>                    Call, stop              ok
                 the same call as earlier in this run    Call, stop              repeated
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

Every call and every answer stops the parser, so a turn is at most one Text and then a Call or an Answer. If
the model mentions `<answer>` before it answers, the body is the text after the last `<answer>`.

The parser reads character by character and never looks ahead, so the result does not depend on how the text
is split into chunks, and no character is copied more than a few times. The parser reads a prefix of the text;
the texts of the segments, joined, are that prefix.
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


RESERVED = {
    "think": "it marks the thought",
    "answer": "it marks the answer",
    "frame": "it holds what the tools return",
    "tool_call": "reasoning parsers end the thought on it",
}
"""Names that a tool must not have, each with the reason."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAG = re.compile(rf"<(/?)({_NAME.pattern})>")
# Chat APIs can send a lone surrogate in JSON, and neither a trace nor UTF-8 can hold one.
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_ECHO = 40  # feedback repeats at most this many characters of the model's own words


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tags of a run.

    Raises:
        ConfigError: A tag is reserved, malformed or given twice, or `max_query` is less than 1.
    """

    tags: Sequence[str]
    """The tags of the tools."""
    max_query: int = 400
    """The maximum length of a query in characters, whitespace included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(self.tags))
        for tag in self.tags:
            if tag in RESERVED:
                raise ConfigError(f"tool tag {tag!r} is reserved: {RESERVED[tag]}; choose another")
            if not _NAME.fullmatch(tag):
                raise ConfigError(
                    f"tool tag {tag!r} is malformed: write a lower-case letter, then lower-case letters, "
                    "digits or underscores"
                )
            if self.tags.count(tag) > 1:
                raise ConfigError(f"duplicate tool tag {tag!r}; give each tool its own tag")
        if self.max_query < 1:
            raise ConfigError(f"max_query is {self.max_query}; a query needs at least 1 character")

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings for engines that can only stop on strings. They stay in the text.

        They are hints, and the parser decides: in an answer `</tool>` is plain text, and `<frame>` or an
        unknown call stops the parser without a stop string.
        """
        return (*(f"</{tag}>" for tag in self.tags), "</answer>")

    def parser(self, *, answering: bool = False, earlier: Iterable[tuple[str, str]] = ()) -> Parser:
        """Return a parser for one turn.

        Args:
            answering: Whether the graph has written `<answer>` for the model, so that the model's text begins
                with the answer's body.
            earlier: The tag and the query of each earlier call in this run.
        """
        return Parser(self, answering, frozenset(_call_key(tag, query) for tag, query in earlier))


class _Opened(NamedTuple):
    """An opened tag."""

    name: str
    start: int
    """The index of its `<`."""
    inner: int
    """The index after its `>`."""


class Parser:
    """Parses one turn. Made by `Grammar.parser`."""

    def __init__(self, grammar: Grammar, answering: bool, earlier: frozenset[tuple[str, str]]) -> None:
        self.stopped: StopReason | None = None
        """The reason why the parser stopped; None while it reads."""
        self.copied = 0
        """The number of characters copied so far. It is linear in the length of the text."""
        self._grammar = grammar
        self._forced = answering
        self._earlier = earlier
        self._read: list[str] = []
        self._angle: int | None = None  # the index of the last "<", until a ">" follows
        self._open = _Opened("answer", 0, 0) if answering else None
        self._limit = inf  # the number of characters after which the open call may be over-long
        self._unknown: dict[str, _Opened] = {}  # the last opened tag of each unknown name
        self._end: Call | Answer | None = None

    def feed(self, text: str) -> bool:
        """Read more text. Return True when decoding must stop; the parser reads nothing after that."""
        for char in _SURROGATE.sub("\ufffd", text):
            if self.stopped:
                break
            self._read.append(char)
            if char == "<":
                self._angle = len(self._read) - 1
            elif char == ">" and self._angle is not None:
                start, self._angle = self._angle, None
                if tag := _TAG.fullmatch(self._slice(start)):
                    self._read_tag(start, tag[2], closing=bool(tag[1]))
            if len(self._read) > self._limit and self._open and not self.stopped:
                self._check_length(self._open)
        return self.stopped is not None

    def finish(self, reason: Literal[StopReason.EOS, StopReason.LENGTH]) -> None:
        """End the text, as the model ended its turn or reached the token limit.

        Does nothing if the parser has stopped.
        """
        if self.stopped:
            return
        self.stopped = reason
        if self._open and self._open.name == "answer":
            answer = self._make_answer(self._open, len(self._read))
            self._end = answer if answer.body else None
        elif self._open:
            self._end = self._make_call(self._open, len(self._read), "unclosed")

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

    def _read_tag(self, start: int, name: str, closing: bool) -> None:
        """Read a tag that began at `start` and ends with the last character read."""
        if self._open is None:
            self._read_tag_in_thought(_Opened(name, start, len(self._read)), closing)
        elif self._open.name != "answer":
            self._read_tag_in_call(self._open, start, name, closing)
        elif closing and name == "answer":
            self._end = self._make_answer(self._open, start)
            self.stopped = StopReason.ANSWER

    def _read_tag_in_thought(self, tag: _Opened, closing: bool) -> None:
        if tag.name == "frame" and not closing:
            self._stop_at_call(tag, tag.inner, "forged")
        elif self._is_known(tag.name):
            self._unknown.clear()
            if not closing and (tag.name in self._grammar.tags or tag.name == "answer"):
                self._open = tag
                self._limit = inf if tag.name == "answer" else tag.inner + self._grammar.max_query
        elif not closing:
            self._unknown[tag.name] = tag
        else:
            opened = self._unknown.get(tag.name)
            if opened and tag.start - opened.inner <= self._grammar.max_query:
                self._stop_at_call(opened, tag.start, "unknown")

    def _read_tag_in_call(self, opened: _Opened, start: int, name: str, closing: bool) -> None:
        if closing and name == opened.name:
            self._stop_at_call(opened, start, "ok")
        elif self._is_known(name):
            self._stop_at_call(opened, start, "nested")

    def _is_known(self, name: str) -> bool:
        return name in self._grammar.tags or name in RESERVED

    def _check_length(self, opened: _Opened) -> None:
        """Stop at a call that exceeds its limit. A partial closing tag at its end does not count."""
        angle = self._angle
        if angle is None or angle > self._limit or not f"</{opened.name}>".startswith(self._slice(angle)):
            self._stop_at_call(opened, len(self._read), "over_long")

    def _stop_at_call(self, opened: _Opened, end: int, outcome: Outcome) -> None:
        self._end = self._make_call(opened, end, outcome)
        self.stopped = StopReason.CALL

    def _make_call(self, opened: _Opened, end: int, outcome: Outcome) -> Call:
        """Return the call of an opened tag, whose query ends at `end`."""
        query = _join_spaces(self._slice(opened.inner, end)[: self._grammar.max_query])
        if outcome == "ok" and not query:
            outcome = "empty"
        elif outcome == "ok" and _call_key(opened.name, query) in self._earlier:
            outcome = "repeated"
        return Call(text=self._slice(opened.start), tag=opened.name, query=query, outcome=outcome)

    def _make_answer(self, opened: _Opened, end: int) -> Answer:
        """Return the answer of an opened tag, whose body ends at `end`."""
        body = self._slice(opened.inner, end).rpartition("<answer>")[2].strip()
        return Answer(text=self._slice(opened.start), body=body, forced=self._forced)


def feedback(call: Call, tags: Sequence[str]) -> str:
    """Return one sentence to the model: what was wrong with its call, and what to do.

    Args:
        call: The call.
        tags: The tags of the run's tools.

    Returns:
        Plain text; empty if the call is ok. It repeats at most 40 characters of the model's own words.
    """
    # Models were trained on these sentences: changing one changes what the micro models do.
    tag = _shorten(call.tag)
    names = [f"<{t}>" for t in tags]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
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
                f'You have already asked <{tag}> for "{_shorten(call.query)}"; ask for something else, '
                "or answer."
            )
        case "over_budget":
            return "No calls are left; answer from what you have seen."
        case "ok":
            return ""


def _join_spaces(query: str) -> str:
    return " ".join(query.split())


def _call_key(tag: str, query: str) -> tuple[str, str]:
    """Return a key that is equal for calls of one tool with the same query, spaces and case aside."""
    return tag, _join_spaces(query).casefold()


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[: _MAX_ECHO - 1]}…"
