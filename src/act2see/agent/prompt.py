"""The prompt: the question, its options, and what the tools are for.

It is the paper's instruction template (Table 1), but names exactly the tools that the run has, from each
tool's own one-line `usage`: adding a tag to the configuration changes the prompt with it. The human chain of
thought never enters a prompt. Given it, a teacher stops looking: its rate of tool calls falls from 45 % to
5 % (Table 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from act2see.errors import CorpusError
from act2see.tools.plugins import find_tool
from act2see.trace.record import LETTERS, Question, TraceRecord

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
A request is a tool's name as an opening tag, a few words for what you want to see, and the name as a closing \
tag. For example, to see how a man opens a red door, begin with <{tag}>, go on with the words "a man opens a \
red door", and end with </{tag}>. The frame is then shown to you, and you go on thinking.
"""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Renders the text of the user's turn."""

    usages: Mapping[str, str] = field(default_factory=dict)
    """What each tool of the run is for, by tag."""
    style: str = "paper"
    """`paper`: the paper's, for models that were trained with it. `short`: the tools' names alone, likewise.
    `zero-shot`: plain words and an example, for models that never saw any of them."""

    def question(self, question: Question) -> str:
        """The question, its options by letter, and the instruction."""
        parts = [f"\n{question.text}"]
        parts += [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
        return "\n".join([*parts, self.instruction(bool(question.options))])

    def instruction(self, letters: bool) -> str:
        """The instruction; with `letters` it asks for the letter of an option."""
        if self.style == "short":
            return f"Tools: {', '.join(self.usages) or 'none'}."
        if self.style == "zero-shot":
            return self._explain(letters)
        usages = "\n".join(f"<{tag}> query </{tag}>: {usage}" for tag, usage in self.usages.items())
        tools = WITH_TOOLS.format(usages=usages) if self.usages else ""
        return PAPER.format(tools=tools, letter=", as the letter of the option alone" if letters else "")

    def _explain(self, letters: bool) -> str:
        """The instruction for a model that was not trained with one.

        A model that thinks aloud copies its prompt, so no pair of tags stands in it with words or nothing
        between that could be taken for a call or an answer.
        """
        letter = ", as the letter of the option alone," if letters else ""
        if not self.usages:
            return ZERO_SHOT.format(tools="Think step by step. ", letter=letter)
        usages = "\n".join(f"- {tag}: {usage}" for tag, usage in self.usages.items())
        tools = ZERO_SHOT_TOOLS.format(usages=usages, tag=next(iter(self.usages)))
        return ZERO_SHOT.format(tools=tools, letter=letter)


def prompt_of(trace: TraceRecord, style: str, usages: Mapping[str, str]) -> Prompt:
    """The prompt that a trace was made with.

    Args:
        trace: The trace, which names the tools of its run.
        style: The style of the prompt.
        usages: What the tools are for, by tag; by default each tool's own usage line.

    Raises:
        CorpusError: The style needs the usage of a tool, and none is known.
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
            f"nothing says what the tool {tag!r} is for: give the config that the traces were made with, or "
            "for an export `usages` of the corpus's `meta`, in act2see.json"
        )
    return str(usage.default)
