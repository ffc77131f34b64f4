"""Middleware that reads a request before the LangGraph server does, and refuses what its schema forbids.

`requests.py` has the schema. Besides, a caller's `configurable` must not change the settings of our graphs. A
parent graph calls a `RemoteGraph` with the `configurable` of its own run, in which `temperature` and
`max_tokens` refer to the parent's model. The LangGraph server would use these values as our graph's context,
because the names are the same. So the names are removed from a request's `configurable`. Settings for our
graphs are sent in `context`, or as `configurable: {act2see: ...}`.

The server reads JSON with another parser than ours. A text that ours cannot read is refused and never passed
on unread: an integer of 5,000 digits is an error here, and a number there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import fields
from typing import Any

from act2see.errors import Act2SeeError, ConfigError
from act2see.graphs.long_video.graph import LongVideoContext
from act2see.serve.failures import send_json
from act2see.serve.langgraph.requests import check_needed, check_request, requests_in
from act2see.tools.runtime.plain_json import parse_json
from act2see.tools.runtime.text import format_bytes

log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
MAX_BODY = 64 << 20
"""The maximum size of a request, in bytes. The state of a thread may be sent, but no pixels."""
_NAMES = frozenset(f.name for f in fields(LongVideoContext))  # a superset of AskContext's fields
_PATHS = re.compile(r"/(runs|assistants|crons|threads|mcp|a2a|store)(/|$)")
_LENGTH_HEADERS = (b"content-length", b"transfer-encoding")


class _TooLargeError(Exception):
    pass


class OwnSettings:
    """ASGI middleware that refuses requests outside the schema (422), and removes names of our settings.

    Messages of a WebSocket are read in the same way. An invalid one ends it (1008).
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        if scope["type"] == "websocket" and _PATHS.search(scope["path"]):
            await self._serve_socket(scope, receive, send)
            return
        if not _has_settings(scope):
            await self.app(scope, receive, send)
            return
        try:
            body, disconnect = await _read_body(receive)
            if disconnect is None and body:
                body = await asyncio.to_thread(checked_body, body, scope["path"])
        except _TooLargeError:
            largest = format_bytes(MAX_BODY, binary=True)
            await _refuse(send, 413, f"the request is larger than {largest}: send names of files")
            return
        except ConfigError as e:
            await _refuse(send, 422, str(e))
            return
        scope = {**scope, "headers": _replace_length(scope["headers"], len(body))}
        unread: list[Message] = [disconnect or {"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await _answer_errors(self.app, scope, replay, send)

    async def _serve_socket(self, scope: Message, receive: Receive, send: Any) -> None:
        async def receive_checked() -> Message:
            message = await receive()
            sent = message.get("text") or message.get("bytes")
            if message["type"] != "websocket.receive" or not sent:
                return message
            try:
                text = checked_body(sent.encode() if isinstance(sent, str) else sent, scope["path"]).decode()
            except (ConfigError, UnicodeError) as e:
                await send({"type": "websocket.close", "code": 1008, "reason": str(e)[:100]})
                return {"type": "websocket.disconnect", "code": 1008}
            return {"type": "websocket.receive", "text": text}

        await self.app(scope, receive_checked, send)


async def _answer_errors(app: Any, scope: Message, receive: Receive, send: Any) -> None:
    """Serve a request. An error that our graphs raise while the server handles it is answered with 422.

    The server updates the state of a thread at once, so a wrong value is not the error of a run.
    """
    is_started = False

    async def watched_send(message: Message) -> None:
        nonlocal is_started
        is_started = is_started or message["type"] == "http.response.start"
        await send(message)

    try:
        await app(scope, receive, watched_send)
    except Act2SeeError as e:
        if is_started:
            raise
        await _refuse(send, 422, str(e))


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
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body), message
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _TooLargeError
        if not message.get("more_body"):
            return bytes(body), None


def checked_body(body: bytes, path: str) -> bytes:
    """Return a request's body, or a batch of requests, as the server may read it.

    Args:
        body: The body.
        path: That of the request. A run whose path names no thread has none.

    Raises:
        ConfigError: The body is not JSON, or is outside the schema.
    """
    try:
        sent = parse_json(body, MAX_BODY, keep_nul=True)
    except ValueError as e:
        raise ConfigError(f"the request is not JSON that can be read: {e}") from e
    is_changed = False
    removed: set[str] = set()
    if isinstance(sent, dict):
        is_changed = check_needed(sent, path)
    for request in requests_in(sent):
        is_changed |= check_request(request, is_new="/threads/" not in path)
        configurable = (request.get("config") or {}).get("configurable") or {}
        for name in configurable.keys() & _NAMES:
            removed.add(name)
            del configurable[name]
    if removed:
        log.info(
            "removed the caller's settings from configurable: %s; send settings for act2see in context",
            ", ".join(sorted(removed)),
        )
    return json.dumps(sent).encode() if is_changed or removed else body


async def _refuse(send: Any, status: int, why: str) -> None:
    error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    await send_json(send, status, error, why)
