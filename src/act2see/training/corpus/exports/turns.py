"""A rollout as turns, for trainers that read chat messages: who wrote each stretch, and whether it is learnt.

The turns are cut from the renderer's own pieces, so their texts joined are the rollout. Vision marks are left
out: each trainer puts its own around a picture.

These trainers know no trust: they read a placeholder or a control token wherever it is spelled out. So one
that stands in a question, a note or the model's text gets a WORD JOINER (U+2060, invisible) behind its `<`,
and pictures and placeholders stay as many.
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
from act2see.training.corpus.format_check import format_fault

OPENING = "<think>\n"
IMAGE = "<image>"
_JOINER = "\u2060"
# Placeholders of ms-swift and LLaMA-Factory, and control tokens of Qwen and its like.
_SPELLED = re.compile(r"<(?=(?:image|video|audio|bbox|ref-object|cot-process|start-image)>|\|\w+\|>)")


@dataclass(frozen=True, slots=True)
class Turn:
    """Consecutive pieces of one author. `segments` are the trace's segments that it was made of, as a
    range."""

    role: Literal["user", "assistant"]
    learnt: bool
    parts: tuple[str | FrameRef, ...]
    segments: tuple[int, int] = (0, 0)

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        return tuple(p for p in self.parts if isinstance(p, FrameRef))

    @property
    def text(self) -> str:
        """With `<image>` for each frame."""
        return "".join(IMAGE if isinstance(p, FrameRef) else p for p in self.parts)


def turns(trace: Trace, prompt: Prompt) -> list[Turn]:
    """The prompt, the opened thought, then what the model wrote and what it was shown, in turn.

    Raises `CorpusError` where the trace does not end with what the model wrote: there is nothing to learn at
    its end.
    """
    asked = render(trace.model_copy(update={"segments": ()}), prompt).pieces
    out = [Turn("user", False, _parts(asked)), Turn("assistant", False, (OPENING,))]
    pieces: list[Piece] = []
    start, learnt = 0, False
    for i, segment in enumerate(trace.segments):
        new = [p for p in render_segment(segment) if isinstance(p, ImagePiece) or p.text]
        of_model = learnt if not new else all(isinstance(p, TextPiece) and p.trainable for p in new)
        if of_model is not learnt and pieces:
            out.append(_turn(learnt, pieces, start, i))
            pieces, start = [], i
        pieces, learnt = [*pieces, *new], of_model
    if not learnt or not pieces:
        raise CorpusError(f"the chain {trace.id!r} does not end with the model's own text: leave it out")
    return [*out, _turn(learnt, pieces, start, len(trace.segments))]


def opened(made: Sequence[Turn]) -> list[Turn]:
    """The same for trainers whose assistant turns are learnt as a whole: the opened thought begins the first
    of them."""
    asked, opening, first, *rest = made
    if not first.learnt:
        return [asked, opening, first, *rest]
    return [asked, Turn("assistant", True, (*opening.parts, *first.parts), first.segments), *rest]


def edited(trace: Trace, changes: Iterable[tuple[Turn, str]], where: str) -> Trace:
    """The trace with its reasoning replaced by what stands in edited messages.

    A message may change in its reasoning alone: the call or the answer that ends it stays as it is, and the
    chain must still pass the format check. Raises `CorpusError` otherwise.
    """
    segments: list[Segment] = list(trace.segments)
    for turn, text in sorted(changes, key=lambda change: -change[0].segments[0]):
        start, stop = turn.segments
        said = text.replace(f"<{_JOINER}", "<")
        opening = OPENING if turn.parts[0] == OPENING else ""
        *words, last = segments[start:stop]
        end = "" if isinstance(last, Text) else last.text  # type: ignore[union-attr]
        if (
            not all(isinstance(s, Text) for s in words)
            or not said.startswith(opening)
            or not said[len(opening) :].endswith(end)
        ):
            raise CorpusError(
                f"{where}: only reasoning may be edited, and {end!r} stood at the end of that message: put it back"
            )
        said = said[len(opening) : len(said) - len(end)]
        segments[start:stop] = [*([Text(text=said)] if said else []), *([last] if end else [])]
    changed = trace.model_copy(update={"segments": tuple(segments)})
    if fault := format_fault(changed):
        raise CorpusError(
            f"{where}: the edited chain is not well formed ({fault}): mend the message, or leave the record out"
        )
    return changed


def _turn(learnt: bool, pieces: Sequence[Piece], start: int, stop: int) -> Turn:
    return Turn("assistant" if learnt else "user", learnt, _parts(pieces), (start, stop))


def _parts(pieces: Iterable[Piece]) -> tuple[str | FrameRef, ...]:
    """Texts, those that meet joined, and frames; turn and vision marks left out."""
    parts: list[str | FrameRef] = []
    text = ""
    for piece in pieces:
        if isinstance(piece, ImagePiece):
            parts += [text, piece.frame]
            text = ""
        elif piece.trust != "control" or not piece.text.startswith("<|"):
            text += piece.text
    return tuple(
        p if isinstance(p, FrameRef) else _SPELLED.sub(f"<{_JOINER}", p) for p in [*parts, text] if p
    )
