"""Errors of remote models: classify them, decide how long to wait, and tell the user what to do.

Each provider's package has its own errors and wraps those of other packages. So errors are classified by
three things they share: an HTTP status somewhere along their causes, a header, and words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from act2see.errors import ContextError, ReasonerError, SetupError
from act2see.tools.runtime.text import first_line

_RETRY_AFTER = re.compile(r"retry[- _]?(?:after|delay|in)\D{0,12}(\d+(?:\.\d+)?)", re.IGNORECASE)
# Names of the classes with which HTTP clients report a lost connection; they share no base class.
_LOST = re.compile("Timeout|Connect|Protocol|(?:Read|Write|Close|Proxy)Error")
_TOO_LONG = re.compile(
    r"context_length_exceeded|context (?:length|window)|maximum number of tokens|prompt is too long|"
    r"too many (?:input )?tokens",
    re.IGNORECASE,
)
_API_KEY = re.compile(r"api[_ ]key", re.IGNORECASE)
_NO_CREDIT = re.compile("insufficient_quota|credit balance", re.IGNORECASE)
_NO_STOPS = re.compile(
    r"unsupported\W.{0,40}\bstop\b|\bstop\b.{0,20} not supported", re.IGNORECASE | re.DOTALL
)
_EMPTY_STREAM = "No generation"  # LangChain's words for a stream that ends before its first chunk
SHORTEN = "show fewer initial frames (view.max_frames), smaller ones, or allow fewer calls (budget.calls)"
"""The advice for a rollout that is too long."""
_VLLM_PARAMETER = re.compile(r" \(parameter=.*\)$")
# The last is vLLM's error for a prompt that fills its context to the last token.
_VLLM_TOO_LONG = ("context length", "max_model_len", "maximum model length", "max_tokens must be at least 1")


class CutError(Exception):
    """A stream ended without a finish reason, although the connection was closed without an error."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The rules for sending a failed request again. Times are in seconds."""

    requests: int = 6
    """The maximum number of times that a request is sent."""
    first: float = 1.0
    """The first wait if the server names none. Each further wait is twice as long."""
    longest: float = 120.0
    """The longest of these waits."""
    accepted: float = 1200.0
    """The longest wait that a server may ask for. A request that would have to wait longer fails."""
    silence: float = 300.0
    """The longest time that a server may send nothing."""
    absent: float = 8.0
    """The longest time to wait for a server that has never answered."""

    def wait(self, error: Exception, sent: int, rng: random.Random) -> float | None:
        """Return the seconds to wait before a failed request is sent again; None if it is given up.

        Args:
            error: The error of the last attempt.
            sent: The number of attempts so far.
            rng: Varies the wait, so that many clients do not return at the same moment.
        """
        if sent >= self.requests or not is_transient(error):
            return None
        asked = retry_after(error)
        if asked is not None:
            return asked if asked <= self.accepted else None
        doubled = self.first * 2.0 ** (sent - 1)
        return min(self.longest, doubled) * rng.uniform(0.75, 1.25)


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    status = status_of(error)
    if status is not None:
        is_temporary = status in (408, 409, 425, 429) or status >= 500
        return is_temporary and not _NO_CREDIT.search(_all_words(error))
    if isinstance(error, ValueError) and _EMPTY_STREAM in str(error):
        return True
    return isinstance(error, CutError) or is_lost(error)


def is_lost(error: BaseException) -> bool:
    """Return whether the connection failed, and not the request."""
    return any(isinstance(e, OSError) or _LOST.search(type(e).__name__) for e in _causes(error))


def refuses_stops(error: Exception) -> bool:
    """Return whether the model does not support stop strings, as is the case for some reasoning models."""
    return status_of(error) == 400 and bool(_NO_STOPS.search(_all_words(error)))


def is_too_long(error: Exception) -> bool:
    """Return whether the request exceeds the model's context, or the size that the server accepts."""
    if any("ContextOverflow" in kind.__name__ for kind in type(error).__mro__):
        return True
    status = status_of(error)
    if status in (None, 400):
        return not is_lost(error) and bool(_TOO_LONG.search(_all_words(error)))
    return status == 413


def to_reasoner_error(error: Exception, name: str, *, began: bool, silence: float) -> ReasonerError:
    """Return the error with which a run ends.

    Args:
        error: The chat model's error.
        name: The model's name.
        began: Whether text had been streamed. That text is dropped: a run is resumed from its last step.
        silence: The seconds that the server may send nothing.
    """
    status = status_of(error)
    words = describe_error(error)
    if is_too_long(error):
        return ContextError(f"the rollout is too long for {name}: {words}; {SHORTEN}")
    if status == 404:
        return SetupError(
            f"{name}: {words}: check the model's name; `act2see doctor` with the same --preset or --config "
            "lists the nearest names that the provider has"
        )
    if status in (401, 402, 403) or (status == 400 and _API_KEY.search(_all_words(error))):
        return SetupError(f"{name}: {words}: check the key and its rights")
    if _NO_CREDIT.search(_all_words(error)):
        return SetupError(f"{name}: {words}: check the account's credit")
    if isinstance(error, TimeoutError):
        return ReasonerError(f"{name} sent nothing for {silence:g} s")
    if began:
        return ReasonerError(f"{name} broke off: {words}; ask again, or resume the run")
    if status is None and is_lost(error):
        return ReasonerError(
            f"{name} cannot be reached: {words}; check that the server is running, and its address"
        )
    return ReasonerError(f"{name} failed: {words}")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error or its causes; None if none has one."""
    for cause in _causes(error):
        for holder in (cause, getattr(cause, "response", None)):
            for name in ("status_code", "code", "status"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 100 <= value < 600:
                    return value
    return None


def retry_after(error: BaseException) -> float | None:
    """Return the seconds that the server asks to wait, in a header or in words; None if it does not ask."""
    for cause in _causes(error):
        headers: Any = getattr(getattr(cause, "response", None), "headers", None) or {}
        try:
            return max(0.0, float(headers.get("retry-after") or headers.get("Retry-After")))
        except (TypeError, ValueError, AttributeError):
            pass
        if found := _RETRY_AFTER.search(str(cause)):
            return float(found[1])
    return None


def describe_error(error: Exception) -> str:
    """Return an error in one line of at most 300 characters: its status, and the server's message."""
    status = status_of(error)
    line = _server_message(error) or first_line(error, 300)
    line = line[:300].rstrip(".")
    return f"status {status}, {line}" if status else line


def _server_message(error: Exception) -> str:
    """Return the first line of the message in the server's JSON, which OpenAI's clients keep as `body`."""
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    message = inner.get("message") if isinstance(inner, dict) else None
    lines = str(message).splitlines() if message else []
    return lines[0] if lines else ""


def without_parameter(words: str) -> str:
    """Return vLLM's message without the parameter that it names at its end."""
    return _VLLM_PARAMETER.sub("", words)


def vllm_limit_error(words: str, name: str, frames: int) -> ReasonerError | None:
    """Return the error for a rollout that exceeds one of vLLM's limits.

    Args:
        words: vLLM's message, in process or over HTTP.
        name: The model's name.
        frames: The number of frames in the rollout.

    Returns:
        The error; None if the message is not about a limit.
    """
    lower = words.lower()
    line = words.partition(", which")[0][:160].rstrip(".")
    if "may be provided in one prompt" in lower:
        return SetupError(
            f"{name}: {line}, and this rollout has {frames}: start the server with `act2see serve vllm`, "
            "which sets `--limit-mm-per-prompt` from the config, or lower view.max_frames"
        )
    if any(phrase in lower for phrase in _VLLM_TOO_LONG):
        return ContextError(
            f"the rollout with {frames} frames is longer than {name} takes ({line}): show fewer initial "
            "frames (view.max_frames), smaller ones (view.max_side), or start the server with a larger "
            "`--max-model-len`"
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, then its causes."""
    while error is not None:
        yield error
        error = error.__cause__


def _all_words(error: BaseException) -> str:
    """Return the messages of an error and its causes, with the server's JSON."""
    words = []
    for cause in _causes(error):
        words.append(str(cause))
        words.append(str(getattr(cause, "body", None) or ""))
    return "\n".join(words)
