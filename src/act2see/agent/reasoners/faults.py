"""Faults of models behind an interface: what an error means, how long to wait, what the user can do.

Each provider's package has errors of its own and wraps those of others. So errors are read by what they have
in common: an HTTP status somewhere along their causes, a header, words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from act2see.errors import ContextError, ReasonerError, SetupError
from act2see.tools.runtime.text import first_line

_ASKED = re.compile(r"retry[- _]?(?:after|delay|in)\D{0,12}(\d+(?:\.\d+)?)", re.IGNORECASE)
_LOST = re.compile("Timeout|Connect|Protocol|(?:Read|Write|Close|Proxy)Error")
_TOO_LONG = re.compile(
    r"context_length_exceeded|context (?:length|window)|maximum number of tokens|prompt is too long|"
    r"too many (?:input )?tokens",
    re.IGNORECASE,
)
_KEY = re.compile(r"api[_ ]key", re.IGNORECASE)
_NO_CREDIT = re.compile("insufficient_quota|credit balance", re.IGNORECASE)
_NO_STOPS = re.compile(
    r"unsupported\W.{0,40}\bstop\b|\bstop\b.{0,20} not supported", re.IGNORECASE | re.DOTALL
)
_NOTHING = "No generation"  # LangChain's words for a stream that ends before it begins
_SHORTER = "show fewer initial frames (view.max_frames), smaller ones, or allow fewer calls (budget.calls)"
_VLLM_PARAMETER = re.compile(r" \(parameter=.*\)$")
# The last is vLLM's error for a prompt that fills its context to the last token.
_VLLM_TOO_LONG = ("context length", "max_model_len", "maximum model length", "max_tokens must be at least 1")


class CutError(Exception):
    """A stream ended without a reason: the connection was closed politely."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a request is sent, and how long to wait before it is sent again. Times are in seconds."""

    requests: int = 6
    """How often a request is sent at most."""
    first: float = 1.0
    """The first wait if the server names none; each further wait is twice as long."""
    longest: float = 120.0
    """The longest of these waits."""
    accepted: float = 1200.0
    """The longest wait that a server may ask for; a request that would have to wait longer fails."""
    silence: float = 300.0
    """How long a server may say nothing."""
    absent: float = 8.0
    """How long a server that has never answered is looked for."""

    def wait(self, error: Exception, sent: int, rng: random.Random) -> float | None:
        """Seconds until a request that has been sent `sent` times is sent again; None if it will not be."""
        if sent >= self.requests or not is_transient(error):
            return None
        asked = retry_after(error)
        if asked is not None:
            return asked if asked <= self.accepted else None
        return min(self.longest, self.first * 2.0 ** (sent - 1)) * rng.uniform(0.75, 1.25)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        passes = status in (408, 409, 425, 429) or status >= 500
        return passes and not _NO_CREDIT.search(_all_words(error))
    if isinstance(error, ValueError) and _NOTHING in str(error):
        return True
    return isinstance(error, CutError) or is_lost(error)


def is_lost(error: BaseException) -> bool:
    """Whether the connection failed, and not the request."""
    return any(isinstance(e, OSError) or _LOST.search(type(e).__name__) for e in _causes(error))


def refuses_stops(error: Exception) -> bool:
    """Whether the model takes no stop strings, as some reasoning models do."""
    return status_of(error) == 400 and bool(_NO_STOPS.search(_all_words(error)))


def is_too_long(error: Exception) -> bool:
    """Whether the request exceeds the model's context, or the size that the server accepts."""
    if any("ContextOverflow" in kind.__name__ for kind in type(error).__mro__):
        return True
    status = status_of(error)
    if status in (None, 400):
        return not is_lost(error) and bool(_TOO_LONG.search(_all_words(error)))
    return status == 413


def to_reasoner_error(error: Exception, name: str, *, began: bool, silence: float) -> ReasonerError:
    """The error with which a run ends.

    Args:
        error: The chat model's error.
        name: The model's name.
        began: Whether text had been streamed. It is dropped: a run is resumed from its last step.
        silence: How many seconds the server may say nothing.
    """
    status, words = status_of(error), error_line(error)
    if is_too_long(error):
        return ContextError(f"{name} cannot read that much: {words}; {_SHORTER}")
    if status in (401, 402, 403, 404) or (status == 400 and _KEY.search(_all_words(error))):
        return SetupError(f"{name}: {words}: check the key, its rights and the model's name")
    if _NO_CREDIT.search(_all_words(error)):
        return SetupError(f"{name}: {words}: check the account's credit")
    if isinstance(error, TimeoutError):
        return ReasonerError(f"{name} said nothing for {silence:g} s")
    if began:
        return ReasonerError(f"{name} broke off: {words}; ask again, or resume the run")
    if status is None and is_lost(error):
        return ReasonerError(
            f"{name} cannot be reached: {words}; is the server running, and at this address?"
        )
    return ReasonerError(f"{name} failed: {words}")


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, wherever its library keeps it."""
    for cause in _causes(error):
        for holder in (cause, getattr(cause, "response", None)):
            for name in ("status_code", "code", "status"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 100 <= value < 600:
                    return value
    return None


def retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait, in a header or in words."""
    for cause in _causes(error):
        headers: Any = getattr(getattr(cause, "response", None), "headers", None) or {}
        try:
            return max(0.0, float(headers.get("retry-after") or headers.get("Retry-After")))
        except (TypeError, ValueError, AttributeError):
            pass
        if found := _ASKED.search(str(cause)):
            return float(found[1])
    return None


def error_line(error: Exception) -> str:
    """An error in one line: its status, and the server's message."""
    status = status_of(error)
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    words = next(iter(str(message).splitlines()), "") if message else ""
    line = (words or first_line(error, 300))[:300].rstrip(".")
    return f"status {status}, {line}" if status else line


def without_parameter(words: str) -> str:
    """vLLM's words without the parameter that they name at their end."""
    return _VLLM_PARAMETER.sub("", words)


def vllm_limit_error(words: str, name: str, frames: int) -> ReasonerError | None:
    """The error for a limit of vLLM that a rollout has met.

    Args:
        words: What vLLM says, in process or over HTTP.
        name: The model's name.
        frames: How many frames the rollout has.

    Returns:
        None if the words are not about a limit.
    """
    lower = words.lower()
    line = words.partition(", which")[0][:160].rstrip(".")
    if "may be provided in one prompt" in lower:
        return SetupError(
            f"{name}: {line}, and this rollout has {frames}: start the server with `act2see serve vllm`, "
            "which sets --limit-mm-per-prompt from the config, or lower view.max_frames"
        )
    if any(phrase in lower for phrase in _VLLM_TOO_LONG):
        return ContextError(
            f"the rollout with {frames} frames is longer than {name} takes ({line}): show fewer initial "
            "frames (view.max_frames), smaller ones (view.max_side), or start the server with a larger "
            "--max-model-len"
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__


def _all_words(error: BaseException) -> str:
    """The messages of an error and its causes, and the server's JSON."""
    words = []
    for cause in _causes(error):
        words += [str(cause), str(getattr(cause, "body", None) or "")]
    return "\n".join(words)
