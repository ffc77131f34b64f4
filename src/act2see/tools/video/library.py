"""Clips as the tools see them: facts and pictures, opened only when something is not known yet.

What was learnt of a video (its timestamps and size) and which pictures were taken from it is remembered by
content hash in the cache folder. A second question on a clip opens no video: facts, initial frames and the
frames of its index come from there. Times are presentation timestamps.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Initial
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.sharing import KeyedLocks
from act2see.tools.video.reader import SLACK, VideoInfo, frames_at, open_video, split_part, video_digest
from act2see.tools.video.store import FrameStore

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]


@dataclass(slots=True)
class Clip:
    """A video's facts, all frames' timestamps, and the pictures already taken: frame number to digest."""

    info: VideoInfo
    seconds: NDArray[np.float64]
    taken: dict[int, str] = field(default_factory=dict)

    def every(self, fps: float) -> list[int]:
        """Frames at 0, 1/fps, 2/fps ... by timestamp."""
        count = max(1, int(np.ceil((self.info.seconds - 2 * SLACK) * fps)))
        return frames_at(self.seconds, np.arange(count) / fps)

    def spread(self, count: int) -> list[int]:
        """`count` frames spread evenly, in the middle of equal parts."""
        return frames_at(self.seconds, (np.arange(count) + 0.5) / count * self.info.seconds)


class VideoLibrary:
    """Opens videos, takes pictures, remembers both. Thread-safe."""

    def __init__(self, cache: Path, store: FrameStore, max_side: int, kept: int = 64) -> None:
        self.cache, self.store, self.max_side = cache, store, max_side
        self.opened = 0  # videos opened for decoding so far: what caching is measured by
        self._clips: OrderedDict[str, Clip] = OrderedDict()
        self._digests: dict[tuple[str, int, int], str] = {}
        self._kept = kept
        self._lock = Lock()
        self._locks = (
            KeyedLocks()
        )  # one video's table of packets or pictures are read once, and others' are not waited for

    def clip(self, path: str) -> Clip:
        """Facts of a video; raises `VideoError` where it cannot be read."""
        with self._locks(f"facts of {os.path.abspath(path)}"):
            digest = self._digest(path)
            with self._lock:
                if digest in self._clips:
                    self._clips.move_to_end(digest)
                    return self._clips[digest]
            clip = self._remembered(path, digest) or self._probe(path, digest)
            with self._lock:
                # The same video may have been opened under another name.
                clip = self._clips.setdefault(digest, clip)
                while len(self._clips) > self._kept:
                    self._clips.popitem(last=False)
            return clip

    def size(self, clip: Clip) -> tuple[int, int]:
        """Width and height at which pictures of this clip are taken: aspect kept, never enlarged."""
        scale = min(1.0, self.max_side / max(clip.info.width, clip.info.height))
        return max(2, round(clip.info.width * scale)), max(2, round(clip.info.height * scale))

    def pictures(self, path: str, frames: Sequence[int]) -> list[FrameRef]:
        """References to these frames, in the order given; the missing ones are decoded and stored."""
        clip = self.clip(path)
        width, height = self.size(clip)
        with self._locks(clip.info.digest):
            missing = sorted({i for i in frames if i not in clip.taken})
            if missing:
                for i, _, pixels in self.decode(path, missing, (width, height)):
                    clip.taken[i] = self.store.put(pixels)
                self._remember(clip)
        return [
            FrameRef(
                digest=clip.taken[i],
                width=width,
                height=height,
                seconds=round(float(clip.seconds[i]), 4),
                provenance=Initial(),
            )
            for i in frames
        ]

    def decode(
        self, path: str, frames: Sequence[int], size: tuple[int, int] | None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Stream frames at a size (None: the video's own); opens the video."""
        self.opened += 1
        yield from open_video(path).read(frames, size)

    def keep(self, path: str, taken: dict[int, str]) -> None:
        """Remember pictures that somebody else stored while decoding."""
        clip = self.clip(path)
        with self._locks(clip.info.digest):
            clip.taken.update(taken)
            self._remember(clip)

    def _digest(self, path: str) -> str:
        try:
            stat = os.stat(split_part(path)[0])
            key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
        except (OSError, ValueError):  # ValueError: a character that no path can have
            return video_digest(path)  # says what is wrong with the path
        if key not in self._digests:
            self._digests[key] = video_digest(path)
        return self._digests[key]

    def _folder(self, digest: str) -> Path:
        return self.cache / "videos" / digest

    def _file(self, digest: str) -> Path:
        return self._folder(digest) / f"side-{self.max_side}.json"

    def _probe(self, path: str, digest: str) -> Clip:
        self.opened += 1
        video = open_video(path)
        clip = Clip(video.info(), np.asarray(video.timestamps, np.float64))
        self._remember(clip)
        return clip

    def _remembered(self, path: str, digest: str) -> Clip | None:
        file = self._file(digest)
        try:
            data: dict[str, Any] = json.loads(file.read_text())
            info = VideoInfo(**{**data["info"], "path": str(path)})
            clip = Clip(
                info, np.asarray(data["seconds"], np.float64), {int(i): d for i, d in data["taken"].items()}
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            log.warning("what was remembered of %s cannot be read (%s); looking again", path, e)
            return None
        if any(d not in self.store for d in clip.taken.values()):
            clip.taken = {i: d for i, d in clip.taken.items() if d in self.store}
        return clip

    def _remember(self, clip: Clip) -> None:
        file = self._file(clip.info.digest)
        data = {"info": asdict(clip.info), "seconds": clip.seconds.round(6).tolist(), "taken": clip.taken}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as f:
                json.dump(data, f)
            os.replace(f.name, file)
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE to another folder"
            ) from e
