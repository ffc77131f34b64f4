"""Read the metadata of LangChain's messages, which each provider names differently: the finish reason, the
name of the model, and the token counts."""

from __future__ import annotations

from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Done

LIMIT_REASONS = frozenset({"length", "max_tokens"})
"""Finish reasons that mean a token limit."""
REFUSAL_REASONS = frozenset(
    {
        "safety",
        "content_filter",
        "refusal",
        "recitation",
        "prohibited_content",
        "blocklist",
        "spii",
        "image_safety",
    }
)
"""Finish reasons that mean a refusal."""
# Providers whose streams always end with a finish reason: a stream without one was cut.
_GIVE_REASONS = {"openai", "google_genai", "anthropic"}


def finish_reason(message: Any) -> str:
    """Return why the model stopped, in the provider's words and lower case; empty if it is unknown."""
    metadata = _metadata(message)
    if (getattr(message, "additional_kwargs", None) or {}).get("refusal"):
        return "refusal"
    for key in ("finish_reason", "stop_reason", "done_reason"):
        if reason := metadata.get(key):
            return str(getattr(reason, "name", reason)).lower()
    if blocked := (metadata.get("prompt_feedback") or {}).get("block_reason"):
        # Gemini blocked the question itself, for which it has many reasons.
        return "safety" if "safety" in str(blocked).lower() else "prohibited_content"
    return ""


def is_cut(last: Any) -> bool:
    """Return whether the stream was cut off after this chunk, its last one."""
    return _metadata(last).get("model_provider") in _GIVE_REASONS and not finish_reason(last)


def is_other_model(requested: str, answering: str) -> bool:
    """Return whether two names are of different models; False if either is unknown.

    Names of one model may differ: servers append a version or a date.
    """
    if not requested or not answering:
        return False
    return not requested.startswith(answering) and not answering.startswith(requested)


def requested_model(model: Any) -> str:
    """Return the model name that a chat model sends to its server."""
    return _short_name(getattr(model, "model_name", None) or getattr(model, "model", None))


def answering_model(message: Any) -> str:
    """Return the name of the model that wrote a message; empty if the server did not send it."""
    return _short_name(_metadata(message).get("model_name"))


def make_done(stop: StopReason, message: Any, chunks: int, shown: bool = False) -> Done:
    """Return the end of a continuation.

    Args:
        stop: The reason of the end.
        message: The sum of the chunks with counts; None if the connection was closed before they came.
        chunks: The number of chunks with text. Each counts as a token if the server has counted none.
        shown: Whether the text has the model's whole thought, so that none of it is hidden.
    """
    usage: Any = getattr(message, "usage_metadata", None) or {}
    read = usage.get("input_tokens", 0)
    cached = (usage.get("input_token_details") or {}).get("cache_read", 0) or 0
    thinking = 0 if shown else (usage.get("output_token_details") or {}).get("reasoning", 0) or 0
    written = usage.get("output_tokens", 0)  # LangChain counts the hidden thinking with the output
    decoded = max(0, written - thinking) if written else chunks
    return Done(stop, prefilled=read - cached, cached=cached, decoded=decoded, thinking=thinking)


def _metadata(message: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = getattr(message, "response_metadata", None) or {}
    return metadata


def _short_name(name: Any) -> str:
    """Return a model's name in lower case, without a path in front of it."""
    return str(name or "").rpartition("/")[2].lower()
