"""A trace as LangChain messages: the question, calls and what they returned, the answer, in standard content
blocks.

For showing a run to another agent, for logs, and for going on with any chat model. Thought becomes
`reasoning` blocks, a call that was run a tool call with its `ToolMessage`, the answer a `text` block. A call
that could not be run stays in the words in which it was written, and what the model was told about it is a
user's turn: a tool call without its tool is refused by most APIs.

Without a store a picture is its digest (`file_id`), so that messages stay small; with one it is the picture
itself. An imagined frame is said to be one in the text before it, since no block has a field for that.

Inference reads none of this: it renders the trace itself (`agent/rollout.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from act2see.tools.frames import FrameRef, Generated, stamp
from act2see.trace.record import LETTERS, Call, Frames, Question, Text, TraceRecord

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from act2see.tools.video.store import FrameStore

Block = dict[str, Any]
_MARK = re.compile(r"(</?think>)")


def trace_messages(trace: TraceRecord, store: FrameStore | None = None) -> list[BaseMessage]:
    """`Trace.to_messages`. Raises `StoreError` where the store lacks a frame."""
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    def said(blocks: list[Block]) -> AIMessage:
        # So marked, chat models of LangChain read the blocks as standard ones and translate them for their
        # API.
        return AIMessage(content_blocks=blocks, response_metadata={"output_version": "v1"})  # type: ignore[arg-type]

    asked = [*_pictures(trace.initial, store), _text(_question(trace.question))]
    messages: list[BaseMessage] = [HumanMessage(content=asked)]  # type: ignore[arg-type]
    turn: list[Block] = []
    thinking, calls, id = True, 0, ""  # the id of the call whose result comes next
    for segment in trace.segments:
        if isinstance(segment, Text):
            blocks, thinking = _thought(segment, thinking)
            turn += blocks
        elif isinstance(segment, Call):
            calls += 1
            if segment.outcome == "ok":
                id = f"call_{calls}"
                turn.append(
                    {"type": "tool_call", "id": id, "name": segment.tag, "args": {"query": segment.query}}
                )
                messages.append(said(turn))
                turn = []
            else:
                turn.append(_text(segment.text))
        elif isinstance(segment, Frames):
            blocks = [*_pictures(segment.frames, store), *([_text(segment.note)] if segment.note else [])]
            content: Any = blocks or [_text("Nothing came back.")]
            if id:
                kept = [f.model_dump(mode="json") for f in segment.frames]
                messages.append(
                    ToolMessage(content=content, tool_call_id=id, name=segment.tag, artifact=kept)
                )
                id = ""
            else:
                messages += [*([said(turn)] if turn else []), HumanMessage(content=content)]
                turn = []
        else:
            turn.append(_text(segment.body or "(no answer)"))  # APIs refuse an empty text
    if id:
        messages.append(ToolMessage(content="Nothing has come back yet.", tool_call_id=id, status="error"))
    return [*messages, said(turn)] if turn else messages


def _question(question: Question) -> str:
    return "\n".join([question.text, *(f"{a}. {o}" for a, o in zip(LETTERS, question.options, strict=False))])


def _pictures(frames: Iterable[FrameRef], store: FrameStore | None) -> list[Block]:
    """For each frame what it is, then the picture."""
    from act2see.tools.video.store import image_block

    blocks: list[Block] = []
    for frame in frames:
        picture = {"type": "image", "file_id": frame.digest} if store is None else image_block(frame, store)
        blocks += [_text(_caption(frame)), picture]
    return blocks


def _caption(frame: FrameRef) -> str:
    if not frame.imagined:
        return stamp(frame.seconds)
    p = frame.provenance
    made = (
        f"made from the frame at {p.anchor.seconds:.1f} seconds"
        if isinstance(p, Generated)
        else "a picture that a person gave"
    )
    made = "a part of such a picture" if frame.part else made
    return f"<imagined> not in the video: {made}"


def _thought(segment: Text, thinking: bool) -> tuple[list[Block], bool]:
    """The words as reasoning, or as text where the thought is closed; what the graph wrote closes it and says
    nothing."""
    if segment.author == "graph":
        return [], False
    blocks: list[Block] = []
    for part in _MARK.split(segment.text):
        if _MARK.fullmatch(part):
            thinking = part == "<think>"
        elif words := part.strip():
            blocks.append({"type": "reasoning", "reasoning": words} if thinking else _text(words))
    return blocks, thinking


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
