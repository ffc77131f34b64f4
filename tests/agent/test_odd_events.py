"""Events of a model server that have another form than its protocol says are connection errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from act2see.agent.reasoners.connection import StatusError, check_status
from act2see.agent.reasoners.follow import Chunk, read_chunk, require_tokens
from act2see.agent.reasoners.llama_cpp import wire as llama
from act2see.agent.reasoners.vllm import wire as vllm

ODD: list[dict[str, Any]] = [
    {"content": 5, "stop": "no", "choices": {"a": 1}, "usage": "many", "timings": 3},
    {"content": ["x"], "choices": [{"delta": "x", "finish_reason": 7}]},
    {"content": float("nan"), "choices": float("nan")},
    {
        "tokens_predicted": "many",
        "tokens_evaluated": [1],
        "choices": [{"delta": {"content": ""}}],
        "usage": {"prompt_tokens": "x", "completion_tokens": {}},
    },
]


@pytest.mark.parametrize("data", ODD)
@pytest.mark.parametrize("wire", [llama, vllm])
def test_an_event_of_another_form_is_a_connection_error(wire: Any, data: dict[str, Any]) -> None:
    with pytest.raises(ConnectionError, match="unknown form"):
        read_chunk(wire.chunk_of, data)


def test_an_event_of_the_right_form_is_read() -> None:
    assert read_chunk(llama.chunk_of, {"content": "x", "tokens_predicted": 3}) == Chunk("x", decoded=2)
    assert read_chunk(vllm.chunk_of, {"choices": [{"delta": {"content": "x"}}]}) == Chunk("x")


async def test_an_error_that_is_nested_too_deep_is_still_one_of_the_server() -> None:
    request = httpx.Request("POST", "http://127.0.0.1/completion")
    with pytest.raises(StatusError):
        await check_status(httpx.Response(500, content=b"[" * 200_000, request=request))


async def sent(*chunks: Chunk) -> AsyncGenerator[Chunk]:
    for chunk in chunks:
        yield chunk


async def test_a_reply_without_a_token_is_a_connection_error() -> None:
    for empty in ([], [Chunk(prompt=9), Chunk(finish="stop", prompt=9)]):
        with pytest.raises(ConnectionError, match="before its first token"):
            _ = [chunk async for chunk in require_tokens(sent(*empty))]


@pytest.mark.parametrize(
    "chunks",
    [
        [Chunk(), Chunk("x"), Chunk(), Chunk(finish="stop")],
        [Chunk(prompt=9), Chunk(finish="stop", decoded=1)],  # the model has ended its turn at once
        [Chunk(finish="stop"), Chunk(decoded=1)],  # some servers count last
        [Chunk(finish="length")],
    ],
)
async def test_a_reply_with_a_token_is_read_whole(chunks: list[Chunk]) -> None:
    assert [chunk async for chunk in require_tokens(sent(*chunks))] == chunks
