"""The door of the page: which requests reach Gradio, and in which shape.

Gradio answers many requests that this page never makes: it hands out files, fetches addresses, records
videos, keeps links to a state. And it opens whatever path stands in a request, before any code of ours runs,
for its own check is off where a page is mounted in another app. So this middleware lets in only what the
page's own scripts ask for, reads the one request that carries values, and passes on those parts of them that
the page needs, in the shapes that its controls send. A file is one that the browser has uploaded
(`uploaded_file`), or the request is refused.
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
from act2see.serve.ui.shelf import uploaded_file
from act2see.serve.ui.streams import Streams

Scope = MutableMapping[str, Any]

MAX_BODY = 1 << 20  # bytes of a request with values: a question and its options, not a video
_API = "/gradio_api"
_CALL, _UPLOAD, _EVENTS = (f"{_API}/{what}" for what in ("queue/join", "upload", "queue/data"))
# What the page's own scripts ask for; `clips` and `runs` are ours.
_ALLOWED = {
    "GET": re.compile(
        r"/|/config|/theme\.css|/favicon\.ico|/(?:assets|static)(?:/[A-Za-z0-9_.-]{1,200}){1,5}|/(?:clips|runs)/.*"
        rf"|{_API}/(?:app_id|queue/data|startup-events|upload_progress|heartbeat/\w{{1,64}})"
    ),
    "POST": re.compile(rf"{_CALL}|{_UPLOAD}"),
}
_ALLOWED["HEAD"] = _ALLOWED["GET"]
_SESSION = re.compile(r"[\w-]{1,64}")
# Characters that cannot be sent, or saved, as UTF-8 text everywhere: null, and halves of surrogate pairs.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


class Door:
    """ASGI middleware in front of Gradio.

    `events` are the page's by their ids: for each of their values, whether it is an uploaded file.
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
            await _refuse(send, 404, "the page has nothing here")
            return
        if not path.startswith(_API):
            scope = {**scope, "query_string": b""}  # Gradio would read a saved state from there
        if path == _CALL:
            await self._call(scope, receive, send)
        elif path == _EVENTS:
            await self.streams.serve(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _call(self, scope: Scope, receive: Any, send: Any) -> None:
        """Let an event with its values in."""
        try:
            body = await _read(receive)
        except _TooLargeError:
            await _refuse(send, 413, f"the request is longer than {MAX_BODY} bytes: shorten the question")
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
        """Return the parts of an event that the page needs, and the event's session.

        Raises:
            QuestionError, VideoError: The request holds something that no control sends.
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
            raise QuestionError("the request is for an event that the page does not have: reload the page")
        if not isinstance(session, str) or not _SESSION.fullmatch(session):
            raise QuestionError("the request belongs to no session: reload the page")
        values = [_file(v) if is_file else _value(v) for v, is_file in zip(data, files, strict=True)]
        return json.dumps({"data": values, "fn_index": event, "session_hash": session}).encode(), session


class Inside:
    """ASGI middleware within Gradio's app, for what it raises although the client alone is to blame."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as e:
            # Its reader of forms fails in many ways on what no browser sends; it answers only when it has
            # read all.
            if scope["type"] != "http" or scope["path"] != _UPLOAD:
                raise
            id = log_failure(f"POST {_UPLOAD}", e)
            await _refuse(send, 400, f"this is no form with a file in it: choose the file again (error {id})")
        except RuntimeError as e:
            # The session is unknown, as after a restart of the server: the page has been told that, and loads
            # itself again.
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
        if message["type"] != "http.request":  # the client has gone
            return b""
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY:
            raise _TooLargeError
        if not message.get("more_body"):
            return body


def _value(value: Any) -> Any:
    """One value as a control sends it: nothing, a truth value, a number, a text, texts."""
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case str():
            return _text(value)
        case list() if all(isinstance(v, str) for v in value):
            return [_text(v) for v in value]
    raise QuestionError("the request has a value that none of the page's controls sends: reload the page")


def _file(value: Any) -> Any:
    """An uploaded file as Gradio reads it. Raises `VideoError` where it is none."""
    match value:
        case None:
            return None
        case {"path": str(path)}:
            return {"path": uploaded_file(path), "meta": {"_type": "gradio.FileData"}}
    raise QuestionError("the request has a value that none of the page's controls sends: reload the page")


def _text(text: str) -> str:
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


async def _refuse(send: Any, status: int, why: str) -> None:
    await send_json(
        send, status, {"message": why, "type": "invalid_request_error", "param": None, "code": None}, why
    )
