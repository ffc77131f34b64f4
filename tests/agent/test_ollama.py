"""The chat reasoner on Ollama, over its own protocol."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.agent.ollama_server import OllamaReply, OllamaServer, ollama_server
from tests.agent.test_chat import QUICK, black, write
from tests.graphs.doubles import clip_in, parts_in

from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import ReasonerError, SetupError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.run import aask
from act2see.trace.trace import Trace

pytest.importorskip("langchain_ollama", reason="needs the ollama extra")


def reasoner(server: OllamaServer, **options: Any) -> ChatModelReasoner:
    given = {"base_url": server.url, "num_ctx": 4096, "reasoning": True, **options}
    return ChatModelReasoner(chat_model("ollama:m", given, "test"), black, "m", QUICK, ask_first=True)


async def ask(folder: Path, server: OllamaServer, **options: Any) -> Trace:
    _, parts = parts_in(folder, reasoner(server, **options))
    config = load_config(
        "micro", cache=str(folder / "cache"), view={"guard": None}, reasoner={"prompt": "zero-shot"}
    )
    graph = create_act2see(config, parts=parts)
    return await aask(graph, clip_in(folder), "What turns red?", ["the ring", "the cross"])


async def test_thought_and_reply_are_one_text() -> None:
    with ollama_server(OllamaReply(("I ", "look."), ("The ", "ring."))) as server:
        text, done = await write(reasoner(server))
    assert text == "I look.</think>\n\nThe ring."
    assert (done.prefilled, done.decoded) == (100, 4)


async def test_a_reply_without_a_thought_leaves_the_thought_open() -> None:
    with ollama_server(OllamaReply((), ("The ring.",))) as server:
        assert (await write(reasoner(server)))[0] == "The ring."


async def test_a_call_within_the_thought_runs_the_tool(tmp_path: Path) -> None:
    """The server ends the generation at the stop string, in the middle of the thought."""
    replies = (
        OllamaReply(("I look closer. <retrieve>the ", "ring</retrieve> never"), ("never",)),
        OllamaReply(("It is lit.",), ("<answer>the ring", "</answer>")),
    )
    with ollama_server(*replies) as server:
        trace = await ask(tmp_path, server)
        first, second = server.requests
    assert [call.query for call in trace.calls] == ["the ring"]
    assert trace.choice == "the ring"
    assert "I look closer. <retrieve>the ring</retrieve>" in trace.text
    assert "It is lit.</think>\n\n<answer>the ring</answer>" in trace.text
    assert "</retrieve>" in first["options"]["stop"]
    assert first["options"]["num_ctx"] == 4096
    assert first["think"] is True
    # The second request has the model's turn with the call, and the tool's result after it.
    roles = [message["role"] for message in second["messages"]]
    assert roles[roles.index("assistant") + 1] == "user"


async def test_a_thought_after_a_closed_one_is_opened_again(tmp_path: Path) -> None:
    replies = (
        OllamaReply(("Hm.",), ("<retrieve>the ring</retrieve>",)),
        OllamaReply(("It may be <answer>the cross</answer>, no.",), ("<answer>the ring</answer>",)),
    )
    with ollama_server(*replies) as server:
        trace = await ask(tmp_path, server)
    # The answer that it muses about is within a thought.
    assert trace.choice == "the ring"
    assert "<think>\nIt may be" in trace.text


async def test_frames_keep_their_places_between_their_times(tmp_path: Path) -> None:
    """A message's pictures come before its text, so each message has one picture and the text behind it."""
    with ollama_server(OllamaReply((), ("<answer>the ring</answer>",))) as server:
        await ask(tmp_path, server)
        messages = server.requests[0]["messages"]
    with_pictures = [message for message in messages if message.get("images")]
    assert len(with_pictures) > 1
    for message in with_pictures:
        [picture] = message["images"]
        assert base64.b64decode(picture, validate=True).startswith(b"\xff\xd8")  # JPEG, without a data URL
    assert messages[0]["content"].strip() == "<0.0 seconds>"
    assert messages[1]["content"].endswith("seconds>")
    assert "What turns red?" in with_pictures[-1]["content"]


async def test_a_model_that_was_not_pulled() -> None:
    with ollama_server() as server:
        server.pulled = ("other:latest",)
        with pytest.raises(SetupError, match="does not have the model m: run `ollama pull m`"):
            await reasoner(server).check()


async def test_a_server_that_does_not_run(unused_tcp_port: int) -> None:
    server = OllamaServer(f"http://127.0.0.1:{unused_tcp_port}", [])
    with pytest.raises(SetupError, match="start it with `ollama serve`"):
        await reasoner(server).check()


async def test_a_small_default_context_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with ollama_server() as server, caplog.at_level(logging.WARNING):
        await reasoner(server).check()
        assert not caplog.records
        await reasoner(server, num_ctx=None).check()
    assert "Ollama may read only 4,096 tokens" in caplog.text


async def test_a_model_that_does_not_think() -> None:
    refusal = OllamaReply(status=400, error='"m" does not support thinking')
    with ollama_server(refusal) as server, pytest.raises(ReasonerError, match="does not support thinking"):
        await write(reasoner(server))


def test_the_preset_holds_its_frames_and_its_thought() -> None:
    config = load_config("ollama")
    options = config.reasoner.options
    assert options["num_predict"] == config.budget.tokens
    frames = config.view.max_frames * ((config.view.max_side // 32) ** 2 // 2 + 12)  # of 16:9
    assert options["num_ctx"] >= config.budget.tokens + frames
