"""What goes over the wire to a vLLM server and back: pictures, streamed events, and how its refusals are told
apart."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from act2see.agent.reasoners.vllm.engine import Chunk
from act2see.agent.reasoners.vllm_faults import bare

if TYPE_CHECKING:
    import httpx


class StatusError(Exception):
    """The server refused; `response` is what `retry_after` reads. An error in a stream has a status of its
    own."""

    def __init__(self, response: httpx.Response, said: str, status: int | None = None) -> None:
        super().__init__(said)
        self.response, self.status, self.said = response, status or response.status_code, said


def image_part(data: bytes, name: str) -> dict[str, Any]:
    """A PNG as a part of a message; the server keeps it under `name`."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"},
        "uuid": name,
    }


def chunk_of(data: dict[str, Any]) -> Chunk:
    usage = data.get("usage") or {}
    choice: dict[str, Any] = next(iter(data.get("choices") or ()), {})
    at = choice.get("stop_reason")
    return Chunk(
        (choice.get("delta") or {}).get("content") or "",
        choice.get("finish_reason"),
        at if isinstance(at, str) else None,
        usage.get("prompt_tokens") or 0,
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        usage.get("completion_tokens") or 0,
    )


async def check(response: httpx.Response) -> None:
    if response.status_code == 200:
        return
    body = await response.aread()
    try:
        said = message_of(json.loads(body))
    except ValueError:
        said = body.decode(errors="replace")
    raise StatusError(response, bare(" ".join(said.split()))[:500])


def in_stream(response: httpx.Response, error: Any) -> StatusError:
    """An error that comes as an event, after the server has said that all is well."""
    code = error.get("code") if isinstance(error, dict) else None
    return StatusError(
        response, bare(message_of(error))[:500], code if isinstance(code, int) and code >= 400 else 500
    )


def message_of(error: Any) -> str:
    """What an error says, however deep the server wraps it."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail") or json.dumps(error)
    return str(error)


def has_forgotten(e: StatusError) -> bool:
    """Whether it refuses because it no longer has a frame that was only named."""
    return e.status in (400, 422, 500) and any(
        s in e.said.lower() for s in ("cache miss", "cached item", "data is not provided")
    )


def has_no_room(said: str) -> bool:
    low = said.lower()
    return "max_tokens" in low or "context length" in low or "max_model_len" in low


def lost() -> type[Exception]:
    import httpx

    return httpx.TransportError


def is_slow(e: Exception) -> bool:
    """Whether the server was heard of and then said nothing: it is at work on the request, and another one
    would not help."""
    import httpx

    return isinstance(e, TimeoutError | httpx.TimeoutException) and not isinstance(e, httpx.ConnectTimeout)


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
