"""The library of videos: their facts and pictures, which are cached by content hash.

The cache has the size and timestamps of each video, and the digests of pictures taken from it. A second
question about a clip does not open the video: its facts, initial frames and indexed frames are cached. Times
are presentation timestamps. Keys name the content of the file and the way of decoding, and what was read is
kept only if the file is still the same afterwards (`watch.py`).

With a framer, pictures are a part of the video's (`framing.py`). The size of the video is then that of the
part, and the framing is one of its facts.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from act2see.errors import StoreError, VideoError
from act2see.tools.frames import FrameRef, Initial, Provenance, Video
from act2see.tools.runtime.files import replacing_file
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.sharing import KeyedLocks
from act2see.tools.video.decord import check_decord
from act2see.tools.video.framing import Framer, Framing
from act2see.tools.video.identity import FileIdentity, decoding, identify
from act2see.tools.video.isolation.video import IsolatedVideo, shared_decoders
from act2see.tools.video.reader import SLACK, Decoder, VideoFile, frames_at, open_video, video_digest
from act2see.tools.video.store import FrameStore, Pixels
from act2see.tools.video.watch import Watch
from act2see.tools.video.window import VideoPath, Window

log = logging.getLogger(__name__)
_INITIAL = Initial()
_CLIPS = 64  # number of videos whose facts stay in memory
_DIGESTS = 4096  # number of files and parts whose digests stay in memory
_FRAMED = 9  # number of pictures that a framer is shown
_FRAMED_SIDE = 960  # their longer side, in pixels


@dataclass(slots=True)
class ProbedVideo:
    """The facts of a video, and its pictures in the store."""

    info: Video
    seconds: NDArray[np.float64]
    """Start of each frame, `(frames,)`, in seconds."""
    taken: dict[int, str] = field(default_factory=dict)
    """Pictures in the store: frame number to digest."""
    framing: Framing | None = None
    """The part that the pictures show; None for whole pictures."""
    views: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the initial frames, by the name of the way of choosing them."""

    def every(self, fps: float) -> list[int]:
        """Return the numbers of the frames on screen at 0, 1/fps, 2/fps ... seconds, without repeats."""
        count = max(1, int(np.ceil((self.info.seconds - 2 * SLACK) * fps)))
        # Counted over the frames, not over the times: a file with the time of day as timestamps has billions.
        first = np.maximum(0, np.ceil((self.seconds - SLACK) * fps))  # the first of the times with each frame
        first[0] = 0
        on_screen = (first < np.append(first[1:], np.inf)) & (first < count)
        return np.flatnonzero(on_screen).tolist()

    def spread(self, count: int) -> list[int]:
        """Return the numbers of the frames on screen in the middle of `count` equal parts, each once."""
        return frames_at(self.seconds, (np.arange(count) + 0.5) / count * self.info.seconds)


class VideoLibrary:
    """Opens videos, takes pictures of them, and caches both. Thread-safe.

    Args:
        cache: The folder for the facts of videos.
        store: The store for the pictures.
        max_side: The longer side of pictures, in pixels.
        decoder: The decoder.
        framer: Finds the part of each video that pictures show; None for whole pictures.
        isolate: Whether files are opened and decoded in a child process with limits.

    Raises:
        ConfigError: The decoder is not installed, or this system has no such child processes.
    """

    def __init__(
        self,
        cache: Path,
        store: FrameStore,
        max_side: int,
        decoder: Decoder = "pyav",
        framer: Framer | None = None,
        isolate: bool = False,
    ) -> None:
        if decoder == "decord":
            check_decord()
        self.cache = cache
        self.store = store
        self.max_side = max_side
        self.decoder = decoder
        self.framer = framer
        self.isolate = isolate
        if isolate:
            shared_decoders()  # fail here rather than during a question
        self.opened = 0
        """Number of times that a video was opened, by which caching is measured."""
        self._clips: LRUCache[str, ProbedVideo] = LRUCache(_CLIPS)
        self._digests: LRUCache[tuple[Window, FileIdentity], str] = LRUCache(_DIGESTS)
        self._lock = Lock()
        # One lock per video, so that each is read only once while other videos do not wait.
        self._locks = KeyedLocks()

    def probe(self, video: VideoPath) -> ProbedVideo:
        """Return the facts of a video.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read.
        """
        window = self.window(video)
        with self._locks(("facts", os.path.abspath(window.path), window.fragment)):
            watch = self.watch(window)
            digest = watch.digest
            with self._lock:
                known = self._clips.get(digest)
            if known is not None:
                return known
            clip = self._read_cache(window, digest) or self._read_facts(window, watch)
            with self._lock:
                # The same video may have been opened under another name.
                return self._clips.setdefault(digest, clip)

    def window(self, video: VideoPath) -> Window:
        """Return the window of a path. Every access to a video starts here, so a subclass can restrict it."""
        return Window.resolve(video)

    @property
    def decoding(self) -> str:
        """The name of the way of decoding, for keys of what is made from frames."""
        return decoding(self.decoder)

    def watch(self, video: VideoPath, digest: str | None = None) -> Watch:
        """Return a watch, which tells whether the file of a video is still the same.

        Args:
            video: The video.
            digest: The digest that it must have; None for any.

        Raises:
            VideoError: The file cannot be read, or has another digest.
        """
        window = self.window(video)
        return Watch(window, self._digest, digest)

    def pictures(
        self,
        video: VideoPath,
        frames: Sequence[int],
        provenance: Provenance | Sequence[Provenance] = _INITIAL,
    ) -> list[FrameRef]:
        """Return references to frames of a video. Frames that are not in the store are decoded and stored.

        Args:
            video: The video.
            frames: The numbers of the frames. The references have the same order.
            provenance: The provenance of all frames, or one for each.

        Raises:
            StoreError: A picture or the cache cannot be written.
            VideoError: The video cannot be read.
        """
        window = self.window(video)
        clip = self.probe(window)
        width, height = clip.info.fit(self.max_side)
        with self._locks(clip.info.digest):
            # The store may have been cleared, or a picture damaged, since the picture was taken.
            kept = {i: clip.taken[i] for i in set(frames) & clip.taken.keys()}
            missing = sorted(i for i in set(frames) if i not in kept or not self.store.intact(kept[i]))
            if missing:
                taken = {}
                for i, _, pixels in self.decode(window, missing, (width, height), clip.info.digest):
                    taken[i] = self.store.put(pixels)
                # Only now, since `decode` raises at its end if the file changed.
                clip.taken.update(taken)
                self._write_cache(clip)
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
        self,
        video: VideoPath,
        frames: Sequence[int],
        size: tuple[int, int] | None,
        digest: str | None = None,
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Open a video and yield frames of it, as `VideoFile.read` does, in its framing.

        Keep nothing under the video's digest before the last frame: the file may change until then.

        Args:
            video: The video.
            frames: The numbers of the frames.
            size: Width and height of the pictures, in pixels; None keeps the video's own.
            digest: The digest of the video that the numbers belong to; None for the present one.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read, or has another digest before or after.
        """
        window = self.window(video)
        watch = self.watch(window, digest)
        framing = self.probe(window).framing if self.framer else None
        self.opened += 1
        try:
            if framing is None:
                yield from self._read(window, frames, size)
            else:
                for i, seconds, pixels in self._read(window, frames):
                    yield i, seconds, framing.apply(pixels, size)
        except VideoError:
            watch.check()  # a file that was replaced is not a damaged one
            raise
        watch.check()

    def keep(self, video: VideoPath, taken: dict[int, str], digest: str) -> None:
        """Record pictures that the caller has stored.

        Args:
            video: The video.
            taken: Frame number to digest of the picture.
            digest: The digest of the video that they were taken from.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read, or has another digest by now.
        """
        self.watch(video, digest)
        clip = self.probe(video)
        with self._locks(clip.info.digest):
            clip.taken.update(taken)
            self._write_cache(clip)

    def keep_view(self, video: VideoPath, name: str, frames: Sequence[int], digest: str) -> None:
        """Record which frames were chosen as initial frames, under the name of the way of choosing.

        Raises:
            StoreError: The cache cannot be written.
            VideoError: The video cannot be read, or has another digest by now.
        """
        self.watch(video, digest)
        clip = self.probe(video)
        with self._locks(clip.info.digest):
            clip.views[name] = list(frames)
            self._write_cache(clip)

    def _digest(self, window: Window) -> str:
        """Return `video_digest`, computed once as long as the file does not change."""
        try:
            identity = identify(window.path)
            key = replace(window, path=os.path.abspath(window.path)), identity
        except (OSError, ValueError):  # ValueError: a character that a path cannot contain
            return video_digest(window)  # raises an error that explains the problem
        with self._lock:
            known = self._digests.get(key)
        if known is None or identity.recent:
            known = video_digest(window, self.cache)
            if not identity.recent:
                with self._lock:
                    self._digests[key] = known
        return known

    def _file(self, digest: str) -> Path:
        # Decoders differ slightly in their pictures, and versions of one in what they get right.
        part = f"-{self.framer.id}" if self.framer else ""
        return self.cache / "videos" / digest / f"side-{self.max_side}-{self.decoding}{part}.json"

    def _read_facts(self, window: Window, watch: Watch) -> ProbedVideo:
        """Open a video, and write its facts to the cache."""
        self.opened += 1
        video = self._open(window)
        info = video.info(watch.digest)
        clip = ProbedVideo(info, np.asarray(video.timestamps, np.float64))
        if self.framer is not None:
            clip.framing = self._find_framing(self.framer, video, clip)
        if clip.framing is not None:
            width, height = clip.framing.size
            clip.info = info.model_copy(update={"width": width, "height": height})
        watch.check()
        self._write_cache(clip)
        return clip

    def _open(self, window: Window) -> VideoFile | IsolatedVideo:
        if self.isolate:
            return IsolatedVideo(window, self.decoder)
        return open_video(window, decoder=self.decoder)

    def _read(
        self, window: Window, frames: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Open a video and yield frames of it."""
        if self.isolate:  # a child opens it and reads it at one request
            return shared_decoders().frames(window, self.decoder, frames, size)
        return open_video(window, decoder=self.decoder).read(frames, size)

    def _find_framing(
        self, framer: Framer, video: VideoFile | IsolatedVideo, clip: ProbedVideo
    ) -> Framing | None:
        size = clip.info.fit(_FRAMED_SIDE)
        frames = [0, *clip.spread(_FRAMED - 1)]
        return framer.find([pixels for _, _, pixels in video.read(frames, size)])

    def _read_cache(self, window: Window, digest: str) -> ProbedVideo | None:
        """Return the cached facts of a video; None if they are missing or damaged."""
        file = self._file(digest)
        try:
            data: dict[str, Any] = json.loads(file.read_text())
            if data.pop("check", None) != _check(data):
                raise ValueError("they are not as they were written")
            info = Video(**{**data["info"], "path": str(window)})
            taken = {int(i): d for i, d in data["taken"].items() if d in self.store}
            framing = Framing.from_data(data["framing"]) if data.get("framing") else None
            views = {name: [int(i) for i in frames] for name, frames in data.get("views", {}).items()}
            return ProbedVideo(info, np.asarray(data["seconds"], np.float64), taken, framing, views)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as e:
            log.warning("the cached facts of %s cannot be read (%s); reading the video again", window, e)
            return None

    def _write_cache(self, clip: ProbedVideo) -> None:
        file = self._file(clip.info.digest)
        data = {
            "info": clip.info.model_dump(),
            "seconds": clip.seconds.round(6).tolist(),
            "taken": clip.taken,
            "framing": asdict(clip.framing) if clip.framing else None,
            "views": clip.views,
        }
        try:
            with replacing_file(file) as new:
                new.write_text(json.dumps({**data, "check": _check(json.loads(json.dumps(data)))}))
        except OSError as e:
            raise StoreError(
                f"cannot write to the cache {self.cache}: {e.strerror}; free some space or set ACT2SEE_CACHE "
                "to another folder"
            ) from e


def _check(facts: dict[str, Any]) -> int:
    """Return the checksum of facts: a damaged digit would give a frame the time or the picture of another."""
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())
