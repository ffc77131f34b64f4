"""A rollout as turns, for trainers that read chat messages: who wrote each stretch, and whether it is trained
on.

The turns are cut from the renderer's own pieces, so their texts joined are the rollout. Vision tokens are
left out: each trainer puts its own around a picture.

These trainers do not tell trusted text from other text: they read a placeholder or a control token wherever
it is spelled out. So one that is part of a question, a note or the model's text gets a WORD JOINER (U+2060,
invisible) behind its `<`, and the numbers of pictures and placeholders stay equal.
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
    """Whether the model wrote it, and is trained on it."""
    parts: tuple[str | FrameRef, ...]
    segments: tuple[int, int] = (0, 0)
    """The range of the trace's segments that it was made of."""

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        return tuple(p for p in self.parts if isinstance(p, FrameRef))

    @property
    def text(self) -> str:
        """The text, with `<image>` for each frame."""
        return "".join(IMAGE if isinstance(p, FrameRef) else p for p in self.parts)


def to_turns(trace: Trace, prompt: Prompt) -> list[Turn]:
    """The prompt, the opened thought, then what the model wrote and what it was shown, in turn.

    Raises:
        CorpusError: The trace does not end with text of the model: its end could not be trained on.
    """
    asked = render(trace.model_copy(update={"segments": ()}), prompt).pieces
    out = [Turn("user", False, _parts(asked)), Turn("assistant", False, (OPENING,))]
    pieces: list[Piece] = []
    start, trainable = 0, False
    for i, segment in enumerate(trace.segments):
        new = [p for p in render_segment(segment) if isinstance(p, ImagePiece) or p.text]
        # A segment that renders to nothing goes with the one before it.
        of_model = trainable if not new else all(isinstance(p, TextPiece) and p.trainable for p in new)
        if of_model is not trainable and pieces:
            out.append(_turn(trainable, pieces, start, i))
            pieces, start = [], i
        pieces, trainable = [*pieces, *new], of_model
    if not trainable or not pieces:
        raise CorpusError(f"the chain {trace.id!r} does not end with the model's own text: leave it out")
    out.append(_turn(trainable, pieces, start, len(trace.segments)))
    return out


def merge_opening(turns: Sequence[Turn]) -> list[Turn]:
    """The turns for trainers that learn assistant turns as a whole: the opened thought begins the first of
    them."""
    asked, opening, first, *rest = turns
    if not first.trainable:
        return [asked, opening, first, *rest]
    return [asked, Turn("assistant", True, (*opening.parts, *first.parts), first.segments), *rest]


def apply_edits(trace: Trace, changes: Iterable[tuple[Turn, str]], where: str) -> Trace:
    """Replace the reasoning of a trace by the text of edited messages.

    Args:
        trace: The trace.
        changes: The turns whose messages were edited, with their new texts.
        where: The record, for error messages.

    Raises:
        CorpusError: More than reasoning changed: the call or the answer that ends a message must stay as it
            is, and the chain must still pass the format check.
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
            "mend the message, or leave the record out"
        )
    return changed


def _edited_segments(turn: Turn, old: list[Segment], text: str, where: str) -> list[Segment]:
    text = text.replace(f"<{_JOINER}", "<")
    opening = OPENING if turn.parts[0] == OPENING else ""
    *words, last = old
    end = "" if isinstance(last, Text) else last.text  # type: ignore[union-attr]
    is_reasoning = all(isinstance(s, Text) for s in words)
    if not is_reasoning or not text.startswith(opening) or not text[len(opening) :].endswith(end):
        raise CorpusError(
            f"{where}: only reasoning may be edited, and {end!r} was the end of that message: put it back"
        )
    reasoning = text[len(opening) : len(text) - len(end)]
    new: list[Segment] = [Text(text=reasoning)] if reasoning else []
    return [*new, last] if end else new


def _turn(trainable: bool, pieces: Sequence[Piece], start: int, stop: int) -> Turn:
    return Turn("assistant" if trainable else "user", trainable, _parts(pieces), (start, stop))


def _parts(pieces: Iterable[Piece]) -> tuple[str | FrameRef, ...]:
    """Frames, and texts, neighbours joined; turn and vision tokens are left out."""
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
