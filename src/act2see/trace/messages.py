"""A trace as LangChain messages: question, calls, results and answer, in standard content blocks.

The messages show a run to another agent, serve as a log, and let any chat model continue the conversation.
Thought becomes `reasoning` blocks, a call that was run becomes a tool call with its `ToolMessage`, and the
answer becomes a `text` block. A call that was not run stays text, and its note becomes a user's turn, since
most APIs reject a call of an unknown tool. Earlier questions and answers of the conversation come first.

Without a store a picture is its digest (`file_id`), so that messages stay small. With a store it is the
picture itself. The text before an imagined frame says that it is imagined, since no block has a field for
that.

Inference does not use these messages: it renders the trace itself (`agent/rollout.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from act2see.tools.frames import FrameRef, stamp
from act2see.tools.runtime.outside import quote_tags
from act2see.trace.notes import readable_note
from act2see.trace.options import LETTERS
from act2see.trace.record import Call, Frames, Question, Segment, Text, TraceRecord

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

    from act2see.tools.video.store import FrameStore

Block = dict[str, Any]
_MARK = re.compile(r"(</?think>)")


def trace_messages(trace: TraceRecord, store: FrameStore | None = None) -> list[BaseMessage]:
    """Implement `Trace.to_messages`. Raises `StoreError` if the store lacks a frame."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    asked: Any = [*_pictures(trace.initial, store), _text(_question(trace.question))]
    messages: list[BaseMessage] = []
    for earlier in trace.question.earlier:
        messages.append(HumanMessage(content=earlier.question))
        messages.append(AIMessage(content=earlier.answer or "(no answer)"))  # APIs reject an empty text
    messages.append(HumanMessage(content=asked))
    turn: list[Block] = []  # blocks of the model's current turn
    thinking = True
    calls = 0
    call_id = ""  # id of the call whose result follows
    for before, segment in zip((None, *trace.segments), trace.segments, strict=False):
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
            if call_id:
                messages.append(_tool_message(segment, before, call_id, store))
                call_id = ""
                continue
            if turn:
                messages.append(_ai_message(turn))
                turn = []
            content: Any = _result(segment, before, store)
            messages.append(HumanMessage(content=content))
        else:
            turn.append(_text(segment.body or "(no answer)"))  # APIs reject an empty text
    if call_id:  # APIs reject a tool call without a result
        messages.append(ToolMessage(content="No result yet.", tool_call_id=call_id, status="error"))
    if turn:
        messages.append(_ai_message(turn))
    return messages


def _ai_message(blocks: list[Block]) -> AIMessage:
    from langchain_core.messages import AIMessage

    # "v1" tells LangChain's chat models that these are standard blocks, to be translated for their API.
    content: Any = blocks
    return AIMessage(content_blocks=content, response_metadata={"output_version": "v1"})


def _tool_call(call: Call, id: str) -> Block:
    return {"type": "tool_call", "id": id, "name": call.tag, "args": {"query": call.query}}


def _tool_message(
    frames: Frames, before: Segment | None, call_id: str, store: FrameStore | None
) -> ToolMessage:
    """The result of a call. Its artifact has the frames as JSON data."""
    from langchain_core.messages import ToolMessage

    content: Any = _result(frames, before, store)
    artifact = [frame.model_dump(mode="json") for frame in frames.frames]
    return ToolMessage(content=content, tool_call_id=call_id, name=frames.tag, artifact=artifact)


def _result(frames: Frames, before: Segment | None, store: FrameStore | None) -> list[Block]:
    """The returned frames, then the note. `before` is the segment before them."""
    blocks = _pictures(frames.frames, store)
    if frames.note:
        blocks.append(_text(readable_note(frames, before)))
    return blocks or [_text("Nothing was returned.")]


def _question(question: Question) -> str:
    lines = [question.text]
    for letter, option in zip(LETTERS, question.options, strict=False):
        lines.append(f"{letter}. {option}")
    return "\n".join(lines)


def _pictures(frames: Iterable[FrameRef], store: FrameStore | None) -> list[Block]:
    """A caption and a picture for each frame."""
    from act2see.tools.video.store import image_block

    blocks: list[Block] = []
    for frame in frames:
        picture = {"type": "image", "file_id": frame.digest} if store is None else image_block(frame, store)
        blocks += [_text(_caption(frame)), picture]
    return blocks


def _caption(frame: FrameRef) -> str:
    if frame.imagined:
        return f"<imagined> not in the video: {quote_tags(frame.describe())}"
    return stamp(frame.seconds)


def _thought(segment: Text, thinking: bool) -> tuple[list[Block], bool]:
    """Return the blocks of a text, and whether the thought is still open after it.

    The words are reasoning while the thought is open, and text after it. A text of the graph only closes the
    thought, so it becomes no block.
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
