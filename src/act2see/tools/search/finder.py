"""Find frames of a video by text: the service behind `retrieve`, `generate`'s anchors and `act2see find`.

A video is indexed once, at 3 fps, however many ask at once and in however many processes;
after that a query costs one text encoding and one FAISS search. Videos that are indexed at the same time take
turns, batch by batch, so that a clip does not wait for an hour's film to end (parts of one video count as
one); an index that nobody awaits any more is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from cachetools import LRUCache
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import Curve, FrameRef, Retrieved
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.round_robin import Progress, RoundRobin
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.index import FrameIndex, IndexWriter, find_segments, read_index
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import VideoPath, Window

log = logging.getLogger(__name__)
_INDEXES = 32  # so many stay open
_LONGEST_SEGMENT = 20.0  # seconds


class FrameEncoder(Protocol):
    """What the finder needs of an encoder; `Blip2Encoder` is one."""

    @property
    def id(self) -> str:
        """Names the weights: an index belongs to them."""
        ...

    @property
    def size(self) -> int:
        """The side of its input pictures, in pixels."""
        ...

    @property
    def no_match(self) -> float:
        """A score under it means that nothing fits."""
        ...

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """`(frames, vectors of each, dim)`, of length 1."""
        ...

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`(texts, dim)`, of length 1."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """A found frame."""

    frame: int
    """Its number in the video."""
    seconds: float
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search."""

    hits: tuple[Hit, ...]
    """Best first."""
    curve: Curve
    """The scores over time."""
    index_id: str

    @property
    def best(self) -> float:
        """The highest score; -1 without a hit."""
        return max((h.score for h in self.hits), default=-1.0)


class Finder:
    """Indexes videos and searches them. Thread-safe.

    Args:
        clips: Opens the videos.
        encoder: Makes vectors of frames and queries.
        cache: The folder of the indexes.
        fps: How many frames a second are indexed.
        batch: How many frames are encoded in one call.
        keep_frames: Whether the pictures of all indexed frames are stored while they are decoded.
        workers: How many videos are decoded at the same time.
    """

    def __init__(
        self,
        library: VideoLibrary,
        encoder: FrameEncoder,
        cache: Path,
        fps: float = 3.0,
        batch: int = 32,
        keep_frames: bool = False,
        workers: int = 2,
    ) -> None:
        self.library, self.encoder, self.cache = library, encoder, cache
        self.fps, self.batch, self.keep_frames = fps, batch, keep_frames
        self.encoded = 0
        """How many frames were encoded: caching is measured by it."""
        self._open: LRUCache[str, FrameIndex] = LRUCache(_INDEXES)
        self._lock = Lock()
        self._building: RoundRobin[FrameIndex] = RoundRobin(workers=workers, name="act2see-index")

    @property
    def building(self) -> int:
        """How many indexes are being built, or wait for it."""
        return self._building.unfinished

    def find(
        self,
        video: VideoPath,
        query: str | Sequence[str],
        k: int = 1,
        *,
        skip: Sequence[float] = (),
        segments: bool = False,
        threshold: float | None = None,
    ) -> Found:
        """Index a video, unless it is indexed, and `search` it.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        return self.search(self.index(video), query, k, skip=skip, segments=segments, threshold=threshold)

    def search(
        self,
        index: FrameIndex,
        query: str | Sequence[str],
        k: int = 1,
        *,
        skip: Sequence[float] = (),
        segments: bool = False,
        threshold: float | None = None,
    ) -> Found:
        """The frames that fit a query best.

        Args:
            index: The index of the video.
            query: One phrasing or several, whose scores are averaged.
            k: How many frames.
            skip: Frames at these times are left out.
            segments: Rank segments, and give the best frame of each.
            threshold: Frames under it are in no segment; by default the encoder's `no_match`.
        """
        texts = [query] if isinstance(query, str) else query
        phrases = self.encoder.phrases([clean_text(text) for text in texts])
        scores = index.scores(phrases, best=k + len(skip))
        free = np.ones(len(index), bool)
        if len(skip):
            nearest = np.abs(index.seconds[:, None] - np.asarray(skip)[None]).min(1)
            free = nearest > 1e-3
        if segments:
            usable = np.where(free, scores, -1.0).astype(np.float32)
            least = self.encoder.no_match if threshold is None else threshold
            longest = round(_LONGEST_SEGMENT * self.fps)
            ranked = [segment.best for segment in find_segments(usable, least, k, longest)]
        else:
            ranked = [int(i) for i in np.argsort(-scores, kind="stable") if free[i]][:k]
        hits = [Hit(int(index.frames[i]), float(index.seconds[i]), float(scores[i])) for i in ranked]
        return Found(tuple(hits), index.curve(scores), index.id)

    def retrieved(self, video: VideoPath, query: str, found: Found) -> list[FrameRef]:
        """The hits as retrieved frames, with their pictures in the store.

        Args:
            video: The video that was searched.
            query: The query that the frames are said to answer.
            found: The result of the search.

        Raises:
            StoreError: A picture cannot be written.
            VideoError: The video cannot be read.
        """
        made = [
            Retrieved(query=query, score=round(hit.score, 4), index_id=found.index_id) for hit in found.hits
        ]
        return self.library.pictures(video, [hit.frame for hit in found.hits], made)

    def similarities(self, pictures: Sequence[Pixels], text: str) -> list[float]:
        """How well each picture fits a text: the best of its vectors, as in an index."""
        frames = self.encoder.frames(pictures).astype(np.float32)  # (pictures, vectors, dim)
        [phrase] = self.encoder.phrases([text])
        return [float((frame @ phrase).max()) for frame in frames]

    def index_id(self, video: VideoPath) -> str:
        """The name of a video's index. Raises `VideoError` if the video cannot be read."""
        return f"{self.library.probe(video).info.digest}-{self.encoder.id}-{self.fps:g}fps"

    def index(self, video: VideoPath, progress: Progress | None = None) -> FrameIndex:
        """The index of a video: from memory, from disk, or built now.

        Args:
            video: The video.
            progress: Called with the frames done and all of them, in another thread.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        found = self._begin(video, progress)
        if isinstance(found, FrameIndex):
            return found
        try:
            return found.result()
        finally:
            found.cancel()

    async def ready(self, video: VideoPath, progress: Progress | None = None) -> FrameIndex:
        """`index`, without a thread that waits.

        Cancelling withdraws the request; an index that nobody awaits is dropped.
        """
        begun = asyncio.ensure_future(asyncio.to_thread(self._begin, video, progress))
        try:
            found = await asyncio.shield(begun)
        except asyncio.CancelledError:
            # The thread is looking at the video and is about to ask for the index.
            begun.add_done_callback(_withdraw)
            raise
        return found if isinstance(found, FrameIndex) else await asyncio.wrap_future(found)

    def folder(self, id: str) -> Path:
        """Where the index of this name is, or would be."""
        return self.cache / "indexes" / id

    def _begin(self, video: VideoPath, progress: Progress | None) -> FrameIndex | Future[FrameIndex]:
        """The index if it is in memory or on disk; else the building of it, under way or new."""
        window = self.library.window(video)
        id = self.index_id(window)
        with self._lock:
            known = self._open.get(id)
        if known is not None:
            return known
        try:
            return self._keep(read_index(self.folder(id), id))
        except StoreError:
            pass  # missing or damaged: `_build` reads it again under its lock
        return self._building.join(id, lambda: self._build(window, id), progress, owner=window.path)

    def _keep(self, index: FrameIndex) -> FrameIndex:
        with self._lock:
            self._open[index.id] = index
        return index

    def _build(self, window: Window, id: str) -> Generator[tuple[int, int], None, FrameIndex]:
        """Encode the frames and write the index, in turns with the building of others."""
        folder = self.folder(id)
        # The turns are taken by several threads.
        lock = FileLock(f"{folder}.lock", thread_local=False)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            while not _acquired(lock):
                time.sleep(0.05)  # another process builds it
                yield 0, 0
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE "
                "to another folder"
            ) from e
        try:
            try:
                return self._keep(read_index(folder, id))
            except StoreError as e:
                if folder.exists():
                    log.warning("%s; building it again", e)
            writer = IndexWriter()
            yield from self._encode(window, writer)
            facts = {
                "video": self.library.probe(window).info.digest,
                "encoder": self.encoder.id,
                "fps": self.fps,
            }
            return self._keep(writer.write(folder, id, facts))
        finally:
            lock.release()

    def _encode(self, window: Window, writer: IndexWriter) -> Generator[tuple[int, int], None, None]:
        clip = self.library.probe(window)
        frames = clip.every(self.fps)
        if self.keep_frames:
            size = clip.info.fit(self.library.max_side)
        else:
            size = (self.encoder.size, self.encoder.size)
        taken: dict[int, str] = {}
        done = 0
        decoded = self.library.decode(window, frames, size)
        while batch := list(islice(decoded, self.batch)):
            numbers, seconds, pixels = zip(*batch, strict=True)
            features = self.encoder.frames(list(pixels))
            self.encoded += len(batch)
            if self.keep_frames:
                taken.update((i, self.library.store.put(p)) for i, p in zip(numbers, pixels, strict=True))
            writer.add(np.array(numbers), np.array(seconds), features)
            done += len(batch)
            if done < len(frames):
                yield done, len(frames)
        yield len(frames), len(frames)
        if taken:
            self.library.keep(window, taken)


def _withdraw(begun: asyncio.Future[FrameIndex | Future[FrameIndex]]) -> None:
    if begun.cancelled() or begun.exception() is not None:
        return
    building = begun.result()
    if isinstance(building, Future):
        building.cancel()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
