"""Render a trace as the exact sequence that the model reads and continues. There is no other renderer.

It is the sequence Y of the paper's two-loop decoding (Algorithm 1): the text written so far and the returned
frames in `<frame>...</frame>`, which together are the prefix that the next loop continues.

Chat templates break this loop: one wraps an unfinished turn in an empty thought, another drops images from
assistant turns, a third changes newlines around `</think>`, so that training text and inference text differ.
Every local reasoner, SFT and the tests therefore read the pieces made here.

A rollout is a list of pieces, and each piece is tokenised by itself, in training as at inference. The model's
own text between two pieces of the graph is one piece: the model writes the end of a sentence and the call
behind it as one text, in which a token can span both (` <` in Qwen's vocabulary). The ids up to a frame never
depend on what follows it, so a cached prefix stays valid and a resumed run reads the same ids.

Each piece has a trust. Control tokens (`<|im_start|>`, vision marks) exist only in pieces that this module
wrote. In a question, a query or a note, and in the model's own text, the same characters are plain text, so
spelling out a token injects no turn and no frame.

The rollout's own marks (`<frame>`, `</think>`, `<answer>`, `<3.7 seconds>`) are ordinary words, which a model
obeys wherever it reads them. So they are broken in every text that is not the model's own: `trace/notes.py`
does it for notes, `Prompt` for the question, its options and the earlier turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from typing_extensions import TypeIs

from act2see.agent.prompt import Prompt
from act2see.tools.frames import FrameRef, stamp
from act2see.tools.video.window import Window
from act2see.trace.notes import readable_note
from act2see.trace.record import Answer, Frames, Segment, Text
from act2see.trace.trace import Trace

Trust = Literal["control", "plain", "model"]
"""The author of a text: this module (`control`), the model, or anyone else (`plain`)."""
_MODEL_MARKS = frozenset({"<think>", "</think>"})  # added tokens that the model itself may write
_FOREIGN = re.compile(r"<(?!/think>|answer>)")  # a mark that the graph never writes into a thought
ENDS = ("<|im_end|>", "<|endoftext|>")
"""The marks with which the model ends its turn."""
OTHER_CALLS = ("<tool_call>", "</tool_call>")
"""The marks of the tool calls that Qwen3 was trained on; reasoning parsers end the thought on the first."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A text that is tokenised by itself."""

    text: str
    trust: Trust = "plain"
    """The author of the text, which decides which control tokens it may hold."""

    @property
    def trainable(self) -> bool:
        """Whether the model wrote the text: a model is trained only on its own text."""
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
    """The pieces in order. Consecutive texts of the model are joined when a rollout is made."""
    session: str = ""
    """The run's id. A reasoner keeps a cache for each session."""
    owner: str = ""
    """The video's path. If more runs wait than can be served at once, owners take turns."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pieces", tuple(_join_model_texts(self.pieces)))

    def extend(self, text: str) -> Rollout:
        """Return the rollout with more text of the model at its end."""
        return replace(self, pieces=(*self.pieces, TextPiece(text, "model")))

    @property
    def frames(self) -> tuple[FrameRef, ...]:
        """The frames in the order in which the model reads them."""
        return tuple(p.frame for p in self.pieces if isinstance(p, ImagePiece))

    def __str__(self) -> str:
        """Return the text with `<|image_pad|>` for each frame, for people, logs and scripted reasoners."""
        return "".join(p.text if isinstance(p, TextPiece) else "<|image_pad|>" for p in self.pieces)


def _join_model_texts(pieces: Iterable[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if _is_model_text(last) and _is_model_text(piece):
            joined[-1] = TextPiece(last.text + piece.text, "model")
        else:
            joined.append(piece)
    return joined


def _is_model_text(piece: Piece | None) -> TypeIs[TextPiece]:
    return isinstance(piece, TextPiece) and piece.trust == "model"


def _render_frame(frame: FrameRef) -> list[Piece]:
    return [
        TextPiece("<imagined>" if frame.imagined else stamp(frame.seconds)),
        TextPiece("<|vision_start|>", "control"),
        ImagePiece(frame),
        TextPiece("<|vision_end|>", "control"),
    ]


def render_segment(segment: Segment, before: Segment | None) -> list[Piece]:
    """Return the pieces of one segment. Only the model's own text is trainable, not what it was shown.

    Args:
        segment: The segment.
        before: The segment before it, by which the author of a note is known.
    """
    if isinstance(segment, Frames):
        pieces: list[Piece] = [TextPiece("<frame>")]
        for frame in segment.frames:
            pieces += _render_frame(frame)
        return [*pieces, TextPiece(f"{readable_note(segment, before)}</frame>")]
    if isinstance(segment, Text) and segment.author == "graph":
        # A trace may come from outside, or from a client that may set a thread's state: what it calls the
        # graph's text has no more rights than what the graph writes.
        return [TextPiece(segment.text, "plain" if _FOREIGN.search(segment.text) else "control")]
    return [TextPiece(segment.text, "model")]


def render(trace: Trace, prompt: Prompt, *, end_of_turn: bool = False) -> Rollout:
    """Return the rollout of a trace: the sequence Y of Algorithm 1.

    Args:
        trace: The trace, finished or not.
        prompt: The prompt of its run.
        end_of_turn: Whether to close the turn after the answer, for training. By default the turn stays open
            for the model to continue.
    """
    pieces: list[Piece] = [TextPiece("<|im_start|>user\n", "control")]
    for frame in trace.initial:
        pieces += _render_frame(frame)
    pieces.append(TextPiece(prompt.question(trace.question)))
    pieces.append(TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control"))
    for before, segment in zip((None, *trace.segments), trace.segments, strict=False):
        pieces += render_segment(segment, before)
    if end_of_turn and trace.segments and isinstance(trace.segments[-1], Answer):
        pieces.append(TextPiece("<|im_end|>", "control"))
    return Rollout(tuple(pieces), trace.id, Window.parse(trace.video.path).path)


@dataclass(slots=True)
class TextCodec:
    """Tokenises pieces so that each holds only those added tokens that its author may write."""

    tokenizer: Any
    _added: dict[str, int] = field(init=False)
    _pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self._added = {t.content: i for i, t in self.tokenizer.added_tokens_decoder.items()}
        longest_first = sorted(self._added, key=len, reverse=True)
        # `(?!)` matches nothing, for a tokenizer without added tokens.
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str, trust: Trust) -> list[int]:
        """Return the token ids of one piece.

        An added token in the text becomes its id only if the author (`trust`) may write it; otherwise its
        characters are tokenised as plain text.
        """
        parts: list[str | int] = []  # plain texts, and the ids of added tokens between them
        start = position = 0
        while match := self._pattern.search(text, position):
            token = match.group()
            allowed = trust == "control" or (trust == "model" and token in _MODEL_MARKS)
            if allowed:
                parts += [text[start : match.start()], self._added[token]]
                start = position = match.end()
            else:
                # Cut after the first character of the spelled-out token, so that the tokenizer sees it in
                # neither half.
                cut = match.start() + 1
                parts.append(text[start:cut])
                start = position = cut
        parts.append(text[start:])
        encoded = iter(self._encode_plain([part for part in parts if isinstance(part, str)]))
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else next(encoded)
        return ids

    def _encode_plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise each text alone, all in one call that leaves the interpreter to other threads."""
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation or backend.padding:  # set by whoever used the tokenizer before
            self.tokenizer("", add_special_tokens=False)  # resets them
        return [made.ids for made in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these ids, added tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def decoder(self) -> Callable[[int], str]:
        """Return a function that decodes one token after another, at the same cost for each.

        The function returns the text that a token completes: nothing while a character is incomplete.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        backend = self.tokenizer.backend_tokenizer
        return lambda token: stream.step(backend, token) or ""

    def ends(self) -> set[int]:
        """Return the ids with which the model ends its turn."""
        marks = [self.tokenizer.convert_tokens_to_ids(mark) for mark in ENDS]
        # Of a mark that the vocabulary lacks, the tokenizer may return None.
        return {i for i in (*marks, self.tokenizer.eos_token_id) if isinstance(i, int)}

    def forbidden(self) -> list[int]:
        """Return the ids that the model must never write: marks of turns, except its turn's end, of frames,
        and of another tool protocol."""
        keep = {*_MODEL_MARKS, *ENDS}
        marks = [t for t in self._added if t.startswith("<|") or t in OTHER_CALLS]
        return sorted(self._added[t] for t in marks if t not in keep)
