"""The streams on which Gradio's page receives its events: no event is lost between the end of one and the start of the next.

The page reads all its events from one stream. The server closes it when no event is pending, and the page opens another with its
next event. The page takes a stream for open until it has read the closing message. If an event is accepted shortly before that,
after the server has closed the stream, the page opens no other one and waits for messages that never come: the click is lost.
This happens in Gradio 6.31, and the busier the machine, the more often.

A page hangs up when it has read the closing message. So a closing stream is held open until then, and the acceptance of an event
that came in the meantime is held back as long. The page then opens a stream for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

HANG_UP = 5.0  # seconds that a client has to hang up; one that reads on is served as if it had
_CLOSING = b'data: {"msg":"close_stream"'


class Streams:
    """Knows which sessions have a closing stream. It belongs to the server's event loop."""

    def __init__(self) -> None:
        self._closing: dict[str, asyncio.Event] = {}  # set when the session's page has hung up

    async def serve(self, app: Any, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve a stream. When it has sent the closing message, it ends when the page has hung up."""
        session = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        ended = asyncio.Event()

        async def send_and_hold(message: MutableMapping[str, Any]) -> None:
            if message.get("body", b"").startswith(_CLOSING):
                self._closing[session] = ended
            elif self._closing.get(session) is ended:
                with suppress(TimeoutError):
                    await asyncio.wait_for(_hung_up(receive), HANG_UP)
            await send(message)

        try:
            await app(scope, receive, send_and_hold)
        finally:
            ended.set()
            if self._closing.get(session) is ended:
                del self._closing[session]

    async def wait_for_end(self, session: str) -> None:
        """Wait until the session has no closing stream."""
        if ended := self._closing.get(session):
            await ended.wait()


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
