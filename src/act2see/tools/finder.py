"""Find frames of a video by text: the service behind `retrieve`, `generate`'s anchors and `act2see find`.

A video is indexed once, at 3 fps, however many ask at once and in however many processes; after that a query
costs one text encoding and one FAISS search.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.clips import Clips
from act2see.tools.frames import Curve
from act2see.tools.index import FrameIndex, read_index, write_index
from act2see.tools.segments import find_segments

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]


class Encoder(Protocol):
    """What the finder needs of an encoder: `Blip2Encoder` is one. `frames` gives `(frames, vectors of each, dim)`."""

    @property
    def id(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def no_match(self) -> float: ...

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]: ...
    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]: ...
    def similarity(self, pixels: Pixels, text: str) -> float: ...


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
    """Indexes videos and searches them. `encoded` counts frames encoded so far."""

    def __init__(self, clips: Clips, encoder: Encoder, cache: Path, fps: float = 3.0, batch: int = 32, keep_frames: bool = False) -> None:
        self.clips, self.encoder, self.cache = clips, encoder, cache
        self.fps, self.batch, self.keep_frames = fps, batch, keep_frames
        self.encoded = 0
        self._open: OrderedDict[str, FrameIndex] = OrderedDict()
        self._lock = threading.RLock()

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
        """The `k` frames that fit `query` (one phrasing or several) best, without those shown at the times `skip`.

        Frames under `threshold` (by default the encoder's own `no_match`) are in no segment.
        """
        index = self.index(video)
        phrases = self.encoder.phrases([query] if isinstance(query, str) else list(query))
        scores = index.scores(phrases, best=k + len(skip))
        free = np.ones(len(index), bool)
        if len(skip):
            near = np.abs(index.seconds[:, None] - np.asarray(skip)[None]).min(1)
            free = near > 1e-3
        ranked = [int(i) for i in np.argsort(-scores, kind="stable") if free[i]][:k]
        if segments:
            usable = np.where(free, scores, -1.0).astype(np.float32)
            ranked = [
                s.best for s in find_segments(usable, self.encoder.no_match if threshold is None else threshold, k, round(20 * self.fps))
            ]
        hits = tuple(Hit(int(index.frames[i]), float(index.seconds[i]), float(scores[i])) for i in ranked)
        return Found(hits, index.curve(scores), index.id)

    def index_id(self, video: str) -> str:
        return f"{self.clips.clip(video).info.digest}-{self.encoder.id}-{self.fps:g}fps"

    def index(self, video: str, progress: Callable[[int, int], None] | None = None) -> FrameIndex:
        """The index of a video, from memory, from disk, or built now (`progress(done, all)`)."""
        id = self.index_id(video)
        with self._lock:
            if id not in self._open:
                self._open[id] = self._load(video, id, progress)
                while len(self._open) > 32:
                    self._open.popitem(last=False)
            self._open.move_to_end(id)
            return self._open[id]

    def folder(self, id: str) -> Path:
        return self.cache / "indexes" / id

    def _load(self, video: str, id: str, progress: Callable[[int, int], None] | None) -> FrameIndex:
        folder = self.folder(id)
        try:
            return read_index(folder, id)
        except StoreError:
            pass  # missing or damaged: looked at again under the lock
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{folder}.lock")
            lock.acquire()
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE to another folder"
            ) from e
        try:
            try:
                return read_index(folder, id)
            except StoreError as e:
                if folder.exists():
                    log.warning("%s; building it again", e)
            clip = self.clips.clip(video)
            frames = clip.every(self.fps)
            meta = {"video": clip.info.digest, "encoder": self.encoder.id, "fps": self.fps}
            return write_index(folder, id, self._features(video, frames, progress), meta)
        finally:
            lock.release()

    def _features(
        self, video: str, frames: Sequence[int], progress: Callable[[int, int], None] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float16]]]:
        size = self.clips.size(self.clips.clip(video)) if self.keep_frames else (self.encoder.size, self.encoder.size)
        batch: list[tuple[int, float, Pixels]] = []
        done = 0
        kept: dict[int, str] = {}

        def encode() -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float16]]:
            features = self.encoder.frames([p for _, _, p in batch])
            self.encoded += len(batch)
            if self.keep_frames:
                kept.update({i: self.clips.store.put(p) for i, _, p in batch})
            return np.array([i for i, _, _ in batch]), np.array([s for _, s, _ in batch]), features

        for item in self.clips.decode(video, frames, size):
            batch.append(item)
            if len(batch) == self.batch:
                yield encode()
                done += len(batch)
                batch = []
                if progress:
                    progress(done, len(frames))
        if batch:
            yield encode()
        if progress:
            progress(len(frames), len(frames))
        if kept:
            self.clips.keep(video, kept)
