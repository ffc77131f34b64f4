"""What an error of a chat model means: whether it passes, how long to wait, and what is to be done about it.

Each provider's package has errors of its own, and wraps others'. So they are read by what they have in
common: an HTTP status somewhere along the causes, a header, words.
"""

from __future__ import annotations

import re
from typing import Any

from act2see.errors import ContextError, ReasonerError, SetupError

_ASKED = re.compile(r"retry[- _]?(?:after|delay|in)\D{0,12}(\d+(?:\.\d+)?)", re.IGNORECASE)
_LOST = re.compile("Timeout|Connect|Protocol|ReadError|WriteError")
_TOO_LONG = re.compile(
    r"context_length_exceeded|context (?:length|window)|maximum number of tokens|prompt is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)
_KEY = re.compile(r"api[_ ]key", re.IGNORECASE)
_NO_CREDIT = re.compile("insufficient_quota|credit balance", re.IGNORECASE)
_NO_STOPS = re.compile(
    r"unsupported\W.{0,40}\bstop\b|\bstop\b.{0,20} not supported", re.IGNORECASE | re.DOTALL
)
_NOTHING = "No generation"  # what LangChain says of a stream that ends before it begins
_SHORTER = "show fewer initial frames (view.max_frames), smaller ones, or allow fewer calls (budget.calls)"


class CutError(Exception):
    """A stream that ended without saying why: the connection was cut politely."""


def passes(error: Exception) -> bool:
    """Whether the same request may fare better later."""
    status = status_of(error)
    if status is not None:
        return (status in (408, 409, 425, 429) or status >= 500) and not _NO_CREDIT.search(_all_words(error))
    return (
        isinstance(error, CutError)
        or is_lost(error)
        or (isinstance(error, ValueError) and _NOTHING in str(error))
    )


def is_lost(error: BaseException | None) -> bool:
    """Whether the connection, and not the server's word, is what failed."""
    while error is not None:
        if isinstance(error, OSError | TimeoutError) or _LOST.search(type(error).__name__):
            return True
        error = error.__cause__
    return False


def refuses_stops(error: Exception) -> bool:
    """Whether the model takes no stop strings (reasoning models of some providers)."""
    return status_of(error) == 400 and bool(_NO_STOPS.search(_all_words(error)))


def reasoner_error(error: Exception, name: str, *, began: bool, silence: float) -> ReasonerError:
    """What the run ends with. `began`: the stream had, and what it held is dropped, for the run goes on from
    its last step."""
    status, words = status_of(error), said(error)
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


def is_too_long(error: Exception) -> bool:
    if any("ContextOverflow" in kind.__name__ for kind in type(error).__mro__):
        return True
    status = status_of(error)
    return status == 413 or (
        status in (None, 400) and not is_lost(error) and bool(_TOO_LONG.search(_all_words(error)))
    )


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, however its library keeps it."""
    while error is not None:
        for holder in (error, getattr(error, "response", None)):
            for name in ("status_code", "code", "status"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and 100 <= value < 600:
                    return value
        error = error.__cause__
    return None


def retry_after(error: BaseException | None) -> float | None:
    """Seconds that the server asks to wait: its header, or its words."""
    while error is not None:
        headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
        try:
            return max(0.0, float(headers.get("retry-after") or headers.get("Retry-After")))
        except (TypeError, ValueError, AttributeError):
            pass
        if found := _ASKED.search(str(error)):
            return float(found[1])
        error = error.__cause__
    return None


def _all_words(error: BaseException | None) -> str:
    """What an error and its causes say, in their messages and in the server's JSON."""
    words = []
    while error is not None:
        words += [str(error), str(getattr(error, "body", None) or "")]
        error = error.__cause__
    return "\n".join(words)


def said(error: Exception) -> str:
    """An error in a line."""
    status = status_of(error)
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    words = inner.get("message") if isinstance(inner, dict) else None
    first = next(iter(str(words or error).splitlines()), "") or type(error).__name__
    return f"{f'status {status}, ' if status else ''}{first[:300].rstrip('.')}"
