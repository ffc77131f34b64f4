"""Properties of the tag grammar, over random texts of tags, pieces of tags and whole calls."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tests.agent.test_grammar import GRAMMAR, KNOWN, TAGS, parser_state, read

from act2see.agent.grammar import RESERVED, Grammar, feedback
from act2see.trace.record import Answer, Call, Text

# Random texts consist of tags, parts of tags, complete calls, and other characters.
NAMES = [*TAGS, *RESERVED, "zoom", "b"]
WHOLE = [f"<{slash}{name}>" for name in NAMES for slash in ("", "/")]
PIECES = [
    "<",
    ">",
    "/",
    "</",
    "<<",
    "<r",
    "</retr",
    "retrieve>",
    "answer>",
    "<Retrieve>",
    "<retrieve >",
    "<3.7 seconds>",
    " ",
    "\n",
]
CLOSED = [
    f"<{name}>{inner}</{name}>"
    for name in (*TAGS, "zoom", "answer")
    for inner in ("", " \n", "red", " a  <b> ", "a < b</zoom>")
]
pieces = st.one_of(
    st.sampled_from(WHOLE), st.sampled_from(PIECES), st.sampled_from(CLOSED), st.text(max_size=4)
)
texts = st.lists(pieces, max_size=14).map("".join)
grammars = st.sampled_from(
    [Grammar(TAGS), Grammar(TAGS, max_query=20), Grammar(TAGS, max_query=3), Grammar(())]
)
reasons = st.sampled_from(["eos", "length"])
# Each run tests the same examples, without a deadline: a busy machine must not fail a property.
seeded = settings(derandomize=True, deadline=None)


@seeded
@given(texts, grammars, reasons, st.booleans(), st.data())
def test_chunks_do_not_matter(
    text: str, grammar: Grammar, reason: Any, answering: bool, data: st.DataObject
) -> None:
    whole = read(text, grammar, reason, answering=answering)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8), label="cuts"))
    for edges in ([0, *cuts, len(text)], range(len(text) + 1)):
        parser = grammar.parser(answering=answering)
        for a, b in pairwise(edges):
            stopped = parser.feed(text[a:b])
            assert stopped == (parser.stopped is not None)
            assert "".join(s.text for s in parser.segments) == parser.text == text[:b][: len(whole.text)]
        parser.finish(reason)
        assert parser_state(parser) == parser_state(whole)


@seeded
@given(texts, grammars, st.booleans())
def test_segments_of_any_text(text: str, grammar: Grammar, answering: bool) -> None:
    parser = read(text, grammar, answering=answering)
    assert text.startswith(parser.text)
    assert parser.text == text or parser.stopped in ("call", "answer")
    assert "".join(s.text for s in parser.segments) == parser.text
    assert [s.kind for s in parser.segments] in (
        [],
        ["text"],
        ["call"],
        ["answer"],
        ["text", "call"],
        ["text", "answer"],
    )
    assert all(s.text for s in parser.segments)
    for call in (s for s in parser.segments if isinstance(s, Call)):
        assert len(call.query) <= grammar.max_query
        assert call.query == " ".join(call.query.split())
        assert not re.search(rf"</?({'|'.join([*grammar.tags, *RESERVED])})>", call.query)
        assert call.text.startswith(f"<{call.tag}>")
        assert (call.tag in grammar.tags) == (call.outcome not in ("unknown", "forged"))
        assert bool(call.query) or call.outcome != "ok"


@seeded
@given(texts, st.integers(1, 12))
def test_over_long_is_the_first_character_too_many(text: str, max_query: int) -> None:
    """One character earlier, a closing tag could still have completed the call."""
    grammar, closing = Grammar(TAGS, max_query), "</retrieve>"

    def may_close(inner: str) -> bool:
        return any(inner.endswith(closing[:n]) and len(inner) - n <= max_query for n in range(len(closing)))

    (call,) = read(f"<retrieve>{text}", grammar).segments
    assert isinstance(call, Call)
    inner = call.text.removeprefix("<retrieve>")
    if call.outcome == "over_long":
        assert may_close(inner[:-1])
        assert not may_close(inner)
    elif call.outcome != "nested":
        assert may_close(inner.removesuffix(closing))


def parse_by_patterns(text: str) -> tuple[str, str, str, str]:
    """Parse a text by regular expressions over the whole text, without the length limit.

    Returns:
        The kind of the text's end, the text before the end, the end's text, and the text within its tags.
    """
    name, known = r"[a-z][a-z0-9_]*", "|".join(sorted(KNOWN))
    first = (
        rf"(?P<frame><frame>)"
        rf"|<answer>(?P<body>.*?)(</answer>|\Z)"
        rf"|<(?P<tag>{'|'.join(TAGS)})>(?P<query>.*?)(</(?P=tag)>|(?P<nested></?({known})>)|\Z)"
        rf"|<(?!({known})>)(?P<other>{name})>(?P<asked>((?!</?({known})>|<(?P=other)>|</(?P=other)>).)*)</(?P=other)>"
    )
    # The thought ends at the match that is complete first: a known call is decided at its opening tag, an
    # unknown call at its closing tag.
    found = [m for i in range(len(text)) if (m := re.compile(first, re.DOTALL).match(text, i))]
    if not found:
        return "text", text, "", ""
    m = min(found, key=lambda m: m.end() if m["other"] else text.index(">", m.start()) + 1)
    inner = next((m[g] for g in ("body", "query", "asked") if m[g] is not None), "")
    groups = {"frame": "forged", "body": "answer", "other": "unknown", "nested": "nested", "tag": "call"}
    kind = next(kind for group, kind in groups.items() if m[group] is not None)
    return kind, text[: m.start()], m.group(), inner


@seeded
@given(texts)
def test_agrees_with_patterns_over_the_whole_text(text: str) -> None:
    segments = read(text, Grammar(TAGS, max_query=10_000)).segments
    kind, before, written, inner = parse_by_patterns(text)
    end = segments[-1] if segments else None
    if isinstance(end, Answer):
        assert (kind, end.text, end.body) == ("answer", written, inner.rpartition("<answer>")[2].strip())
    elif isinstance(end, Call):
        named = end.outcome if end.outcome in ("forged", "unknown", "nested") else "call"
        assert (kind, end.text, end.query) == (named, written, " ".join(inner.split()))
    else:
        assert kind == "text" or (kind == "answer" and not inner.rpartition("<answer>")[2].strip())
        before += written
    assert "".join(s.text for s in segments if isinstance(s, Text)) == before


@pytest.mark.parametrize(
    "text",
    [
        "<" * 200_000,
        "<a" * 100_000,
        "<a>" * 66_000,
        "<a></b>" * 28_000,
        "<" + "a" * 199_000 + ">",
        "<x>" + ">" * 200_000,
        "<answer>" * 25_000 + "</answer",
        "<answer>" + "</answe>" * 25_000,
        "a red square. " * 14_000 + "<retrieve>x</retrieve>",
        *(f"<{chr(97 + i)}>" * 50_000 + f"</{chr(97 + i)}" for i in range(2)),
        "".join(f"<t{i}>" for i in range(30_000)),
    ],
    ids=lambda text: text[:12],
)
def test_reading_is_linear(text: str) -> None:
    parser = GRAMMAR.parser()
    for char in text:
        parser.feed(char)
    parser.finish("eos")
    assert parser.copied <= 3 * len(text)
    assert "".join(s.text for s in parser.segments) == text


@seeded
@given(texts, grammars)
def test_feedback_never_holds_a_frame(text: str, grammar: Grammar) -> None:
    for call in (s for s in read(text, grammar).segments if isinstance(s, Call)):
        assert not re.search("</?frame>", feedback(call, grammar.tags))
