"""The wire format of a vLLM server: pictures, streamed events, and its errors."""

from __future__ import annotations

import base64
from typing import Any

from act2see.agent.reasoners.connection import StatusError
from act2see.agent.reasoners.follow import Chunk

_FORGOTTEN = ("cache miss", "cached item", "data is not provided")
_NO_ROOM = ("max_tokens", "context length", "max_model_len")


def has_forgotten(error: StatusError) -> bool:
    """Return whether the server no longer has a frame that was sent by its name."""
    return error.status in (400, 422, 500) and any(s in error.message.lower() for s in _FORGOTTEN)


def has_no_room(error: StatusError) -> bool:
    """Return whether `max_tokens` is more than the server's context allows."""
    return error.status == 400 and any(s in error.message.lower() for s in _NO_ROOM)


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
