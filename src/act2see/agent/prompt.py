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


@dataclass(frozen=True, slots=True)
class Prompt:
    """Renders the text of the user's turn."""

    usages: Mapping[str, str] = field(default_factory=dict)
    """What each tool of the run is for, by tag."""
    style: str = "paper"
    """`paper`, or `short`: the tools' names alone, for models that were trained with that."""

    def question(self, question: Question) -> str:
        """The question, its options by letter, and the instruction."""
        parts = [f"\n{question.text}"]
        parts += [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
        return "\n".join([*parts, self.instruction(bool(question.options))])

    def instruction(self, letters: bool) -> str:
        """The instruction; with `letters` it asks for the letter of an option."""
        if self.style == "short":
            return f"Tools: {', '.join(self.usages) or 'none'}."
        usages = "\n".join(f"<{tag}> query </{tag}>: {usage}" for tag, usage in self.usages.items())
        tools = WITH_TOOLS.format(usages=usages) if self.usages else ""
        return PAPER.format(tools=tools, letter=", as the letter of the option alone" if letters else "")


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
