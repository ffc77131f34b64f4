"""The earlier turns of a conversation, which the model needs to understand "and the ring?".

A thread (one `thread_id` and a checkpointer) is a conversation. Its next question about the same video, which
is the same file or the same part of one, is asked together with the last questions that the thread answered.
The state holds only these few short texts. A question that failed leaves them as they were; one about another
video, or with `AskContext(earlier=())`, starts afresh. An answer of the guard is none.

A run within another graph, such as an agent's tool call, has no thread of its own and starts afresh: the
agent knows the conversation, and asks a whole question. The worker over messages (`compose.py`) finds the
turns in the messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from act2see.errors import ConfigError
from act2see.tools.runtime.text import clean_text
from act2see.trace.record import TraceRecord, Turn

MAX_TURNS = 3
"""The maximum number of earlier turns that the model is told of."""
MAX_TEXT = 300
"""The maximum number of characters of an earlier question, and of its answer. Together, all turns then fit
in the tokens that reasoners reserve for the question."""


def earlier_turns(given: Sequence[Turn | tuple[str, str]] | None, kept: Iterable[Any]) -> tuple[Turn, ...]:
    """Return the earlier turns of a new run: those of its context, or else those of its thread.

    Args:
        given: `AskContext.earlier` of the run.
        kept: The turns about this video in the state of the thread, as JSON data.

    Raises:
        ConfigError: A given turn has no question or no answer.
    """
    if given is None:
        return tuple(Turn.model_validate(turn) for turn in kept)
    turns = clip_turns(given)
    if not all(turn.question and turn.answer for turn in turns):
        raise ConfigError(
            "the run's setting 'earlier' has an empty text: give each earlier question and its answer"
        )
    return turns


def following_turns(trace: TraceRecord) -> tuple[Turn, ...]:
    """Return the earlier turns of the question that follows a trace in its conversation.

    These are the trace's own earlier turns and, if it was answered and not refused, its question.
    """
    answer = None if trace.refused else trace.choice or trace.answer
    return next_turns(trace.question.earlier, trace.question.text, answer)


def next_turns(earlier: Iterable[Turn], question: str, answer: str | None) -> tuple[Turn, ...]:
    """Return the last turns after a question. One without an answer is left out."""
    turns = list(earlier)
    if answer and answer.strip():
        turns.append(Turn(question=question, answer=answer))
    return clip_turns(turns[-MAX_TURNS:])


def clip_turns(turns: Iterable[Turn | tuple[str, str]]) -> tuple[Turn, ...]:
    """Return turns with their texts on one line each and cut at `MAX_TEXT` characters."""
    clipped = []
    for turn in turns:
        question, answer = (turn.question, turn.answer) if isinstance(turn, Turn) else turn
        clipped.append(Turn(question=_clip(question), answer=_clip(answer)))
    return tuple(clipped)


def _clip(text: str) -> str:
    line = " ".join(clean_text(text).split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1].rstrip()}…"
