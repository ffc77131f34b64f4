"""What LangChain's messages say beside their text, in each provider's words: why the model stopped, which
model it was, how many tokens it took."""

from __future__ import annotations

from typing import Any

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Done

LIMIT_REASONS = frozenset({"length", "max_tokens"})
"""Reasons to stop that mean a token limit."""
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
"""Reasons to stop that mean a refusal."""
# Providers whose streams always end with a reason: a stream without one was cut.
_GIVE_REASONS = {"openai", "google_genai", "anthropic"}


def finish_reason(message: Any) -> str:
    """Why the model stopped, in the provider's words and lower case; empty if it has not said so."""
    meta = getattr(message, "response_metadata", None) or {}
    reason = meta.get("finish_reason") or meta.get("stop_reason") or meta.get("done_reason") or ""
    if (getattr(message, "additional_kwargs", None) or {}).get("refusal"):
        return "refusal"
    if not reason and (blocked := (meta.get("prompt_feedback") or {}).get("block_reason")):
        # Gemini's, if it will not read the question. It has many names for that.
        return "safety" if "safety" in str(blocked).lower() else "prohibited_content"
    return str(getattr(reason, "name", reason)).lower()


def is_cut(last: Any) -> bool:
    """Whether a stream that ended with this chunk was cut."""
    provider = (getattr(last, "response_metadata", None) or {}).get("model_provider")
    return provider in _GIVE_REASONS and not finish_reason(last)


def is_other_model(asked: str, answered: str) -> bool:
    """Whether these are two models; False if either is unknown. Names grow: a version or a date is appended,
    a path put in front."""
    if not asked or not answered:
        return False
    return not asked.startswith(answered) and not answered.startswith(asked)


def asked_model(model: Any) -> str:
    """The name by which a chat model asks its server."""
    return _short_name(getattr(model, "model_name", None) or getattr(model, "model", None))


def answering_model(message: Any) -> str:
    """The name of the model that wrote a message; empty if the server has not said so."""
    return _short_name((getattr(message, "response_metadata", None) or {}).get("model_name"))


def done_of(stop: StopReason, message: Any, chunks: int) -> Done:
    """The end of a continuation.

    Args:
        stop: Why it ended.
        message: The sum of the chunks that held counts; None if the connection was left before they came.
        chunks: How many chunks held text: each counts as a token if the server has counted none.
    """
    usage: Any = getattr(message, "usage_metadata", None) or {}
    read = usage.get("input_tokens", 0)
    cached = (usage.get("input_token_details") or {}).get("cache_read", 0) or 0
    return Done(stop, prefilled=read - cached, cached=cached, decoded=usage.get("output_tokens", 0) or chunks)


def _short_name(name: Any) -> str:
    return str(name or "").rpartition("/")[2].lower()
