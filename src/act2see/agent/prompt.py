"""The prompt: the question, its options, and what the tools are for.

The instruction names exactly the tools that the run has, from each tool's own one-line `usage`; adding a tag
to the configuration changes the prompt with it. The ground truth never enters a prompt (given it, a teacher
stops looking: its rate of tool calls falls from 45 % to 5 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from act2see.trace.record import LETTERS, Question

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
    """Renders the user turn's text. `usages` maps each tag of the run to what its tool is for."""

    usages: Mapping[str, str] = field(default_factory=dict)
    style: str = "paper"

    def question(self, question: Question) -> str:
        parts = [f"\n{question.text}"]
        parts += [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
        return "\n".join([*parts, self.instruction(bool(question.options))])

    def instruction(self, letters: bool) -> str:
        if self.style == "short":
            return f"Tools: {', '.join(self.usages) or 'none'}."
        usages = "\n".join(f"<{tag}> query </{tag}>: {what}" for tag, what in self.usages.items())
        tools = WITH_TOOLS.format(usages=usages) if self.usages else ""
        return PAPER.format(tools=tools, letter=", as the letter of the option alone" if letters else "")
