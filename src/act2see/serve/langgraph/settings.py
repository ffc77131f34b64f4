"""Keeps a caller's `configurable` from becoming our settings on the LangGraph server.

A parent graph calls a `RemoteGraph` with the `configurable` of its own run, whose `temperature` and
`max_tokens` mean the parent's model. The server takes a `configurable` for the graph's context, under the
same names. So these names are removed from a request's `configurable` before the server reads it. Settings
for our graphs come in `context`, or under `configurable: {act2see: ...}`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import fields
from typing import Any

from act2see.graphs.long_video.graph import LongVideoContext

log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
_NAMES = frozenset(f.name for f in fields(LongVideoContext))  # those of AskContext are among them
_PATHS = re.compile(r"/(runs|assistants|crons)(/|$)")
_OF_BODY = (b"content-length", b"transfer-encoding")


class OwnSettings:
    """The ASGI middleware. A body that is not JSON is passed on unchanged."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        if not _has_settings(scope):
            await self.app(scope, receive, send)
            return
        body, disconnect = await _read_body(receive)
        if disconnect is None:
            body = without_our_names(body)
            headers = [(key, value) for key, value in scope["headers"] if key.lower() not in _OF_BODY]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        left: list[Message] = [disconnect or {"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return left.pop() if left else await receive()

        await self.app(scope, replay, send)


def _has_settings(scope: Message) -> bool:
    """Whether a request's body may hold a `configurable`."""
    if scope["type"] != "http" or scope["method"] not in ("POST", "PUT", "PATCH"):
        return False
    return bool(_PATHS.search(scope["path"]))


async def _read_body(receive: Receive) -> tuple[bytes, Message | None]:
    """A request's whole body; and the message that ended it early, if the client has disconnected."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body, message
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body, None


def without_our_names(body: bytes) -> bytes:
    """A request's body, or a batch of them, without our names in `config.configurable`."""
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
        "removed from configurable, as the caller's own: %s; settings for act2see go into context",
        ", ".join(sorted(removed)),
    )
    return json.dumps(data).encode()
