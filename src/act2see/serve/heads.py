"""Bounds on the head of a request: its seconds and its bytes, for all HTTP servers.

uvicorn limits the time between two requests of a connection, but not that of a request's head. With
`httptools`, which it prefers, it does not limit the head's bytes either, and each byte of a short line costs
20 in memory. `bounded_http` makes a protocol that does both. It counts the bytes since the parser last came
further (the end of a head, a part of a body, the end of a request), so the lines after a body in chunks are
bounded, too. The other parser, `h11`, has the same limit of its own, and answers 400.

Servers that we start get the protocol as a setting. Another program starts the LangGraph server:
`bound_every_head` changes the class that uvicorn makes in this process.
"""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_SECONDS = 20.0
"""The time within which a request's head must come."""
MAX_HEAD = 64 << 10
"""The maximum size of a request's head, in bytes. What the system hands over at one time is read whole."""
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"connection: close\r\n\r\nthe head of the request is larger than %d KiB: send fewer or shorter headers"
    % (MAX_HEAD >> 10)
)


def bounded_http(seconds: float = HEAD_SECONDS) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol, which closes connections whose head is too slow or too large (431).

    Args:
        seconds: The time for a head, from the beginning of the connection or the end of the last answer.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol
    counts = hasattr(base, "on_headers_complete")  # httptools

    class BoundedHttp(base):  # type: ignore[misc]
        _pending = 0  # bytes since the parser last came further

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            self._pending += len(data)
            super().data_received(data)
            if counts and self._pending > MAX_HEAD and not self.transport.is_closing():
                self._refuse_head()

        def on_headers_complete(self) -> None:
            self._pending = 0
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._pending = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._pending = 0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_head()

        def handle_websocket_upgrade(self, *event: Any) -> None:
            self._head_timer.cancel()  # the connection gets another protocol
            self._pending = 0
            super().handle_websocket_upgrade(*event)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer.cancel()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            if timer := getattr(self, "_head_timer", None):
                timer.cancel()
            self._head_timer = self.loop.call_later(seconds, self._close_if_silent)

        def _awaits_head(self) -> bool:
            # A cycle begins when a head is complete.
            return self.cycle is None or bool(self.cycle.response_complete)

        def _close_if_silent(self) -> None:
            if self._awaits_head():
                self.transport.close()

        def _refuse_head(self) -> None:
            if self._awaits_head():  # else an answer may be half sent
                self.transport.write(_REFUSAL)
            self.transport.close()

    protocol: type[asyncio.Protocol] = BoundedHttp
    return protocol


def bound_every_head() -> None:
    """Make uvicorn bound the heads of all its connections in this process from now on.

    For a server that somebody else starts: uvicorn has chosen its class before it loads an app.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol
    if "__new__" not in vars(base):
        bounded = bounded_http()
        base.__new__ = lambda cls, *_, **__: object.__new__(bounded if cls is base else cls)
