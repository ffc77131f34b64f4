"""Properties of the tag grammar, over random texts of tags, pieces of tags and whole calls."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tests.agent.test_grammar import GRAMMAR, TAGS, parser_state, read

from act2see.agent.grammar import Grammar, feedback
from act2see.agent.names import RESERVED
from act2see.trace.record import Call

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
        if call.tag in grammar.tags:
            opening = "|".join(grammar.tags)
            assert not re.search(rf"<({opening}|answer)>|</?(think|frame)>", call.query)
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

    call = read(f"<retrieve>{text}", grammar).segments[0]
    if not isinstance(call, Call) or call.tag != "retrieve":
        return  # the tag was only spoken of
    inner = call.text.removeprefix("<retrieve>")
    if call.outcome == "over_long":
        assert may_close(inner[:-1])
        assert not may_close(inner)
    elif call.outcome != "nested":
        assert may_close(inner.removesuffix(closing))


TALK = [
    "I could use `<retrieve>` or `<generate>`. ",
    "Put it in <answer></answer>. ",
    "- <retrieve> query </retrieve>: a frame\n",
    "<b>red</b> ",
    "It comes in <frame></frame>. ",
    "<retrieve> or <generate>, ",
    "``<answer>B</answer>`` is the form. ",
    "\n```\n<retrieve>the door</retrieve>\n```\n",
    "<answer>letter</answer> ",
    "<think></think> ",
    "<retrieve> hmm, no.\n\n",
    "a < b > c ",
]


@seeded
@given(st.lists(st.sampled_from(TALK), max_size=12).map("".join), st.sampled_from(["call", "answer"]))
def test_talk_ends_nothing_and_hides_nothing(talk: str, real: str) -> None:
    talk = f"Hm. {talk}"
    assert [s.kind for s in read(talk, reason="length").segments] == ["text"]
    meant = "<retrieve>the red door</retrieve>" if real == "call" else "</think>\n<answer>B</answer>"
    segments = read(f"{talk}\n\n{meant}").segments
    assert segments[-1].kind == real
    assert not isinstance(segments[-1], Call) or (segments[-1].outcome, segments[-1].query) == (
        "ok",
        "the red door",
    )


@seeded
@given(texts, st.booleans())
def test_nothing_in_code_is_read_while_the_thought_is_open(text: str, fenced: bool) -> None:
    quiet = re.sub("[`~]|</?think>", "", text)
    line = " ".join(quiet.split())
    code = f"so\n````\n{quiet}\n````\n" if fenced else f"so `{line}` "
    assert [s.kind for s in read(code, reason="length").segments] == ["text"]


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
    assert parser.copied <= 5 * len(text)
    assert "".join(s.text for s in parser.segments) == text


@seeded
@given(texts, grammars)
def test_feedback_never_holds_a_frame(text: str, grammar: Grammar) -> None:
    for call in (s for s in read(text, grammar).segments if isinstance(s, Call)):
        assert not re.search("</?frame>", feedback(call, grammar.tags))
