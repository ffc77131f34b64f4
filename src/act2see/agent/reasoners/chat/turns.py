"""Turn a rollout into the messages of a chat, in either of two forms.

Most APIs cannot continue a turn that holds an image. For them `chat_messages` puts the result of a tool into
a user's turn, and the model's next turn continues from there.

Servers of open models can continue a turn (`continue_final_message`). For them `continuation_messages` sends
each piece of the rollout as a part of one of two turns. The server tokenises the parts one by one, so the ids
are those of the rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cachetools import LRUCache

from act2see.agent.rollout import ImagePiece, Rollout
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.video.store import FrameSource, Kind, image_block

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Picture = Callable[[FrameRef, Kind], dict[str, str]]
"""Returns a frame as an image block of LangChain."""
_ANSWER_NOW = "Answer now with what you know: only <answer>your answer</answer>."
_TURN_START = "<|im_start|>assistant\n"


class Blocks:
    """Makes image blocks of frames. Each request sends all its frames, so the last used blocks are kept."""

    def __init__(self, source: FrameSource, max_characters: int = 64 << 20) -> None:
        """
        Args:
            source: Returns the pixels of a frame.
            max_characters: The maximum size of the kept blocks, in characters of base64.
        """
        self.source = source
        self._lock = Lock()
        self._kept: LRUCache[tuple[str, Kind], dict[str, str]]
        self._kept = LRUCache(max_characters, getsizeof=lambda block: len(block["base64"]))

    def __call__(self, frame: FrameRef, kind: Kind) -> dict[str, str]:
        """Return the image block of a frame."""
        key = frame.digest, kind
        with self._lock:
            if block := self._kept.get(key):
                return block
        block = image_block(frame, self.source, kind)
        with self._lock, suppress(ValueError):  # raised for a block that is larger than the whole cache
            self._kept[key] = block
        return block


@dataclass(slots=True)
class _Turn:
    """One turn of a chat."""

    author: Literal["user", "model"]
    blocks: list[Any] = field(default_factory=list)
    """The texts (`str`) and image blocks (`dict`) of the turn, in order."""


def chat_messages(rollout: Rollout, picture: Picture) -> list[BaseMessage]:
    """Return a rollout as turns: the user's question, the model's thought, a tool's result from the user, ...

    Args:
        rollout: The rollout.
        picture: Returns a frame as an image block.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    turns, forced = _split_turns(rollout, picture)
    messages: list[BaseMessage] = []
    opening = "<think>\n"  # only the model's first turn opens the thought
    for turn in turns:
        if turn.author == "user":
            messages.append(HumanMessage(content=_message_content(turn.blocks)))
            continue
        text = "".join(turn.blocks)
        if forced and turn is turns[-1]:
            text = text.removesuffix("<answer>")
        messages.append(AIMessage(content=opening + text))
        opening = ""
    if turns[-1].author == "model":
        messages.append(HumanMessage(content=_ANSWER_NOW if forced else "Go on."))
    return messages


def split_at_pictures(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages with at most one picture in each, followed by the text behind it.

    Ollama keeps a message's pictures apart from its text, and puts them before it. Frames would lose their
    times and their places in the text.
    """
    from langchain_core.messages import HumanMessage

    split: list[BaseMessage] = []
    for message in messages:
        if isinstance(message.content, str) or message.type != "human":
            split.append(message)
            continue
        group: list[Any] = []
        for block in message.content:
            if isinstance(block, dict) and block.get("type") == "image" and group:
                split.append(HumanMessage(content=group))
                group = []
            group.append(block)
        split.append(HumanMessage(content=group))
    return split


def _split_turns(rollout: Rollout, picture: Picture) -> tuple[list[_Turn], bool]:
    """Return the turns of a rollout, and whether the graph has opened the answer for the model."""
    turns = [_Turn("user")]
    is_thinking = False
    forced = False
    for piece in rollout.pieces:
        author: Literal["user", "model"] = "user"
        block: Any
        if isinstance(piece, ImagePiece):
            block = picture(piece.frame, "JPEG")
        elif piece.trust == "control" and piece.text.startswith("<|"):
            is_thinking |= "assistant" in piece.text
            continue
        else:
            if is_thinking and piece.trust != "plain":
                author = "model"
            block = piece.text
            forced = is_thinking and piece.trust == "control"
        if turns[-1].author != author:
            turns.append(_Turn(author))
        turns[-1].blocks.append(block)
    return turns, forced


def continuation_messages(rollout: Rollout, picture: Picture) -> tuple[list[BaseMessage], list[int]]:
    """Return the question and the unfinished turn, with a part for each piece and lossless pictures (PNG).

    Args:
        rollout: The rollout.
        picture: Returns a frame as an image block.

    Returns:
        The two messages, and the indices of those parts of the turn that the model did not write: marks that
        are spelled out in them stay plain text.
    """
    from langchain_core.messages import AIMessage, HumanMessage

    question: list[str | dict[Any, Any]] = []
    turn: list[str | dict[Any, Any]] = []
    plain: list[int] = []
    parts = question
    for piece in rollout.pieces:
        if isinstance(piece, ImagePiece):
            parts.append(picture(piece.frame, "PNG"))
            continue
        text = piece.text
        if piece.trust == "control" and text.startswith("<|"):
            # The server writes the marks of turns and pictures itself; the text after them begins the turn.
            _, found, text = text.partition(_TURN_START)
            if found:
                parts = turn
        if text:
            if parts is turn and piece.trust == "plain":
                plain.append(len(turn))
            parts.append({"type": "text", "text": text})
    return [HumanMessage(content=question), AIMessage(content=turn)], plain


def _message_content(blocks: list[Any]) -> Any:
    """Return the content of a message: a string if all blocks are texts, else blocks with texts joined."""
    merged: list[Any] = []
    for block in blocks:
        if isinstance(block, str) and merged and isinstance(merged[-1], str):
            merged[-1] += block
        else:
            merged.append(block)
    if len(merged) == 1 and isinstance(merged[0], str):
        return merged[0]
    return [{"type": "text", "text": block} if isinstance(block, str) else block for block in merged]
