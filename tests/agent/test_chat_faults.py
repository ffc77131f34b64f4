"""Faults of chat servers: each raises a clear error, streams no text twice, and leaves a run that resumes."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from tests.agent.openai_server import Reply, Server, openai_server, says
from tests.agent.test_chat import QUICK, ROLLOUT, black, reasoner, write
from tests.graphs.doubles import clip_in, parts_in

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Done, Request, Sampling
from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import chat_model
from act2see.agent.reasoners.faults import Backoff
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.errors import ConfigError, ContextError, ReasonerError, SetupError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.graphs.run import aresume
from act2see.tools.frames import FrameRef
from act2see.trace.events import TokenEvent

pytest.importorskip("langchain_openai", reason="needs the train extra")

LOOK = says("<think>\nLook. <retrieve> dog </retrieve>")
ANSWER = says("A dog.</think>\n<answer>B</answer>")
TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "code": "context_length_exceeded",
}
NO_CREDIT = {
    "message": "You exceeded your current quota.",
    "type": "insufficient_quota",
    "code": "insufficient_quota",
}
NO_STOPS = {
    "message": "Unsupported parameter: 'stop' is not supported with this model.",
    "param": "stop",
    "code": "unsupported_parameter",
}
OVERLOADED = {"message": "Overloaded", "code": 500}
HALF = ("A do", "g.</think>")
DOWN = "down"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("fault", "kind", "words", "sent"),
    [
        (DOWN, ReasonerError, "cannot be reached.*check that the server is running", 0),
        (Reply(silent=9), ReasonerError, r"sent nothing for 0\.3 s", 2),
        (says(*HALF, cut=1), ReasonerError, "broke off.*resume the run", 1),
        (says(*HALF, cut=1, ends="politely"), ReasonerError, "broke off.*without its last part", 1),
        (says(*HALF, cut=1, ends="silent"), ReasonerError, r"sent nothing for 0\.3 s", 1),
        (says(*HALF, cut=1, ends="error", error=OVERLOADED), ReasonerError, "broke off.*Overloaded", 1),
        (says(*HALF, cut=0), ReasonerError, "cannot be reached", 2),
        (says(*HALF, cut=0, ends="politely"), ReasonerError, "No generation", 2),
        (Reply(status=500), ReasonerError, "failed: status 500, the script says so", 2),
        (Reply(status=422), ReasonerError, "failed: status 422", 1),
        (Reply(status=401), SetupError, "check the key", 1),
        (
            Reply(status=404, error={"message": "The model `m` does not exist", "code": "model_not_found"}),
            SetupError,
            "the model's name",
            1,
        ),
        (Reply(status=429, error=NO_CREDIT), SetupError, "the account's credit", 1),
        (Reply(status=400, error=TOO_LONG), ContextError, "show fewer initial frames", 1),
        (Reply(status=413), ContextError, "show fewer initial frames", 1),
    ],
)
async def test_fault_ends_the_run_and_it_can_be_resumed(
    tmp_path: Path, fault: Reply | str, kind: type[Exception], words: str, sent: int
) -> None:
    config, parts = parts_in(tmp_path, None)
    saver = InMemorySaver()

    def graph(server: Server) -> Graph:
        engine = reasoner(
            server,
            Backoff(requests=2, first=0.01, silence=0.3),
            parts.resources.store,
        )
        return create_act2see(
            config, parts=type(parts)(engine, parts.tools, parts.resources), checkpointer=saver
        )

    with openai_server(LOOK) as server:
        # The first server answers only the first loop.
        await graph(server).ainvoke(
            {"video": clip_in(tmp_path), "question": "What?", "options": ["cat", "dog"]},
            {"configurable": {"thread_id": "t"}},
            interrupt_before=["retrieve"],
        )
    with openai_server(fault if isinstance(fault, Reply) else LOOK) as server:
        if fault == DOWN:
            server.url = closed_port()
        with pytest.raises(kind, match=words) as caught:
            await aresume(graph(server), "t")
        assert "\n" not in str(caught.value)
        assert len(server.requests) == sent
    heard: list[str] = []
    with openai_server(ANSWER) as server:
        trace = await aresume(
            graph(server), "t", on_event=lambda e: heard.append(e.text) if isinstance(e, TokenEvent) else None
        )
        assert len(server.requests) == 1
    assert trace.text == "Look. <retrieve> dog </retrieve>A dog.</think>\n<answer>B</answer>"
    assert "".join(heard) == "A dog.</think>\n<answer>B</answer>"
    assert trace.choice == "dog"


async def test_cut_after_the_end_of_the_text_is_ignored() -> None:
    heard = ""

    def until(piece: str) -> bool:
        nonlocal heard
        heard += piece
        return heard.endswith("</look>")

    with openai_server(says("Hm. <look> the dog </look>", " and", cut=1)) as server:
        # The connection is lost before the token counts: chunks are counted.
        assert await write(reasoner(server), until, stops=()) == (
            "Hm. <look> the dog </look>",
            Done(StopReason.UNTIL, decoded=1),
        )


async def test_stop_strings_are_left_out_for_a_model_that_refuses_them() -> None:
    def until() -> Callable[[str], bool]:
        text: list[str] = []
        return lambda piece: text.append(piece) or "".join(text).endswith("</look>")

    with openai_server(
        Reply(status=400, error=NO_STOPS), says("<look> dog </look>", " and", " more")
    ) as server:
        engine = reasoner(server)
        for _ in range(2):
            assert (await write(engine, until()))[0] == "<look> dog </look>"
    assert ["stop" in r for r in server.requests] == [True, False, False]


async def test_at_most_four_stop_strings_are_sent() -> None:
    stops = tuple(f"</{tag}>" for tag in ("a", "b", "c", "d", "answer"))
    with openai_server(says("Hm.")) as server:
        await write(reasoner(server), stops=stops)
        assert server.requests[0]["stop"] == list(stops[:4])


async def test_answer_of_another_model_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with openai_server(says("Hm.", model="other")) as server, caplog.at_level(logging.WARNING, "act2see"):
        engine = reasoner(server)
        for _ in range(2):
            await write(engine)
        assert [r.message for r in caplog.records] == [
            "m: 'other' answered instead of 'm': traces record the requested model"
        ]
        with pytest.raises(SetupError, match=r"'other' answered.*set reasoner\.weights"):
            await write(ChatModelReasoner(engine.model, black, "m", QUICK, continuation=True))
    with openai_server(says("Hm.", model="org/M-2026-11-01")) as server:
        caplog.clear()
        await write(reasoner(server))
        assert not caplog.records


async def test_continuation_sends_pieces_and_sampling() -> None:
    frame = FrameRef(digest="0" * 32, width=32, height=32, seconds=1.0)
    more = (
        TextPiece("I look. <look>dog</look>", "model"),
        TextPiece("<frame>"),
        ImagePiece(frame),
        TextPiece("</think> it says</frame>"),
        TextPiece("</think>\n<answer>", "control"),
    )
    with openai_server(says("<think>", "B", "</answer>")) as server:
        engine = ChatModelReasoner(reasoner(server).model, black, "m", QUICK, continuation=True)
        opens = TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control")
        rollout = Rollout((*ROLLOUT.pieces[:2], opens, *more))
        stops = ["</look>", "</answer>"]
        request = Request(rollout, 7, stops=stops, sampling=Sampling(0.5, 0.9, 3))
        written = [item async for item in engine.stream(request)]
    # The text is passed on unchanged.
    assert "".join(getattr(i, "text", "") for i in written) == "<think>B"
    (asked,) = server.requests
    user, turn = asked["messages"]
    assert (user["role"], [p["text"] for p in user["content"]]) == ("user", ["What?"])
    assert [p.get("text", p["type"]) for p in turn["content"]] == [
        "<think>\n",
        "I look. <look>dog</look>",
        "<frame>",
        "image_url",
        "</think> it says</frame>",
        "</think>\n<answer>",
    ]
    assert turn["content"][3]["image_url"]["url"].startswith("data:image/png;base64,")
    wanted = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_completion_tokens": 7, "plain_parts": [2, 4]}
    wanted |= {
        "continue_final_message": True,
        "add_generation_prompt": False,
        "include_stop_str_in_output": True,
    }
    assert {k: asked[k] for k in wanted} == wanted


def test_missing_key_or_continuation_fails_when_the_graph_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        build_parts(load_config("micro", reasoner={"use": "chat", "weights": "openai:gpt-4o"}))
    gemini: Any = chat_model("google_genai:gemini-2.5-flash", {"google_api_key": "none"}, "test")
    with pytest.raises(ConfigError, match="needs an OpenAI-compatible server"):
        ChatModelReasoner(gemini, black, "gemini", continuation=True)
