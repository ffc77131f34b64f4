"""Middleware that keeps a caller's `configurable` from changing the settings of our graphs.

A parent graph calls a `RemoteGraph` with the `configurable` of its own run, in which `temperature` and
`max_tokens` refer to the parent's model. The LangGraph server would use these values as our graph's context,
because the names are the same. So the names are removed from a request's `configurable` before the server
reads it. Settings for our graphs are sent in `context`, or as `configurable: {act2see: ...}`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import fields
from typing import Any

from act2see.graphs.long_video.graph import LongVideoContext

log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
_NAMES = frozenset(f.name for f in fields(LongVideoContext))  # a superset of AskContext's fields
_PATHS = re.compile(r"/(runs|assistants|crons)(/|$)")
_LENGTH_HEADERS = (b"content-length", b"transfer-encoding")


class OwnSettings:
    """ASGI middleware that removes the names of our settings from a request's `configurable`.

    A body that is not JSON is passed on unchanged.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        if not _has_settings(scope):
            await self.app(scope, receive, send)
            return
        body, disconnect = await _read_body(receive)
        if disconnect is None:
            body = without_our_names(body)
            scope = {**scope, "headers": _replace_length(scope["headers"], len(body))}
        unread: list[Message] = [disconnect or {"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, replay, send)


def _has_settings(scope: Message) -> bool:
    """Return whether a request's body may contain a `configurable`."""
    if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
        return False
    return bool(_PATHS.search(scope["path"]))


def _replace_length(headers: Iterable[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request whose body now has `length` bytes."""
    kept = [(key, value) for key, value in headers if key.lower() not in _LENGTH_HEADERS]
    return [*kept, (b"content-length", str(length).encode())]


async def _read_body(receive: Receive) -> tuple[bytes, Message | None]:
    """Return a request's body, and the message that ended it early if the client has disconnected."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body, message
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body, None


def without_our_names(body: bytes) -> bytes:
    """Return a request's body, or a batch of requests, without our names in `config.configurable`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return body
    removed: set[str] = set()
    for request in data if isinstance(data, list) else [data]:
        config = request.get("config") if isinstance(request, dict) else None
        configurable = config.get("configurable") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(configurable, dict):
            continue
        removed |= configurable.keys() & _NAMES
        config["configurable"] = {key: value for key, value in configurable.items() if key not in _NAMES}
    if not removed:
        return body
    log.info(
        "removed the caller's settings from configurable: %s; send settings for act2see in context",
        ", ".join(sorted(removed)),
    )
    return json.dumps(data).encode()
