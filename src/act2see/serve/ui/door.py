"""The door of the page: middleware that admits only the requests that the page's own scripts make.

Gradio answers many other requests: it serves files, fetches addresses, records videos, stores links to a
state. It also opens any path that a request contains, before our code runs, because its own check is disabled
when a page is mounted in another app. One kind of request carries values. The door parses it and passes on
only the fields that the page needs, with values of the types that its controls send. A file must have been
uploaded by the browser (`uploaded_file`); otherwise the request is refused.
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

MAX_BODY = 1 << 20
"""The maximum size, in bytes, of a request with values: a question and its options, not a video."""
_API = "/gradio_api"
_CALL = f"{_API}/queue/join"
_UPLOAD = f"{_API}/upload"
_EVENTS = f"{_API}/queue/data"
# The requests that the page's scripts make. `clips` and `runs` are our own paths.
_ALLOWED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/(?:assets|static)(?:/[A-Za-z0-9_.-]{1,200}){1,5}|/(?:clips|runs)/.*"
        rf"|{_API}/(?:app_id|queue/data|startup-events|upload_progress|heartbeat/\w{{1,64}})"
    ),
    "POST": re.compile(rf"{_CALL}|{_UPLOAD}"),
}
_ALLOWED["HEAD"] = _ALLOWED["GET"]
_SESSION = re.compile(r"[\w-]{1,64}")
# Characters that some libraries cannot send or store as UTF-8 text: null and lone surrogates.
_NOT_TEXT = re.compile("[\x00\ud800-\udfff]")


class Door:
    """ASGI middleware in front of Gradio.

    Args:
        app: The app that receives the admitted requests.
        events: For each event of the page, by id: a flag for each of its values, true for an uploaded file.
    """

    def __init__(self, app: Any, events: Mapping[int, Sequence[bool]]) -> None:
        self.app = app
        self.events = events
        self.streams = Streams()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        allowed = _ALLOWED.get(scope["method"])
        if allowed is None or not allowed.fullmatch(path):
            await _refuse(send, 404, "this address does not exist")
            return
        if not path.startswith(_API):
            scope = {**scope, "query_string": b""}  # with a query, Gradio would load a saved state
        if path == _CALL:
            await self._call(scope, receive, send)
        elif path == _EVENTS:
            await self.streams.serve(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Any, send: Any) -> None:
        """Check an event and its values, and pass it on."""
        try:
            body = await _read_body(receive)
        except _TooLargeError:
            longest = format_bytes(MAX_BODY, binary=True)
            await _refuse(send, 413, f"the request is longer than {longest}: shorten the question")
            return
        try:
            call, session = self._parse_call(body)
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

        async def send_after_stream(message: Any) -> None:
            if message["type"] == "http.response.start":
                await self.streams.wait_for_end(session)
            await send(message)

        await self.app({**scope, "headers": headers}, receive_call, send_after_stream)

    def _parse_call(self, body: bytes) -> tuple[bytes, str]:
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
            raise QuestionError("the request is for an unknown event: reload the page")
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise QuestionError("the request has no valid session: reload the page")
        values = []
        for value, is_file in zip(data, files, strict=True):
            values.append(_check_file(value) if is_file else _check_value(value))
        call = {"data": values, "fn_index": event, "session_hash": session}
        return json.dumps(call).encode(), session


class InvalidRequests:
    """ASGI middleware inside Gradio's app: answers the exceptions that Gradio raises for invalid requests."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
            # Gradio's form parser raises many types of exceptions for forms that no browser sends. No
            # response has been sent, because Gradio parses the whole form first.
            if scope["type"] != "http" or scope["path"] != _UPLOAD:
                raise
            id = log_failure(f"POST {_UPLOAD}", e)
            await _refuse(send, 400, f"the form contains no file: choose the file again (error {id})")
        except RuntimeError as e:
            # The session is unknown, for example after a restart of the server. Gradio has already sent this
            # to the page, which reloads itself.
            is_stream = scope["type"] == "http" and scope["path"] == _EVENTS
            if not is_stream or not isinstance(e.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b""})


class _TooLargeError(Exception):
    pass


async def _read_body(receive: Any) -> bytes:
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


def _check_value(value: Any) -> Any:
    """Return a value that a control can send: None, a bool, a number, a string or a list of strings.

    Raises:
        QuestionError: The value is of another type.
    """
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _clean_text(value)
        case list() if all(isinstance(v, str) for v in value):
            return [_clean_text(v) for v in value]
    raise QuestionError("the request contains a value that no control of the page sends: reload the page")


def _check_file(value: Any) -> Any:
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


def _clean_text(text: str) -> str:
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


async def _refuse(send: Any, status: int, why: str) -> None:
    error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    await send_json(send, status, error, why)
