"""A rollout as the messages of a chat, in either of two forms.

Most APIs cannot go on with a turn that holds an image. `chat_messages` puts what a tool returned into a
user's turn, and the model's next turn goes on from there.

Servers of open models can (`continue_final_message`). `continued_messages` sends the pieces of the rollout
one by one, in two turns, as the model was trained on them: the server tokenises them one by one as well, so
the ids are those of the rollout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    """Frames as image blocks. Each request sends all of them again, so those made last are kept, `most`
    characters of them."""

    def __init__(self, source: FrameSource, most: int = 64 << 20) -> None:
        self.source, self.most = source, most
        self._made: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def __call__(self, frame: FrameRef, kind: Kind) -> dict[str, str]:
        key = frame.digest, kind
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        block = image_block(frame, self.source, kind)
        with self._lock:
            if key not in self._made:
                self._made[key] = block
                self._size += len(block["base64"])
                while self._size > self.most:
                    self._size -= len(self._made.popitem(last=False)[1]["base64"])
        return block


def chat_messages(rollout: Rollout, picture: Picture) -> list[BaseMessage]:
    """The rollout as turns: question, thought, what a tool returned (the user's), thought ..."""
    from langchain_core.messages import AIMessage, HumanMessage

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
            mine = piece.trust != "plain"
            who, block = "model" if thinking and mine else "user", piece.text
            forced = thinking and piece.trust == "control"
        if turns[-1][0] != who:
            turns.append((who, []))
        turns[-1][1].append(block)
    messages: list[BaseMessage] = []
    for n, (who, blocks) in enumerate(turns):
        if who == "user":
            messages.append(HumanMessage(content=_blocks(blocks)))
        else:
            said = "".join(blocks).removesuffix("<answer>" if forced and n == len(turns) - 1 else "")
            messages.append(
                AIMessage(content=said if any(m.type == "ai" for m in messages) else f"<think>\n{said}")
            )
    if turns[-1][0] == "model":
        messages.append(HumanMessage(content=_ANSWER_NOW if forced else "Go on."))
    return messages


def continued_messages(rollout: Rollout, picture: Picture) -> tuple[list[BaseMessage], list[int]]:
    """The question and the unfinished turn, a part for each piece, pictures as they are (PNG).

    Beside them, which parts of the turn the model did not write: marks that are spelled out in those stay
    text.
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
            # Marks of turns and pictures are the server's to write; what stands behind the last one is the
            # turn's beginning.
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
    """Texts that follow one another in one block; a turn of text alone is plain text."""
    merged: list[Any] = []
    for block in blocks:
        if isinstance(block, str) and merged and isinstance(merged[-1], str):
            merged[-1] += block
        else:
            merged.append(block)
    if len(merged) == 1 and isinstance(merged[0], str):
        return merged[0]
    return [{"type": "text", "text": b} if isinstance(b, str) else b for b in merged]
