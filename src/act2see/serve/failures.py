"""Unexpected errors are logged with their traceback under an id. The client receives only the id.

The message of an expected error (`Act2SeeError`) tells the user what to do. The text of any other error may
contain paths, keys or other people's data, so it stays in the log. The operator uses the id to find the
traceback of an error that a user reports.

A request that the server's end cancels is no error: its client reads 503.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import MutableMapping
from typing import Any

log = logging.getLogger(__name__)
_STOPPING = "graceful shutdown"  # in uvicorn's reason to cancel a request


def log_failure(operation: str, error: BaseException) -> str:
    """Log an error with its traceback under a new id.

    Args:
        operation: The operation that failed, such as "POST /v1/chat/completions".
        error: The error.

    Returns:
        The id, for the message to the client.
    """
    id = secrets.token_hex(6)
    one_line = operation.encode("unicode_escape").decode("ascii")  # a newline would forge a log entry
    log.error("%s failed (error %s)", one_line, id, exc_info=error)
    return id


def failure_message(id: str) -> str:
    """Return the message that a client reads instead of the error's own text."""
    return f"the server failed: its log has the details under error {id}"


class LogFailures:
    """ASGI middleware that answers an exception with a 500 and an id, and logs the traceback under that id.

    Once the response has started, the error can only be logged. The connection is then closed, so that the
    client notices the failure.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from starlette.requests import ClientDisconnect

        started = False

        async def watched_send(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            return  # there is no client left to answer
        except asyncio.CancelledError as e:
            if _STOPPING not in str(e):
                raise
            # uvicorn would log a traceback for each request.
            if not started:
                message = "the server stops: try again when it runs"
                error = {"message": message, "type": "server_error", "param": None, "code": None}
                await send_json(send, 503, error, message)
        except Exception as e:
            id = log_failure(f"{scope['method']} {scope['path']}", e)
            if started:
                raise
            message = failure_message(id)
            error = {"message": message, "type": "server_error", "param": None, "code": None}
            await send_json(send, 500, error, message)


async def send_json(send: Any, status: int, error: dict[str, Any], detail: str) -> None:
    """Send a complete JSON error.

    Args:
        send: ASGI's send function.
        status: The HTTP status.
        error: The error object that OpenAI's clients read.
        detail: The message that clients of LangGraph and FastAPI read.
    """
    body = json.dumps({"error": error, "detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
