"""The tag grammar: splits the model's text into a thought and, at its end, a tool call or the answer.

It implements the syntax of the paper's instruction template (Table 1), and decides when the first loop of the
paper's decoding ends (Algorithm 1).

A tag is `<name>` or `</name>`. A name is a lower-case letter, then lower-case letters, digits and `_`. All
other text is words. Known names are the run's tool tags and the reserved ones: think, answer, frame,
tool_call.

A model that thinks aloud talks *about* tags: it repeats its instructions, lists its tools, changes its mind.
The parser takes such talk for text and reads on. In the table, a *placeholder* is punctuation alone, or words
such as "query" or "the letter of the option" (`talk.py`); *code* is a Markdown code span or fenced block.

    in           text                                    becomes                 outcome
    -----------  --------------------------------------  ----------------------  ----------
    a thought    <tool> query </tool>                    Call, stop              ok
                 the same call as earlier in this run    Call, stop              repeated
                 <tool></tool> at the start of a line    Call, stop              empty
                 <tool> placeholder </tool>, or empty    Text
                 <other> query </other>, at most         Call, stop; Text if     unknown
                   `max_query` characters, no known tag    it was told before
                 <frame> any words </frame>              Call, stop              forged
                 <answer> body </answer>                 Answer, stop; Text in a prompt
                                                           style that closes the
                                                           thought, and the answer if
                                                           the turn ends without another
                 <answer> placeholder </answer>          Text
                 tags in code, tags of formatting        Text
                 any other tag, whole or not             Text
    a call       <tool>, <answer>, <think>, </think>,    Text, and the tag is read
                   <frame>                                 as in a thought
                 a blank line                            Text
                 the end of another tool's call          Call, stop after it     nested
                 more than `max_query` characters        Call, stop at once      over_long
                   before </tool>
                 end of turn, token limit                Call                    unclosed
                 any other tag                           part of the query
    <answer> in  <think>, </think>                       Text, and the tag is read
    a thought                                              as in a thought
                 any other tag                           part of the body
    <answer>     a complete call of a tool               that call, as in a thought
    after the    <answer> body </answer>                 Answer, stop
    thought      <answer> again, in a body               begins the body again
                 an unknown call                         Text
                 end of turn, without an answer          Answer: the words after </think>
    an answer    end of turn, token limit                Answer; Text if empty

The thought ends when each `<think>` has its `</think>`, so a quoted `<think></think>` does not end it. Every
call and every answer stops the parser, so a turn is at most one Text and then a Call or an Answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from act2see.agent.names import NAME, RESERVED, call_key
from act2see.agent.parser import Parser
from act2see.errors import ConfigError
from act2see.trace.record import Call

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
    closes_thought: bool = False
    """Whether the prompt asks the model to finish its thought before it answers (`zero-shot`). An answer in
    the thought is then a first try, which counts only if the turn ends without another."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", tuple(self.tags))
        for tag in self.tags:
            if tag in RESERVED:
                raise ConfigError(f"tool tag {tag!r} is reserved: {RESERVED[tag]}; choose another")
            if not NAME.fullmatch(tag):
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
        unknown call stops the parser without a stop string. `</answer>` is none where it can end a first try.
        """
        calls = tuple(f"</{tag}>" for tag in self.tags)
        return calls if self.closes_thought else (*calls, "</answer>")

    def parser(
        self,
        *,
        answering: bool = False,
        thinking: bool = True,
        earlier: Iterable[tuple[str, str]] = (),
        told: Iterable[str] = (),
    ) -> Parser:
        """Return a parser for one turn.

        Args:
            answering: Whether the graph has written `<answer>` for the model, so that the model's text begins
                with the answer's body.
            thinking: Whether the thought is open at the beginning of the turn.
            earlier: The tag and the query of each earlier call in this run.
            told: The names that the model was told to be no tools; they are text from now on.
        """
        return Parser(
            self.tags,
            self.max_query,
            answering,
            thinking and not answering,
            frozenset(call_key(tag, query) for tag, query in earlier),
            frozenset(told),
            self.closes_thought,
        )


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


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[: _MAX_ECHO - 1]}…"
