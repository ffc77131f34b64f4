"""A run in progress: its events are folded into a trace, and watchers are notified.

The folded trace is shown while the run lasts, and kept if the run ends early. A run that completes has its
own exact trace. A call or an answer that is still being written is already shown as one.

Watchers are notified at once of a new kind of event (the first token after a frame, a call, a frame), and at
most ten times a second of tokens that follow tokens: a page cannot draw faster, and must not lag behind.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from act2see.tools.frames import FrameRef
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, TokenEvent, ViewEvent
from act2see.trace.record import Answer, Call, Question, Segment, Text, Video
from act2see.trace.trace import Trace

EVERY = 0.1  # seconds between two notifications of tokens that follow tokens


class Live:
    """One run, folded from its events. `tags` are those of its tools; `frames_seen` grows whenever frames
    arrive."""

    def __init__(self, id: str, question: Question, tags: Sequence[str]) -> None:
        self.id, self.question = id, question
        self.frames_seen = 0
        self._video: Video | None = None
        self._initial: tuple[FrameRef, ...] = ()
        self._segments: list[Segment] = []
        self._text = ""  # the model's text since the last segment
        self._opened = re.compile(f"<({'|'.join(map(re.escape, [*tags, 'answer']))})>")
        self._bells: set[_Bell] = set()
        self._ended = False

    def event(self, event: Event) -> None:
        """Fold one event and notify the watchers."""
        urgent = True
        match event:
            case ViewEvent():
                self._video, self._initial = event.video, event.frames
                self.frames_seen += 1
            case TokenEvent(author="model"):
                urgent = not self._text
                self._text += event.text
            case TokenEvent():
                self._close()
                self._segments.append(Text(text=event.text, author="graph"))
            case CallEvent():
                self._close(event.call.text)
                self._segments.append(event.call)
            case FramesEvent():
                self._close()
                self._segments.append(event.frames)
                self.frames_seen += 1
            case AnswerEvent():
                written = self._split()[-1:]
                text = written[0].text if written and isinstance(written[0], Answer) else ""
                self._close(text)
                self._segments.append(Answer(text=text, body=event.answer, forced=event.forced))
        self._ring(urgent)

    def trace(self, *, open_as_written: bool = False) -> Trace | None:
        """Return the trace so far, or None until the video is in view.

        Args:
            open_as_written: Whether a call or an answer that is not complete is plain text.
        """
        if self._video is None:
            return None
        last: Sequence[Segment] = self._split()
        if open_as_written:
            last = [Text(text=self._text)] if self._text else []
        return Trace(
            id=self.id,
            video=self._video,
            question=self.question,
            initial=self._initial,
            segments=(*self._segments, *last),
        )

    def end(self) -> None:
        """The run has ended: no more events will come."""
        self._ended = True
        self._ring(urgent=True)

    async def watch(self) -> AsyncIterator[None]:
        """Yield now and whenever something is new, until the run ends, and once more after that."""
        bell = _Bell()
        self._bells.add(bell)
        try:
            while not self._ended:
                bell.clear()
                looked = time.monotonic()
                yield
                await bell.any.wait()
                with suppress(TimeoutError):
                    await asyncio.wait_for(bell.urgent.wait(), max(0.0, looked + EVERY - time.monotonic()))
            yield
        finally:
            self._bells.discard(bell)

    def _split(self) -> list[Segment]:
        """Split the open text at the first opening tag, as the grammar does, into text and call or answer."""
        text = self._text
        if not text:
            return []
        forced = (
            bool(self._segments) and isinstance(last := self._segments[-1], Text) and last.author == "graph"
        )
        opened = self._opened.search(text)
        if forced:  # the graph has written <answer> for it
            return [Answer(text=text, body=_answer(text), forced=True)]
        if opened is None:
            return [Text(text=text)]
        before, text, inner = text[: opened.start()], text[opened.start() :], text[opened.end() :]
        tag = opened[1]
        query = " ".join(inner.partition(f"</{tag}>")[0].split())
        end = (
            Answer(text=text, body=_answer(inner))
            if tag == "answer"
            else Call(text=text, tag=tag, query=query)
        )
        return [Text(text=before), end] if before else [end]

    def _close(self, but: str = "") -> None:
        """Add the open text as a segment, without its end `but`, which belongs to the next segment."""
        before = self._text.rpartition(but)[0] if but and but in self._text else self._text
        if before:
            self._segments.append(Text(text=before))
        self._text = ""

    def _ring(self, urgent: bool) -> None:
        for bell in self._bells:
            bell.any.set()
            if urgent:
                bell.urgent.set()


def _answer(text: str) -> str:
    return text.partition("</answer>")[0].rpartition("<answer>")[2].strip()


class _Bell:
    """The events that one watcher waits for."""

    def __init__(self) -> None:
        self.any, self.urgent = asyncio.Event(), asyncio.Event()

    def clear(self) -> None:
        self.any.clear()
        self.urgent.clear()
