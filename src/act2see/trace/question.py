"""The question of a trace, and the earlier questions of its conversation.

A trace holds its earlier turns as text, so it can be shown, replayed and trained on alone. An earlier turn is
only words: the frames and the thoughts of its run are not part of it. Without earlier turns the JSON of a
question is the same as before there were any.
"""

from __future__ import annotations

from pydantic import Field

from act2see.tools.frames import Record


class Turn(Record):
    """A question that was answered earlier in the same conversation."""

    question: str
    answer: str
    """The answer, or the text of the chosen option."""

    @property
    def line(self) -> str:
        """The question and its answer on one line."""
        return " ".join(f"{self.question} {self.answer}".split())


class Question(Record):
    """The question. If it has options, the expected answer is a letter."""

    text: str
    options: tuple[str, ...] = ()
    earlier: tuple[Turn, ...] = Field(default=(), exclude_if=lambda turns: not turns)
    """The earlier questions about the video that the model is told of, the oldest first. The JSON leaves out
    an empty one, so that versions that do not know it read the trace."""
