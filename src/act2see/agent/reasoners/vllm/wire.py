"""The wire format of a vLLM server: pictures, streamed events, and the classification of its errors."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import httpx

from act2see.agent.reasoners.faults import without_parameter
from act2see.agent.reasoners.vllm.follow import Chunk

_FORGOTTEN = ("cache miss", "cached item", "data is not provided")
_NO_ROOM = ("max_tokens", "context length", "max_model_len")


class StatusError(Exception):
    """The server refused the request, or failed while it was streaming."""

    def __init__(self, response: httpx.Response, message: str, status: int | None = None) -> None:
        """
        Args:
            response: The response, whose headers `retry_after` reads.
            message: The server's message.
            status: The status of an error within a stream, whose response has the status 200.
        """
        super().__init__(message)
        self.response = response
        self.message = message
        self.status = status or response.status_code

    @property
    def has_forgotten(self) -> bool:
        """Whether the server no longer has a frame that was sent by its name."""
        return self.status in (400, 422, 500) and any(s in self.message.lower() for s in _FORGOTTEN)

    @property
    def has_no_room(self) -> bool:
        """Whether `max_tokens` is more than the server's context allows."""
        return self.status == 400 and any(s in self.message.lower() for s in _NO_ROOM)


def image_part(data: bytes, name: str) -> dict[str, Any]:
    """Return a PNG as a part of a message. The server keeps the picture under `name`."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"},
        "uuid": name,
    }


def chunk_of(data: dict[str, Any]) -> Chunk:
    """Return the chunk that an event of a streamed chat completion holds."""
    usage = data.get("usage") or {}
    choices = data.get("choices") or [{}]  # the last event has only counts
    choice: dict[str, Any] = choices[0]
    stopped_at = choice.get("stop_reason")
    return Chunk(
        (choice.get("delta") or {}).get("content") or "",
        choice.get("finish_reason"),
        stopped_at if isinstance(stopped_at, str) else None,  # vLLM's number of a stop token is dropped
        prompt=usage.get("prompt_tokens") or 0,
        cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        decoded=usage.get("completion_tokens") or 0,
    )


async def check_status(response: httpx.Response) -> None:
    """Raise `StatusError` if the status is not 200."""
    if response.status_code == 200:
        return
    body = await response.aread()
    try:
        message = _message_of(json.loads(body))
    except ValueError:
        message = body.decode(errors="replace")
    raise StatusError(response, without_parameter(" ".join(message.split()))[:500])


def stream_error(response: httpx.Response, error: Any) -> StatusError:
    """Return the error of an event that arrives after the status 200."""
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and code >= 400 else 500
    return StatusError(response, without_parameter(_message_of(error))[:500], status)


def is_slow(error: Exception) -> bool:
    """Return whether the server was reached and then sent nothing.

    It is still working on the request, so sending the request again would not help.
    """
    is_timeout = isinstance(error, TimeoutError | httpx.TimeoutException)
    return is_timeout and not isinstance(error, httpx.ConnectTimeout)


def is_local(url: str) -> bool:
    """Return whether the server is on this machine; requests to it must not go through a proxy."""
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def _message_of(error: Any) -> str:
    """Return the message of an error, which the server may wrap in several objects."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message") or error.get("detail") or json.dumps(error)
    return str(error)
