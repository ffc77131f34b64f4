"""Workaround for a race in Gradio 6.31, in which the page loses an event between two event streams.

The page receives the results of all its events on one stream. The server closes the stream when no event is
pending, and the page opens another one for its next event. The page considers a stream open until it has read
the closing message. The race: the server closes the stream and then accepts an event. If the page reads the
acceptance before the closing message, it opens no stream for the event and waits forever: the click is lost.
This is more likely on a busy machine.

The page disconnects from a stream when it has read the closing message. So `Streams` keeps a closing stream
open until the page disconnects, and delays the acceptance of new events until then. The page then opens a new
stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

DISCONNECT = 5.0
"""Seconds to wait for the page to disconnect from a closing stream."""
_CLOSING = b'data: {"msg":"close_stream"'


class Streams:
    """The event streams of all sessions. Use them in the server's event loop only."""

    def __init__(self) -> None:
        # The sessions whose stream is closing. The event is set when the stream has ended.
        self._closing: dict[str, asyncio.Event] = {}

    async def serve(self, app: Any, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve a stream. After the closing message it stays open until the page disconnects.

        Args:
            app: Gradio's app, which writes the stream.
            scope: The ASGI scope of the request.
            receive: ASGI's receive function.
            send: ASGI's send function.
        """
        query = parse_qs(scope["query_string"].decode("latin-1"))
        session = query.get("session_hash", [""])[0]
        ended = asyncio.Event()

        async def send_and_hold(message: MutableMapping[str, Any]) -> None:
            if message.get("body", b"").startswith(_CLOSING):
                self._closing[session] = ended
            elif self._closing.get(session) is ended:
                with suppress(TimeoutError):
                    await asyncio.wait_for(_disconnected(receive), DISCONNECT)
            await send(message)

        try:
            await app(scope, receive, send_and_hold)
        finally:
            ended.set()
            if self._closing.get(session) is ended:
                del self._closing[session]

    async def wait_for_end(self, session: str) -> None:
        """If the session's stream is closing, wait until it has ended."""
        if ended := self._closing.get(session):
            await ended.wait()


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
