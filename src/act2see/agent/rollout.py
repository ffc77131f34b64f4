"""The one renderer: a trace becomes the exact sequence that the model reads and continues.

It is the sequence Y of the paper's two-loop decoding (Algorithm 1): the text written so far and the returned
frames in `<frame>...</frame>`, which together are the prefix that the next loop continues.

Chat templates break this loop: one wraps an unfinished turn in an empty thought, another drops images from
assistant turns, a third changes newlines around `</think>`, so that training text and inference text differ.
Every local reasoner, SFT and the tests therefore read the pieces made here.

A rollout is a list of pieces, and each is tokenised by itself, in training as at inference: the ids of a
prefix never depend on what follows, so a cached prefix stays valid and a resumed run reads the same ids.

Trust is part of a piece. Control tokens (`<|im_start|>`, vision marks) exist only in pieces that this module
wrote; in a question, a query or a note, and in the model's own text, the same characters are plain text. So
nobody can inject a turn or a frame by spelling one out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from act2see.agent.prompt import Prompt
from act2see.tools.frames import FrameRef, stamp
from act2see.tools.video.window import Window
from act2see.trace.record import Answer, Frames, Segment, Text
from act2see.trace.trace import Trace

Trust = Literal["control", "plain", "model"]
"""Who wrote a text: this module (`control`), the model, or anyone else (`plain`)."""
_MODEL_MAY = frozenset({"<think>", "</think>"})
ENDS = ("<|im_end|>", "<|endoftext|>")
"""The marks with which the model ends its turn."""
OTHER_CALLS = ("<tool_call>", "</tool_call>")
"""The marks of the tool calls that Qwen3 was trained on; reasoning parsers end the thought on the first."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A stretch of text that is tokenised by itself."""

    text: str
    trust: Trust = "plain"
    """Decides which control tokens the text may hold."""

    @property
    def trainable(self) -> bool:
        """Whether the model wrote it, and so learns it."""
        return self.trust == "model"


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """The place of one frame's vision tokens."""

    frame: FrameRef


Piece = TextPiece | ImagePiece


@dataclass(frozen=True, slots=True)
class Rollout:
    """The sequence that the model reads and continues."""

    pieces: tuple[Piece, ...]
    session: str = ""
    """Names the run, so that a reasoner can keep its cache."""
    owner: str = ""
    """Names the video: if more runs wait than can be served at once, owners take turns."""

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        return tuple(p.frame for p in self.pieces if isinstance(p, ImagePiece))

    def __str__(self) -> str:
        """The text, with `<|image_pad|>` for each frame: for people, logs and scripted reasoners."""
        return "".join(p.text if isinstance(p, TextPiece) else "<|image_pad|>" for p in self.pieces)


def _frame(frame: FrameRef) -> list[Piece]:
    return [
        TextPiece("<imagined>" if frame.imagined else stamp(frame.seconds)),
        TextPiece("<|vision_start|>", "control"),
        ImagePiece(frame),
        TextPiece("<|vision_end|>", "control"),
    ]


def render_segment(segment: Segment) -> list[Piece]:
    """The pieces of one segment. The model learns its own text, and nothing of what it was shown."""
    if isinstance(segment, Frames):
        pieces: list[Piece] = [TextPiece("<frame>")]
        for frame in segment.frames:
            pieces += _frame(frame)
        return [*pieces, TextPiece(f"{segment.note}</frame>")]
    written_by_graph = isinstance(segment, Text) and segment.author == "graph"
    return [TextPiece(segment.text, "control" if written_by_graph else "model")]


def render(trace: Trace, prompt: Prompt, *, end_of_turn: bool = False) -> Rollout:
    """The rollout of a trace.

    Args:
        trace: The trace, finished or not.
        prompt: The prompt of its run.
        end_of_turn: Whether to close the turn behind the answer, for training. By default it stays open for
            the model to continue.
    """
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
        """Token ids of one piece.

        Added tokens are taken from the text only as far as its author may write them; spelled out by anyone
        else they are plain text.
        """
        ids: list[int] = []
        rest = text
        while match := self._pattern.search(rest):
            token = match.group()
            allowed = trust == "control" or (trust == "model" and token in _MODEL_MAY)
            if allowed:
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

    def decoder(self) -> Callable[[int], str]:
        """A function that decodes one token after another, at the same cost for each.

        It returns the text that a token completes: nothing while a character is unfinished.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        backend = self.tokenizer.backend_tokenizer
        return lambda token: stream.step(backend, token) or ""

    def ends(self) -> set[int]:
        """Ids with which the model ends its turn."""
        marks = [self.tokenizer.convert_tokens_to_ids(mark) for mark in ENDS]
        return {i for i in (*marks, self.tokenizer.eos_token_id) if isinstance(i, int)}

    def forbidden(self) -> list[int]:
        """Ids that the model must never write: marks of turns, frames and another tool protocol, except the
        end of the turn."""
        keep = {*_MODEL_MAY, *ENDS}
        marks = [t for t in self._added if t.startswith("<|") or t in OTHER_CALLS]
        return sorted(self._added[t] for t in marks if t not in keep)
