"""A slow second reading of the tag grammar, written from the table in `act2see.agent.grammar`.

It knows the whole text and looks at each place anew: whether a tag stands in code, behind a quotation mark or
at the start of a line, and whether a blank line ended a query, is found again from the text before it, by
regular expressions. The parser carries all of this from character to character. Which words are placeholders
is not the question here: both ask `act2see.agent.talk`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from act2see.agent.grammar import Grammar
from act2see.agent.names import RESERVED, call_key
from act2see.agent.talk import (
    FORMATTING,
    is_aside,
    is_mention,
    is_placeholder,
    is_placeholder_answer,
    opens_quotation,
)

_Segments = tuple[tuple[object, ...], ...]
_TAG_AT_END = re.compile(r"<(/?)([a-z][a-z0-9_]*)>\Z")
_ANY_TAG = re.compile(r"<(/?)([a-z][a-z0-9_]*)>")
_RUN = re.compile(r"(`+|~+)[\s\S]")  # the character that ends a run is not the first of another
_BLANK_LINE = re.compile(r"\S\s*\n\s*\n")


class Tag(NamedTuple):
    """An opening tag: its name, the place of its `<`, and the place after its `>`."""

    name: str
    start: int
    inner: int


def is_in_code(text: str) -> bool:
    """Return whether the last character of a text is in a code span or a fenced block."""
    fence, span = "", 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        span, opened_here = 0, False
        for run in _RUN.finditer(line):
            marks = run[1]
            is_fence = len(marks) >= 3 and not line[: run.start()].strip()
            if fence and opened_here:
                fence = ""
            elif fence:
                fence = "" if is_fence and marks.startswith(fence) else fence
            elif is_fence:
                fence, opened_here = marks, True
            elif marks[0] == "`":
                span = 0 if span == len(marks) else span or len(marks)
        if line.endswith("\n"):
            span = 0
    return bool(fence or span)


@dataclass
class Reference:
    """One turn, read slowly. The fields are those of `Grammar.parser`."""

    grammar: Grammar
    text: str
    answering: bool = False
    thinking: bool = True
    earlier: Collection[tuple[str, str]] = ()
    told: Collection[str] = ()
    stopped: str | None = None
    read: int = 0
    thoughts: int = 0
    open: Tag | None = None
    tool_in_answer: Tag | None = None
    thought_end: int | None = None
    doubtful: tuple[int, int, str] | None = None
    tried: tuple[int, int, str] | None = None
    unknown: dict[str, Tag] = field(default_factory=dict)
    last: tuple[object, ...] | None = None

    def run(self, reason: str) -> tuple[str | None, _Segments]:
        """Return why reading stopped, and the segments: each its kind, text and the fields of its kind."""
        self.text = re.sub("[\ud800-\udfff]", "\ufffd", self.text)
        self.thoughts = int(self.thinking and not self.answering)
        self.open = Tag("answer", 0, 0) if self.answering else None
        while self.read < len(self.text) and not self.stopped:
            self.read += 1
            self._read_place(self.text[: self.read])
        if not self.stopped:
            self._finish(reason)
            self.stopped = reason  # also if a call or an answer was left open
        size = self.read - (len(str(self.last[1])) if self.last else 0)
        first = (("text", self.text[:size]),) if size else ()
        return self.stopped, (*first, *([self.last] if self.last else []))

    def _read_place(self, text: str) -> None:
        if text[-1] == ">" and (found := _TAG_AT_END.search(text)):
            self._read_tag(Tag(found[2], found.start(), len(text)), bool(found[1]))
        if self.stopped or not self.open or self.open.name == "answer":
            return
        inner = text[self.open.inner :]
        if not text[-1].isspace() and text.rfind("<") <= text.rfind(">") and _BLANK_LINE.search(inner):
            self.open = None
        elif len(inner) > self.grammar.max_query:
            self._read_long(self.open, text)

    def _read_long(self, tag: Tag, text: str) -> None:
        angle = text.rfind("<")
        closing = f"</{tag.name}>"
        may_close = angle > text.rfind(">") and closing.startswith(text[angle:])
        if may_close and angle <= tag.inner + self.grammar.max_query:
            return
        if is_mention(text[tag.inner :]):
            self.open = None
        else:
            self._stop(tag, len(text), "over_long")

    def _read_tag(self, tag: Tag, closing: bool) -> None:
        before = self.text[: tag.start]
        quoted = bool(before) and opens_quotation(before[-1], before[-2:-1])
        ends_open = closing and self.open is not None and self.open.name == tag.name
        if self.thoughts and not ends_open and (quoted or is_in_code(before + "<")):
            return
        if self.open is None:
            self._in_text(tag, closing)
        elif self.open.name == "answer":
            self._in_answer(self.open, tag, closing)
        else:
            self._in_call(self.open, tag, closing)

    def _in_text(self, tag: Tag, closing: bool) -> None:
        tools = self.grammar.tags
        if tag.name == "think":
            self.unknown.clear()
            if closing and self.thoughts == 1:
                self.thought_end, self.doubtful = tag.inner, None
            is_repeated = self.thoughts and not self.text[: tag.start].strip()
            if closing:
                self.thoughts = max(0, self.thoughts - 1)
            elif not is_repeated:
                self.thoughts += 1
        elif tag.name in tools or tag.name == "answer":
            self.unknown.clear()
            self.open, self.tool_in_answer = (self.open if closing else tag), None
        elif not closing:
            self.unknown[tag.name] = tag
        elif opened := self.unknown.pop(tag.name, None):
            words = self.text[opened.inner : tag.start]
            if tag.name == "frame":
                if not is_placeholder(words):
                    self._stop(opened, tag.start, "forged")
            elif (
                self.thoughts
                and tag.name not in (*FORMATTING, *self.told)
                and len(words) <= self.grammar.max_query
                and not is_placeholder(words)
            ):
                self._stop(opened, tag.start, "unknown")

    def _in_call(self, opened: Tag, tag: Tag, closing: bool) -> None:
        if closing and tag.name == opened.name:
            query = " ".join(self.text[opened.inner : tag.start].split())
            line = self.text[: opened.start].rpartition("\n")[2]
            is_meant = not is_placeholder(query) if query else not line.strip()
            if is_meant:
                self._stop(opened, tag.start, "ok")
            else:
                self.open = None
        elif closing and tag.name in self.grammar.tags:
            self._stop(opened, tag.start, "nested")
        elif tag.name in (*self.grammar.tags, "think", "frame") or (tag.name == "answer" and not closing):
            self.open = None
            self._in_text(tag, closing)

    def _in_answer(self, opened: Tag, tag: Tag, closing: bool) -> None:
        if tag.name == "answer" and closing:
            body = self._body(opened, tag.start)
            placeholder = is_placeholder_answer(body) and not self.answering
            if not placeholder and not (self.grammar.closes_thought and self.thoughts):
                self.last = ("answer", self.text[opened.start : self.read], body, self.answering)
                self.stopped = "answer"
                return
            if not placeholder:
                self.tried = (opened.start, self.read, body)
            elif body.strip(".… "):
                self.doubtful = (opened.start, self.read, body)
            self.open = None
        elif tag.name == "answer" and not self.answering:
            self.open, self.tool_in_answer = tag, None
        elif tag.name == "think" and self.thoughts:
            self.open = None
            self._in_text(tag, closing)
        elif tag.name in self.grammar.tags and not self.answering:
            called = self.tool_in_answer
            if not closing:
                self.tool_in_answer = tag
            elif called and called.name == tag.name and not self._stands_in(called, tag):
                self._stop(called, tag.start, "ok")

    def _stands_in(self, opened: Tag, closing: Tag) -> bool:
        return is_placeholder(self.text[opened.inner : closing.start])

    def _finish(self, reason: str) -> None:
        if self.open:
            self._finish_open(self.open)
        if self.last:
            return
        doubtful, tried = self.doubtful, self.tried
        rest = self.text[doubtful[1] :] if doubtful else ""
        if doubtful and (not self.thoughts or (reason == "eos" and not rest.strip())):
            self.last = ("answer", self.text[doubtful[0] :], doubtful[2], self.answering)
            return
        words = body = ""
        if not self.thoughts and self.thought_end is not None:
            words = self.text[self.thought_end :]
            last = words.rpartition("</think>")[2]
            words = last if last.strip() else words
            body = words.replace("</think>", "").strip()
        elif not self.thoughts:
            return
        if reason != "eos":
            return
        known = {*self.grammar.tags, *RESERVED}
        if body and not any(tag[2] in known for tag in _ANY_TAG.finditer(body)):
            self.last = ("answer", words, body, False)
        elif not body and tried:
            self.last = ("answer", self.text[tried[0] :], tried[2], self.answering)

    def _finish_open(self, opened: Tag) -> None:
        inner = self.text[opened.inner :]
        if opened.name != "answer":
            if not _BLANK_LINE.search(inner) and not is_mention(inner):
                self._stop(opened, len(self.text), "unclosed")
            return
        body = self._body(opened, len(self.text)) or inner.replace("<answer>", "").strip()
        is_talk = self.thoughts and (is_placeholder_answer(inner) or is_aside(inner))
        if body and not is_talk:
            self.last = ("answer", self.text[opened.start :], body, self.answering)

    def _body(self, opened: Tag, end: int) -> str:
        return self.text[opened.inner : end].rpartition("<answer>")[2].strip()

    def _stop(self, tag: Tag, end: int, outcome: str) -> None:
        query = " ".join(self.text[tag.inner : end][: self.grammar.max_query].split())
        if outcome == "ok":
            seen = {call_key(*call) for call in self.earlier}
            outcome = "empty" if not query else "repeated" if call_key(tag.name, query) in seen else "ok"
        self.last = ("call", self.text[tag.start : self.read], tag.name, query, outcome)
        self.stopped = "call"
