"""The tag grammar, outcome by outcome; `test_grammar_properties.py` reads random texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from act2see.agent.grammar import Grammar, feedback
from act2see.agent.names import RESERVED
from act2see.agent.parser import Parser, StopReason, count_open_thoughts
from act2see.agent.prompt import Prompt
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


def parser_state(parser: Parser) -> tuple[Any, ...]:
    return parser.segments, parser.stopped, parser.text


# A case has the text, its part that stays a thought, (tag, query, outcome), and its part that is not read.
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
    ("<<retrieve>red<</retrieve>", "<", ("retrieve", "red<", "ok"), ""),
    ("<retrieve></retrieve>", "", ("retrieve", "", "empty"), ""),
    ("<retrieve> \n\u00a0 </retrieve> b", "", ("retrieve", "", "empty"), " b"),
    ("<retrieve>a <generate>b</generate>", "<retrieve>a ", ("generate", "b", "ok"), ""),
    ("<retrieve>a <retrieve>b", "<retrieve>a ", ("retrieve", "b", "unclosed"), ""),
    ("<retrieve>a </generate>", "", ("retrieve", "a", "nested"), ""),
    ("<retrieve>a</answer> b</retrieve>", "", ("retrieve", "a</answer> b", "ok"), ""),
    ("<retrieve>a<frame>red</frame>", "<retrieve>a", ("frame", "red", "forged"), ""),
    ("<retrieve> so\n\n<retrieve>a</retrieve>", "<retrieve> so\n\n", ("retrieve", "a", "ok"), ""),
    ("<answer> then <retrieve>a</retrieve>", "<answer> then ", ("retrieve", "a", "ok"), ""),
    ("</think><answer> is <retrieve>a</retrieve>", "</think><answer> is ", ("retrieve", "a", "ok"), ""),
    ("I see <retrieve>a red", "I see ", ("retrieve", "a red", "unclosed"), ""),
    ("<retrieve>a red</retr", "", ("retrieve", "a red</retr", "unclosed"), ""),
    ("<retrieve>a</Retrieve>", "", ("retrieve", "a</Retrieve>", "unclosed"), ""),
    ("go <zoom> in  here </zoom> on", "go ", ("zoom", "in here", "unknown"), " on"),
    ("<zoom>a <zoom>b</zoom>", "<zoom>a ", ("zoom", "b", "unknown"), ""),
    ("<zoom>a <look>b</zoom></look>", "", ("zoom", "a <look>b", "unknown"), "</look>"),
    ("<zoom>a <retrieve>b</retrieve></zoom>", "<zoom>a ", ("retrieve", "b", "ok"), "</zoom>"),
    ("look: <frame><3.0 seconds></frame>!", "look: ", ("frame", "<3.0 seconds>", "forged"), "!"),
    ("<tool_call>{}, retrieve</tool_call>", "", ("tool_call", "{}, retrieve", "unknown"), ""),
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
            "<answer>B, by <retrieve> or <frame></answer>",
            "",
            "B, by <retrieve> or <frame>",
            "",
        ),
        ("I put it in <answer>.</think><answer>B</answer>", "I put it in <answer>.</think>", "B", ""),
        ("<answer></answer> or <answer>B</answer>", "<answer></answer> or ", "B", ""),
        ("<retrieve>a <answer>B</answer>", "<retrieve>a ", "B", ""),
        ("<answer>a <answer>B</answer>", "<answer>a ", "B", ""),
        ("</think><answer>a letter</answer>", "</think>", "a letter", ""),
        ("</think><answer>letter</answer>: <answer>B</answer>", "</think><answer>letter</answer>: ", "B", ""),
        ("So.</think> It is red.", "So.</think>", "It is red.", ""),
        ("So.</think>\n<b>B</b> \n", "So.</think>", "<b>B</b>", ""),
        ("<think></think> is it. So.</think> B", "<think></think> is it. So.</think>", "B", ""),
        ("<zoom><answer></zoom></answer>", "<zoom>", "</zoom>", ""),
        ("ah <answer>B\n", "ah ", "B", ""),
    ],
)
def test_answers(text: str, thought: str, body: str, dropped: str) -> None:
    parser = read(text)
    expected = Answer(text=text.removeprefix(thought).removesuffix(dropped), body=body)
    assert parser.segments == ((Text(text=thought), expected) if thought else (expected,))
    is_closed = expected.text.endswith("</answer>") and body != "a letter"
    assert parser.stopped == ("answer" if is_closed else "eos")


@pytest.mark.parametrize(
    "text",
    [
        "a < b > c, <b>, <3.7 seconds>, <imagined>, < retrieve>, <retrieve >, <RETRIEVE>x</RETRIEVE>",
        "<think>a</think> <tool_call>b</tool_call> </zoom><zoom>",
        "<retrieve> query </retrieve>, <generate>...</generate>, <retrieve> [your query] </retrieve>",
        '`<retrieve>a</retrieve>`, ``<answer>B</answer>``, "<retrieve>a</retrieve>"',
        "so\n```\n<answer>B</answer>\n```\n~~~xml\n<retrieve>a</retrieve>\n~~~",
        "```<retrieve>a</retrieve>```",
        "<frame></frame>, <answer></answer>, <answer>your answer</answer>, <answer>A/B/C</answer>",
        "say <retrieve></retrieve> or <retrieve>.",
        "<b>red</b>, <br>, <em>a</em>",
        "</think><answer></answer>",
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


LINES = (Path(__file__).parent / "thoughts.jsonl").read_text(encoding="utf-8").splitlines()
THOUGHTS = [json.loads(line) for line in LINES]


@pytest.mark.parametrize("thought", THOUGHTS, ids=[thought["name"] for thought in THOUGHTS])
def test_thoughts_of_models_that_think_aloud(thought: dict[str, Any]) -> None:
    """Written by somebody who had not seen the parser: talk about tags, with real calls and answers in it."""
    segments = read(thought["text"]).segments
    end = segments[-1] if segments else None
    found: dict[str, Any] = {"nothing": True}
    if isinstance(end, Call) and end.outcome == "ok":
        found = {"call": [end.tag, end.query]}
    elif isinstance(end, Call):
        found = {"told": "unknown" if end.outcome == "unknown" else "malformed"}
    elif isinstance(end, Answer):
        found = {"answer" if end.text.startswith("<answer>") else "prose": end.body}
    assert found == thought["ends"]


def read_closing(text: str, **options: Any) -> Parser:
    """Read a turn of a model whose prompt asks it to finish its thought before it answers."""
    parser = Grammar(("retrieve", "generate"), closes_thought=True).parser(**options)
    if not parser.feed(text):
        parser.finish(StopReason.EOS)
    return parser


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (
            "So it is <answer>A</answer>. Wait, frame 4 is green.\n</think>\n\n<answer>B</answer>",
            "B",
        ),
        (
            "If red <answer>A</answer>, if green <answer>B</answer>. Red.</think><answer>A</answer>",
            "A",
        ),
        ("<answer>A</answer>? No: the ball is green.\n</think>\n\nThe ball is green.", "The ball is green."),
        # The turn ends without another: the last try is meant.
        ("So it is <answer>B</answer>", "B"),
        ("<answer>A</answer>? No. <answer>B</answer>. Done.", "B"),
        ("It is <answer>B</answer>\n</think>\n", "B"),
    ],
)
def test_an_answer_in_a_thought_that_must_be_closed_is_a_first_try(text: str, body: str) -> None:
    answer = read_closing(text).segments[-1]
    assert isinstance(answer, Answer)
    assert answer.body == body


def test_a_first_try_is_no_answer_if_the_tokens_are_spent() -> None:
    parser = Grammar(("retrieve",), closes_thought=True).parser()
    parser.feed("So <answer>A</answer>. Wait, I look")
    parser.finish(StopReason.LENGTH)
    assert isinstance(parser.segments[-1], Text)
    assert "</answer>" not in Grammar(("retrieve",), closes_thought=True).stops


# The answer of a reader, where an answer in the open thought was an example or is corrected afterwards.
CORRECTED = {"fix-answer-a-no": "C", "ans-format-enumerated": "C", "ph-example-letter-bare": "A"}


@pytest.mark.parametrize("thought", THOUGHTS, ids=[thought["name"] for thought in THOUGHTS])
def test_the_same_thoughts_of_a_model_that_closes_its_thought(thought: dict[str, Any]) -> None:
    found = read_closing(thought["text"]).segments
    usual = read(thought["text"]).segments
    end = found[-1] if found else None
    if thought["name"] in CORRECTED:
        assert isinstance(end, Answer)
        assert end.body == CORRECTED[thought["name"]]
    elif isinstance(end, Answer):
        assert isinstance(usual[-1], Answer)
        assert usual[-1].body == end.body
    else:
        assert found == usual


@pytest.mark.parametrize(
    "text",
    [
        # The prompt's own example, and its own wording.
        "the format of a request would be <retrieve>a clown drops a blue plate</retrieve>. I need none.",
        "<retrieve>A clown drops a blue plate.</retrieve>",
        "<retrieve>a few words for what you want to see</retrieve>",
        "<retrieve>description of what I want</retrieve> or <retrieve>words describing the frame</retrieve>",
        "<retrieve>was ich sehen will</retrieve> <retrieve>想看的内容</retrieve> <retrieve>和</retrieve>",
        "I write it between <answer> and the closing </answer>",
        "<answer> then the letter and then </answer> <answer> and finish with </answer>",
        "<answer>just the letter</answer> <answer>letter only</answer> <answer>A-D</answer>",
        "<answer>option letter (A, B, C, D)</answer> <answer>correct option letter</answer>",
        "<answer>正确选项的字母</answer> <answer>A、B、C或D</answer> 放在<answer>和</answer>之间",
        "zwischen <answer> und </answer>, also <answer>Buchstabe der Option</answer>",
        # Quotation marks of other languages, with no space before them where the script has none.
        "提示里写的是“<retrieve>红色的门</retrieve>” 这是「<retrieve>红色的门</retrieve>」",
        "dort steht »<retrieve>eine rote Tür</retrieve>«, \u201a<retrieve>eine Tür</retrieve>\u2018",
    ],
)
def test_more_talk_about_the_form_of_a_call_or_an_answer(text: str) -> None:
    assert read(text, reason="length").segments == (Text(text=text),)


@pytest.mark.parametrize(
    "query", ["the frame with the text", "what the woman wants", "a picture of a dog", "the end of the word"]
)
def test_queries_with_words_about_form_are_run(query: str) -> None:
    call = read(f"<retrieve>{query}</retrieve>").segments[-1]
    assert isinstance(call, Call)
    assert call.query == query


def test_a_quoted_instruction_does_not_replace_the_answer_behind_the_thought() -> None:
    quote = "Then write the final answer after <answer>, and end it with </answer>. It is B.\n</think>\n\n"
    for words in ("The ball is green.", "**Answer: B**"):
        for parser in (read(quote + words), read_closing(quote + words)):
            answer = parser.segments[-1]
            assert isinstance(answer, Answer)
            assert answer.body == words


def test_a_name_that_was_told_is_text_from_then_on() -> None:
    text = "<plan>look at the ring</plan> and <retrieve>the ring</retrieve>"
    first = Grammar(("retrieve",)).parser()
    first.feed(text)
    call = first.segments[-1]
    assert isinstance(call, Call)
    assert (call.tag, call.outcome) == ("plan", "unknown")
    second = Grammar(("retrieve",)).parser(told=["plan"])
    second.feed(text)
    call = second.segments[-1]
    assert isinstance(call, Call)
    assert (call.tag, call.query) == ("retrieve", "the ring")


def test_a_thought_that_was_closed_can_be_opened_again() -> None:
    parser = read_closing(
        "<think>It may be <answer>A</answer>, no.</think>\n<answer>B</answer>", thinking=False
    )
    answer = parser.segments[-1]
    assert isinstance(answer, Answer)
    assert answer.body == "B"
    assert count_open_thoughts("<think>I look", is_open=False) == 1
    assert count_open_thoughts("I look", is_open=False) == 0


@pytest.mark.parametrize("style", ["paper", "zero-shot"])
@pytest.mark.parametrize("letters", [True, False])
def test_a_prompt_that_is_repeated_ends_nothing(style: str, letters: bool) -> None:
    usages = {"retrieve": "a real frame of the video", "generate": "what a frame would look like"}
    for tools in (usages, {}):
        instruction = Prompt(tools, style).instruction(letters)
        for text in (instruction, f"The user wrote: {instruction}", f"Hm. {instruction} So I look."):
            assert read(text, reason="length").segments == (Text(text=text),)


@pytest.mark.parametrize(
    ("text", "tag", "query"),
    [
        ("<retrieve>\n\na red door\n\n</retrieve>", "retrieve", "a red door"),
        ("<retrieve>a red door\n\n</retrieve>", "retrieve", "a red door"),
        ('He says "look"<retrieve>a red door</retrieve>', "retrieve", "a red door"),
        ("<retrieve>x</retrieve>", "retrieve", "x"),
        ("<retrieve>\U0001f6aa</retrieve>", "retrieve", "\U0001f6aa"),
        ('<retrieve>the `red` door, "left" (4th)</retrieve>', "retrieve", 'the `red` door, "left" (4th)'),
        ("<generate>第三扇门</generate>", "generate", "第三扇门"),
        ("<retrieve>42</retrieve>", "retrieve", "42"),
    ],
)
def test_plain_calls_are_run(text: str, tag: str, query: str) -> None:
    call = read(text).segments[-1]
    assert isinstance(call, Call)
    assert (call.tag, call.query, call.outcome) == (tag, query, "ok")


@pytest.mark.parametrize(
    "body", ["text", "a letter", "U.S.", "R&B", "H&M", "X", "+", "?", "A, C", "und", "x"]
)
def test_an_answer_that_ends_the_turn_is_meant(body: str) -> None:
    answer = read(f"Hm. <answer>{body}</answer>").segments[-1]
    assert isinstance(answer, Answer)
    assert answer.body == body


@pytest.mark.parametrize(
    "text",
    [
        "'<retrieve>a red door</retrieve>'",
        "<retrieve>query1</retrieve>, <retrieve>some text</retrieve>, <retrieve>$QUERY</retrieve>",
        "Output:\n```\nmy thought\n</think>\n<answer>A</answer>\n```\nNow",
        "<thinking>a red door</thinking> <observation>it opens</observation>",
        "<answer>A/B</answer> <answer>A, B or C</answer> <answer>one letter</answer>",
    ],
)
def test_quoted_and_placeholder_tags_are_text(text: str) -> None:
    assert read(text, reason="length").segments == (Text(text=text),)


@pytest.mark.parametrize(
    ("text", "open_thoughts"),
    [
        ("I think", 1),
        ("<think>I think", 1),
        ("I think.</think> So", 0),
        ("I end with `</think>` then", 1),
        ("inside <think></think> I", 1),
        ('"</think>" is next', 1),
    ],
)
def test_open_thoughts_are_counted_as_they_are_parsed(text: str, open_thoughts: int) -> None:
    assert count_open_thoughts(text) == open_thoughts


def test_code_spans_end_with_their_line() -> None:
    assert isinstance(read("a stray ` here\n<retrieve>a</retrieve>").segments[-1], Call)
    (only,) = read("a stray ` <retrieve>a</retrieve>").segments
    assert isinstance(only, Text)


def test_after_the_thought_an_answer_in_code_counts() -> None:
    parser = read("</think>\n```\n<answer>B</answer>\n```")
    assert parser.segments[-1] == Answer(text="<answer>B</answer>", body="B")


def test_a_turn_may_begin_behind_the_thought() -> None:
    assert read("So B.", thinking=False).segments == (Text(text="So B."),)
    assert read("<answer>B</answer>", thinking=False).stopped == "answer"
    assert read("<zoom>a</zoom>", thinking=False).segments == (Text(text="<zoom>a</zoom>"),)


def test_empty_text() -> None:
    parser = GRAMMAR.parser()
    assert not parser.feed("")
    assert parser_state(parser) == ((), None, "")
    parser.finish("eos")
    assert parser_state(parser) == ((), "eos", "")


def test_no_tools() -> None:
    grammar = Grammar(())
    assert grammar.stops == ("</answer>",)
    assert [s.outcome for s in read("<retrieve>a</retrieve>", grammar).segments if isinstance(s, Call)] == [
        "unknown"
    ]


def test_parser_reads_nothing_after_its_stop() -> None:
    parser = read("<answer>B</answer>")
    before = parser_state(parser)
    assert parser.feed("<retrieve>a</retrieve>")
    parser.finish("length")
    assert parser_state(parser) == before


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
        ("1234<frame>", "1234<fram", "over_long", ">"),
        ("123456789</retr", "123456789", "unclosed", ""),
    ],
)
def test_query_length_limit(inner: str, query: str, outcome: Outcome, dropped: str) -> None:
    text = f"<retrieve>{inner}"
    parser = read(text, SHORT)
    assert parser.segments == (
        Call(text=text.removesuffix(dropped), tag="retrieve", query=query, outcome=outcome),
    )


def test_length_limit_of_an_unknown_call() -> None:
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
def test_repeated_calls(written: str, outcome: Outcome) -> None:
    (call,) = read(written, earlier=[("retrieve", " A red\nsquare"), ("retrieve", "")]).segments
    assert isinstance(call, Call)
    assert call.outcome == outcome


@pytest.mark.parametrize(
    ("text", "read_as", "body"),
    [
        (" B</answer> done", " B</answer>", "B"),
        ("B<answer>", "B<answer>", "B"),
        ("Hm.<answer> </answer>", "Hm.<answer> </answer>", ""),
        ("<answer>B</answer>", "<answer>B</answer>", "B"),
        ("B, <retrieve>x</retrieve>", "B, <retrieve>x</retrieve>", "B, <retrieve>x</retrieve>"),
    ],
)
def test_forced_answer(text: str, read_as: str, body: str) -> None:
    assert read(text, answering=True).segments == (Answer(text=read_as, body=body, forced=True),)


def test_missing_forced_answer() -> None:
    assert read(" ", answering=True).segments == (Text(text=" "),)
    assert read("", answering=True).segments == ()


def test_lone_surrogates_are_replaced() -> None:
    parser = read("a \ud83d <answer>a\ude00</answer>")
    answer = Answer(text="<answer>a\ufffd</answer>", body="a\ufffd")
    assert parser.segments == (Text(text="a \ufffd "), answer)


def test_stop_strings() -> None:
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


def test_max_query_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="max_query is 0"):
        Grammar(TAGS, max_query=0)


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
