"""A run in progress: builds a trace from the run's events, and notifies watchers.

This trace is shown while the run is in progress, and saved if the run ends early. A run that completes has
its own exact trace. An incomplete call or answer is already shown as a call or an answer.

Watchers are notified at once of a frame, a call, an answer, and the first token after these. While tokens
follow tokens, watchers are notified at most ten times a second, because a page that draws more often falls
behind.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

from act2see.tools.frames import FrameRef
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, IndexEvent, TokenEvent, ViewEvent
from act2see.trace.record import Answer, Call, Question, Segment, Text, Video
from act2see.trace.trace import Trace

EVERY = 0.1  # seconds between two notifications of tokens that follow tokens


class Live:
    """The trace of a run in progress.

    Args:
        id: The id of the run.
        question: The question.
        tags: The tags of the tools.
    """

    def __init__(self, id: str, question: Question, tags: Sequence[str]) -> None:
        self.id = id
        self.question = question
        self.frames_seen = 0
        """The number of events that brought frames."""
        self.indexing = ""
        """The progress of the index that a call waits for; empty if it waits for none."""
        self._video: Video | None = None
        self._initial: tuple[FrameRef, ...] = ()
        self._segments: list[Segment] = []
        self._text = ""  # the model's text since the last segment
        names = "|".join(re.escape(tag) for tag in (*tags, "answer"))
        self._opening_tag = re.compile(f"<({names})>")
        self._watchers: set[_Watcher] = set()
        self._ended = False

    def event(self, event: Event) -> None:
        """Add one event to the trace and notify the watchers."""
        urgent = True
        self.indexing = ""
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
            case IndexEvent():
                self.indexing = event.describe()
            case FramesEvent():
                self._close()
                self._segments.append(event.frames)
                self.frames_seen += 1
            case AnswerEvent():
                last = self._split()[-1:]
                text = last[0].text if last and isinstance(last[0], Answer) else ""
                self._close(text)
                self._segments.append(Answer(text=text, body=event.answer, forced=event.forced))
        self._notify(urgent)

    def trace(self, *, open_as_written: bool = False) -> Trace | None:
        """Return the trace so far, or None until the video is in view.

        Args:
            open_as_written: Return an incomplete call or answer as plain text.
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
        """Tell the watchers that the run has ended."""
        self._ended = True
        self._notify(urgent=True)

    async def watch(self) -> AsyncIterator[None]:
        """Yield now, after each change until the run ends, and once more at its end."""
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            while not self._ended:
                watcher.clear()
                next_look = time.monotonic() + EVERY
                yield
                await watcher.changed.wait()
                with suppress(TimeoutError):
                    await asyncio.wait_for(watcher.urgent.wait(), max(0.0, next_look - time.monotonic()))
            yield
        finally:
            self._watchers.discard(watcher)

    def _split(self) -> list[Segment]:
        """Split the open text at the first opening tag, as the grammar does, into text and call or answer."""
        text = self._text
        if not text:
            return []
        last = self._segments[-1] if self._segments else None
        if isinstance(last, Text) and last.author == "graph":  # the graph has written the tag <answer>
            return [Answer(text=text, body=_answer(text), forced=True)]
        found = self._opening_tag.search(text)
        if found is None:
            return [Text(text=text)]
        before = text[: found.start()]
        tagged = text[found.start() :]
        inner = text[found.end() :]
        tag = found[1]
        end: Segment
        if tag == "answer":
            end = Answer(text=tagged, body=_answer(inner))
        else:
            query = inner.partition(f"</{tag}>")[0]
            end = Call(text=tagged, tag=tag, query=" ".join(query.split()))
        return [Text(text=before), end] if before else [end]

    def _close(self, tail: str = "") -> None:
        """Add the open text as a segment, without its end `tail`, which belongs to the next segment."""
        before = self._text
        if tail and tail in before:
            before = before.rpartition(tail)[0]
        if before:
            self._segments.append(Text(text=before))
        self._text = ""

    def _notify(self, urgent: bool) -> None:
        for watcher in self._watchers:
            watcher.changed.set()
            if urgent:
                watcher.urgent.set()


def _answer(text: str) -> str:
    """Return the answer in a text that may contain its tags and more."""
    before_end = text.partition("</answer>")[0]
    return before_end.rpartition("<answer>")[2].strip()


class _Watcher:
    """The signals that one watcher waits for."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.urgent = asyncio.Event()

    def clear(self) -> None:
        self.changed.clear()
        self.urgent.clear()
