"""The door of the page: which requests reach Gradio, and in which shape.

Gradio answers many requests that this page never makes: it serves files, fetches addresses, records videos,
stores links to a state. It also opens any path that a request contains, before our code runs, because its own
check is disabled when a page is mounted in another app. So this middleware admits only the requests that the
page's scripts make. It reads the one kind of request that carries values, and passes on only the fields that
the page needs, in the shapes that its controls send. A file must be one that the browser has uploaded
(`uploaded_file`), otherwise the request is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from act2see.errors import Act2SeeError, QuestionError
from act2see.serve.failures import log_failure, send_json
from act2see.serve.ui.catalog import uploaded_file
from act2see.serve.ui.streams import Streams
from act2see.tools.runtime.text import format_bytes

Scope = MutableMapping[str, Any]

MAX_BODY = 1 << 20  # bytes of a request with values: a question and its options, not a video
_API = "/gradio_api"
_CALL, _UPLOAD, _EVENTS = (f"{_API}/{what}" for what in ("queue/join", "upload", "queue/data"))
# The requests that the page's scripts make; `clips` and `runs` are ours.
_ALLOWED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/(?:assets|static)(?:/[A-Za-z0-9_.-]{1,200}){1,5}|/(?:clips|runs)/.*"
        rf"|{_API}/(?:app_id|queue/data|startup-events|upload_progress|heartbeat/\w{{1,64}})"
    ),
    "POST": re.compile(rf"{_CALL}|{_UPLOAD}"),
}
_ALLOWED["HEAD"] = _ALLOWED["GET"]
_SESSION = re.compile(r"[\w-]{1,64}")
# Characters that not everything can send or store as UTF-8 text: null and lone surrogates.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class Door:
    """ASGI middleware in front of Gradio.

    Args:
        app: The app behind it.
        events: The page's events by id: for each of an event's values, whether it is an uploaded file.
    """

    def __init__(self, app: Any, events: Mapping[int, Sequence[bool]]) -> None:
        self.app, self.events = app, events
        self.streams = Streams()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        allowed = _ALLOWED.get(scope["method"])
        if allowed is None or not allowed.fullmatch(path):
            await _refuse(send, 404, "there is nothing at this address")
            return
        if not path.startswith(_API):
            scope = {**scope, "query_string": b""}  # Gradio would load a saved state from it
        if path == _CALL:
            await self._call(scope, receive, send)
        elif path == _EVENTS:
            await self.streams.serve(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass an event and its values on."""
        try:
            body = await _read(receive)
        except _TooLargeError:
            longest = format_bytes(MAX_BODY, binary=True)
            await _refuse(send, 413, f"the request is longer than {longest}: shorten the question")
            return
        try:
            call, session = self._checked(body)
        except Act2SeeError as e:
            await _refuse(send, 400, str(e))
            return
        headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length", b"transfer-encoding")]
        headers.append((b"content-length", str(len(call)).encode()))
        sent = False

        async def receive_call() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": call, "more_body": False}

        async def send_in_turn(message: Any) -> None:
            if message["type"] == "http.response.start":
                await self.streams.wait_for_end(session)
            await send(message)

        await self.app({**scope, "headers": headers}, receive_call, send_in_turn)

    def _checked(self, body: bytes) -> tuple[bytes, str]:
        """Return the fields of an event that the page needs, as JSON, and the event's session.

        Raises:
            QuestionError, VideoError: The request contains a value that no control sends.
        """
        try:
            call = json.loads(body)
        except (ValueError, RecursionError) as e:
            raise QuestionError("the request is not JSON: reload the page") from e
        if not isinstance(call, dict) or not isinstance(data := call.get("data"), list):
            raise QuestionError("the request has no list of values: reload the page")
        event, session = call.get("fn_index"), call.get("session_hash")
        files = self.events.get(event) if type(event) is int else None
        if files is None or len(files) != len(data):
            raise QuestionError("the page has no such event: reload the page")
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise QuestionError("the request has no valid session: reload the page")
        values = [_file(v) if is_file else _value(v) for v, is_file in zip(data, files, strict=True)]
        return json.dumps({"data": values, "fn_index": event, "session_hash": session}).encode(), session


class Inside:
    """ASGI middleware inside Gradio's app, for exceptions that it raises because of an invalid request."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
            # Gradio's form parser raises many types of exceptions for forms that no browser sends. It has
            # sent no response yet: it does so only after the whole form is parsed.
            if scope["type"] != "http" or scope["path"] != _UPLOAD:
                raise
            id = log_failure(f"POST {_UPLOAD}", e)
            await _refuse(send, 400, f"the form contains no file: choose the file again (error {id})")
        except RuntimeError as e:
            # The session is unknown, for example after a restart of the server. The page was told so and
            # reloads itself.
            if (
                scope["type"] != "http"
                or scope["path"] != _EVENTS
                or not isinstance(e.__cause__, HTTPException)
            ):
                raise
            await send({"type": "http.response.body", "body": b""})


class _TooLargeError(Exception):
    pass


async def _read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the client has disconnected
            return b""
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            raise _TooLargeError
        if not message.get("more_body"):
            return body


def _value(value: Any) -> Any:
    """Return a value that a control can send: None, a bool, a number, a string or a list of strings."""
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value)
        case list() if all(isinstance(v, str) for v in value):
            return [_text(v) for v in value]
    raise QuestionError("the request contains a value that no control of the page sends: reload the page")


def _file(value: Any) -> Any:
    """Return an uploaded file in Gradio's format, or None.

    Raises:
        QuestionError: The value is not a file.
        VideoError: The file was not uploaded.
    """
    match value:
        case None:
            return None
        case {"path": str(path)}:
            return {"path": uploaded_file(path), "meta": {"_type": "gradio.FileData"}}
    raise QuestionError("the request contains a value that no control of the page sends: reload the page")


def _text(text: str) -> str:
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


async def _refuse(send: Any, status: int, why: str) -> None:
    await send_json(
        send, status, {"message": why, "type": "invalid_request_error", "param": None, "code": None}, why
    )
