"""Search for frames of a video by text, for `retrieve`, the anchors of `generate`, and `act2see find`.

A video is indexed once, at 3 fps by default, even if several requests or processes need it at the same time.
Afterwards, a query takes one text encoding and one FAISS search. Videos that are indexed concurrently take
turns after each batch, so that a short clip does not wait for an hour of film; parts of one video share its
turns. If all requests for an index are cancelled, its construction stops after the batch under way. What is
done by then, or when the process ends, is kept and taken up by the next request (`build.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from cachetools import LRUCache

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Retrieved
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.round_robin import Progress, RoundRobin
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.build import IndexBuild
from act2see.tools.search.encoder import FrameEncoder
from act2see.tools.search.index import FrameIndex, read_index
from act2see.tools.search.ranking import Found, rank_frames
from act2see.tools.search.thresholds import Calibration, load_calibration
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import VideoPath, Window

_INDEXES = 32  # number of indexes that stay open
_LONGEST_SEGMENT = 20.0  # seconds


class Finder:
    """Indexes videos and searches them. Thread-safe.

    Args:
        library: The library that opens videos.
        encoder: The encoder of frames and queries.
        cache: The folder for the indexes.
        fps: The number of frames per second to index.
        batch: The number of frames to encode in one call.
        keep_frames: Whether the pictures of all indexed frames are stored while they are decoded.
        workers: The number of videos to decode at the same time.
        save_every: The number of seconds after which the finished part of an index is saved.
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
        save_every: float = 5.0,
    ) -> None:
        self.library = library
        self.encoder = encoder
        self.cache = cache
        self.fps = fps
        self.batch = batch
        self.keep_frames = keep_frames
        self.save_every = save_every
        self.encoded = 0
        """Number of encoded frames, by which caching is measured."""
        self._open: LRUCache[str, FrameIndex] = LRUCache(_INDEXES)
        self._lock = Lock()
        self._building: RoundRobin[FrameIndex] = RoundRobin(workers=workers, name="act2see-index")

    @property
    def calibration(self) -> Calibration | None:
        """The calibration of its encoder (`act2see calibrate`); None without one.

        Raises:
            StoreError: The calibration cannot be read.
        """
        return load_calibration(self.cache, self.encoder.id)

    @property
    def no_match(self) -> float:
        """Threshold: a frame with a lower score does not match. It is calibrated, or else the encoder's own.

        Raises:
            StoreError: The calibration cannot be read.
        """
        calibration = self.calibration
        return self.encoder.no_match if calibration is None else calibration.threshold

    @property
    def building(self) -> int:
        """Number of indexes that are being built or are waiting to be."""
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
        """Index a video, unless it is indexed, and search it. The arguments are those of `search`.

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
        """Return the frames that match a query best.

        Args:
            index: The index of the video.
            query: One phrasing, or several, whose scores are averaged.
            k: The largest number of frames.
            skip: Times of frames to leave out, in seconds.
            segments: Whether segments are ranked. Then each hit is the best frame of a segment.
            threshold: Threshold of frames for segments; by default `no_match`.
        """
        texts = [query] if isinstance(query, str) else query
        phrases = self.encoder.phrases([clean_text(text) for text in texts])
        passing = None
        if segments:
            passing = self.no_match if threshold is None else threshold
        longest = max(1, round(_LONGEST_SEGMENT * self.fps))
        return rank_frames(index, phrases, k, skip=skip, passing=passing, longest=longest)

    def retrieved(self, video: VideoPath, query: str, found: Found) -> list[FrameRef]:
        """Store the pictures of the hits and return references to them.

        Args:
            video: The video that was searched.
            query: The query, for the provenance of the frames.
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
        """Return the score of each picture for a text, computed as in an index."""
        frames = self.encoder.frames(pictures).astype(np.float32)  # (pictures, vectors, dim)
        [phrase] = self.encoder.phrases([text])
        return [float((frame @ phrase).max()) for frame in frames]

    def index_id(self, video: VideoPath) -> str:
        """Return the name of a video's index. Raises `VideoError` if the video cannot be read."""
        clip = self.library.probe(video)
        part = f"-{clip.framing.id}" if clip.framing else ""
        return f"{clip.info.digest}-{self.encoder.id}-{self.fps:g}fps{part}-{self.library.decoding}"

    def index(self, video: VideoPath, progress: Progress | None = None) -> FrameIndex:
        """Return the index of a video, from memory, from disk, or built now.

        Args:
            video: The video.
            progress: Called with the frames done and their total, in another thread.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        found = self._find_or_join(video, progress)
        if isinstance(found, FrameIndex):
            return found
        try:
            return found.result()
        finally:
            found.cancel()

    async def ready(self, video: VideoPath, progress: Progress | None = None) -> FrameIndex:
        """Return the index of a video as `index` does, without blocking a thread.

        If this call is cancelled, and no other call waits for the index, its construction stops.

        Args:
            video: The video.
            progress: Called with the frames done and their total, in another thread.

        Raises:
            StoreError: The index cannot be written.
            VideoError: The video cannot be read.
        """
        found = await self.request(video, progress)
        return found if isinstance(found, FrameIndex) else await asyncio.wrap_future(found)

    async def request(
        self, video: VideoPath, progress: Progress | None = None
    ) -> FrameIndex | Future[FrameIndex]:
        """Return the index of a video, or a future of it, without waiting for its construction.

        Until the future is cancelled, the construction continues.

        Args:
            video: The video.
            progress: Called with the frames done and their total, in another thread.

        Raises:
            VideoError: The video cannot be read.
        """
        request = asyncio.ensure_future(asyncio.to_thread(self._find_or_join, video, progress))
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            # The thread cannot be cancelled. It is about to request the index, which is withdrawn then.
            request.add_done_callback(_withdraw)
            raise

    def close(self, timeout: float = 2.0) -> None:
        """Stop building indexes. What is done is saved. This happens at the end of the process, too.

        Args:
            timeout: The longest time to wait for the batches under way, in seconds.
        """
        self._building.close(timeout)

    def folder(self, id: str) -> Path:
        """Return the folder of an index, which need not exist."""
        return self.cache / "indexes" / id

    def _find_or_join(self, video: VideoPath, progress: Progress | None) -> FrameIndex | Future[FrameIndex]:
        """Return the index if it is in memory or on disk; else a future of it."""
        window = self.library.window(video)
        id = self.index_id(window)
        with self._lock:
            known = self._open.get(id)
        if known is not None:
            return known
        try:
            return self._keep(read_index(self.folder(id), id))
        except StoreError:
            pass  # missing or damaged; the build tries again when it holds the lock of the file
        return self._building.join(id, lambda: self._build(window, id), progress, owner=window.path)

    def _keep(self, index: FrameIndex) -> FrameIndex:
        with self._lock:
            self._open[index.id] = index
        return index

    def _build(self, window: Window, id: str) -> Generator[tuple[int, int], None, FrameIndex]:
        """Build an index. Each step is one batch."""
        build = IndexBuild(
            window,
            id,
            self.folder(id),
            library=self.library,
            encoder=self.encoder,
            fps=self.fps,
            batch=self.batch,
            keep_frames=self.keep_frames,
            save_every=self.save_every,
            count=self._count,
        )
        return self._keep((yield from build.steps()))

    def _count(self, frames: int) -> None:
        with self._lock:
            self.encoded += frames


def _withdraw(request: asyncio.Future[FrameIndex | Future[FrameIndex]]) -> None:
    """Cancel the future of an index, if the request has one."""
    if request.cancelled() or request.exception() is not None:
        return
    building = request.result()
    if isinstance(building, Future):
        building.cancel()
