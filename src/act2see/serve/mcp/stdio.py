"""MCP over stdin and stdout, with an error response to every message that cannot be read.

The `mcp` package drops a line that is not a JSON-RPC message, and the client waits forever. This happens with
JSON that Python and JavaScript both write: text with a lone surrogate (an escape such as `\\ud800`), which is
not valid Unicode.
"""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError


async def run_stdio(server: MCPServer[Any]) -> None:
    """Serve until stdin ends or stdout is closed."""
    async with stdio_server() as (read, write):
        low = server._lowlevel_server  # `MCPServer.run_stdio_async` runs it the same way
        await low.run(_AnsweredStream(read, write), write, low.create_initialization_options())


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
    usable = isinstance(id, int) or (isinstance(id, str) and id.isprintable())
    why = "the line is not a valid MCP message: send JSON-RPC 2.0, with valid Unicode text"
    error = ErrorData(code=INVALID_REQUEST, message=why)
    return JSONRPCError(jsonrpc="2.0", id=id if usable else None, error=error)
