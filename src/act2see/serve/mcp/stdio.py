"""MCP over stdin and stdout, with an error response to every message that cannot be read.

The `mcp` package drops a line that is not a JSON-RPC message, and the client waits forever. This happens with
JSON that Python and JavaScript both write: text with a lone surrogate (an escape such as `\\ud800`), which is
not valid Unicode. It also reads a request whose id is neither text nor a whole number as a notification, and
does not answer it, so its parser gets a check of the id (`_Types`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server import stdio
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, JSONRPCNotification
from pydantic import ValidationError


async def run_stdio(server: MCPServer[Any]) -> None:
    """Serve until stdin ends or stdout is closed."""
    with _checked_ids():
        async with stdio.stdio_server() as (read, write):
            low = server._lowlevel_server  # `MCPServer.run_stdio_async` runs it the same way
            await low.run(_AnsweredStream(read, write), write, low.create_initialization_options())


class _WrongIdError(Exception):
    """A request has an id that cannot be used."""


class _Types:
    """The types that the `mcp` package's stdin reader uses, with a check of ids. It is its parser, too."""

    def __init__(self, types: Any) -> None:
        self._types = types
        self.jsonrpc_message_adapter = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._types, name)

    def validate_json(self, line: str, **settings: Any) -> Any:
        message = self._types.jsonrpc_message_adapter.validate_json(line, **settings)
        if isinstance(message, JSONRPCNotification) and "id" in json.loads(line):
            raise _WrongIdError("the id of a request must be a text or a whole number")
        return message


@contextmanager
def _checked_ids() -> Iterator[None]:
    module: Any = stdio
    types = module.types
    module.types = _Types(types)
    try:
        yield
    finally:
        module.types = types


class _AnsweredStream:
    """A stream of messages that answers each unreadable line with an error and skips it."""

    def __init__(self, read: Any, write: Any) -> None:
        self._read, self._write = read, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read, name)

    def __aiter__(self) -> _AnsweredStream:
        return self

    async def __anext__(self) -> Any:
        item = await anext(self._read)
        while (error := unreadable_error(item)) is not None:
            await self._write.send(SessionMessage(error))
            item = await anext(self._read)
        return item

    async def __aenter__(self) -> _AnsweredStream:
        await self._read.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        suppresses: bool | None = await self._read.__aexit__(*error)
        return suppresses


def unreadable_error(item: Any) -> JSONRPCError | None:
    """Return the error that answers a line that is not a message, with the request's id if it has one.

    Return None for a message, an empty line, and a notification, which is never answered.
    """
    if isinstance(item, _WrongIdError):
        return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=INVALID_REQUEST, message=str(item)))
    if not isinstance(item, ValidationError):
        return None
    problem = item.errors()[0]
    message = problem["input"]
    if problem["type"] == "json_invalid":
        if not str(message).strip():
            return None
        try:
            message = json.loads(str(message))  # unlike pydantic it reads a lone surrogate
        except (ValueError, RecursionError):
            error = ErrorData(code=PARSE_ERROR, message="the line is not JSON")
            return JSONRPCError(jsonrpc="2.0", id=None, error=error)
    request = message if isinstance(message, dict) else {}
    if "method" in request and "id" not in request:
        return None
    id = request.get("id")
    usable = type(id) is int or (isinstance(id, str) and id.isprintable())
    why = "the line is not a valid MCP message: send JSON-RPC 2.0, with valid Unicode text"
    error = ErrorData(code=INVALID_REQUEST, message=why)
    return JSONRPCError(jsonrpc="2.0", id=id if usable else None, error=error)
