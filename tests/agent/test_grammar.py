from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings, strategies as st

from act2see.agent.grammar import RESERVED, Grammar, Parser, feedback
from act2see.errors import ConfigError
from act2see.trace.record import Answer, Call, Outcome, Text

TAGS = ("retrieve", "generate")
KNOWN = {*TAGS, *RESERVED}
GRAMMAR = Grammar(TAGS)
SHORT = Grammar(TAGS, max_query=9)


def read(text: str, grammar: Grammar = GRAMMAR, reason: Any = "eos", **options: Any) -> Parser:
    parser = grammar.parser(**options)
    if not parser.feed(text):
        parser.finish(reason)
    return parser


def seen(parser: Parser) -> tuple[Any, ...]:
    return parser.segments, parser.stopped, parser.text


# Each outcome: what is written | the text that stays a thought | tag, query, outcome | what is not read any
# more.
CALLS = [
    ("so <retrieve> a  red\nsquare </retrieve>!", "so ", ("retrieve", "a red square", "ok"), "!"),
    ("<generate>it falls</generate><answer>", "", ("generate", "it falls", "ok"), "<answer>"),
    (
        "<retrieve>a < b, a <b>, <3.7 seconds></retrieve>",
        "",
        ("retrieve", "a < b, a <b>, <3.7 seconds>", "ok"),
        "",
    ),
    ("<retrieve>a </zoom> <zoom> b</retrieve>", "", ("retrieve", "a </zoom> <zoom> b", "ok"), ""),
    ("<<retrieve>x<</retrieve>", "<", ("retrieve", "x<", "ok"), ""),
    ("<retrieve></retrieve>", "", ("retrieve", "", "empty"), ""),
    ("<retrieve> \n\u00a0 </retrieve> b", "", ("retrieve", "", "empty"), " b"),
    ("<retrieve>a <generate>b</generate>", "", ("retrieve", "a", "nested"), "b</generate>"),
    ("<retrieve>a <retrieve>b", "", ("retrieve", "a", "nested"), "b"),
    ("<retrieve>a </generate>", "", ("retrieve", "a", "nested"), ""),
    ("<retrieve>a <answer>B</answer>", "", ("retrieve", "a", "nested"), "B</answer>"),
    ("<retrieve>a</answer>", "", ("retrieve", "a", "nested"), ""),
    ("<retrieve>a<think>", "", ("retrieve", "a", "nested"), ""),
    ("<retrieve>a</think><answer>", "", ("retrieve", "a", "nested"), "<answer>"),
    ("<retrieve><frame>x</frame>", "", ("retrieve", "", "nested"), "x</frame>"),
    ("I see <retrieve>a red", "I see ", ("retrieve", "a red", "unclosed"), ""),
    ("<retrieve>a red</retr", "", ("retrieve", "a red</retr", "unclosed"), ""),
    ("<retrieve>a</Retrieve>", "", ("retrieve", "a</Retrieve>", "unclosed"), ""),
    ("go <zoom> in  here </zoom> on", "go ", ("zoom", "in here", "unknown"), " on"),
    ("<zoom>a <zoom>b</zoom>", "<zoom>a ", ("zoom", "b", "unknown"), ""),
    ("<zoom>a <look>b</zoom></look>", "", ("zoom", "a <look>b", "unknown"), "</look>"),
    ("<zoom>a <retrieve>b</retrieve></zoom>", "<zoom>a ", ("retrieve", "b", "ok"), "</zoom>"),
    ("look: <frame><3.0 seconds></frame>", "look: ", ("frame", "", "forged"), "<3.0 seconds></frame>"),
    ("<zoom><frame>", "<zoom>", ("frame", "", "forged"), ""),
    (
        "</think></answer></retrieve></frame><retrieve>a</retrieve>",
        "</think></answer></retrieve></frame>",
        ("retrieve", "a", "ok"),
        "",
    ),
]


@pytest.mark.parametrize(("text", "thought", "call", "dropped"), CALLS)
def test_calls(text: str, thought: str, call: tuple[str, str, Outcome], dropped: str) -> None:
    parser = read(text)
    tag, query, outcome = call
    written = text.removeprefix(thought).removesuffix(dropped)
    expected = Call(text=written, tag=tag, query=query, outcome=outcome)
    assert parser.segments == ((Text(text=thought), expected) if thought else (expected,))
    assert parser.stopped == ("eos" if outcome == "unclosed" else "call")


@pytest.mark.parametrize(
    ("text", "thought", "body", "dropped"),
    [
        ("It is red.</think>\n<answer> B </answer>\nSo B.", "It is red.</think>\n", "B", "\nSo B."),
        ("<answer>B</answer><answer>C</answer>", "", "B", "<answer>C</answer>"),
        ("<think>hm <answer>B</answer>", "<think>hm ", "B", ""),
        (
            "<answer>B, by <retrieve>x</retrieve> <frame></answer>",
            "",
            "B, by <retrieve>x</retrieve> <frame>",
            "",
        ),
        ("I put it in <answer>.</think><answer>B</answer>", "I put it in ", "B", ""),
        ("<zoom><answer></zoom></answer>", "<zoom>", "</zoom>", ""),
        ("<answer> </answer>", "", "", ""),
        ("ah <answer>B\n", "ah ", "B", ""),
    ],
)
def test_answers(text: str, thought: str, body: str, dropped: str) -> None:
    parser = read(text)
    expected = Answer(text=text.removeprefix(thought).removesuffix(dropped), body=body)
    assert parser.segments == ((Text(text=thought), expected) if thought else (expected,))
    assert parser.stopped == ("answer" if "</answer>" in text else "eos")


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c, <b>, <3.7 seconds>, <imagined>, < retrieve>, <retrieve >, <RETRIEVE>x</RETRIEVE>",
        "<think>a</think> <tool_call>b</tool_call> </zoom><zoom>",
        "<zoom>so</think></zoom>",
        "<br>\n</retrieve></frame></answer>",
        "<_a></_a><1></1><a-b></a-b><></><é></é>",
        "and <answer> \n",
        "<retriev",
    ],
)
def test_plain_text(text: str) -> None:
    parser = read(text, reason="length")
    assert parser.segments == (Text(text=text),)
    assert parser.stopped == "length"


def test_nothing_read() -> None:
    parser = GRAMMAR.parser()
    assert not parser.feed("")
    assert seen(parser) == ((), None, "")
    parser.finish("eos")
    assert seen(parser) == ((), "eos", "")


def test_no_tools() -> None:
    grammar = Grammar(())
    assert grammar.stops == ("</answer>",)
    assert [s.outcome for s in read("<retrieve>a</retrieve>", grammar).segments if isinstance(s, Call)] == [
        "unknown"
    ]


def test_the_first_stop_is_final() -> None:
    parser = read("<answer>B</answer>")
    before = seen(parser)
    assert parser.feed("<retrieve>a</retrieve>")
    parser.finish("length")
    assert seen(parser) == before


@pytest.mark.parametrize(
    ("inner", "query", "outcome", "dropped"),
    [
        ("123456789</retrieve>", "123456789", "ok", ""),
        ("  1234567</retrieve>", "1234567", "ok", ""),
        ("         </retrieve>", "", "empty", ""),
        ("1234567890</retrieve>", "123456789", "over_long", "</retrieve>"),
        ("          </retrieve>", "", "over_long", "</retrieve>"),
        ("12345678  x", "12345678", "over_long", "x"),
        ("123456789</retro</retrieve>", "123456789", "over_long", "</retrieve>"),
        ("123456789<</retrieve>", "123456789", "over_long", "/retrieve>"),
        ("12345678<</retrieve>", "12345678<", "ok", ""),
        ("<3456789</retrieve>", "<3456789", "ok", ""),
        ("<34567890", "<34567890", "unclosed", ""),
        ("<345678901", "<34567890", "over_long", ""),
        ("12<frame>", "12", "nested", ""),
        ("1234<frame>", "1234<fram", "over_long", ">"),
        ("123456789</retr", "123456789", "unclosed", ""),
    ],
)
def test_length(inner: str, query: str, outcome: Outcome, dropped: str) -> None:
    text = f"<retrieve>{inner}"
    parser = read(text, SHORT)
    assert parser.segments == (
        Call(text=text.removesuffix(dropped), tag="retrieve", query=query, outcome=outcome),
    )


def test_an_unknown_call_has_the_same_limit() -> None:
    assert isinstance(read("<zoom>123456789</zoom>", SHORT).segments[0], Call)
    assert read("<zoom>1234567890</zoom>", SHORT).segments == (Text(text="<zoom>1234567890</zoom>"),)


@pytest.mark.parametrize(
    ("written", "outcome"),
    [
        ("<retrieve>a Red  square</retrieve>", "repeated"),
        ("<generate>a red square</generate>", "ok"),
        ("<retrieve>a red squares</retrieve>", "ok"),
        ("<retrieve> </retrieve>", "empty"),
    ],
)
def test_repeated(written: str, outcome: Outcome) -> None:
    (call,) = read(written, earlier=[("retrieve", " A red\nsquare"), ("retrieve", "")]).segments
    assert isinstance(call, Call)
    assert call.outcome == outcome


@pytest.mark.parametrize(
    ("text", "read_as", "body"),
    [
        (" B</answer> done", " B</answer>", "B"),
        ("<answer>B</answer>", "<answer>B</answer>", "B"),
        ("B, <retrieve>x</retrieve>", "B, <retrieve>x</retrieve>", "B, <retrieve>x</retrieve>"),
    ],
)
def test_forced_answer(text: str, read_as: str, body: str) -> None:
    assert read(text, answering=True).segments == (Answer(text=read_as, body=body, forced=True),)


def test_forced_answer_that_never_came() -> None:
    assert read(" ", answering=True).segments == (Text(text=" "),)
    assert read("", answering=True).segments == ()


def test_half_characters_are_replaced() -> None:
    parser = read("a \ud83d <answer>\ude00</answer>")
    assert parser.segments == (Text(text="a \ufffd "), Answer(text="<answer>\ufffd</answer>", body="\ufffd"))


def test_stops() -> None:
    assert GRAMMAR.stops == ("</retrieve>", "</generate>", "</answer>")
    assert Grammar(["look_2"]) == Grammar(("look_2",))
    hash(GRAMMAR)


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (["tool_call"], "reasoning parsers"),
        *((["retrieve", name], "reserved") for name in RESERVED),
        (["Retrieve"], "lower-case"),
        (["re-trieve"], "lower-case"),
        ([""], "lower-case"),
        (["2d"], "lower-case"),
        (["look\n"], "lower-case"),
        (["look", "look"], "duplicate"),
    ],
)
def test_tags_that_cannot_be_used(tags: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Grammar(tags)


def test_a_query_needs_room() -> None:
    with pytest.raises(ConfigError, match="max_query is 0"):
        Grammar(TAGS, max_query=0)


# Random texts: tags, pieces of tags, whole calls, and whatever may surround them.
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
# The same examples each time, and no deadline: a busy machine must not fail a property.
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
        assert seen(parser) == seen(whole)


@seeded
@given(texts, grammars, st.booleans())
def test_what_is_read(text: str, grammar: Grammar, answering: bool) -> None:
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
    """The longest beginning that a closing tag could still have made a good call is one character shorter."""
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


def whole_text(text: str) -> tuple[str, str, str, str]:
    """The grammar without its limit of length, read from the whole text by patterns: kind, text before,
    written, inner."""
    name, known = r"[a-z][a-z0-9_]*", "|".join(sorted(KNOWN))
    first = (
        rf"(?P<frame><frame>)"
        rf"|<answer>(?P<body>.*?)(</answer>|\Z)"
        rf"|<(?P<tag>{'|'.join(TAGS)})>(?P<query>.*?)(</(?P=tag)>|(?P<nested></?({known})>)|\Z)"
        rf"|<(?!({known})>)(?P<other>{name})>(?P<asked>((?!</?({known})>|<(?P=other)>|</(?P=other)>).)*)</(?P=other)>"
    )
    # The thought ends with whichever of these settles first what it is: its own beginning, but for strangers
    # their end.
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
    kind, before, written, inner = whole_text(text)
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
def test_reading_is_linear(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = 0
    slice_ = Parser._slice

    def counted(self: Parser, start: int, stop: int | None = None) -> str:
        nonlocal copied
        out = slice_(self, start, stop)
        copied += len(out)
        return out

    monkeypatch.setattr(Parser, "_slice", counted)
    parser = GRAMMAR.parser()
    for char in text:
        parser.feed(char)
    parser.finish("eos")
    assert copied <= 3 * len(text)
    assert "".join(s.text for s in parser.segments) == text


@pytest.mark.parametrize(
    ("outcome", "tag", "note"),
    [
        ("ok", "retrieve", ""),
        ("unknown", "zoom", "There is no tool <zoom>; you have <retrieve> and <generate>."),
        ("forged", "frame", "Only a tool can show a frame; you have <retrieve> and <generate>."),
        (
            "empty",
            "retrieve",
            "The query was empty; say between <retrieve> and </retrieve> what you want to see.",
        ),
        (
            "repeated",
            "retrieve",
            'You have already asked <retrieve> for "a red square"; ask for something else, or answer.',
        ),
    ],
)
def test_feedback(outcome: Outcome, tag: str, note: str) -> None:
    assert feedback(Call(text="", tag=tag, query="a red square", outcome=outcome), TAGS) == note


@pytest.mark.parametrize(
    ("tags", "have"),
    [
        ((), "you have none, so answer from what you have seen."),
        (("look",), "you have <look>."),
        (("look", "imagine", "zoom_in"), "you have <look>, <imagine> and <zoom_in>."),
    ],
)
def test_feedback_names_the_tools(tags: tuple[str, ...], have: str) -> None:
    assert feedback(Call(text="", tag="x", query="", outcome="unknown"), tags).endswith(have)


@pytest.mark.parametrize("outcome", [o for o in get_args(Outcome) if o != "ok"])
def test_feedback_is_one_short_sentence(outcome: Outcome) -> None:
    note = feedback(Call(text="", tag="x" * 5_000, query="y z" * 5_000, outcome=outcome), TAGS)
    assert note.endswith(".")
    assert note.count(".") == 1
    assert len(note) <= 180


@seeded
@given(texts, grammars)
def test_feedback_never_holds_a_frame(text: str, grammar: Grammar) -> None:
    for call in (s for s in read(text, grammar).segments if isinstance(s, Call)):
        assert not re.search("</?frame>", feedback(call, grammar.tags))
