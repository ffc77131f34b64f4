"""Progress messages of a run, for a client that shows them one by one, and one-line descriptions of frames.

Any thread may send messages; their order is kept. If no message comes for a while (for example while models
are loaded), the last one is sent again with the elapsed seconds, because clients give up on a silent server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from act2see.tools.frames import FrameRef
from act2see.tools.runtime.text import clean_text
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, IndexEvent, TokenEvent, ViewEvent

SILENCE = 5.0
"""Seconds without a message after which the last one is sent again."""
_THOUGHT_INTERVAL = 0.5  # seconds between two messages with the model's thought
_MAX_THOUGHT = 300  # characters of thought in a message
_MAX_FRAMES = 3  # frames named in a message

Say = Callable[[str], None]
"""Sends a message. It may be called from any thread."""


class Report(Protocol):
    """The signature of MCP's `Context.report_progress`."""

    def __call__(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> Awaitable[None]: ...


@asynccontextmanager
async def progress(report: Report, silence: float = SILENCE) -> AsyncIterator[Say]:
    """Yield a function that sends messages. All messages are sent before the block ends without an error.

    Args:
        report: Sends one message to the client.
        silence: Seconds without a message after which the last one is sent again.
    """
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[str | None] = asyncio.Queue()

    async def send() -> None:
        count = 0
        last = ""
        since = time.monotonic()
        while True:
            try:
                message = await asyncio.wait_for(messages.get(), silence)
            except TimeoutError:
                message = f"{last} ({time.monotonic() - since:.0f} s)".strip()
            else:
                if message is None:
                    return
                last, since = message, time.monotonic()
            count += 1
            await report(count, message=clean_text(message))  # a lone surrogate cannot be sent

    def put(message: str | None) -> None:
        loop.call_soon_threadsafe(messages.put_nowait, message)

    sender = asyncio.create_task(send())
    try:
        yield put
        put(None)
        await sender
    finally:
        sender.cancel()


class Narrator:
    """Turns a run's events into messages. The model's thought is sent in pieces of many tokens."""

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
                if time.monotonic() - self._last >= _THOUGHT_INTERVAL:
                    self._flush()
            case CallEvent():
                self._flush()
                self.say(f"{event.call.tag}: {event.call.query}")
            case IndexEvent():
                self.say(event.describe())
            case FramesEvent():
                frames = event.frames.frames[:_MAX_FRAMES]
                self.say("; ".join(frame_text(f) for f in frames) or event.frames.note)
            case AnswerEvent():
                self._flush()

    def _flush(self) -> None:
        words = " ".join(self._thought.split())
        if words:
            self.say(words[-_MAX_THOUGHT:])
        self._thought = ""
        self._last = time.monotonic()


def frame_text(frame: FrameRef) -> str:
    """Return one line about a frame. It begins with whether the frame is in the video."""
    return f"NOT IN THE VIDEO: {frame.describe()}" if frame.imagined else f"A real {frame.describe()}"
