"""Videos: opening them, choosing frames by presentation timestamp (PTS), reading those frames small.

A part of a video is a media fragment (W3C): `clip.mp4#t=2,8` is a video of its own, six seconds long, that
begins at 0.

Seconds count from the first frame. They come from the PTS of each frame, never from an average frame rate. A
clip is never in memory as a whole: `read` streams, and frames are resized, and set upright, while they are
decoded.

Opening reads the table of packets (no pictures: an hour takes a second) and decodes the first few frames to
see that they come as the table says. Where they do not, or packets are damaged, the whole clip is decoded
once to learn which frames there really are, and is read from its beginning from then on.

PyAV decodes, and skips what nothing refers to and nobody asked for. decord, with its resize at decode time,
can be asked for instead and is no longer the default, since it lost on every count (decord2 3.4,
`benchmarks/decode.py`): it takes 13 to 23 % more CPU time; it reads the compressed file ahead without bound,
580 MiB for an hour of 720p; and it gives other frames than those asked for, silently, where keyframes do not
stand in decoding order where they stand on the screen, or the container is neither MP4 nor Matroska (open
GOPs, so most HEVC; MPEG-4 with B-frames; AVI, MPEG-TS, MPEG-PS; edit lists). In those cases, and where it
fails, PyAV reads the clip all the same.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError
from act2see.tools.runtime.text import clean_text, unfit_for_path
from act2see.tools.video.container import (
    Table,
    Upright,
    counting,
    decoded,
    open_container,
    orientation,
    read_table,
    scan,
    seeking,
)

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
Backend = Literal["auto", "decord", "pyav"]

SLACK = 1e-3  # seconds: containers round timestamps, and t = 1/3 must find the frame at 0.333
_FIRST = 8  # frames decoded on opening
_THREADS = 8  # each decoding thread holds a few full-size frames
_BATCH, _BATCH_BYTES = 16, 32 << 20
_FRAGMENT = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")
_WHOLE = 64 << 20  # files up to here are hashed whole
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Facts of a video. `digest` is `video_digest`; width and height are upright; `fps` is an average."""

    path: str
    digest: str
    seconds: float
    width: int
    height: int
    frames: int
    fps: float


@dataclass(frozen=True)
class VideoFile:
    """An openable video; made by `open_video`. Holds no open file, so threads may share it.

    Of a part of a file, `source` names the part, `path` the file, and `first` is the part's frame 0 in the
    file's numbers.
    """

    path: str
    width: int
    height: int
    seconds: float
    timestamps: NDArray[np.float64]
    backend: Backend
    threads: int
    _table: Table
    _upright: Upright
    source: str
    first: int = 0

    @property
    def digest(self) -> str:
        # Not cached: until Python 3.12 a cached property has a lock, which would stay held in a process that
        # is forked meanwhile.
        return video_digest(self.source)

    @property
    def frames(self) -> int:
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def decoder(self) -> Literal["decord", "pyav"]:
        """The decoder that `read` begins with: decord where it was asked for and is right."""
        return "decord" if self.backend == "decord" and self._table.decord else "pyav"

    def info(self) -> VideoInfo:
        return VideoInfo(self.path, self.digest, self.seconds, self.width, self.height, self.frames, self.fps)

    def nearest(self, seconds: float) -> int:
        """The frame on screen at this time: the last one at or before it."""
        return frames_at(self.timestamps, [seconds])[0]

    def sample_indices(self, fps: float) -> list[int]:
        """The frames on screen at 0, 1/fps, 2/fps ... seconds; one that stays on screen comes once."""
        count = max(1, int(np.ceil((self.seconds - 2 * SLACK) * fps)))
        return frames_at(self.timestamps, np.arange(count) / fps)

    def sample_count(self, count: int) -> list[int]:
        """The frames on screen in the middle of `count` equal parts; fewer where one fills several parts."""
        return frames_at(self.timestamps, (np.arange(count) + 0.5) / count * self.seconds)

    def times(self, fps: float) -> list[float]:
        """Timestamps in seconds of `sample_indices(fps)`."""
        return self.timestamps[self.sample_indices(fps)].tolist()  # type: ignore[no-any-return]

    def fit(self, max_side: int | None) -> tuple[int, int]:
        """Width and height, even numbers, of frames whose longer side is at most `max_side`; never larger
        than the video."""
        scale = min(1.0, max_side / max(self.width, self.height)) if max_side else 1.0
        width, height = (
            max(2, min(round(side * scale / 2), side // 2) * 2) for side in (self.width, self.height)
        )
        return width, height

    def read(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Stream `(index, seconds, (height, width, 3) uint8 RGB)` in time order, each index once.

        `size` is (width, height), upright; None keeps the video's own. A frame that is damaged beyond
        decoding is replaced by the one read before it, with a warning. Raises `VideoError` where nothing can
        be decoded.
        """
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.frames:
            raise IndexError(
                f"{self.path} has frames 0 to {self.frames - 1}, not {wanted[0]} to {wanted[-1]}"
            )
        size = size or (self.width, self.height)
        for i, pixels in self._read([i + self.first for i in wanted], size):
            yield i - self.first, float(self.timestamps[i - self.first]), pixels

    def _read(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        """By the file's own frame numbers."""
        done = 0
        if self.decoder == "decord":
            try:
                for i, pixels in self._by_decord(wanted, size):
                    done += 1
                    yield i, pixels
            except Exception as e:  # decord raises its own error type, assertions and plain RuntimeErrors
                log.warning(
                    "decord failed on %s after %d frames (%s); going on with PyAV",
                    self.path,
                    done,
                    _first_line(e),
                )
        yield from self._whole(wanted[done:], size)

    def _by_decord(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        if not wanted:
            return
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(
            os.path.abspath(self.path), width=size[0], height=size[1], num_threads=self.threads
        )
        if len(reader) != len(self._table.seconds):
            raise RuntimeError(f"it counts {len(reader)} frames, not {len(self._table.seconds)}")
        batch = max(1, min(_BATCH, _BATCH_BYTES // (size[0] * size[1] * 3)))
        for start in range(0, len(wanted), batch):  # it seeks by itself; a tenth quicker than frame by frame
            part = wanted[start : start + batch]
            for i, pixels in zip(part, reader.get_batch(part).asnumpy(), strict=True):
                yield i, pixels.copy()  # who keeps one frame must not keep the batch

    def _whole(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        """PyAV's frames, with the gaps filled: a gap takes the frame before it, one at the start the frame
        after it."""
        before: Pixels | None = None
        gaps = list(wanted)
        missing = 0
        for i, pixels in self._by_pyav(wanted, size):
            while gaps and gaps[0] <= i:
                j = gaps.pop(0)
                missing += j != i
                yield j, pixels if j == i or before is None else before
            before = pixels
        if gaps and before is None:
            raise VideoError(
                f"none of the frames asked for can be decoded from {self.path}: copy or download the file again"
            )
        for j in gaps:
            assert before is not None
            missing += 1
            yield j, before
        if missing:
            log.warning(
                "%s: %d of %d frames cannot be decoded; their neighbours stand in for them",
                self.path,
                missing,
                len(wanted),
            )

    def _by_pyav(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        if not wanted:
            return
        from av.video.reformatter import VideoReformatter

        resize = VideoReformatter()
        width, height = (size[1], size[0]) if self._upright.turn else size
        with open_container(self.path) as (container, stream):
            by_pts = self._table.pts is not None
            stream.codec_context.thread_count = self.threads if by_pts else 1
            for i, frame in (
                seeking(container, stream, self._table, wanted)
                if by_pts
                else counting(container, stream, wanted)
            ):
                small = resize.reformat(frame, width, height, format="rgb24", interpolation="BICUBIC")
                yield i, self._upright(np.asarray(small.to_ndarray(), np.uint8))


def open_video(path: str | os.PathLike[str], *, backend: Backend = "auto", threads: int = 0) -> VideoFile:
    """Open a video. `threads` decode it (0: as many as there are cores, 8 at most).

    `backend` "auto" is PyAV; "decord" is decord where it gives the right frames, else PyAV. Raises
    `VideoError` where the file is missing, a folder, empty, no video, or has no frame that can be decoded,
    and where the part asked for has none.
    """
    source = os.fspath(path)
    path, part = split_part(source)
    _check(path)
    stat = os.stat(path)
    table, upright, width, height = _looked_at(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
    threads = threads or min(_THREADS, os.cpu_count() or 1)
    times, length = table.seconds, float(table.seconds[-1]) + table.last
    if part is None:
        return VideoFile(path, width, height, length, times, backend, threads, table, upright, source)
    start, stop = part[0], min(part[1], length)
    if start >= stop - SLACK:
        raise VideoError(
            f"{path} is {length:.1f} s long, so there is nothing from {start:g} s on: ask for another part"
        )
    begin, end = frames_at(times, [start])[0], frames_at(times, [stop - 2 * SLACK])[0] + 1
    # The frame on screen when the part begins has begun before it.
    times = np.maximum(times[begin:end] - start, 0.0)
    return VideoFile(
        path, width, height, stop - start, times, backend, threads, table, upright, source, begin
    )


@lru_cache(16)
def _looked_at(path: str, size: int, changed: int) -> tuple[Table, Upright, int, int]:
    """The frames of a file, how they become upright, width and height: once for all parts that are opened, as
    long as it is the same."""
    with open_container(path) as (container, stream):
        table = read_table(container, stream)
    with open_container(path) as (container, stream):
        shape = stream.sample_aspect_ratio
        first = list(islice(decoded(container, stream), _FIRST))
    if (
        not first
        or table is None
        or table.pts is None
        or [f.pts for f in first] != table.pts[: len(first)].tolist()
    ):
        table = scan(path)
        with open_container(path) as (container, stream):
            first = list(islice(decoded(container, stream), 1))
    upright, mirrored = orientation(first[0])
    width, height = first[0].width, first[0].height
    if shape and 0.25 <= shape <= 4:  # pixels that are not square
        width = round(width * float(shape))
    if upright.turn:
        width, height = height, width
    if mirrored and table.decord:  # decord reads any display matrix as a rotation
        table = Table(table.seconds, table.last, table.pts, table.keys, table.key_dts)
    return table, upright, width, height


def split_part(path: str | os.PathLike[str]) -> tuple[str, tuple[float, float] | None]:
    """The file and the part of it, in seconds, that a path means; None for the whole. A file of that very
    name comes first."""
    path = os.fspath(path)
    found = _FRAGMENT.search(path)
    if not found or not any(found.groups()) or os.path.exists(path):
        return path, None
    start, stop = found.groups()
    return path[: found.start()], (float(start or 0), float(stop) if stop else math.inf)


def absolute_path(path: str | os.PathLike[str]) -> str:
    """The same video (or part of one) from any working folder."""
    path = os.fspath(path)
    try:
        here = os.getcwd()
    except FileNotFoundError:
        if not os.path.isabs(path):
            raise VideoError(
                f"{clean_text(path)} cannot be found: the working folder is gone; give an absolute path"
            ) from None
        return path
    plain, joined = os.path.abspath(path), path if os.path.isabs(path) else os.path.join(here, path)
    # After a link to a folder, `..` leads elsewhere than its letters say.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined


def frames_at(timestamps: NDArray[np.float64], times: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """The frames on screen at `times` (seconds), without repeats: the last one at or before each, else the
    first."""
    found = np.searchsorted(timestamps, np.asarray(times, np.float64) + SLACK, side="right") - 1
    return list(dict.fromkeys(np.maximum(found, 0).tolist()))


def video_digest(path: str | os.PathLike[str]) -> str:
    """A content hash, 32 hex digits: of the whole file up to 64 MiB, else of its size and 64 evenly spaced
    MiB, the first and the last among them, so that a file of 10 GB takes a second. Raises `VideoError` as
    `open_video` does."""
    path, part = split_part(path)
    _check(path)
    digest = hashlib.blake2b(digest_size=16)
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        if size <= _WHOLE:
            while block := f.read(_CHUNK):
                digest.update(block)
        else:
            digest.update(str(size).encode())
            for n in range(64):
                f.seek((size - _CHUNK) * n // 63)
                digest.update(f.read(_CHUNK))
    if part:
        digest.update(f"#t={part[0]:g},{part[1]:g}".encode())
    return digest.hexdigest()


def _check(path: str | os.PathLike[str]) -> None:
    if why := unfit_for_path(os.fspath(path)):
        raise VideoError(f"{clean_text(os.fspath(path))} cannot be opened: {why}")
    if os.path.isdir(path):
        raise VideoError(f"{os.fspath(path)} is a folder: name a video file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise VideoError(f"{os.fspath(path)} is a device or a pipe: give a video file")
    try:
        with open(path, "rb") as f:
            empty = not f.read(1)
    except FileNotFoundError as e:
        raise VideoError(f"there is no file {os.fspath(path)}: check the path") from e
    except OSError as e:
        raise VideoError(f"{os.fspath(path)} cannot be read ({e.strerror}): check its permissions") from e
    if empty:
        raise VideoError(f"{os.fspath(path)} is empty: copy or download it again")


def _first_line(e: Exception) -> str:
    return next(iter(str(e).splitlines()), type(e).__name__)
