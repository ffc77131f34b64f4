"""Keeps a caller's `configurable` from becoming our settings on the LangGraph server.

A parent graph calls a `RemoteGraph` with the `configurable` of its own run, whose `temperature` and
`max_tokens` mean the parent's model. The server takes a `configurable` for the graph's context, under the
same names. So these names are left out of a request's `configurable` before the server reads it. Settings for
our graphs come in `context`, or under `configurable: {act2see: ...}`.
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
_NAMES = frozenset(f.name for f in fields(LongVideoContext))  # those of AskContext are among them
_PATHS = re.compile(r"/(runs|assistants|crons)(/|$)")


class OwnSettings:
    """The ASGI middleware. A body that is no JSON is passed on as it is."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] not in ("POST", "PUT", "PATCH")
            or not _PATHS.search(scope["path"])
        ):
            await self.app(scope, receive, send)
            return
        body = b""
        last: Message = {"type": "http.disconnect"}
        while True:
            last = dict(await receive())
            if last["type"] != "http.request":
                break
            body += last.get("body", b"")
            if not last.get("more_body"):
                break
        if last["type"] == "http.request":
            body = without_our_names(body)
            headers = [
                (k, v)
                for k, v in scope["headers"]
                if k.lower() not in (b"content-length", b"transfer-encoding")
            ]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
            last = {"type": "http.request", "body": body, "more_body": False}
        given: list[Message] = [last]

        async def replayed() -> Message:
            return given.pop() if given else await receive()

        await self.app(scope, replayed, send)


def without_our_names(body: bytes) -> bytes:
    """A request's body, or each of a batch, without our names in its `config.configurable`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return body
    dropped: set[str] = set()
    for request in data if isinstance(data, list) else [data]:
        config = request.get("config") if isinstance(request, dict) else None
        configurable = config.get("configurable") if isinstance(config, dict) else None
        if isinstance(configurable, dict):
            dropped |= configurable.keys() & _NAMES
            config["configurable"] = {key: value for key, value in configurable.items() if key not in _NAMES}  # type: ignore[index]
    if not dropped:
        return body
    log.info(
        "left out of configurable, as the caller's own: %s; settings for act2see go into context",
        ", ".join(sorted(dropped)),
    )
    return json.dumps(data).encode()
