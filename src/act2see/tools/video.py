"""Videos: opening them, choosing frames by presentation timestamp (PTS), reading those frames small.

Seconds count from the first frame. They come from the PTS of each frame, never from an average frame rate. A
clip is never in memory as a whole: `read` streams, and frames are resized, and set upright, while they are decoded.

Opening reads the table of packets (no pictures: an hour takes a second) and decodes the first few frames to see
that they come as the table says. Where they do not, or packets are damaged, the whole clip is decoded once to
learn which frames there really are, and is read from its beginning from then on.

PyAV decodes, and skips what nothing refers to and nobody asked for. decord, with its resize at decode time, can be
asked for instead and is no longer the default, since it lost on every count (decord2 3.4, `benchmarks/decode.py`):
it is 10 to 30 % slower; it reads the compressed file ahead without bound, 580 MiB for an hour of 720p; and it gives
other frames than those asked for, silently, where keyframes do not stand in decoding order where they stand on the
screen or the container is neither MP4 nor Matroska (open GOPs, so most HEVC; MPEG-4 with B-frames; AVI, MPEG-TS,
MPEG-PS; edit lists). In those cases, and where it fails, PyAV reads the clip all the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
Backend = Literal["auto", "decord", "pyav"]

SLACK = 1e-3  # seconds: containers round timestamps, and t = 1/3 must find the frame at 0.333
_FIRST = 8  # frames decoded on opening
_THREADS = 8  # each decoding thread holds a few full-size frames
_BATCH, _BATCH_BYTES = 16, 32 << 20
_WHOLE = 64 << 20  # files up to here are hashed whole
_CHUNK = 1 << 20
# They name other files or addresses, which a video that somebody sent must not make us open.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf"})


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


@dataclass(frozen=True, slots=True)
class _Table:
    """The frames in presentation order. `pts` is None where frames are told apart by counting alone."""

    seconds: NDArray[np.float64]
    last: float
    pts: NDArray[np.int64] | None = None
    keys: NDArray[np.int64] | None = None
    key_dts: NDArray[np.int64] | None = None
    decord: bool = False


@dataclass(frozen=True, slots=True)
class _Upright:
    """How stored pixels become upright ones: first `turn` (exchange the axes), then mirror."""

    turn: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        if self.turn:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


@dataclass(frozen=True)
class VideoFile:
    """An openable video; made by `open_video`. Holds no open file, so threads may share it."""

    path: str
    width: int
    height: int
    seconds: float
    timestamps: NDArray[np.float64]
    backend: Backend
    threads: int
    _table: _Table
    _upright: _Upright

    @property
    def frames(self) -> int:
        return len(self.timestamps)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @cached_property
    def digest(self) -> str:
        return video_digest(self.path)

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
        """Width and height, even numbers, of frames whose longer side is at most `max_side`; never larger than the video."""
        scale = min(1.0, max_side / max(self.width, self.height)) if max_side else 1.0
        width, height = (max(2, min(round(side * scale / 2), side // 2) * 2) for side in (self.width, self.height))
        return width, height

    def read(self, indices: Sequence[int], size: tuple[int, int] | None = None) -> Iterator[tuple[int, float, Pixels]]:
        """Stream `(index, seconds, (height, width, 3) uint8 RGB)` in time order, each index once.

        `size` is (width, height), upright; None keeps the video's own. A frame that is damaged beyond decoding
        is replaced by the one read before it, with a warning. Raises `VideoError` where nothing can be decoded.
        """
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.frames:
            raise IndexError(f"{self.path} has frames 0 to {self.frames - 1}, not {wanted[0]} to {wanted[-1]}")
        size = size or (self.width, self.height)
        done = 0
        if self.decoder == "decord":
            try:
                for i, pixels in self._by_decord(wanted, size):
                    done += 1
                    yield i, float(self.timestamps[i]), pixels
            except Exception as e:  # decord raises its own error type, assertions and plain RuntimeErrors
                log.warning("decord failed on %s after %d frames (%s); going on with PyAV", self.path, done, _first_line(e))
        yield from self._whole(wanted[done:], size)

    def _by_decord(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        if not wanted:
            return
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        reader = decord.VideoReader(os.path.abspath(self.path), width=size[0], height=size[1], num_threads=self.threads)
        if len(reader) != self.frames:
            raise RuntimeError(f"it counts {len(reader)} frames, not {self.frames}")
        batch = max(1, min(_BATCH, _BATCH_BYTES // (size[0] * size[1] * 3)))
        for start in range(0, len(wanted), batch):  # it seeks by itself; a tenth quicker than frame by frame
            part = wanted[start : start + batch]
            for i, pixels in zip(part, reader.get_batch(part).asnumpy(), strict=True):
                yield i, pixels.copy()  # who keeps one frame must not keep the batch

    def _whole(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, float, Pixels]]:
        """PyAV's frames, with the gaps filled: a gap takes the frame before it, one at the start the frame after it."""
        before: Pixels | None = None
        gaps = list(wanted)
        missing = 0
        for i, pixels in self._by_pyav(wanted, size):
            while gaps and gaps[0] <= i:
                j = gaps.pop(0)
                missing += j != i
                yield j, float(self.timestamps[j]), pixels if j == i or before is None else before
            before = pixels
        if gaps and before is None:
            raise VideoError(f"none of the frames asked for can be decoded from {self.path}: copy or download the file again")
        for j in gaps:
            assert before is not None
            missing += 1
            yield j, float(self.timestamps[j]), before
        if missing:
            log.warning("%s: %d of %d frames cannot be decoded; their neighbours stand in for them", self.path, missing, len(wanted))

    def _by_pyav(self, wanted: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[int, Pixels]]:
        if not wanted:
            return
        from av.video.reformatter import VideoReformatter

        resize = VideoReformatter()
        width, height = (size[1], size[0]) if self._upright.turn else size
        with _open(self.path) as (container, stream):
            by_pts = self._table.pts is not None
            stream.codec_context.thread_count = self.threads if by_pts else 1
            for i, frame in _seeking(container, stream, self._table, wanted) if by_pts else _counting(container, stream, wanted):
                small = resize.reformat(frame, width, height, format="rgb24", interpolation="BICUBIC")
                yield i, self._upright(np.asarray(small.to_ndarray(), np.uint8))


def open_video(path: str | os.PathLike[str], *, backend: Backend = "auto", threads: int = 0) -> VideoFile:
    """Open a video. `threads` decode it (0: as many as there are cores, 8 at most).

    `backend` "auto" is PyAV; "decord" is decord where it gives the right frames, else PyAV.
    Raises `VideoError` where the file is missing, a folder, empty, no video, or has no frame that can be decoded.
    """
    path = os.fspath(path)
    _check(path)
    with _open(path) as (container, stream):
        table = _packets(container, stream)
    with _open(path) as (container, stream):
        shape = stream.sample_aspect_ratio
        first = list(islice(_decoded(container, stream), _FIRST))
    if not first or table is None or table.pts is None or [f.pts for f in first] != table.pts[: len(first)].tolist():
        table = _scan(path)
        with _open(path) as (container, stream):
            first = list(islice(_decoded(container, stream), 1))
    upright, mirrored = _orientation(first[0])
    width, height = first[0].width, first[0].height
    if shape and 0.25 <= shape <= 4:  # pixels that are not square
        width = round(width * float(shape))
    if upright.turn:
        width, height = height, width
    if mirrored and table.decord:  # decord reads any display matrix as a rotation
        table = _Table(table.seconds, table.last, table.pts, table.keys, table.key_dts)
    threads = threads or min(_THREADS, os.cpu_count() or 1)
    return VideoFile(path, width, height, float(table.seconds[-1]) + table.last, table.seconds, backend, threads, table, upright)


def frames_at(timestamps: NDArray[np.float64], times: Sequence[float] | NDArray[np.float64]) -> list[int]:
    """The frames on screen at `times` (seconds), without repeats: the last one at or before each, else the first."""
    found = np.searchsorted(timestamps, np.asarray(times, np.float64) + SLACK, side="right") - 1
    return list(dict.fromkeys(np.maximum(found, 0).tolist()))


def video_digest(path: str | os.PathLike[str]) -> str:
    """A content hash, 32 hex digits: of the whole file up to 64 MiB, else of its size and 64 evenly spaced MiB, the
    first and the last among them, so that a file of 10 GB takes a second. Raises `VideoError` as `open_video` does."""
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
    return digest.hexdigest()


def _check(path: str | os.PathLike[str]) -> None:
    if os.path.isdir(path):
        raise VideoError(f"{os.fspath(path)} is a folder: name a video file in it")
    try:
        with open(path, "rb") as f:
            empty = not f.read(1)
    except FileNotFoundError as e:
        raise VideoError(f"there is no file {os.fspath(path)}: check the path") from e
    except OSError as e:
        raise VideoError(f"{os.fspath(path)} cannot be read ({e.strerror}): check its permissions") from e
    if empty:
        raise VideoError(f"{os.fspath(path)} is empty: copy or download it again")


@contextmanager
def _open(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    import av
    from av.stream import Disposition

    try:
        container = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except av.error.FFmpegError as e:
        with open(path, "rb") as f:
            cut = f.read(8)[4:] == b"ftyp"
        why = "is cut off before its table of frames" if cut else "is not a video that can be read"
        do = "copy or download it again" if cut else "give a video file, such as MP4, MOV, MKV or WebM"
        raise VideoError(f"{path} {why}: {do}") from e
    with container:
        if _PLAYLISTS & set(container.format.name.split(",")):
            raise VideoError(f"{path} is a playlist, not a video: give the video file itself")
        # The cover picture of a song is a video stream to FFmpeg.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            what = "has sound but no picture" if container.streams.audio else "has no video in it"
            raise VideoError(f"{path} {what}: give a video file")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264")
        stream.thread_type = "AUTO"
        yield container, stream


def _packets(container: InputContainer, stream: VideoStream) -> _Table | None:
    """The table of frames from the packets' timestamps; None where they do not tell."""
    import av

    rows: list[tuple[int, int, int, bool, bool]] = []
    try:
        for p in container.demux(stream):
            if p.size:
                if p.pts is None or p.is_corrupt:
                    return None
                rows.append((p.pts, p.pts if p.dts is None else p.dts, p.duration or 0, p.is_keyframe, p.is_discard))
    except av.error.FFmpegError:
        return None
    if not any(r[3] for r in rows):
        return None
    if stream.frames > len(rows) and not any(r[4] for r in rows):
        log.warning("%s announces %d frames and holds %d: it may be cut off", container.name, stream.frames, len(rows))
    # What comes before the first keyframe, on screen or in the file, cannot be decoded; what an edit list cuts is not shown.
    start = next(n for n, r in enumerate(rows) if r[3])
    shown = [n for n, r in enumerate(rows) if n >= start and r[0] >= rows[start][0] and not r[4]]
    if not shown:
        return None
    pts, durations = np.array([rows[n][0] for n in shown]), np.array([rows[n][2] for n in shown])
    order = np.argsort(pts, kind="stable")
    if (np.diff(pts[order]) == 0).any():
        return None
    keys = np.array([n for n, r in enumerate(rows) if r[3]])
    key_pts, key_dts = np.array([rows[n][0] for n in keys]), np.array([rows[n][1] for n in keys])
    by_pts = np.argsort(key_pts, kind="stable")
    return _Table(
        *_seconds(pts[order], int(durations[order[-1]]), stream),
        pts=pts[order],
        keys=key_pts[by_pts],
        key_dts=key_dts[by_pts],
        decord=(
            bool({"mp4", "matroska"} & set(container.format.name.split(",")))
            and len(container.streams.video) == 1
            and len(shown) == len(rows)
            and np.array_equal(np.searchsorted(pts[order], key_pts), keys)
        ),
    )


def _scan(path: str) -> _Table:
    """The table of frames from decoding them all: for files whose packets are damaged or do not tell."""
    log.warning("%s is damaged or has no usable timestamps: decoding all of it to see what is there", path)
    with _open(path) as (container, stream):
        stream.codec_context.thread_count = 1  # damage is concealed in the same way each time
        seen = [(f.pts, f.duration) for f in _decoded(container, stream)]
        if not seen:
            raise VideoError(f"{path} holds no frame that can be decoded: copy or download it again, or convert it to H.264")
        times = [pts for pts, _ in seen if pts is not None]
        if len(times) == len(seen) and all(a < b for a, b in pairwise(times)):
            return _Table(*_seconds(np.array(times), seen[-1][1] or 0, stream))
        rate = float(stream.average_rate or stream.guessed_rate or 25)
    log.warning("%s has no timestamps: its frames are taken to be %.3f s apart", path, 1 / rate)
    return _Table(np.arange(len(seen)) / rate, 1 / rate)


def _seconds(pts: NDArray[np.int64], last: int, stream: VideoStream) -> tuple[NDArray[np.float64], float]:
    """Seconds from the first frame on, and how long the last frame stays."""
    base = float(stream.time_base or 1)
    seconds = (pts - pts[0]) * base
    usual = float(np.median(np.diff(seconds))) if len(pts) > 1 else 1 / float(stream.average_rate or 25)
    stays = last * base
    # A header that claims hours can end up in the last frame: one that outlasts all before it by far is not believed.
    if not 0 < stays <= max(60.0, float(seconds[-1])):
        stays = usual
    return seconds, stays


def _orientation(frame: VideoFrame) -> tuple[_Upright, bool]:
    """How to set this frame upright, and whether that takes a mirror. Angles other than quarter turns are left alone."""
    # Of a small copy: a frame and its side data refer to each other, which keeps the picture until the next collection.
    matrix: Any = frame.reformat(16, 16).side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
        if a and d and not (b or c):
            return _Upright(False, a < 0, d < 0), (a < 0) != (d < 0)
        if b and c and not (a or d):
            return _Upright(True, c < 0, b < 0), (b < 0) == (c < 0)
    return _Upright(), False


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that can be decoded, in presentation order; packets that cannot are passed over."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packet = None
        yield from _decode(stream, packet)
        if packet is None or not packet.size:
            return


def _decode(stream: VideoStream, packet: Any) -> list[VideoFrame]:
    import av

    try:
        frames: list[VideoFrame] = stream.codec_context.decode(packet)
    except av.error.EOFError:  # already drained
        return []
    except av.error.FFmpegError as e:
        log.debug("a packet cannot be decoded: %s", e)
        return []
    return frames


def _counting(container: InputContainer, stream: VideoStream, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    left = set(wanted)
    for i, frame in enumerate(_decoded(container, stream)):
        if i in left:
            yield i, frame
            if i == wanted[-1]:
                return


def _seeking(container: InputContainer, stream: VideoStream, table: _Table, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Frames by PTS, group of pictures by group: from its keyframe to the last frame wanted in it, no further."""
    import av

    assert table.pts is not None
    assert table.keys is not None
    assert table.key_dts is not None
    group = np.maximum(np.searchsorted(table.keys, table.pts[wanted], side="right") - 1, 0)
    for g, members in groupby(zip(wanted, group.tolist(), strict=True), key=lambda m: m[1]):
        index = {int(table.pts[i]): i for i, _ in members}
        for start in (g, 0):  # a container that cannot be searched is read from its first keyframe
            try:
                # By DTS: some containers search by it, and for the others it lies at or before the keyframe.
                container.seek(int(table.key_dts[start]), stream=stream)
                if (yield from _group(container, stream, int(table.keys[start]), index)):
                    break
            except av.error.FFmpegError as e:
                log.debug("%s cannot be searched: %s", container.name, e)


def _group(
    container: InputContainer, stream: VideoStream, key: int, index: dict[int, int]
) -> Generator[tuple[int, VideoFrame], None, bool]:
    """Decode from the keyframe with PTS `key` until all of `index` (PTS to frame number) have come; False where it is not met."""
    codec = stream.codec_context
    left = set(index)
    met = False
    for packet in container.demux(stream):
        if not packet.size or not left:
            break
        met = met or (packet.is_keyframe and packet.pts == key)
        if not met:
            continue
        # A frame that no other refers to costs nothing unless it is wanted.
        codec.skip_frame = "DEFAULT" if packet.pts in index else "NONREF"
        left.discard(packet.pts)
        for frame in _decode(stream, packet):
            if frame.pts in index:
                yield index[frame.pts], frame
    if met:
        for frame in _decode(stream, None):
            if frame.pts in index:
                yield index[frame.pts], frame
    return met


def _first_line(e: Exception) -> str:
    return next(iter(str(e).splitlines()), type(e).__name__)
