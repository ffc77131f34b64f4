"""The library of opened videos: facts and pictures, decoded only when they are not known yet.

The timestamps and size of a video and the pictures taken from it are kept by content hash in the cache
folder. A second question on a clip opens no video: facts, initial frames and the frames of its index come
from there. Times are presentation timestamps.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from act2see.errors import StoreError
from act2see.tools.frames import FrameRef, Initial, Provenance, Video
from act2see.tools.runtime.files import replacing_file
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.sharing import KeyedLocks
from act2see.tools.video.decord import check_decord
from act2see.tools.video.reader import SLACK, Decoder, frames_at, open_video, video_digest
from act2see.tools.video.store import FrameStore, Pixels
from act2see.tools.video.window import VideoPath, Window

log = logging.getLogger(__name__)
_INITIAL = Initial()
_CLIPS = 64  # facts of so many videos stay in memory


@dataclass(slots=True)
class ProbedVideo:
    """What is known of a video."""

    info: Video
    seconds: NDArray[np.float64]
    """When each frame comes on the screen."""
    taken: dict[int, str] = field(default_factory=dict)
    """The pictures that are in the store: frame number to digest."""

    def every(self, fps: float) -> list[int]:
        """The frames on screen at 0, 1/fps, 2/fps ... seconds; one that stays on screen comes once."""
        count = max(1, int(np.ceil((self.info.seconds - 2 * SLACK) * fps)))
        return frames_at(self.seconds, np.arange(count) / fps)

    def spread(self, count: int) -> list[int]:
        """The frames on screen in the middle of `count` equal parts; fewer if one fills several parts."""
        return frames_at(self.seconds, (np.arange(count) + 0.5) / count * self.info.seconds)


class VideoLibrary:
    """Opens videos, takes pictures, remembers both. Thread-safe.

    Args:
        cache: The folder in which facts of videos are kept.
        store: Holds the pictures.
        max_side: The longer side of pictures, in pixels.
        decoder: What decodes videos.

    Raises:
        ConfigError: The decoder is not installed.
    """

    def __init__(self, cache: Path, store: FrameStore, max_side: int, decoder: Decoder = "pyav") -> None:
        if decoder == "decord":
            check_decord()
        self.cache, self.store, self.max_side, self.decoder = cache, store, max_side, decoder
        self.opened = 0
        """How many videos were opened for decoding: caching is measured by it."""
        self._clips: LRUCache[str, ProbedVideo] = LRUCache(_CLIPS)
        self._digests: dict[tuple[Window, int, int], str] = {}
        self._lock = Lock()
        # For each video: its packets are read and its pictures are taken once, and no other video waits.
        self._locks = KeyedLocks()

    def probe(self, video: VideoPath) -> ProbedVideo:
        """The facts of a video. Raises `VideoError` if it cannot be read."""
        window = self.window(video)
        with self._locks(("facts", os.path.abspath(window.path), window.fragment)):
            digest = self._digest(window)
            with self._lock:
                known = self._clips.get(digest)
            if known is not None:
                return known
            clip = self._remembered(window, digest) or self._read_facts(window)
            with self._lock:
                # The same video may have been opened under another name.
                return self._clips.setdefault(digest, clip)

    def window(self, video: VideoPath) -> Window:
        """The file and the seconds that a path means. Every access to a video begins here."""
        return Window.resolve(video)

    def pictures(
        self,
        video: VideoPath,
        frames: Sequence[int],
        provenance: Provenance | Sequence[Provenance] = _INITIAL,
    ) -> list[FrameRef]:
        """Frames of a video, decoded and stored unless they are known.

        Args:
            video: The video.
            frames: Their numbers; the references come in the same order.
            provenance: Where they come from: one for all, or one for each.

        Raises:
            StoreError: A picture or the cache cannot be written.
            VideoError: The video cannot be read.
        """
        window = self.window(video)
        clip = self.probe(window)
        width, height = clip.info.fit(self.max_side)
        with self._locks(clip.info.digest):
            missing = sorted({i for i in frames if i not in clip.taken})
            if missing:
                for i, _, pixels in self.decode(window, missing, (width, height)):
                    clip.taken[i] = self.store.put(pixels)
                self._remember(clip)
        made = provenance if isinstance(provenance, Sequence) else [provenance] * len(frames)
        return [
            FrameRef(
                digest=clip.taken[i],
                width=width,
                height=height,
                seconds=round(float(clip.seconds[i]), 4),
                provenance=one,
            )
            for i, one in zip(frames, made, strict=True)
        ]

    def decode(
        self, video: VideoPath, frames: Sequence[int], size: tuple[int, int] | None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Open a video and stream frames of it, as `VideoFile.read` does.

        Args:
            video: The video.
            frames: Their numbers.
            size: Width and height of the pictures; None is the video's own.

        Raises:
            VideoError: The video cannot be read.
        """
        window = self.window(video)
        self.opened += 1
        yield from open_video(window, decoder=self.decoder).read(frames, size)

    def keep(self, video: VideoPath, taken: dict[int, str]) -> None:
        """Remember pictures that the caller stored while decoding: frame number to digest.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read.
        """
        clip = self.probe(video)
        with self._locks(clip.info.digest):
            clip.taken.update(taken)
            self._remember(clip)

    def _digest(self, window: Window) -> str:
        try:
            stat = os.stat(window.path)
            key = (
                Window(os.path.abspath(window.path), window.start, window.end),
                stat.st_size,
                stat.st_mtime_ns,
            )
        except (OSError, ValueError):  # ValueError: a character that no path can have
            return video_digest(window)  # raises the error that says what is wrong with the path
        if key not in self._digests:
            self._digests[key] = video_digest(window)
        return self._digests[key]

    def _file(self, digest: str) -> Path:
        # decord's pictures differ a little from PyAV's, which are the ones without a name.
        by = "" if self.decoder == "pyav" else f"-{self.decoder}"
        return self.cache / "videos" / digest / f"side-{self.max_side}{by}.json"

    def _read_facts(self, window: Window) -> ProbedVideo:
        self.opened += 1
        video = open_video(window, decoder=self.decoder)
        clip = ProbedVideo(video.info(), np.asarray(video.timestamps, np.float64))
        self._remember(clip)
        return clip

    def _remembered(self, window: Window, digest: str) -> ProbedVideo | None:
        """What the cache has of a video; None if it has nothing, or the file is damaged."""
        file = self._file(digest)
        try:
            data: dict[str, Any] = json.loads(file.read_text())
            info = Video(**{**data["info"], "path": str(window)})
            taken = {int(i): d for i, d in data["taken"].items() if d in self.store}
            return ProbedVideo(info, np.asarray(data["seconds"], np.float64), taken)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            log.warning("the cached facts of %s cannot be read (%s); reading the video again", window, e)
            return None

    def _remember(self, clip: ProbedVideo) -> None:
        file = self._file(clip.info.digest)
        data = {
            "info": clip.info.model_dump(),
            "seconds": clip.seconds.round(6).tolist(),
            "taken": clip.taken,
        }
        try:
            with replacing_file(file) as new:
                new.write_text(json.dumps(data))
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE "
                "to another folder"
            ) from e
