"""Random turns of a model, read by the parser in random chunks and by the slow reference."""

from __future__ import annotations

import random
from typing import Any, Literal

from act2see.agent.grammar import Grammar
from act2see.agent.names import RESERVED
from act2see.agent.parser import StopReason
from act2see.trace.record import Answer, Call, Text
from benchmarks.fuzz.grammar_reference import Reference

_TOOLS = ("retrieve", "generate")
_NAMES = [*_TOOLS, *RESERVED, "zoom", "b"]
_TAGS = [f"<{slash}{name}>" for name in (*_TOOLS, "think", "answer", *_NAMES) for slash in ("", "/")]
_CALLS = [
    f"<{name}>{inner}</{name}>"
    for name in (*_TOOLS, "zoom", "answer", "frame", "think")
    for inner in ("", " \n", "red", " a  <b> ", "a < b</zoom>", "your query", "B", "A or B", ", then")
]
_PIECES = ["<", ">", "/", "</", "<<", "<r", "</retr", "retrieve>", "<Retrieve>", "<3.7 seconds>"]
_WORDS = [
    "a red square",
    "B",
    ". It is ",
    " or ",
    "query",
    ", ",
    "\n",
    "\n\n",
    " \n \t\n",
    " ",
    "\r\n",
    "é",
    "查询",
]
_CODE = ["`", "``", "```", "````", "~", "~~~", "\n```\n", "\n~~~\n", "`x`", '"', "“", "「", "'"]
_ODD = ["\ud800", "\0", "\x1c", "\x85", "\u2028", "\u00a0", "\udfff"]
_KINDS = [_TAGS, _TAGS, _CALLS, _PIECES, _WORDS, _WORDS, _CODE, _ODD]
_GRAMMARS = [
    Grammar(_TOOLS),
    Grammar(_TOOLS, max_query=20),
    Grammar(_TOOLS, max_query=3),
    Grammar(()),
    Grammar(_TOOLS, closes_thought=True),
]


def compare(rng: random.Random) -> str | None:
    """Return how the parser and the reference differ on a random turn; None if they agree."""
    text = "".join(rng.choice(rng.choice(_KINDS)) for _ in range(rng.randrange(14)))
    if rng.random() < 0.1:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + chr(rng.randrange(0x3000)) + text[place:]
    grammar = rng.choice(_GRAMMARS)
    reason: Literal[StopReason.EOS, StopReason.LENGTH] = rng.choice([StopReason.EOS, StopReason.LENGTH])
    options: dict[str, Any] = {
        "answering": rng.random() < 0.1,
        "thinking": rng.random() < 0.8,
        "earlier": [("retrieve", "Red")] if rng.random() < 0.2 else [],
        "told": ["zoom"] if rng.random() < 0.2 else [],
    }
    parser = grammar.parser(**options)
    place = 0
    while place < len(text) and not parser.stopped:
        size = rng.choice((1, 2, 5, len(text)))
        parser.feed(text[place : place + size])
        place += size
    parser.finish(reason)
    found = parser.stopped, tuple(_plain(segment) for segment in parser.segments)
    expected = Reference(grammar, text, **options).run(reason)
    if found == expected:
        return None
    return f"{text!r} {grammar} {reason} {options}: the parser gives {found}, the reference {expected}"


def _plain(segment: Text | Call | Answer) -> tuple[object, ...]:
    match segment:
        case Text():
            return "text", segment.text
        case Call():
            return "call", segment.text, segment.tag, segment.query, segment.outcome
        case Answer():
            return "answer", segment.text, segment.body, segment.forced
