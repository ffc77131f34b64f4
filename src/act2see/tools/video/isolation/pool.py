"""The decoding processes of this process: a few, lent to one reading at a time.

A child is started when it is needed and stays for the next reading. If a file crashes it, or breaks a limit,
the reading fails with one error, and the next one gets a new child.

Readings can be paused: indexes are built in turns. When all children are lent and another reading needs one,
the reading that has been paused the longest loses its child. It continues later in another one, from its last
frame on. So readings never wait for a paused one, however many are begun.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import Act2SeeError, VideoError
from act2see.tools.runtime.forks import renew_after_fork
from act2see.tools.video.isolation.messages import Limits
from act2see.tools.video.isolation.process import Child, Lost
from act2see.tools.video.reader import Decoder
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import Window

MOST = 8
"""The most children at a time."""
_IDLE = 2  # children that stay without a reading
_GRACE = 2.0  # seconds for the frame under way when a reading is given up


@dataclass(eq=False, slots=True)
class _Reading:
    """A reading of a video, and the child that it was lent."""

    path: str
    child: Child | None = None
    asked: bool = False
    """Whether this child was asked for the frames. Another reading may have had the same child since then."""

    def take(self, child: Child | None) -> None:
        self.child, self.asked = child, False


class Decoders:
    """Children that decode. Thread-safe; in a forked process, it starts children of its own.

    Args:
        limits: The limits of each.
        most: The most children at a time.
    """

    def __init__(self, limits: Limits | None = None, most: int = MOST) -> None:
        self.limits = limits or Limits()
        self.most = most
        self._changed = threading.Condition()
        self._idle: list[Child] = []
        self._paused: dict[_Reading, None] = {}
        """Readings with a child. The one paused the longest comes first."""
        self._busy: dict[_Reading, None] = {}
        """Readings whose child works, or is being started."""
        renew_after_fork(self)
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes."""
        with self._changed:
            return [child.pid for child in self._children()]

    def facts(self, window: Window, decoder: Decoder) -> tuple[Mapping[str, Any], NDArray[np.float64]]:
        """Return facts of a video (`seconds`, `width`, `height`), and the times of its frames.

        Raises:
            ConfigError: No child can be started.
            VideoError: As `open_video`; or the child has ended.
        """
        reading = _Reading(window.path)
        try:
            with self._turn(reading) as child:
                child.ask(_request(window, decoder), window.path)
                return child.read_facts(window.path, self._patience(window.path))
        finally:
            self._finish(reading, None)

    def frames(
        self, window: Window, decoder: Decoder, wanted: Sequence[int], size: tuple[int, int] | None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Yield frames of a video, as `VideoFile.read` does.

        Raises:
            ConfigError: No child can be started.
            IndexError: The video has fewer frames.
            VideoError: As `VideoFile.read`; or the child has ended.
        """
        left = deque(sorted(set(wanted)))
        if not left:
            self.facts(window, decoder)  # raises the errors of opening
        reading = _Reading(window.path)
        shown: list[int] = []  # the frame before: it replaces a damaged one after it
        try:
            while left:
                patience = self._patience(window.path)
                with self._turn(reading) as child:
                    if not reading.asked:
                        child.ask(_request(window, decoder, [*shown, *left], size), window.path)
                        child.start_frames(window.path, patience)
                        for _ in shown:
                            child.take_frame(window.path, patience)
                        reading.asked = True
                    frame = child.take_frame(window.path, patience)
                    if frame is None or frame[0] != left[0]:
                        raise Lost(f"{window.path} made the decoder leave out a frame: ask again")
                shown = [left.popleft()]
                yield frame
        finally:
            self._finish(reading, _GRACE if left else self._patience(window.path))

    def close(self) -> None:
        """End all children. Readings under way fail."""
        with self._changed:
            children = self._children()
            self._idle = []
        for child in children:
            child.kill()

    def renew(self) -> None:
        """In a forked process, leave the children to the parent; each closes its pipe here by itself."""
        for reading in (*self._paused, *self._busy):
            reading.take(None)
        self._changed = threading.Condition()
        self._idle, self._paused, self._busy = [], {}, {}

    def _children(self) -> list[Child]:
        lent = [reading.child for reading in (*self._paused, *self._busy)]
        return [child for child in (*self._idle, *lent) if child is not None]

    def _patience(self, path: str) -> float:
        try:
            size = os.path.getsize(path)
        except (OSError, ValueError):  # opening it raises an error that explains the problem
            size = 0
        return self.limits.computing(size) * self.limits.patience

    @contextmanager
    def _turn(self, reading: _Reading) -> Iterator[Child]:
        """Lend a child to a reading while a block runs; afterwards the reading is paused."""
        child = self._lend(reading)
        try:
            yield child
        except Lost as e:
            raise VideoError(str(e)) from e
        except (Act2SeeError, IndexError):
            raise  # the child says that it cannot do this
        except BaseException:
            child.kill()  # in the middle of an answer
            raise
        finally:
            with self._changed:
                if self._busy.pop(reading, self) is None:  # not in a forked process
                    self._paused[reading] = None
                self._changed.notify()

    def _lend(self, reading: _Reading) -> Child:
        """Return the child of a reading, or else an idle, a new, or a paused reading's one."""
        stolen: _Reading | None = None
        with self._changed:
            if reading.child is not None:
                del self._paused[reading]
                self._busy[reading] = None
                return reading.child
            while not self._idle and len(self._busy) >= self.most:
                self._changed.wait()
            child = self._take_idle()
            if child is None and len(self._busy) + len(self._paused) >= self.most:
                stolen = next(iter(self._paused))
                del self._paused[stolen]
                child = stolen.child
                stolen.take(None)
            self._busy[reading] = None
        try:
            if child and stolen and not child.stop(stolen.path, _GRACE):
                child.kill()
                child = None
            lent = child or Child(self.limits)
            reading.take(lent)
        except BaseException:
            with self._changed:
                self._busy.pop(reading, None)
                self._changed.notify()
            raise
        return lent

    def _take_idle(self) -> Child | None:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
            child.kill()  # the system has ended it
        return None

    def _finish(self, reading: _Reading, grace: float | None) -> None:
        """Take the child of a reading back.

        Args:
            reading: The reading.
            grace: Seconds to wait for the end of the frames under way; None without any.
        """
        with self._changed:
            child = reading.child
            reading.take(None)
            if child is None:
                return
            self._paused.pop(reading, None)
            self._busy[reading] = None  # it counts until it is free
        free = child.alive and (grace is None or child.stop(reading.path, grace))
        if free:
            child.release_memory()
        with self._changed:
            self._busy.pop(reading, None)
            free = free and len(self._idle) < _IDLE
            if free:
                self._idle.append(child)
            self._changed.notify()
        if not free:
            child.kill()


def _request(
    window: Window,
    decoder: Decoder,
    frames: Sequence[int] | None = None,
    size: tuple[int, int] | None = None,
) -> Mapping[str, Any]:
    if problem := window.problem():
        raise VideoError(problem)
    return {
        "path": os.path.abspath(window.path),
        "start": window.start,
        "end": window.end,
        "stream": window.stream,
        "decoder": decoder,
        "frames": None if frames is None else [int(i) for i in frames],
        "size": size,
    }
