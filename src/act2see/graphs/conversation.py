"""The question of a conversation of messages: its last human message, with the video and the turns before it.

A turn is a human message that Act2See answered, with the answer in the metadata of its reply (`evidence.py`).
Messages of other agents are no turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NotRequired
from urllib.parse import unquote, urlsplit

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from act2see.errors import QuestionError
from act2see.graphs.earlier import MAX_TURNS, clip_turns
from act2see.graphs.state import AskInput
from act2see.trace.record import Turn


class WorkerInput(TypedDict):
    """A conversation."""

    messages: Annotated[list[AnyMessage], add_messages]
    video: NotRequired[str]
    """The video, if no message has one."""
    options: NotRequired[list[str]]
    """The options, if no message has some."""


def question_in(state: WorkerInput) -> AskInput:
    """Find the question of a conversation, as `as_worker` describes.

    Raises:
        QuestionError: The conversation has no human message or no video.
    """
    human = [message for message in reversed(state["messages"]) if isinstance(message, HumanMessage)]
    if not human:
        raise QuestionError("there is no human message to answer: add one to `messages`")
    video = _video_at(state, state["messages"])
    if not video:
        raise QuestionError(
            'there is no video in this conversation: add {"type": "video", "url": PATH} to the content of a '
            "human message, or set `video` in the state"
        )
    options = human[0].additional_kwargs.get("options", state.get("options"))
    return {"video": video, "question": str(human[0].text), "options": options or []}


def earlier_in(state: WorkerInput) -> tuple[Turn, ...]:
    """Return the last turns before the question of a conversation, the oldest first.

    A turn about another video ends the search, so that the turns are those since the video changed. Replies
    that report a problem, and those of the guard, are left out.
    """
    messages = state["messages"]
    asked = [index for index, message in enumerate(messages) if isinstance(message, HumanMessage)]
    if not asked:
        return ()
    video = _video_at(state, messages)
    turns: list[tuple[str, str]] = []
    for index, after in zip(asked[-2::-1], asked[:0:-1], strict=True):
        if len(turns) == MAX_TURNS or _video_at(state, messages[: index + 1]) != video:
            break
        answers = filter(None, map(_answer_in, messages[index + 1 : after]))
        question = str(messages[index].text).strip()
        if question and (answer := next(answers, None)):
            turns.append((question, answer))
    return clip_turns(reversed(turns))


def _answer_in(message: AnyMessage) -> str | None:
    """Return the answer in a reply of a worker; None if there is none."""
    told = message.response_metadata.get("act2see") if isinstance(message, AIMessage) else None
    if not isinstance(told, dict) or told.get("refused"):
        return None
    return str(told.get("choice") or told.get("answer") or "").strip() or None


def _video_at(state: WorkerInput, messages: Sequence[AnyMessage]) -> str | None:
    """Return the video that the last of these messages is about."""
    human = [message for message in reversed(messages) if isinstance(message, HumanMessage)]
    return next(filter(None, map(_video_in, human)), None) or state.get("video")


def _video_in(message: HumanMessage) -> str | None:
    """Return the video that a message names, as a path or a URL. A `file:` URL becomes a path."""
    found = message.additional_kwargs.get("video")
    blocks = message.content if isinstance(message.content, list) else []
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "video" and block.get("url"):
            found = block["url"]
    if isinstance(found, str) and found.startswith("file://"):
        parts = urlsplit(found)
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f"{unquote(parts.path)}{fragment}"
    return found
