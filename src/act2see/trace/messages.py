"""A trace as LangChain messages: question, calls, results and answer, in standard content blocks.

For showing a run to another agent, for logs, and for continuing with any chat model. Thought becomes
`reasoning` blocks, a call that was run a tool call with its `ToolMessage`, the answer a `text` block. A call
that could not be run stays in the words in which it was written, and the note on it is a user's turn: most
APIs refuse a tool call whose tool they do not know.

Without a store a picture is its digest (`file_id`), so that messages stay small; with one it is the picture
itself. The text before an imagined frame says that it is imagined, since no block has a field for that.

Inference does not use these messages: it renders the trace itself (`agent/rollout.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from act2see.tools.frames import FrameRef, stamp
from act2see.trace.record import LETTERS, Call, Frames, Question, Text, TraceRecord

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

    from act2see.tools.video.store import FrameStore

Block = dict[str, Any]
_MARK = re.compile(r"(</?think>)")


def trace_messages(trace: TraceRecord, store: FrameStore | None = None) -> list[BaseMessage]:
    """`Trace.to_messages`. Raises `StoreError` if the store lacks a frame."""
    from langchain_core.messages import HumanMessage, ToolMessage

    asked: Any = [*_pictures(trace.initial, store), _text(_question(trace.question))]
    messages: list[BaseMessage] = [HumanMessage(content=asked)]
    turn: list[Block] = []  # of the model, not yet among the messages
    thinking = True
    calls, call_id = 0, ""  # how many there were; the one whose result comes next
    for segment in trace.segments:
        if isinstance(segment, Text):
            blocks, thinking = _thought(segment, thinking)
            turn += blocks
        elif isinstance(segment, Call):
            calls += 1
            if segment.outcome != "ok":
                turn.append(_text(segment.text))
                continue
            call_id = f"call_{calls}"
            turn.append(_tool_call(segment, call_id))
            messages.append(_ai_message(turn))
            turn = []
        elif isinstance(segment, Frames):
            content: Any = _result(segment, store)
            if call_id:
                artifact = [f.model_dump(mode="json") for f in segment.frames]
                messages.append(
                    ToolMessage(content=content, tool_call_id=call_id, name=segment.tag, artifact=artifact)
                )
                call_id = ""
                continue
            if turn:
                messages.append(_ai_message(turn))
                turn = []
            messages.append(HumanMessage(content=content))
        else:
            turn.append(_text(segment.body or "(no answer)"))  # APIs refuse an empty text
    if call_id:
        waiting = "Nothing has come back yet."
        messages.append(ToolMessage(content=waiting, tool_call_id=call_id, status="error"))
    if turn:
        messages.append(_ai_message(turn))
    return messages


def _ai_message(blocks: list[Block]) -> AIMessage:
    from langchain_core.messages import AIMessage

    # So marked, LangChain's chat models read the blocks as standard ones and translate them for their API.
    content: Any = blocks
    return AIMessage(content_blocks=content, response_metadata={"output_version": "v1"})


def _tool_call(call: Call, id: str) -> Block:
    return {"type": "tool_call", "id": id, "name": call.tag, "args": {"query": call.query}}


def _result(frames: Frames, store: FrameStore | None) -> list[Block]:
    """The frames and the note that came back."""
    blocks = _pictures(frames.frames, store)
    if frames.note:
        blocks.append(_text(frames.note))
    return blocks or [_text("Nothing came back.")]


def _question(question: Question) -> str:
    lines = [question.text]
    for letter, option in zip(LETTERS, question.options, strict=False):
        lines.append(f"{letter}. {option}")
    return "\n".join(lines)


def _pictures(frames: Iterable[FrameRef], store: FrameStore | None) -> list[Block]:
    """For each frame its caption, then the picture."""
    from act2see.tools.video.store import image_block

    blocks: list[Block] = []
    for frame in frames:
        picture = {"type": "image", "file_id": frame.digest} if store is None else image_block(frame, store)
        blocks += [_text(_caption(frame)), picture]
    return blocks


def _caption(frame: FrameRef) -> str:
    if frame.imagined:
        return f"<imagined> not in the video: {frame.describe()}"
    return stamp(frame.seconds)


def _thought(segment: Text, thinking: bool) -> tuple[list[Block], bool]:
    """The blocks of a text, and whether the thought is still open after it.

    Words are reasoning, or text once the thought is closed. A text of the graph closes the thought and is
    left out.
    """
    if segment.author == "graph":
        return [], False
    blocks: list[Block] = []
    for part in _MARK.split(segment.text):
        words = part.strip()
        if _MARK.fullmatch(part):
            thinking = part == "<think>"
        elif words:
            blocks.append({"type": "reasoning", "reasoning": words} if thinking else _text(words))
    return blocks, thinking


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
