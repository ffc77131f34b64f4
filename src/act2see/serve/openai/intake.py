"""Taking requests in: bounds on bytes, seconds and connections, before any work is done for a client.

A client may send slowly, send much, or send nothing. The bytes of all bodies that are read or parsed now are
counted together, so that many large requests cannot fill the memory; a client reads 429 and tries again. A
body has a time limit as a whole, since one byte a second is not silence. A few requests at a time are parsed
and their pictures decoded, so that a burst of them leaves memory and the processor to the engine. Short
requests have places of their own: they do not wait behind long ones.

The head of a request is bounded by `serve/heads.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from act2see.serve.openai.wire import ProtocolError
from act2see.tools.runtime.text import format_bytes

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY = 128 << 20
"""The maximum size of a request, in bytes."""
MAX_BODIES = 4 * MAX_BODY
"""The maximum size of all requests that are read or parsed at one time, in bytes."""
BODY_SECONDS = 60.0
"""The time within which a request's body must come."""
_PLACES = 2  # the requests of a kind that are read at one time
_SHORT = 64 << 10  # bytes of a short request


@dataclass(slots=True)
class Intake:
    """The bodies that a server takes in at one time, and their limits."""

    largest: int = MAX_BODY
    together: int = MAX_BODIES
    seconds: float = BODY_SECONDS
    held: int = field(default=0, init=False)
    """The bytes of the bodies that are read or parsed now."""
    short: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PLACES), init=False)
    """Held while a short request is parsed and its pictures are decoded."""
    long: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_PLACES), init=False)
    """The same for a long one."""

    def place(self, body: bytes) -> asyncio.Semaphore:
        """Return what to hold while a body is parsed and its pictures are decoded."""
        return self.short if len(body) <= _SHORT else self.long

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request. Its bytes count as held until the block ends.

        Raises:
            ProtocolError: The body is not JSON (415), too large (413) or too slow (408), or the bodies of all
                requests together are too large (429).
        """
        media_type = request.headers.get("content-type", "").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            raise ProtocolError(415, "the content type must be application/json")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and len(announced) < 20:
            self._check(int(announced), self.held + int(announced))
        read = bytearray()
        try:
            try:
                async with asyncio.timeout(self.seconds):
                    async for part in request.stream():
                        read += part
                        self.held += len(part)
                        self._check(len(read), self.held)
            except TimeoutError as e:
                raise ProtocolError(
                    408, f"the request did not come within {self.seconds:g} s: send it faster"
                ) from e
            yield bytes(read)
        finally:
            self.held -= len(read)

    def _check(self, size: int, together: int) -> None:
        if size > self.largest:
            largest = format_bytes(self.largest, binary=True)
            raise ProtocolError(413, f"the request is larger than {largest}: send fewer or smaller pictures")
        if together > self.together:
            raise ProtocolError(
                429, "too many large requests are under way: try again in a second", "server_busy"
            )
