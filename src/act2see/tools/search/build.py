"""The construction of one index: decode the frames, encode them batch by batch, and write the index.

One process builds an index at a time; another waits for it. The finished part is saved every few seconds, and
when the construction is stopped (`unfinished.py`). The next one, in this process or another, continues there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from act2see.errors import StoreError, VideoError
from act2see.tools.search.encoder import FrameEncoder
from act2see.tools.search.index import FrameIndex, IndexWriter, read_index
from act2see.tools.search.unfinished import Batch, UnfinishedIndex
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import Pixels
from act2see.tools.video.watch import Watch
from act2see.tools.video.window import Window

_ENCODED = 2  # times that a batch is encoded, if the encoder computes NaN; then its weights do so
log = logging.getLogger(__name__)
Steps = Generator[tuple[int, int], None, FrameIndex]


@dataclass(slots=True)
class IndexBuild:
    """The construction of one index."""

    window: Window
    id: str
    """The name of the index."""
    folder: Path
    """The folder of the index."""
    library: VideoLibrary
    encoder: FrameEncoder
    fps: float
    batch: int
    """The number of frames to encode in one call."""
    keep_frames: bool
    """Whether the pictures of all frames are stored."""
    save_every: float
    """The number of seconds after which the finished part is saved."""
    count: Callable[[int], None]
    """Called with the number of frames that were encoded."""

    def steps(self) -> Steps:
        """Build the index and return it. Each step is one batch, and yields the frames done and their total.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        lock = FileLock(f"{self.folder}.lock", thread_local=False)  # steps may run in different threads
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            while not _try_lock(lock):
                time.sleep(0.05)  # another process is building it
                yield 0, 0
        except OSError as e:
            raise self._cannot_write(e) from e
        try:
            try:
                return read_index(self.folder, self.id)
            except StoreError as e:
                if self.folder.exists():
                    log.warning("%s; building it again", e)
            return (yield from self._build())
        finally:
            lock.release()

    def _build(self) -> Steps:
        unfinished = UnfinishedIndex(self.folder.with_name(f"{self.id}.parts"), self.id, self.save_every)
        writer = IndexWriter()
        watch = self._watch(unfinished)
        try:
            yield from self._encode(writer, unfinished, watch)
        except VideoError as e:
            self._check(watch, unfinished)
            if not unfinished.taken_up:
                raise
            # A damaged frame is replaced by an earlier one, which may be in a segment.
            log.warning("%s; indexing all of it again", e)
            unfinished.delete()
            writer = IndexWriter()
            yield from self._encode(writer, unfinished, watch)
        self._check(watch, unfinished)
        facts = {"video": watch.digest, "encoder": self.encoder.id, "fps": self.fps}
        index = writer.write(self.folder, self.id, facts)
        unfinished.delete()
        return index

    def _watch(self, unfinished: UnfinishedIndex) -> Watch:
        """Return a watch on the video.

        Raises:
            VideoError: The file was replaced since the index was requested. Its frames must not be kept under
                the name of the other content.
        """
        watch = self.library.watch(self.window)
        if not self.id.startswith(f"{watch.digest}-"):
            unfinished.delete()
            raise self._changed()
        return watch

    def _check(self, watch: Watch, unfinished: UnfinishedIndex) -> None:
        """Raise `VideoError` if the file was replaced since the watch began."""
        try:
            watch.check()
        except VideoError as e:
            unfinished.delete()
            raise self._changed() from e

    def _changed(self) -> VideoError:
        return VideoError(f"{self.window} changed while it was indexed: ask again")

    def _encode(
        self, writer: IndexWriter, unfinished: UnfinishedIndex, watch: Watch
    ) -> Generator[tuple[int, int], None, None]:
        """Add all frames to the writer: those that an earlier build encoded, then the others."""
        frames = self.library.probe(self.window).every(self.fps)
        for batch in unfinished.read(frames):
            writer.add(*batch)
        done = unfinished.taken_up
        if done:
            log.info("%s: %d of %d frames were encoded before", self.window, done, len(frames))
            yield done, len(frames)
        taken: dict[int, str] = {}
        try:
            for numbers, seconds, pixels in self._decode(frames, done):
                batch = (np.array(numbers), np.array(seconds), self._encode_batch(pixels))
                self.count(len(pixels))
                if self.keep_frames:
                    for number, picture in zip(numbers, pixels, strict=True):
                        # Many, and each can be decoded again: waiting for the disk would take longer.
                        taken[number] = self.library.store.put(picture, durable=False)
                # Before anything is saved: a segment would be taken up by the next build.
                self._check(watch, unfinished)
                writer.add(*batch)
                done += len(pixels)
                if done < len(frames):
                    if self._save(batch, unfinished) and taken:
                        self.library.keep(self.window, taken, watch.digest)
                    yield done, len(frames)
        except (GeneratorExit, Exception):
            # The index is no longer wanted, or its construction has failed.
            with suppress(OSError):
                unfinished.save()
            raise
        yield len(frames), len(frames)
        if taken:
            self._check(watch, unfinished)
            self.library.keep(self.window, taken, watch.digest)

    def _encode_batch(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """Encode pictures. If a GPU has failed for a moment, NaN in an index would hide frames for ever."""
        for _ in range(_ENCODED):
            vectors = self.encoder.frames(pixels)
            if np.isfinite(vectors).all():
                break
        return vectors

    def _decode(
        self, frames: Sequence[int], done: int
    ) -> Iterator[tuple[list[int], list[float], list[Pixels]]]:
        """Yield batches of the frames after the first `done`: their numbers, times and pixels."""
        if done == len(frames):
            return
        size = (self.encoder.size, self.encoder.size)
        if self.keep_frames:
            size = self.library.probe(self.window).info.fit(self.library.max_side)
        # The frame before is decoded, too: it replaces frames after it that cannot be decoded.
        first = max(0, done - 1)
        digest = self.id.partition("-")[0]
        decoded = self.library.decode(self.window, frames[first:], size, digest)
        decoded = islice(decoded, done - first, None)
        while batch := list(islice(decoded, self.batch)):
            numbers, seconds, pixels = zip(*batch, strict=True)
            yield list(numbers), list(seconds), list(pixels)

    def _save(self, batch: Batch, unfinished: UnfinishedIndex) -> bool:
        """Add a batch to the unfinished index; return whether a segment was written."""
        try:
            return unfinished.add(batch)
        except OSError as e:
            raise self._cannot_write(e) from e

    def _cannot_write(self, error: OSError) -> StoreError:
        cache = self.folder.parents[1]
        return StoreError(
            f"cannot write to the cache {cache}: {error.strerror}; free some space or set ACT2SEE_CACHE to "
            "another folder"
        )


def _try_lock(lock: FileLock) -> bool:
    """Acquire a lock unless another process holds it; return whether it was acquired."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
