"""The one renderer: a trace becomes the exact sequence that the model reads and continues.

Chat templates break this loop: one wraps an unfinished turn in an empty thought, another drops images from
assistant turns, a third changes newlines around `</think>`, so that training text and inference text differ.
Every local reasoner, SFT and the tests therefore read the pieces made here.

A rollout is a list of pieces, and each is tokenised by itself, in training as at inference: the ids of a
prefix never depend on what follows, so a cached prefix stays valid and a resumed run reads the same ids.

Trust is part of a piece. Control tokens (`<|im_start|>`, vision marks) exist only in pieces that this module
wrote; in a question, a query or a note, and in what the model wrote, the same characters are plain text. So
nobody can inject a turn or a frame by spelling one out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from act2see.agent.prompt import Prompt
from act2see.tools.frames import FrameRef, stamp
from act2see.tools.video.window import Window
from act2see.trace.record import Answer, Frames, Segment
from act2see.trace.trace import Trace

Trust = Literal["control", "plain", "model"]
_MODEL_MAY = frozenset({"<think>", "</think>"})


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text, by whom it may be trusted, and whether the model wrote it (and so learns it)."""

    text: str
    trust: Trust = "plain"

    @property
    def learnt(self) -> bool:
        return self.trust == "model"


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """The place of one frame's vision tokens."""

    frame: FrameRef


Piece = TextPiece | ImagePiece


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the model reads. `session` names the run, so that a reasoner can keep its cache; runs of one
    `owner` (of one video) share its turns where there are more runs than can be served at once."""

    pieces: tuple[Piece, ...]
    session: str = ""
    owner: str = ""

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        return tuple(p.frame for p in self.pieces if isinstance(p, ImagePiece))

    def __str__(self) -> str:
        """As text, with `<|image_pad|>` for each frame: for people, logs and engines that take strings."""
        return "".join(p.text if isinstance(p, TextPiece) else "<|image_pad|>" for p in self.pieces)


def _frame(frame: FrameRef) -> list[Piece]:
    return [
        TextPiece("<imagined>" if frame.imagined else stamp(frame.seconds)),
        TextPiece("<|vision_start|>", "control"),
        ImagePiece(frame),
        TextPiece("<|vision_end|>", "control"),
    ]


def render_segment(segment: Segment) -> list[Piece]:
    """The pieces of one segment; what the model wrote is learnt, what it was shown is not."""
    if isinstance(segment, Frames):
        pieces: list[Piece] = [TextPiece("<frame>")]
        for frame in segment.frames:
            pieces += _frame(frame)
        return [*pieces, TextPiece(f"{segment.note}</frame>")]
    written_by_graph = getattr(segment, "author", "model") == "graph"
    return [TextPiece(segment.text, "control" if written_by_graph else "model")]


def render(trace: Trace, prompt: Prompt, *, end_of_turn: bool = False) -> Rollout:
    """The rollout of a trace, up to where the model goes on (with `end_of_turn`: closed, for training)."""
    pieces: list[Piece] = [TextPiece("<|im_start|>user\n", "control")]
    for frame in trace.initial:
        pieces += _frame(frame)
    pieces.append(TextPiece(prompt.question(trace.question)))
    pieces.append(TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control"))
    for segment in trace.segments:
        pieces += render_segment(segment)
    if end_of_turn and trace.segments and isinstance(trace.segments[-1], Answer):
        pieces.append(TextPiece("<|im_end|>", "control"))
    return Rollout(tuple(pieces), trace.id, Window.parse(trace.video.path).path)


@dataclass(slots=True)
class TextCodec:
    """Tokenises pieces so that only trusted ones can hold added tokens."""

    tokenizer: Any
    _added: dict[str, int] = field(init=False)
    _pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self._added = {t.content: i for i, t in self.tokenizer.added_tokens_decoder.items()}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str, trust: Trust) -> list[int]:
        """Token ids of one piece."""
        ids: list[int] = []
        rest = text
        while match := self._pattern.search(rest):
            token = match.group()
            if trust == "control" or (trust == "model" and token in _MODEL_MAY):
                ids += self._plain(rest[: match.start()])
                ids.append(self._added[token])
                rest = rest[match.end() :]
            else:
                # Cut inside the spelled-out token: neither half can be taken for it.
                cut = match.start() + 1
                ids += self._plain(rest[:cut])
                rest = rest[cut:]
        return ids + self._plain(rest)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def forbidden(self) -> list[int]:
        """Ids that the model must never write: vision and turn marks, end of turn aside."""
        keep = {*_MODEL_MAY, "<|im_end|>", "<|endoftext|>"}
        marks = [t for t in self._added if t.startswith("<|") and t not in keep]
        return sorted(self._added[t] for t in marks)
