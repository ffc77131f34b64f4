"""Split a rollout into turns for trainers that read chat messages; a turn has one author and is either
trained on or masked.

The turns consist of the renderer's own pieces, so their joined texts are the rollout. Vision tokens are
omitted: each trainer puts its own around a picture.

These trainers do not distinguish trusted text from other text: any text that spells a placeholder or a
control token is read as one. In a question, a note or the model's text, such a spelling therefore gets a WORD
JOINER (U+2060, invisible) after its `<`, so that the numbers of pictures and placeholders stay equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from act2see.agent.prompt import Prompt
from act2see.agent.rollout import ImagePiece, Piece, TextPiece, render, render_segment
from act2see.errors import CorpusError
from act2see.tools.frames import FrameRef
from act2see.trace.record import Segment, Text
from act2see.trace.trace import Trace
from act2see.training.corpus.filtering import format_fault

OPENING = "<think>\n"
IMAGE = "<image>"
_JOINER = "\u2060"
# Placeholders of ms-swift and LLaMA-Factory, and control tokens of Qwen and similar models.
_SPELLED = re.compile(r"<(?=(?:image|video|audio|bbox|ref-object|cot-process|start-image)>|\|\w+\|>)")


@dataclass(frozen=True, slots=True)
class Turn:
    """Consecutive pieces of one author."""

    role: Literal["user", "assistant"]
    trainable: bool
    """Whether the model wrote the turn and is trained on it."""
    parts: tuple[str | FrameRef, ...]
    segments: tuple[int, int] = (0, 0)
    """The start and the stop of the turn's segments in the trace."""

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """The frames of the turn, in order."""
        return tuple(p for p in self.parts if isinstance(p, FrameRef))

    @property
    def text(self) -> str:
        """The text, with `<image>` for each frame."""
        return "".join(IMAGE if isinstance(p, FrameRef) else p for p in self.parts)


def to_turns(trace: Trace, prompt: Prompt) -> list[Turn]:
    """Return the prompt, the opening tag of the thought, then the turns of the model and of the graph.

    Raises:
        CorpusError: The trace does not end with text of the model, so the trainer could not learn its end.
    """
    question = render(trace.model_copy(update={"segments": ()}), prompt).pieces
    out = [Turn("user", False, _parts(question)), Turn("assistant", False, (OPENING,))]
    pieces: list[Piece] = []
    start = 0
    trainable = False
    for i, segment in enumerate(trace.segments):
        before = trace.segments[i - 1] if i else None
        new = [p for p in render_segment(segment, before) if isinstance(p, ImagePiece) or p.text]
        # A segment without pieces belongs to the turn of the segment before it.
        is_trainable = all(isinstance(p, TextPiece) and p.trainable for p in new) if new else trainable
        if is_trainable is not trainable and pieces:
            out.append(_turn(trainable, pieces, start, i))
            pieces = []
            start = i
        pieces += new
        trainable = is_trainable
    if not trainable or not pieces:
        raise CorpusError(f"the chain {trace.id!r} does not end with text of the model: remove it")
    out.append(_turn(trainable, pieces, start, len(trace.segments)))
    return out


def merge_opening(turns: Sequence[Turn]) -> list[Turn]:
    """Join the opening tag of the thought to the model's first turn, for trainers that learn assistant turns
    as a whole."""
    question, opening, first, *rest = turns
    if not first.trainable:
        return list(turns)
    return [question, Turn("assistant", True, (*opening.parts, *first.parts), first.segments), *rest]


def apply_edits(trace: Trace, changes: Iterable[tuple[Turn, str]], where: str) -> Trace:
    """Replace the reasoning of a trace with the text of edited messages.

    Args:
        trace: The trace.
        changes: The turns whose messages were edited, with their new texts.
        where: The record, for error messages.

    Raises:
        CorpusError: The call or the answer at the end of a message changed, or the chain no longer passes the
            format check.
    """
    segments: list[Segment] = list(trace.segments)
    # From the last turn to the first, so that the ranges of earlier turns stay valid.
    for turn, text in sorted(changes, key=lambda change: -change[0].segments[0]):
        start, stop = turn.segments
        segments[start:stop] = _edited_segments(turn, segments[start:stop], text, where)
    changed = trace.model_copy(update={"segments": tuple(segments)})
    if fault := format_fault(changed):
        raise CorpusError(
            f"{where}: the edited chain is not well formed ({fault}): "
            "correct the message, or delete the record"
        )
    return changed


def _edited_segments(turn: Turn, old: list[Segment], text: str, where: str) -> list[Segment]:
    """Return the segments of a turn, with the reasoning of its edited text.

    Args:
        turn: The turn.
        old: Its segments.
        text: The edited text of its message.
        where: The record, for error messages.
    """
    text = text.replace(f"<{_JOINER}", "<")
    opening = OPENING if turn.parts[0] == OPENING else ""
    *words, last = old
    end = "" if isinstance(last, Text) else last.text  # type: ignore[union-attr]
    is_reasoning = all(isinstance(s, Text) for s in words)
    if not is_reasoning or not text.startswith(opening) or not text[len(opening) :].endswith(end):
        raise CorpusError(
            f"{where}: only reasoning may be edited, but the message no longer ends with {end!r}: "
            "restore its end"
        )
    reasoning = text[len(opening) : len(text) - len(end)]
    new: list[Segment] = [Text(text=reasoning)] if reasoning else []
    return [*new, last] if end else new


def _turn(trainable: bool, pieces: Sequence[Piece], start: int, stop: int) -> Turn:
    return Turn("assistant" if trainable else "user", trainable, _parts(pieces), (start, stop))


def _parts(pieces: Iterable[Piece]) -> tuple[str | FrameRef, ...]:
    """Return frames and texts, adjacent texts joined, without turn and vision tokens."""
    parts: list[str | FrameRef] = []
    text = ""
    for piece in pieces:
        if isinstance(piece, ImagePiece):
            parts += [text, piece.frame]
            text = ""
        elif piece.trust != "control" or not piece.text.startswith("<|"):
            text += piece.text
    parts.append(text)
    return tuple(p if isinstance(p, FrameRef) else _SPELLED.sub(f"<{_JOINER}", p) for p in parts if p)
