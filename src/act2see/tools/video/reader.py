"""Opening videos, choosing frames by presentation timestamp (PTS), and reading them at a small size.

Times are seconds by a player's clock, mostly from the first frame (`clock.py`). They come from each frame's
PTS, never from an average frame rate. A video is never in memory as a whole: `read` streams frames, and
resizes and rotates each after decoding.

Opening a video reads its table of packets, which takes a second for an hour of video, and decodes the first
frames to check the table. If these differ from it, or if packets are damaged, the whole file is decoded once
to list its frames.

PyAV is the decoder; it skips unwanted frames that no other frame refers to. decord is an alternative
(`tools/video/decord.py`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError
from act2see.tools.frames import Video
from act2see.tools.runtime.text import clean_text, first_line, unfit_for_path
from act2see.tools.video.clock import picture_delay
from act2see.tools.video.decord import check_decord, read_by_decord
from act2see.tools.video.identity import FileIdentity, content_digest, identify, sampled_digest
from act2see.tools.video.limits import choose_threads
from act2see.tools.video.opening import open_container
from act2see.tools.video.orientation import Upright, orientation
from act2see.tools.video.packets import UNKNOWN, decode_all
from act2see.tools.video.pixels import Shape, is_plain, render, usable_aspect
from act2see.tools.video.seeking import enters_at_keys, read_frames
from act2see.tools.video.store import Pixels
from act2see.tools.video.table import Table, read_table, scan
from act2see.tools.video.window import VideoPath, Window, exact_seconds

log = logging.getLogger(__name__)
Decoder = Literal["pyav", "decord"]

SLACK = 1e-3  # seconds: containers round timestamps, and t = 1/3 must find the frame at 0.333
_FIRST = 8  # frames that are decoded on opening


@dataclass(frozen=True)
class VideoFile:
    """A video that can be read; made by `open_video`. It holds no open file, so threads may share it."""

    window: Window
    """The file and the part of it."""
    width: int
    """Width of the upright picture, in pixels."""
    height: int
    """Height of the upright picture, in pixels."""
    seconds: float
    """Length of the window."""
    timestamps: NDArray[np.float64]
    """Start of each frame, `(frames,)`, in seconds of the window."""
    decoder: Decoder
    """Decoder that `read` tries first: decord if it was requested and reads this file correctly."""
    threads: int
    """Number of decoding threads."""
    _table: Table
    _upright: Upright
    _shape: Shape
    first: int = 0
    """Number, in the file, of the window's frame 0."""

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.window.path

    @property
    def digest(self) -> str:
        """`video_digest` of the window, computed at each call."""
        # Not a cached property: until Python 3.12 that has a lock, and a process that is forked while the
        # lock is held could never acquire it.
        return video_digest(self.window)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        """Average number of frames per second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def info(self, digest: str | None = None) -> Video:
        """Return the facts of the video.

        Args:
            digest: Its `video_digest`, if it is known; computing it reads all of the file.
        """
        return Video(
            path=str(self.window),
            digest=digest or self.digest,
            seconds=self.seconds,
            width=self.width,
            height=self.height,
            frames=self.frames,
            fps=self.fps,
        )

    def read(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, float, Pixels]]:
        """Yield frames in time order, each once.

        A frame that cannot be decoded is replaced by the one before it, with a warning.

        Args:
            indices: The numbers of the frames, in any order.
            size: Width and height of the upright pictures, in pixels; None keeps the video's own.

        Yields:
            The number of a frame, its time in seconds, and its pixels, `(height, width, 3)` uint8 RGB.

        Raises:
            IndexError: The video has fewer frames.
            VideoError: None of the frames can be decoded.
        """
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.frames:
            raise IndexError(
                f"{self.path} has frames 0 to {self.frames - 1}, not {wanted[0]} to {wanted[-1]}"
            )
        size = size or (self.width, self.height)
        for in_file, pixels in self._read([i + self.first for i in wanted], size):
            i = in_file - self.first
            yield i, float(self.timestamps[i]), pixels

    def _read(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        """Yield frames by their numbers in the file."""
        done = 0
        if self.decoder == "decord":
            try:
                count = len(self._table.seconds)
                for i, pixels in read_by_decord(self.path, count, wanted, size, self.threads):
                    done += 1
                    yield i, pixels
            except Exception as e:  # decord has no common base for its errors
                log.warning(
                    "decord failed on %s after %d frames (%s); continuing with PyAV",
                    self.path,
                    done,
                    first_line(e),
                )
        yield from self._without_gaps(wanted[done:], size)

    def _without_gaps(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        """Yield frames by PyAV. The frame before replaces a missing one; at the start, the frame after."""
        before: Pixels | None = None
        left = list(wanted)
        missing = 0
        for i, pixels in self._by_pyav(wanted, size):
            while left and left[0] <= i:
                j = left.pop(0)
                missing += j != i
                yield j, pixels if j == i or before is None else before
            before = pixels
        if left and before is None:
            raise VideoError(
                f"none of the requested frames of {self.path} can be decoded: copy or download the file again"
            )
        for j in left:
            assert before is not None
            missing += 1
            yield j, before
        if missing:
            log.warning(
                "%s: %d of %d frames cannot be decoded and are replaced by their neighbours",
                self.path,
                missing,
                len(wanted),
            )

    def _by_pyav(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        if not wanted:
            return
        import av
        from av.video.reformatter import VideoReformatter

        resize = VideoReformatter()
        width, height = (size[1], size[0]) if self._upright.turn else size
        open_file = partial(open_container, self.path, self.window.stream)
        for i, frame, coded in read_frames(open_file, self._table, wanted, self.threads):
            try:
                pixels = render(frame, (width, height), resize, self._shape.widening(frame, coded))
            except (av.error.FFmpegError, ValueError, MemoryError) as e:
                raise VideoError(
                    f"a frame of {self.path} cannot be converted ({first_line(e)}): ask again, or convert it "
                    "to H.264"
                ) from e
            yield i, self._upright(pixels)


def open_video(video: VideoPath, *, decoder: Decoder = "pyav", threads: int = 0) -> VideoFile:
    """Open a video.

    Args:
        video: A file, or a part of one.
        decoder: "decord" uses decord for files that it reads correctly, and PyAV for others.
        threads: The number of decoding threads; 0 is one for each core, but at most 8. Large pictures get
            fewer, since each thread holds a few in memory.

    Raises:
        ConfigError: decord is requested but not installed.
        VideoError: The file is missing, a folder, empty, not a video, or has no frame that can be decoded; or
            the part starts after its end.
    """
    window = Window.resolve(video)
    if decoder == "decord":
        check_decord()
    _check(window)
    try:
        identity = identify(window.path)
    except OSError as e:
        raise VideoError(f"{window.path} cannot be read ({e.strerror}): check the path") from e
    # A file that may change unnoticed is read again: the unique object finds nothing in the cache.
    once = object() if identity.recent else None
    facts = os.path.abspath(window.path), window.stream, identity, once
    table, upright, shape = _probe(*facts)
    width, height = shape.display_width, shape.height
    if upright.turn:
        width, height = height, width
    length = float(table.seconds[-1]) + table.last
    start, end = window.start, min(window.end, length)
    first, timestamps = 0, table.seconds
    if not window.whole:
        if start >= end - SLACK:
            raise VideoError(
                f"{window.path} ends at {length:.1f} s, before the part starts "
                f"({exact_seconds(start)} s): ask for another part"
            )
        if end <= table.seconds[0]:
            raise VideoError(
                f"{window.path} has sound but no picture before {table.seconds[0]:.1f} s: "
                "ask for another part"
            )
        [first] = frames_at(table.seconds, [start])
        [last] = frames_at(table.seconds, [end - 2 * SLACK])
        # The frame on screen at the start of the part started earlier: its time becomes 0.
        timestamps = np.maximum(table.seconds[first : last + 1] - start, 0.0)
    return VideoFile(
        window,
        width,
        height,
        seconds=end - start,
        timestamps=timestamps,
        decoder="decord" if decoder == "decord" and _suits_decord(*facts) else "pyav",
        threads=choose_threads(width, height, threads),
        _table=table,
        _upright=upright,
        _shape=shape,
        first=first,
    )


@lru_cache(16)
def _probe(
    path: str, number: int | None, identity: FileIdentity, once: object
) -> tuple[Table, Upright, Shape]:
    """Return the table of a file, its transformation to upright pictures, and the shape of the first one.

    Cached for all parts of a file. `identity` and `once` belong to the key of the cache, so that a changed
    file is read again.
    """
    with open_container(path, number) as (container, stream):
        table, reported = read_table(container, stream)
    with open_container(path, number) as (container, stream):
        shown = usable_aspect(stream.sample_aspect_ratio)
        frames = islice(decode_all(container, stream), _FIRST)
        first = list(islice(frames, 1))
        coded = stream.codec_context.sample_aspect_ratio
        # Only the first frame stays in memory: eight of 8K take 400 MB.
        seen = [(frame.pts, frame.pict_type) for frame in chain(first, frames)]
        if table:
            table = table.checked([pts for pts, _ in seen], [kind for _, kind in seen]) if first else None
        if table:
            delay = picture_delay(container, stream, _first_stamp(table))
    if table is None:
        table = scan(partial(open_container, path, number), path, reported=reported)
        with open_container(path, number) as (container, stream):
            stream.codec_context.thread_count = 1  # as in the scan, so that the frame comes again
            first = list(islice(decode_all(container, stream), 1))
            delay = picture_delay(container, stream, _first_stamp(table))
        if not first:
            raise VideoError(f"{path} gives other frames each time it is read: copy or download it again")
    upright, mirrored = orientation(first[0])
    if mirrored or not is_plain(first[0]):
        table = replace(table, decord=False)  # decord reads any display matrix as a rotation
    if delay:
        table = replace(table, seconds=table.seconds + delay)
    return table, upright, Shape(first[0].width, first[0].height, coded, shown)


@lru_cache(16)
def _suits_decord(path: str, number: int | None, identity: FileIdentity, once: object) -> bool:
    """Return whether decord reads a file correctly. It trusts every keyframe."""
    table = _probe(path, number, identity, once)[0]
    return table.decord and enters_at_keys(partial(open_container, path, number), table)


def _first_stamp(table: Table) -> int | None:
    """Return the PTS of the first frame; None if it has none."""
    if not len(table.keys) or table.keys[0] != 0:
        return None
    stamp = int(table.starts[0, 0])
    return None if stamp == UNKNOWN else stamp


def frames_at(timestamps: NDArray[np.float64], times: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """Return the numbers of the frames on screen at `times`, without repeats.

    The frame on screen is the last one that starts at or before a time; before all frames, it is the first.

    Args:
        timestamps: Start of each frame, `(frames,)`, in seconds.
        times: Times in seconds.
    """
    found = np.searchsorted(timestamps, np.asarray(times, np.float64) + SLACK, side="right") - 1
    return list(dict.fromkeys(np.maximum(found, 0).tolist()))


def video_digest(video: VideoPath, cache: Path | None = None) -> str:
    """Return a hash of the content and of the part, as 32 hexadecimal digits.

    Args:
        video: A file, or a part of one.
        cache: The folder of the cache. It keeps the digests of large files.

    Raises:
        VideoError: The file is missing, a folder, empty, cannot be read, or is being written.
    """
    window = Window.resolve(video)
    _check(window)
    try:
        return content_digest(window.path, _part(window), cache)
    except OSError as e:
        raise VideoError(f"{window.path} cannot be read ({e.strerror}): copy or download it again") from e


def had_digest(video: VideoPath, digest: str) -> bool:
    """Return whether act2see 0.1.0 gave a video this digest, which now has another.

    Raises:
        VideoError: As `video_digest`.
    """
    window = Window.resolve(video)
    _check(window)
    try:
        return sampled_digest(window.path, _part(window)) == digest
    except OSError as e:
        raise VideoError(f"{window.path} cannot be read ({e.strerror}): copy or download it again") from e


def _part(window: Window) -> str:
    """Return what a digest says of a part: both ends, to the microsecond, so that no two parts share one."""
    if window.whole:
        return ""
    stream = "" if window.stream is None else f"&v={window.stream}"
    return f"#t={exact_seconds(window.start)},{exact_seconds(window.end)}{stream}"


def _check(window: Window) -> None:
    """Raise `VideoError` unless the path is a regular file that is not empty, and the part is possible."""
    path = window.path
    if problem := window.problem():
        raise VideoError(problem)
    if why := unfit_for_path(path):
        raise VideoError(f"{clean_text(path)} cannot be opened: {why}")
    if os.path.isdir(path):
        raise VideoError(f"{path} is a folder: name a video file in it")
    if os.path.exists(path) and not os.path.isfile(path):
        raise VideoError(f"{path} is a device or a pipe: give a video file")
    try:
        with open(path, "rb") as f:
            empty = not f.read(1)
    except FileNotFoundError as e:
        problem = window.misread()
        raise VideoError(problem or f"there is no file {path}: check the path") from e
    except OSError as e:
        raise VideoError(f"{path} cannot be read ({e.strerror}): check its permissions") from e
    if empty:
        raise VideoError(f"{path} is empty: copy or download it again")
