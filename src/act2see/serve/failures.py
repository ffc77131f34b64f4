"""Unexpected errors: logged in full under an id, which is all that the client learns.

An expected error (`Act2SeeError`) says in its own words what the user can do. Any other may hold paths, keys
or other people's data, so its text stays in the log. The id connects the two: with it the operator finds the
traceback that a user reports.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import MutableMapping
from typing import Any

log = logging.getLogger(__name__)


def log_failure(what: str, error: BaseException) -> str:
    """Log an error with its traceback under a new id.

    Args:
        what: What failed, such as "POST /v1/chat/completions". Newlines in it cannot forge a line of the log.

    Returns:
        The id, for the message to the client.
    """
    id = secrets.token_hex(6)
    log.error("%s failed (error %s)", what.encode("unicode_escape").decode("ascii"), id, exc_info=error)
    return id


def failure_message(id: str) -> str:
    """The sentence that a client reads instead of the error's own text."""
    return f"the server failed (error {id}); its log says why, under this id"


class LogFailures:
    """ASGI middleware: turns an exception into a 500 with an id, and logs its traceback under that id.

    After the first byte of a response the error can only be logged. The connection is then cut, so that the
    client notices.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.requests import ClientDisconnect

        begun = False

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            return  # it hung up while it was sending: nobody is left to answer
        except Exception as e:
            id = log_failure(f"{scope['method']} {scope['path']}", e)
            if begun:
                raise
            message = failure_message(id)
            error = {"message": message, "type": "server_error", "param": None, "code": None}
            await send_json(send, 500, error, message)


async def send_json(send: Any, status: int, error: dict[str, Any], detail: str) -> None:
    """Send a complete JSON error.

    Args:
        send: ASGI's function.
        status: The HTTP status.
        error: The error for OpenAI's clients.
        detail: The error for clients of LangGraph and FastAPI.
    """
    body = json.dumps({"error": error, "detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
