"""Progress of a run as messages, for a client that shows them one by one.

They may be said from any thread, and are sent in order. When nothing has been said for a while (models are
being loaded) the last message is sent again with the seconds that have passed, since clients give up on what
is silent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from act2see.serve.pictures import describe
from act2see.tools.runtime.text import clean_text
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, TokenEvent, ViewEvent

SILENCE = 5.0  # seconds
_PIECE = 0.5  # seconds of thought in a message
_LONGEST = 300  # characters of it

Say = Callable[[str], None]


class Report(Protocol):
    """MCP's `Context.report_progress`."""

    def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> Awaitable[None]: ...


@asynccontextmanager
async def progress(report: Report, silence: float = SILENCE) -> AsyncIterator[Say]:
    """What is said within is sent by `report`; all of it before this ends, unless that is by an error."""
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[str | None] = asyncio.Queue()

    async def send() -> None:
        count, last, since = 0, "", time.monotonic()
        while True:
            try:
                message = await asyncio.wait_for(said.get(), silence)
            except TimeoutError:
                message = f"{last} ({time.monotonic() - since:.0f} s)".strip()
            else:
                if message is None:
                    return
                last, since = message, time.monotonic()
            count += 1
            # Half a surrogate pair, from a model perhaps, cannot be sent.
            await report(count, message=clean_text(message))

    def say(message: str | None) -> None:
        loop.call_soon_threadsafe(said.put_nowait, message)

    sender = asyncio.create_task(send())
    try:
        yield say
        say(None)
        await sender
    finally:
        sender.cancel()


class Narrator:
    """Says a run's events; the thought in pieces, not by the token."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._thought = ""
        self._last = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case ViewEvent():
                self.say(f"{len(event.frames)} frames in view, {event.video.seconds:.1f} s of video")
            case TokenEvent():
                self._thought += event.text
                if time.monotonic() - self._last >= _PIECE:
                    self._tell()
            case CallEvent():
                self._tell()
                self.say(f"{event.call.tag}: {event.call.query}")
            case FramesEvent():
                self.say("; ".join([describe(f) for f in event.frames.frames[:3]]) or event.frames.note)
            case AnswerEvent():
                self._tell()

    def _tell(self) -> None:
        if told := " ".join(self._thought.split()):
            self.say(told[-_LONGEST:])
        self._thought, self._last = "", time.monotonic()
