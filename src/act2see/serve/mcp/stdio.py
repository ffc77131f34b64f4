"""MCP over stdin and stdout, where a message that cannot be read is answered.

The `mcp` package drops a line that is no JSON-RPC message, and its client waits for ever. JSON that Python
and JavaScript both write is among them: text with half a surrogate pair (an escape such as `\\ud800`), which
is no Unicode.
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
        low = server._lowlevel_server  # what `run_stdio_async` runs
        await low.run(_AnsweredStream(read, write), write, low.create_initialization_options())


class _AnsweredStream:
    """The stream of messages, of which those that could not be read are answered with an error."""

    def __init__(self, read: Any, write: Any) -> None:
        self._read, self._write = read, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read, name)

    def __aiter__(self) -> _AnsweredStream:
        return self

    async def __anext__(self) -> Any:
        item = await anext(self._read)
        while (error := unreadable(item)) is not None:
            await self._write.send(SessionMessage(error))
            item = await anext(self._read)
        return item

    async def __aenter__(self) -> _AnsweredStream:
        await self._read.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> bool | None:
        left: bool | None = await self._read.__aexit__(*error)
        return left


def unreadable(item: Any) -> JSONRPCError | None:
    """The answer to a line that is no message, with the request's id where it has one.

    None for what is a message, for an empty line, and for a notification, which is never answered.
    """
    if not isinstance(item, ValidationError):
        return None
    first = item.errors()[0]
    message = first["input"]
    if first["type"] == "json_invalid":
        if not str(message).strip():
            return None
        try:
            message = json.loads(str(message))  # it is more tolerant, and reads half a surrogate pair
        except (ValueError, RecursionError):
            return JSONRPCError(
                jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message="the line is no JSON")
            )
    given = message if isinstance(message, dict) else {}
    if "method" in given and "id" not in given:
        return None
    id = given.get("id")
    known = id if isinstance(id, int) or (isinstance(id, str) and id.isprintable()) else None
    why = "the line is no message of MCP that can be read: send JSON-RPC 2.0, with text that is Unicode throughout"
    return JSONRPCError(jsonrpc="2.0", id=known, error=ErrorData(code=INVALID_REQUEST, message=why))
