"""A rollout as the messages of a chat, in either of two forms.

Most APIs cannot continue a turn that holds an image. `chat_messages` puts what a tool returned into a user's
turn, and the model's next turn continues from there.

Servers of open models can (`continue_final_message`). `continued_messages` sends the pieces of the rollout
one by one, in two turns, as the model was trained on them: the server tokenises them one by one as well, so
the ids are those of the rollout.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from act2see.agent.rollout import ImagePiece, Rollout
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.store import FrameSource, Kind, image_block

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Picture = Callable[[FrameRef, Kind], dict[str, str]]
_ANSWER_NOW = "Answer now with what you know: only <answer>your answer</answer>."
_BEGINS = "<|im_start|>assistant\n"


class Blocks:
    """Frames as image blocks. Each request sends all of them again, so those used last are kept."""

    def __init__(self, source: FrameSource, max_characters: int = 64 << 20) -> None:
        self.source = source
        self._lock = Lock()
        self._kept: LRUCache[tuple[str, Kind], dict[str, str]]
        self._kept = LRUCache(max_characters, getsizeof=lambda block: len(block["base64"]))

    def __call__(self, frame: FrameRef, kind: Kind) -> dict[str, str]:
        key = frame.digest, kind
        with self._lock:
            if block := self._kept.get(key):
                return block
        block = image_block(frame, self.source, kind)
        with self._lock, suppress(ValueError):  # it is larger than all that may be kept
            self._kept[key] = block
        return block


def chat_messages(rollout: Rollout, picture: Picture) -> list[BaseMessage]:
    """The rollout as turns: the question, the thought, what a tool returned (the user's), the thought ..."""
    from langchain_core.messages import AIMessage, HumanMessage

    turns, forced = _turns(rollout, picture)
    messages: list[BaseMessage] = []
    opening = "<think>\n"  # of the model's first turn
    for n, (who, blocks) in enumerate(turns):
        if who == "user":
            messages.append(HumanMessage(content=_blocks(blocks)))
            continue
        text = "".join(blocks)
        if forced and n == len(turns) - 1:
            text = text.removesuffix("<answer>")
        messages.append(AIMessage(content=opening + text))
        opening = ""
    if turns[-1][0] == "model":
        messages.append(HumanMessage(content=_ANSWER_NOW if forced else "Go on."))
    return messages


def _turns(rollout: Rollout, picture: Picture) -> tuple[list[tuple[str, list[Any]]], bool]:
    """The turns of a rollout, `user` or `model` and the texts and pictures in it; and whether the graph has
    opened the answer for the model."""
    turns: list[tuple[str, list[Any]]] = [("user", [])]
    thinking, forced = False, False
    for piece in rollout.pieces:
        block: Any
        if isinstance(piece, ImagePiece):
            who, block = "user", picture(piece.frame, "JPEG")
        elif piece.trust == "control" and piece.text.startswith("<|"):
            thinking |= "assistant" in piece.text
            continue
        else:
            who = "model" if thinking and piece.trust != "plain" else "user"
            block = piece.text
            forced = thinking and piece.trust == "control"
        if turns[-1][0] != who:
            turns.append((who, []))
        turns[-1][1].append(block)
    return turns, forced


def continued_messages(rollout: Rollout, picture: Picture) -> tuple[list[BaseMessage], list[int]]:
    """The question and the unfinished turn, a part for each piece, pictures without loss (PNG).

    Returns:
        The two messages, and the numbers of those parts of the turn that the model did not write: marks that
        are spelled out in them stay text.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    asked: list[dict[str, str]] = []
    turn: list[dict[str, str]] = []
    plain: list[int] = []
    into = asked
    for piece in rollout.pieces:
        if isinstance(piece, ImagePiece):
            into.append(picture(piece.frame, "PNG"))
            continue
        text = piece.text
        if piece.trust == "control" and text.startswith("<|"):
            # The server writes the marks of turns and pictures; the text behind the last one begins the turn.
            _, begins, text = text.partition(_BEGINS)
            into = turn if begins else into
        if text:
            if into is turn and piece.trust == "plain":
                plain.append(len(turn))
            into.append({"type": "text", "text": text})
    # LangChain's types know lists of `str | dict` alone.
    content: Any = asked, turn
    return [HumanMessage(content=content[0]), AIMessage(content=content[1])], plain


def _blocks(blocks: list[Any]) -> Any:
    """The content of a message. Consecutive texts become one block; a turn of text alone is plain text."""
    merged: list[Any] = []
    for block in blocks:
        if isinstance(block, str) and merged and isinstance(merged[-1], str):
            merged[-1] += block
        else:
            merged.append(block)
    if len(merged) == 1 and isinstance(merged[0], str):
        return merged[0]
    return [{"type": "text", "text": block} if isinstance(block, str) else block for block in merged]
