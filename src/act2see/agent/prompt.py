"""The prompt: the question, its options, and the purpose of each tool.

It follows the paper's instruction template (Table 1), but names exactly the tools of the run, each with its
own one-line `usage`; so adding a tag to the config changes the prompt. The human chain of thought never
enters a prompt: a teacher that is given it stops looking, and its rate of tool calls falls from 45 % to 5 %
(Table 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from act2see.agent.talk import EXAMPLE
from act2see.errors import CorpusError
from act2see.tools.plugins import find_tool
from act2see.tools.runtime.outside import break_tags
from act2see.trace.options import LETTERS
from act2see.trace.record import Question, TraceRecord, Turn

PAPER = """\
Think step by step inside <think></think>. {tools}\
When you are certain, close the thought and give the answer inside <answer></answer>{letter}."""

WITH_TOOLS = """\
Whenever the frames that you have seen are not enough, ask for another one at any point of your thought:
{usages}
It is shown to you inside <frame></frame> and you go on thinking. Call a tool only where it helps.
"""

ZERO_SHOT = """\
{tools}\
When you are certain, finish your thought. Then write the final answer{letter} after <answer>, \
and end it with </answer>."""

ZERO_SHOT_TOOLS = """\
Think step by step. You can ask for another frame at any point of your thought, if those that you have seen \
are not enough. The tools are:
{usages}
A request is a tool's name as an opening tag, a few words for what you want to see, and the name as a \
closing tag. For example, to see how a clown drops a blue plate, begin with <{tag}>, go on with the words \
"{example}", and end with </{tag}>. The frame is then shown to you, and you go on thinking.
"""


EARLIER = """\
These questions about the video were asked before, and these answers were given:
{turns}
The question now is:
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Renders the text of the user's turn."""

    usages: Mapping[str, str] = field(default_factory=dict)
    """The usage line of each tool of the run, by tag."""
    style: str = "paper"
    """`paper`: the paper's, for models that were trained with it. `short`: the tools' names alone, likewise.
    `zero-shot`: plain words and an example, for models that never saw any of them."""

    def question(self, question: Question) -> str:
        """Return the earlier turns, the question, its lettered options, and the instruction, a line each.

        An earlier turn is one line, so none of its own lines can be taken for the question. The rollout's own
        marks are broken in all of them: an earlier answer may quote a screen, and options may be anyone's.
        """
        lines = [f"\n{self._earlier(question)}{break_tags(question.text)}"]
        for letter, option in zip(LETTERS, question.options, strict=False):
            lines.append(f"{letter}. {break_tags(option)}")
        lines.append(self.instruction(bool(question.options)))
        return "\n".join(lines)

    def instruction(self, letters: bool) -> str:
        """Return the instruction. With `letters` it asks for the letter of an option."""
        if self.style == "short":
            return f"Tools: {', '.join(self.usages) or 'none'}."
        if self.style == "zero-shot":
            return self._explain(letters)
        usages = "\n".join(f"<{tag}> query </{tag}>: {usage}" for tag, usage in self.usages.items())
        tools = WITH_TOOLS.format(usages=usages) if self.usages else ""
        return PAPER.format(tools=tools, letter=", as the letter of the option alone" if letters else "")

    def _earlier(self, question: Question) -> str:
        """The earlier turns; empty if there are none."""
        if not question.earlier:
            return ""
        if self.style == "short":
            return "".join(f"Earlier: {break_tags(turn.line)}\n" for turn in question.earlier)
        return EARLIER.format(turns="\n".join(_turn(turn) for turn in question.earlier))

    def _explain(self, letters: bool) -> str:
        """The instruction for a model that was not trained with one.

        A model that thinks aloud copies its prompt, so the prompt has no pair of tags that could be taken for
        a call or an answer.
        """
        letter = ", as the letter of the option alone," if letters else ""
        if not self.usages:
            return ZERO_SHOT.format(tools="Think step by step. ", letter=letter)
        usages = "\n".join(f"- {tag}: {usage}" for tag, usage in self.usages.items())
        tools = ZERO_SHOT_TOOLS.format(usages=usages, tag=next(iter(self.usages)), example=EXAMPLE)
        return ZERO_SHOT.format(tools=tools, letter=letter)


def _turn(turn: Turn) -> str:
    return " ".join(break_tags(f"- Question: {turn.question} Answer: {turn.answer}").split())


def prompt_of(trace: TraceRecord, style: str, usages: Mapping[str, str]) -> Prompt:
    """Return the prompt with which a trace was made.

    Args:
        trace: The trace, which names the tools of its run.
        style: The style of the prompt: `paper` or `short`.
        usages: Usage lines by tag; a tool that is missing here is described by its own default.

    Raises:
        CorpusError: The style needs a tool's usage line, and neither `usages` nor the tool has one.
    """
    lines: dict[str, str] = {}
    for tag in trace.versions.tools:
        line = usages.get(tag) or ""
        if not line and style != "short":
            line = _default_usage(tag)
        lines[tag] = line
    return Prompt(lines, style)


def _default_usage(tag: str) -> str:
    usage = find_tool(tag).Options.model_fields.get("usage")
    if usage is None or not isinstance(usage.default, str):
        raise CorpusError(
            f"the tool {tag!r} has no usage line: give the config with which the traces were made, or, for "
            "an export, add the line to `meta.usages` in the corpus's act2see.json"
        )
    return str(usage.default)
