"""The tag grammar: the model's text becomes a thought and, at its end, a tool call or the answer.

It is the syntax of the paper's instruction template (Table 1), and decides when the first loop of the paper's
decoding ends (Algorithm 1).

A tag is `<name>` or `</name>`, the name a lower-case letter, then lower-case letters, digits and `_`;
everything else is words. Known names are the run's tool tags and the reserved ones: think, answer, frame,
tool_call.

A model that thinks aloud talks *about* tags: it repeats its instructions, lists its tools, changes its mind.
Talk is text, and the reading goes on. In the table, a *placeholder* is nothing but signs, or words such as
"query" or "letter" (`talk.py`); *code* is a Markdown code span or fenced block.

    in           text                                    becomes                 outcome
    -----------  --------------------------------------  ----------------------  ----------
    a thought    <tool> query </tool>                    Call, stop              ok
                 the same call of earlier in this run    Call, stop              repeated
                 <tool></tool> at the start of a line    Call, stop              empty
                 <tool> placeholder </tool>, or empty    Text
                 <other> query </other>, at most         Call, stop              unknown
                   `max_query` characters, no known tag
                 <frame> any words </frame>              Call, stop              forged
                 <answer> body </answer>                 Answer, stop
                 <answer> placeholder </answer>          Text
                 tags in code, tags of formatting        Text
                 any other tag, whole or not             Text
    a call       a tag that opens a tool or the answer,  Text; that tag counts
                   think, frame, a blank line
                 the end of another tool's call          Call, stop after it     nested
                 more than `max_query` characters        Call, stop at once      over_long
                   before </tool>
                 end of turn, token limit                Call                    unclosed
                 any other tag                           part of the query
    <answer> in  a tag that opens a tool, think          Text; that tag counts
    a thought    any other tag                           part of the body
    after the    <answer> body </answer>                 Answer, stop
    thought      <answer> again, in a body               begins the body again
                 an unknown call                         Text
                 end of turn, without an answer          Answer: the words after </think>
    an answer    end of turn, token limit                Answer; Text if empty

The thought is open until as many `</think>` were read as opened it, so a quoted `<think></think>` closes
nothing. Every call and every answer ends the reading, so a turn is at most one Text and then a Call or an
Answer.

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

from act2see.agent.talk import (
    FORMATTING,
    QUOTES,
    CodeSpans,
    is_mention,
    is_placeholder,
    is_placeholder_answer,
)
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

    def parser(
        self, *, answering: bool = False, thinking: bool = True, earlier: Iterable[tuple[str, str]] = ()
    ) -> Parser:
        """A parser for one turn.

        Args:
            answering: Whether `<answer>` has been written for the model, so that its text begins with the
                answer's body.
            thinking: Whether the thought is open where the turn begins.
            earlier: Tag and query of each call made in this run.
        """
        made = frozenset(_same(tag, query) for tag, query in earlier)
        return Parser(self, answering, thinking and not answering, made)


class _Opened(NamedTuple):
    """A tag that was opened."""

    name: str
    start: int
    """The place of its `<`."""
    inner: int
    """The place behind its `>`."""
    starts_line: bool = False
    """Whether only whitespace precedes it in its line."""


class Parser:
    """Reads one turn. Made by `Grammar.parser`."""

    def __init__(
        self, grammar: Grammar, answering: bool, thinking: bool, earlier: frozenset[tuple[str, str]]
    ) -> None:
        self.stopped: StopReason | None = None
        """Why the reading ended; None while it goes on."""
        self._grammar = grammar
        self._forced = answering
        self._earlier = earlier
        self._read: list[str] = []
        self._code = CodeSpans()
        self._angle: int | None = None  # the place of the last "<", until a ">" follows
        self._is_angle_talk = False  # in code, or behind a quotation mark
        self._angle_starts_line = False
        self._line = 0  # the place where the line begins
        self._is_line_blank = True
        self._thoughts = int(thinking)  # how many <think> are open
        self._thought_end: int | None = None  # the place behind the </think> that closed the thought
        self._open = _Opened("answer", 0, 0) if answering else None
        self._call_in_answer: _Opened | None = None
        self._doubtful: tuple[int, str] | None = None  # place and body of an answer that looks like none
        self._limit = inf  # beyond so many characters the open call may be over-long
        self._strangers: dict[str, _Opened] = {}  # opened tags that are no calls of tools
        self._end: Call | Answer | None = None

    def feed(self, text: str) -> bool:
        """Read on. Returns True when decoding must stop; nothing is read after that."""
        for char in _SURROGATE.sub("\ufffd", text):
            if self.stopped:
                break
            self._read_character(char)
        return self.stopped is not None

    def finish(self, reason: Literal[StopReason.EOS, StopReason.LENGTH]) -> None:
        """The model ended its turn, or met the token limit. Does nothing if the reading has stopped."""
        if self.stopped:
            return
        self.stopped = reason
        if self._open:
            self._end = self._finish_open(self._open)
        if self._end or self._thoughts:
            return
        if self._doubtful:
            start, body = self._doubtful
            self._end = Answer(text=self._slice(start), body=body)
        elif reason == StopReason.EOS and self._thought_end is not None:
            words = self._slice(self._thought_end)
            tags = {tag[2] for tag in _TAG.finditer(words)}
            if words.strip() and not any(self._is_known(tag) for tag in tags):
                self._end = Answer(text=words, body=words.strip())

    def _finish_open(self, opened: _Opened) -> Call | Answer | None:
        """The call or the answer that was left open; None if its tag was only spoken of."""
        inner = self._slice(opened.inner)
        if opened.name == "answer":
            answer = self._answer(opened, len(self._read))
            is_meant = answer.body if not self._thoughts else not is_placeholder_answer(inner)
            return answer if is_meant and not (self._thoughts and is_mention(inner)) else None
        return None if is_mention(inner) else self._call(opened, len(self._read), "unclosed")

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

    def _read_character(self, char: str) -> None:
        self._read.append(char)
        self._code.feed(char)
        if char == "<":
            self._angle = len(self._read) - 1
            before = self._read[-2] if len(self._read) > 1 else ""
            self._is_angle_talk = self._code.inside or before in QUOTES
            self._angle_starts_line = self._is_line_blank
        elif char == ">" and self._angle is not None:
            start, self._angle = self._angle, None
            if tag := _TAG.fullmatch(self._slice(start)):
                opened = _Opened(tag[2], start, len(self._read), self._angle_starts_line)
                self._tag(opened, closing=bool(tag[1]))
        elif char == "\n":
            self._end_line()
        if not char.isspace():
            self._is_line_blank = False
        if len(self._read) > self._limit and self._open and not self.stopped:
            self._measure(self._open)

    def _end_line(self) -> None:
        """A query is one paragraph: before a blank line, the tag of a tool was only spoken of."""
        opened = self._open
        is_call = opened and opened.name != "answer"
        if opened and is_call and self._is_line_blank and self._slice(opened.inner, self._line).strip():
            self._abandon()
        self._line = len(self._read)
        self._is_line_blank = True

    def _tag(self, tag: _Opened, closing: bool) -> None:
        """A tag has just ended."""
        is_talk = self._thoughts and self._is_angle_talk
        # A block of code may never end; marks of the thought at the start of a line count in it, too.
        is_mark = tag.name == "think" and tag.starts_line
        if is_talk and not is_mark and not (closing and self._closes_open(tag)):
            return
        if self._open is None:
            self._tag_in_text(tag, closing)
        elif self._open.name == "answer":
            self._tag_in_answer(self._open, tag, closing)
        else:
            self._tag_in_call(self._open, tag, closing)

    def _closes_open(self, tag: _Opened) -> bool:
        return self._open is not None and self._open.name == tag.name

    def _tag_in_text(self, tag: _Opened, closing: bool) -> None:
        if tag.name == "think":
            self._think(tag, closing)
        elif tag.name in self._grammar.tags or tag.name == "answer":
            self._strangers.clear()
            if not closing:
                self._begin(tag)
        elif not closing:
            self._strangers[tag.name] = tag
        elif opened := self._strangers.pop(tag.name, None):
            self._end_stranger(opened, tag)

    def _end_stranger(self, opened: _Opened, closing: _Opened) -> None:
        """Words stand between the tags of something that is no tool."""
        words = self._slice(opened.inner, closing.start)
        if opened.name == "frame":
            if not is_placeholder(words):
                self._stop(opened, closing.start, "forged")
            return
        is_call = self._thoughts and opened.name not in FORMATTING
        if is_call and len(words) <= self._grammar.max_query and not is_placeholder(words):
            self._stop(opened, closing.start, "unknown")

    def _tag_in_call(self, opened: _Opened, tag: _Opened, closing: bool) -> None:
        if closing and tag.name == opened.name:
            self._end_call(opened, tag.start)
        elif closing and tag.name in self._grammar.tags:
            self._stop(opened, tag.start, "nested")
        elif (
            tag.name in self._grammar.tags
            or tag.name in ("think", "frame")
            or self._opens_answer(tag, closing)
        ):
            self._abandon()
            self._tag_in_text(tag, closing)

    def _tag_in_answer(self, opened: _Opened, tag: _Opened, closing: bool) -> None:
        if closing and tag.name == "answer":
            answer = self._answer(opened, tag.start)
            if self._forced or not is_placeholder_answer(answer.body):
                self._end, self.stopped = answer, StopReason.ANSWER
                return
            if answer.body and not self._thoughts:
                self._doubtful = (opened.start, answer.body)
            self._abandon()
        elif self._opens_answer(tag, closing) and not self._forced:
            self._begin(tag)
        elif self._thoughts and tag.name == "think":
            self._abandon()
            self._tag_in_text(tag, closing)
        elif tag.name in self._grammar.tags and not self._forced:
            self._tag_of_tool_in_answer(tag, closing)

    def _tag_of_tool_in_answer(self, tag: _Opened, closing: bool) -> None:
        """A whole call in what began as an answer: `<answer>` was only spoken of."""
        called = self._call_in_answer
        if not closing:
            self._call_in_answer = tag
        elif called and called.name == tag.name and not is_placeholder(self._slice(called.inner, tag.start)):
            self._stop(called, tag.start, "ok")

    def _opens_answer(self, tag: _Opened, closing: bool) -> bool:
        return tag.name == "answer" and not closing

    def _think(self, tag: _Opened, closing: bool) -> None:
        """The thought is opened once more, or closed."""
        self._strangers.clear()
        if not closing:
            # At the beginning of its text a model only repeats the <think> of the prompt.
            if self._slice(0, tag.start).strip():
                self._thoughts += 1
        elif self._thoughts:
            self._thoughts -= 1
        if not self._thoughts:
            self._thought_end = tag.inner

    def _is_known(self, name: str) -> bool:
        return name in self._grammar.tags or name in RESERVED

    def _begin(self, tag: _Opened) -> None:
        self._open = tag
        self._call_in_answer = None
        self._limit = inf if tag.name == "answer" else tag.inner + self._grammar.max_query

    def _abandon(self) -> None:
        """The tag that is open was only spoken of."""
        self._open = None
        self._limit = inf

    def _end_call(self, opened: _Opened, end: int) -> None:
        """The call of a tool is complete; it may be talk."""
        query = _tidy(self._slice(opened.inner, end))
        if query and is_placeholder(query):
            self._abandon()
        elif query or opened.starts_line:
            self._stop(opened, end, "ok")
        else:
            self._abandon()

    def _measure(self, opened: _Opened) -> None:
        """Stop a call that has outgrown its limit. The beginning of its closing tag does not count."""
        angle = self._angle
        closing = f"</{opened.name}>"
        if angle is not None and angle <= self._limit and closing.startswith(self._slice(angle)):
            return
        if is_mention(self._slice(opened.inner)):
            self._abandon()
        else:
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
