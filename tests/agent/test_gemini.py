"""The chat reasoner with LangChain's Gemini model, over HTTP, with a server that has Gemini's protocol."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.agent.gemini_server import (
    GeminiReply,
    GeminiServer,
    blocked,
    fails,
    gemini_server,
    response,
    retry_in,
    says,
    thinks,
)
from tests.agent.test_chat import QUICK, black, write
from tests.graphs.doubles import clip_in, parts_in

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Done
from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import chat_model
from act2see.agent.reasoners.chat.thinking import thinking_settings
from act2see.agent.reasoners.faults import Backoff
from act2see.errors import ConfigError, ContextError, ReasonerError, RefusedError, SetupError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.run import aask
from act2see.trace.page import trace_html
from act2see.trace.terminal import answer_lines
from act2see.trace.trace import Trace

pytest.importorskip("langchain_google_genai", reason="needs the train extra")


def reasoner(server: GeminiServer, backoff: Backoff = QUICK, source: Any = black) -> ChatModelReasoner:
    """Return the reasoner for `weights: google_genai:gemini-2.5-flash` with the server's address."""
    options = {"base_url": server.url, "google_api_key": "none", "max_retries": 1}
    return ChatModelReasoner(
        chat_model("google_genai:gemini-2.5-flash", options, "test"), source, "gemini", backoff
    )


async def test_stream_and_token_counts() -> None:
    with gemini_server(says("<thi", "nk>\nI see", " a dog.")) as server:
        assert await write(reasoner(server)) == (
            "I see a dog.",
            Done(StopReason.EOS, prefilled=60, cached=40, decoded=7),
        )
        assert server.calls == [("/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "none")]
        assert server.requests[0]["generationConfig"]["stopSequences"] == ["</look>"]


async def test_stop_sequence_is_restored_and_token_limit_is_reported() -> None:
    with gemini_server(says("Hm. <look> the", " dog </lo", "ok> and more")) as server:
        assert (await write(reasoner(server)))[0] == "Hm. <look> the dog </look>"
    with gemini_server(says("Hm. <look> the", finish="MAX_TOKENS")) as server:
        assert await write(reasoner(server)) == ("Hm. <look> the", Done(StopReason.LENGTH, 60, 40, 7))


async def test_unstreamed_answer() -> None:
    """The assistant's model calls `generateContent`, which the reasoner itself never does."""
    with gemini_server(says("A dog.")) as server:
        reply = await reasoner(server).model.ainvoke("What?")
        assert reply.text == "A dog."
        assert server.calls[0][0] == "/v1beta/models/gemini-2.5-flash:generateContent"


async def test_thought_summary_is_left_out() -> None:
    thought = response("I wonder.")
    thought["candidates"][0]["content"]["parts"][0]["thought"] = True
    with gemini_server(GeminiReply((thought, response("A dog.", "STOP")))) as server:
        assert (await write(reasoner(server)))[0] == "A dog."


async def test_candidate_without_content_is_an_empty_turn() -> None:
    with gemini_server(says()) as server:
        assert await write(reasoner(server)) == ("", Done(StopReason.EOS, 60, 40, 7))


async def test_hidden_thinking_is_counted_apart() -> None:
    with gemini_server(thinks(500, "A dog.")) as server:
        assert await write(reasoner(server)) == ("A dog.", Done(StopReason.EOS, 60, 40, 7, thinking=500))


@pytest.mark.parametrize(
    ("model", "options", "limit", "sent"),
    [
        ("gemini-2.5-flash", {}, None, None),
        ("gemini-2.5-flash", {}, 32768, None),
        ("gemini-2.5-flash", {}, 2000, 2000),
        ("gemini-2.5-flash-lite", {}, 0, 512),
        ("gemini-2.5-flash", {"thinking_budget": 0}, 2000, None),
        ("gemini-flash-latest", {}, 2000, None),
        ("gemini-3.5-flash", {}, 2000, None),
    ],
)
def test_limit_of_hidden_thinking_is_sent_where_the_model_takes_tokens(
    model: str, options: dict[str, Any], limit: int | None, sent: int | None
) -> None:
    made = chat_model(f"google_genai:{model}", {"google_api_key": "none", **options}, "test")
    assert thinking_settings(made, limit).get("thinking_budget") == sent


async def test_thinking_budget_reaches_the_server() -> None:
    with gemini_server(says("A dog.")) as server:
        await write(reasoner(server), max_thinking=2000)
        config = server.requests[0]["generationConfig"]["thinkingConfig"]
        assert list(config.values()) == [2000]  # the service takes the name in either spelling


async def test_run_without_hidden_thinking_left_must_answer(tmp_path: Path) -> None:
    config, parts = parts_in(tmp_path, None)
    config = load_config(config, budget={"thinking_tokens": 800})
    with gemini_server(thinks(900, "Let me see."), thinks(30, "yes</answer>")) as server:
        engine = reasoner(server, source=parts.resources.store)
        graph = create_act2see(config, parts=type(parts)(engine, parts.tools, parts.resources))
        trace = await aask(graph, clip_in(tmp_path), "What?")
    assert trace.usage.thinking == 930
    assert trace.usage.tokens == 14
    assert trace.usage.loops[0].stop == "thinking"
    assert trace.forced
    assert trace.forced_because == "no tokens of hidden thinking were left"
    page = trace_html(trace, parts.resources.store)
    assert "14 tokens, 930 hidden tokens" in page
    assert ">hidden</th>" in page
    assert "14 tokens, 930 hidden tokens" in answer_lines(trace).plain
    assert Trace.model_validate_json(trace.model_dump_json()) == trace


@pytest.mark.parametrize(
    "reply", [blocked("SAFETY"), blocked("PROHIBITED_CONTENT"), blocked("OTHER"), says("I", finish="SAFETY")]
)
async def test_block_raises_refused_error(reply: GeminiReply) -> None:
    with gemini_server(reply) as server, pytest.raises(RefusedError, match="refused to answer"):
        await write(reasoner(server))
    assert len(server.requests) == 1


async def test_retry_delay_sets_the_wait() -> None:
    with gemini_server(retry_in("0.4s"), says("Now.")) as server:
        started = time.monotonic()
        assert (await write(reasoner(server)))[0] == "Now."
        assert time.monotonic() - started >= 0.4
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "kind", "words", "sent"),
    [
        (retry_in("86400s"), ReasonerError, "exceeded your current quota", 1),
        (fails(503, "UNAVAILABLE", "The model is overloaded."), ReasonerError, "overloaded", 3),
        (
            fails(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
            SetupError,
            "check the key",
            1,
        ),
        (fails(403, "PERMISSION_DENIED", "It has not been used before."), SetupError, "its rights", 1),
        (
            fails(404, "NOT_FOUND", "models/x is not found for API version v1beta"),
            SetupError,
            "check the model's name; `act2see doctor`",
            1,
        ),
        (
            fails(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            ),
            ContextError,
            "show fewer initial frames",
            1,
        ),
        (says("Hm.", " And", cut=1), ReasonerError, "broke off", 1),
        (says("Hm.", " And", cut=1, politely=True), ReasonerError, "broke off.*without its last part", 1),
    ],
)
async def test_errors_and_retries(reply: GeminiReply, kind: type[Exception], words: str, sent: int) -> None:
    with gemini_server(reply) as server:
        with pytest.raises(kind, match=words):
            await write(reasoner(server))
        assert len(server.requests) == sent


def test_missing_key_fails_before_any_request(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="GOOGLE_API_KEY"):
        chat_model("google_genai:gemini-2.5-flash", {}, "reasoner.weights")


async def test_question_through_the_graph_gives_one_thought(tmp_path: Path) -> None:
    """The trace has the same grammar as with any other reasoner: text, call, frames, text, answer."""
    script = (
        says("<think>\nLook. <retrieve> dog </retrieve>"),
        says("<think>A dog.</think>\n<answer>B</answer>"),
    )
    config, parts = parts_in(tmp_path, None)
    with gemini_server(*script) as server:
        engine = reasoner(server, source=parts.resources.store)
        graph = create_act2see(config, parts=type(parts)(engine, parts.tools, parts.resources))
        trace = await aask(graph, clip_in(tmp_path), "What?", ["cat", "dog"])
    assert trace.text == "Look. <retrieve> dog </retrieve>A dog.</think>\n<answer>B</answer>"
    assert [s.kind for s in trace.segments] == ["text", "call", "frames", "text", "answer"]
    assert (trace.choice, trace.usage.tokens) == ("dog", 14)
    contents = server.requests[1]["contents"]
    assert [c["role"] for c in contents] == ["user", "model", "user"]
    opening, picture, closing = contents[2]["parts"]
    assert (opening["text"][:7], closing["text"]) == ("<frame>", "</frame>")
    assert {"mimeType", "mime_type"} & picture["inlineData"].keys()  # the service takes either
    data = picture["inlineData"]["data"].replace("-", "+").replace("_", "/")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (192, 192)
