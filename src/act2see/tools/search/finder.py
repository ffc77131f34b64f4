"""Find frames of a video by text: the service behind `retrieve`, `generate`'s anchors and `act2see find`.

A video is indexed once, at 3 fps, however many ask at once and in however many processes; after that a query
costs one text encoding and one FAISS search. Videos that are indexed at the same time take turns, batch by
batch, so that a clip does not wait for an hour's film to end (parts of one video count as one); an index that
nobody waits for any more is given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import Curve
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.rotation import Progress, RoundRobin
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.index import FrameIndex, IndexWriter, read_index
from act2see.tools.segments import find_segments
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import split_part

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]


class Encoder(Protocol):
    """What the finder needs of an encoder: `Blip2Encoder` is one. `frames` gives `(frames, vectors of each,
    dim)`."""

    @property
    def id(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def no_match(self) -> float: ...

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]: ...
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A found frame: its number in the video, its time, its score."""

    frame: int
    seconds: float
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    hits: tuple[Hit, ...]
    curve: Curve
    index_id: str

    @property
    def best(self) -> float:
        """The highest score; -1 where there is no hit."""
        return max((h.score for h in self.hits), default=-1.0)


class Finder:
    """Indexes videos and searches them. `encoded` counts frames encoded so far; `workers` videos are decoded
    at the same time."""

    def __init__(
        self,
        clips: VideoLibrary,
        encoder: Encoder,
        cache: Path,
        fps: float = 3.0,
        batch: int = 32,
        keep_frames: bool = False,
        workers: int = 2,
    ) -> None:
        self.clips, self.encoder, self.cache = clips, encoder, cache
        self.fps, self.batch, self.keep_frames = fps, batch, keep_frames
        self.encoded = 0
        self._open: OrderedDict[str, FrameIndex] = OrderedDict()
        self._lock = Lock()
        self._building: RoundRobin[FrameIndex] = RoundRobin(workers=workers, name="act2see-index")

    def find(
        self,
        video: str,
        query: str | Sequence[str],
        k: int = 1,
        *,
        skip: Sequence[float] = (),
        segments: bool = False,
        threshold: float | None = None,
    ) -> Found:
        """The `k` frames that fit `query` (one phrasing or several) best, without those shown at the times
        `skip`.

        Frames under `threshold` (by default the encoder's own `no_match`) are in no segment.
        """
        index = self.index(video)
        phrases = self.encoder.phrases(
            [clean_text(one) for one in ([query] if isinstance(query, str) else query)]
        )
        scores = index.scores(phrases, best=k + len(skip))
        free = np.ones(len(index), bool)
        if len(skip):
            near = np.abs(index.seconds[:, None] - np.asarray(skip)[None]).min(1)
            free = near > 1e-3
        ranked = [int(i) for i in np.argsort(-scores, kind="stable") if free[i]][:k]
        if segments:
            usable = np.where(free, scores, -1.0).astype(np.float32)
            ranked = [
                s.best
                for s in find_segments(
                    usable, self.encoder.no_match if threshold is None else threshold, k, round(20 * self.fps)
                )
            ]
        hits = tuple(Hit(int(index.frames[i]), float(index.seconds[i]), float(scores[i])) for i in ranked)
        return Found(hits, index.curve(scores), index.id)

    def similarities(self, pictures: Sequence[Pixels], text: str) -> list[float]:
        """How well each picture fits a text: the best of its vectors, as in an index."""
        frames, phrase = self.encoder.frames(pictures).astype(np.float32), self.encoder.phrases([text])[0]
        return [float((frame @ phrase).max()) for frame in frames]

    def index_id(self, video: str) -> str:
        return f"{self.clips.clip(video).info.digest}-{self.encoder.id}-{self.fps:g}fps"

    def index(self, video: str, progress: Progress | None = None) -> FrameIndex:
        """The index of a video, from memory, from disk, or built now (`progress(done, all)`, in another
        thread)."""
        found = self._begin(video, progress)
        if isinstance(found, FrameIndex):
            return found
        try:
            return found.result()
        finally:
            found.cancel()

    async def ready(self, video: str, progress: Progress | None = None) -> FrameIndex:
        """`index`, waiting without a thread. Cancelling withdraws the request; an index that nobody awaits is
        dropped."""
        begun = asyncio.ensure_future(asyncio.to_thread(self._begin, video, progress))
        try:
            found = await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(
                _withdraw
            )  # the thread is looking at the video and is about to ask for the index
            raise
        return found if isinstance(found, FrameIndex) else await asyncio.wrap_future(found)

    def folder(self, id: str) -> Path:
        return self.cache / "indexes" / id

    def _begin(self, video: str, progress: Progress | None) -> FrameIndex | Future[FrameIndex]:
        """The index, where it is in memory or on disk; else the building of it, under way or new."""
        id = self.index_id(video)
        with self._lock:
            if id in self._open:
                self._open.move_to_end(id)
                return self._open[id]
        try:
            return self._keep(read_index(self.folder(id), id))
        except StoreError:
            pass  # missing or damaged: looked at again under the lock
        return self._building.join(id, lambda: self._build(video, id), progress, owner=split_part(video)[0])

    def _keep(self, index: FrameIndex) -> FrameIndex:
        with self._lock:
            self._open[index.id] = index
            while len(self._open) > 32:
                self._open.popitem(last=False)
        return index

    def _build(self, video: str, id: str) -> Generator[tuple[int, int], None, FrameIndex]:
        """Encode the frames and write the index, in turns with the building of others."""
        folder = self.folder(id)
        # Its turns are taken by several threads.
        lock = FileLock(f"{folder}.lock", thread_local=False)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            while not _acquired(lock):
                time.sleep(0.05)  # another process builds it
                yield 0, 0
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE to another folder"
            ) from e
        try:
            try:
                return self._keep(read_index(folder, id))
            except StoreError as e:
                if folder.exists():
                    log.warning("%s; building it again", e)
            writer = IndexWriter()
            yield from self._encode(video, writer)
            return self._keep(
                writer.write(
                    folder,
                    id,
                    {
                        "video": self.clips.clip(video).info.digest,
                        "encoder": self.encoder.id,
                        "fps": self.fps,
                    },
                )
            )
        finally:
            lock.release()

    def _encode(self, video: str, writer: IndexWriter) -> Generator[tuple[int, int], None, None]:
        clip = self.clips.clip(video)
        frames = clip.every(self.fps)
        size = self.clips.size(clip) if self.keep_frames else (self.encoder.size, self.encoder.size)
        kept: dict[int, str] = {}
        done = 0
        decoded = self.clips.decode(video, frames, size)
        while batch := list(islice(decoded, self.batch)):
            features = self.encoder.frames([pixels for _, _, pixels in batch])
            self.encoded += len(batch)
            if self.keep_frames:
                kept.update({i: self.clips.store.put(pixels) for i, _, pixels in batch})
            writer.add(np.array([i for i, _, _ in batch]), np.array([s for _, s, _ in batch]), features)
            done += len(batch)
            if done < len(frames):
                yield done, len(frames)
        yield len(frames), len(frames)
        if kept:
            self.clips.keep(video, kept)


def _withdraw(begun: asyncio.Future[FrameIndex | Future[FrameIndex]]) -> None:
    if not begun.cancelled() and begun.exception() is None and isinstance(building := begun.result(), Future):
        building.cancel()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
