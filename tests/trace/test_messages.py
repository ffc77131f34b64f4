"""A trace as LangChain messages that any chat model accepts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    convert_to_messages,
    messages_from_dict,
    messages_to_dict,
)
from PIL import Image
from tests.agent.openai_server import openai_server, says

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Generated, Supplied
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Segment, Text, Turn
from act2see.trace.trace import Trace

Make = Callable[..., Trace]
Frame = Callable[..., FrameRef]
QUESTION = Question(text="What colour?", options=("red", "blue"))


@pytest.fixture
def trace(trace: Make) -> Make:
    return lambda **fields: trace(**{"question": QUESTION, **fields})


def call(query: str, tag: str = "retrieve", outcome: Any = "ok") -> Call:
    return Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query, outcome=outcome)


@pytest.fixture
def whole(trace: Make, frame: Frame) -> Trace:
    """A real frame, an imagined one, then the answer."""
    made = Generated(prompt="in blue", anchor=frame(1, 2.0), seed=1, strength=0.3, model="m")
    segments = (
        Text(text="I look. "),
        call("the ring"),
        Frames(tag="retrieve", frames=(frame(1, 2.0),)),
        call("in blue", "generate"),
        Frames(
            tag="generate", frames=(frame(2, 2.0).model_copy(update={"provenance": made}),), note="One only."
        ),
        Text(text="So it is blue.</think>\n"),
        Answer(text="<answer>B</answer>", body="B"),
    )
    return trace(initial=(frame(0),), segments=segments)


def blocks(message: BaseMessage) -> list[Any]:
    assert isinstance(message.content, list)
    return message.content


def check_valid(messages: list[BaseMessage]) -> None:
    """Check that results follow their calls, that no turn is empty, and that models and people alternate."""
    assert convert_to_messages(messages) == messages
    assert messages_from_dict(messages_to_dict(messages)) == messages
    waiting: list[str | None] = []
    for before, m in zip([None, *messages], messages, strict=False):
        if isinstance(m, ToolMessage):
            assert waiting.pop(0) == m.tool_call_id
        else:
            assert not waiting
            assert type(before) is not type(m)
        if isinstance(m, AIMessage):
            waiting = [c["id"] for c in m.tool_calls]
        assert m.content
        assert all(b.get("text", "x") for b in m.content if isinstance(b, dict))
    assert not waiting


def test_messages_of_a_finished_trace(whole: Trace, frame: Frame) -> None:
    messages = whole.to_messages()
    check_valid(messages)
    assert [m.type for m in messages] == ["human", "ai", "tool", "ai", "tool", "ai"]
    assert blocks(messages[0]) == [
        {"type": "text", "text": "<0.0 seconds>"},
        {"type": "image", "file_id": frame(0).digest},
        {"type": "text", "text": "What colour?\nA. red\nB. blue"},
    ]
    assert messages[1].content_blocks == [
        {"type": "reasoning", "reasoning": "I look."},
        {"type": "tool_call", "id": "call_1", "name": "retrieve", "args": {"query": "the ring"}},
    ]
    assert blocks(messages[2])[0]["text"] == "<2.0 seconds>"
    imagined, picture, note = blocks(messages[4])
    assert imagined["text"] == '<imagined> not in the video: imagined from the frame at 2.0 s: "in blue"'
    assert (picture["file_id"], note["text"]) == (frame(2).digest, "One only.")
    assert messages[5].content_blocks == [
        {"type": "reasoning", "reasoning": "So it is blue."},
        {"type": "text", "text": "B"},
    ]


def test_with_a_store_pictures_are_embedded(whole: Trace, tmp_path: Path) -> None:
    store = FrameStore(tmp_path)
    with pytest.raises(StoreError, match="not in"):
        whole.to_messages(store)
    pixels = [np.full((24, 48, 3), 40 * n, np.uint8) for n in range(3)]
    refs = [store.ref(p, float(n)) for n, p in enumerate(pixels)]
    trace = whole.model_copy(update={"initial": tuple(refs), "segments": ()})
    (human,) = trace.to_messages(store)
    pictures = [b for b in blocks(human) if b["type"] == "image"]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(b["base64"])))) for b in pictures]
    assert [int(s.mean().round()) for s in shown] == [0, 40, 80]
    assert {b["mime_type"] for b in pictures} == {"image/jpeg"}


@pytest.mark.parametrize(
    "outcome", ["unclosed", "nested", "empty", "unknown", "over_long", "repeated", "forged"]
)
def test_a_call_that_was_not_run_stays_text(trace: Make, outcome: str) -> None:
    segments = (
        Text(text="Hm. "),
        call("here", "zoom", outcome),
        Frames(tag="zoom", note="No such tool."),
        Answer(text="<answer>A</answer>", body="A"),
    )
    messages = trace(segments=segments).to_messages()
    check_valid(messages)
    assert [m.type for m in messages] == ["human", "ai", "human", "ai"]
    assert messages[1].text == "<zoom>here</zoom>"
    assert messages[2].text == "No such tool."


@pytest.mark.parametrize(
    ("segments", "kinds"),
    [
        ((), ["human"]),
        ((Text(text="I"),), ["human", "ai"]),
        ((Text(text="  "),), ["human"]),
        ((call("x"),), ["human", "ai", "tool"]),  # interrupted while the tool was running
        ((call("x"), Frames(tag="retrieve")), ["human", "ai", "tool"]),
        ((Answer(text="</answer>", body="", forced=True),), ["human", "ai"]),
        (
            (
                Text(text="I"),
                Text(text="</think>\n\n<answer>", author="graph"),
                Answer(text="A</answer>", body="A"),
            ),
            ["human", "ai"],
        ),
        (
            (
                call("x", outcome="over_budget"),
                Text(text="</think>\n\n<answer>", author="graph"),
                Answer(text="A</answer>", body="A"),
            ),
            ["human", "ai"],
        ),
    ],
)
def test_messages_of_unfinished_traces_are_valid(
    trace: Make, segments: tuple[Segment, ...], kinds: list[str]
) -> None:
    messages = trace(segments=segments).to_messages()
    check_valid(messages)
    assert [m.type for m in messages] == kinds
    assert "</think>" not in str(messages)


def test_words_after_the_closed_thought_are_text_blocks(trace: Make) -> None:
    thought = Text(text="I see.</think> It is red. <think>Or not")
    (_, ai) = trace(segments=(thought,)).to_messages()
    assert [b["type"] for b in ai.content_blocks] == ["reasoning", "text", "reasoning"]


def test_a_supplied_picture_is_marked_as_imagined(trace: Make, frame: Frame) -> None:
    given = frame(1).model_copy(update={"provenance": Supplied(by="me", query="x", file="mine.png")})
    messages = trace(segments=(call("x"), Frames(tag="retrieve", frames=(given,)))).to_messages()
    caption = blocks(messages[2])[0]["text"]
    assert caption.startswith("<imagined> not in the video: picture")
    assert "supplied by me" in caption


async def test_an_openai_client_sends_the_messages(
    whole: Trace, frame: Frame, source: Any, tmp_path: Path
) -> None:
    """LangChain translates the blocks and sends them to a server with the OpenAI protocol."""
    openai = pytest.importorskip("langchain_openai", reason="needs the train extra")

    class Store(FrameStore):
        def get(self, digest: str) -> Any:
            return source(frame(0))

    with openai_server(says("It is blue.")) as server:
        model = openai.ChatOpenAI(
            model="m", base_url=server.url, api_key="none", max_retries=0, streaming=True
        )
        reply = await model.ainvoke([*whole.to_messages(Store(tmp_path)), HumanMessage("Are you sure?")])
        assert reply.text == "It is blue."
        sent = server.requests[0]["messages"]
    assert [m["role"] for m in sent] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert [c["id"] for m in sent for c in m.get("tool_calls") or ()] == [
        m["tool_call_id"] for m in sent if m["role"] == "tool"
    ]
    assert sent[0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")


def test_earlier_turns_come_before_the_question(whole: Trace) -> None:
    turns = (Turn(question="What is there?", answer="a ring"), Turn(question="Sure?", answer=""))
    asked = whole.question.model_copy(update={"earlier": turns})
    messages = whole.model_copy(update={"question": asked}).to_messages()
    check_valid(messages)
    assert [(m.type, m.content) for m in messages[:4]] == [
        ("human", "What is there?"),
        ("ai", "a ring"),
        ("human", "Sure?"),
        ("ai", "(no answer)"),
    ]
    assert messages[4:] == whole.to_messages()
