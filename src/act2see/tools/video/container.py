"""Inside a video container, by PyAV: its table of frames, its orientation, and frames decoded by counting or
seeking.

Used by `video` alone. The table of packets gives every frame's timestamp without decoding a picture; where it
cannot be trusted, `scan` decodes the whole clip once.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError
from act2see.tools.runtime.forks import native

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
# They name other files or addresses, which a video that somebody sent must not make us open.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf", "vobsub", "avisynth", "vapoursynth"})
_PLAYLIST_MARKS = (
    b"#EXTM3U",
    b"ffconcat version",
    b"<MPD",
    b"v=0",
)  # how those begin that people come across


@dataclass(frozen=True, slots=True)
class Table:
    """The frames in presentation order. `pts` is None where frames are told apart by counting alone."""

    seconds: NDArray[np.float64]
    last: float
    pts: NDArray[np.int64] | None = None
    keys: NDArray[np.int64] | None = None
    key_dts: NDArray[np.int64] | None = None
    decord: bool = False


@dataclass(frozen=True, slots=True)
class Upright:
    """How stored pixels become upright ones: first `turn` (exchange the axes), then mirror."""

    turn: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        if self.turn:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


@contextmanager
def open_container(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    with native():
        import av
        from av.stream import Disposition

    # Playlists are refused before they are opened: opening one opens the files that it names, a pipe that
    # never ends among them.
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
    }
    try:
        container = av.open(os.path.abspath(path), options=options, metadata_errors="ignore")
    except av.error.FFmpegError as e:
        with open(path, "rb") as f:
            begin = f.read(512)
        if begin.startswith(_PLAYLIST_MARKS) or (begin.startswith(b"<?xml") and b"<MPD" in begin):
            raise VideoError(f"{path} is a playlist, not a video: give the video file itself") from e
        cut = begin[4:8] == b"ftyp"
        why = "is cut off before its table of frames" if cut else "is not a video that can be read"
        do = "copy or download it again" if cut else "give a video file, such as MP4, MOV, MKV or WebM"
        raise VideoError(f"{path} {why}: {do}") from e
    with container:
        # The cover picture of a song is a video stream to FFmpeg.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            what = "has sound but no picture" if container.streams.audio else "has no video in it"
            raise VideoError(f"{path} {what}: give a video file")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(
                f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264"
            )
        stream.thread_type = "AUTO"
        yield container, stream


def read_table(container: InputContainer, stream: VideoStream) -> Table | None:
    """The table of frames from the packets' timestamps; None where they do not tell."""
    import av

    rows: list[tuple[int, int, int, bool, bool]] = []
    try:
        for p in container.demux(stream):
            if p.size:
                if p.pts is None or p.is_corrupt:
                    return None
                rows.append(
                    (p.pts, p.pts if p.dts is None else p.dts, p.duration or 0, p.is_keyframe, p.is_discard)
                )
    except av.error.FFmpegError:
        return None
    if not any(r[3] for r in rows):
        return None
    if stream.frames > len(rows) and not any(r[4] for r in rows):
        log.warning(
            "%s announces %d frames and holds %d: it may be cut off", container.name, stream.frames, len(rows)
        )
    # What comes before the first keyframe, on screen or in the file, cannot be decoded; what an edit list
    # cuts is not shown.
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
    return Table(
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


def scan(path: str) -> Table:
    """The table of frames from decoding them all: for files whose packets are damaged or do not tell."""
    log.warning("%s is damaged or has no usable timestamps: decoding all of it to see what is there", path)
    with open_container(path) as (container, stream):
        stream.codec_context.thread_count = 1  # damage is concealed in the same way each time
        seen = [(f.pts, f.duration) for f in decoded(container, stream)]
        if not seen:
            raise VideoError(
                f"{path} holds no frame that can be decoded: copy or download it again, or convert it to H.264"
            )
        times = [pts for pts, _ in seen if pts is not None]
        if len(times) == len(seen) and all(a < b for a, b in pairwise(times)):
            return Table(*_seconds(np.array(times), seen[-1][1] or 0, stream))
        rate = float(stream.average_rate or stream.guessed_rate or 25)
    log.warning("%s has no timestamps: its frames are taken to be %.3f s apart", path, 1 / rate)
    return Table(np.arange(len(seen)) / rate, 1 / rate)


def _seconds(pts: NDArray[np.int64], last: int, stream: VideoStream) -> tuple[NDArray[np.float64], float]:
    """Seconds from the first frame on, and how long the last frame stays."""
    base = float(stream.time_base or 1)
    seconds = (pts - pts[0]) * base
    usual = float(np.median(np.diff(seconds))) if len(pts) > 1 else 1 / float(stream.average_rate or 25)
    stays = last * base
    # A header that claims hours can end up in the last frame: one that outlasts all before it by far is not
    # believed.
    if not 0 < stays <= max(60.0, float(seconds[-1])):
        stays = usual
    return seconds, stays


def orientation(frame: VideoFrame) -> tuple[Upright, bool]:
    """How to set this frame upright, and whether that takes a mirror. Angles other than quarter turns are
    left alone."""
    # Of a small copy: a frame and its side data refer to each other, which keeps the picture until the next
    # collection.
    matrix: Any = frame.reformat(16, 16, format="rgb24").side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
        if a and d and not (b or c):
            return Upright(False, a < 0, d < 0), (a < 0) != (d < 0)
        if b and c and not (a or d):
            return Upright(True, c < 0, b < 0), (b < 0) == (c < 0)
    return Upright(), False


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
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


def counting(
    container: InputContainer, stream: VideoStream, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    left = set(wanted)
    for i, frame in enumerate(decoded(container, stream)):
        if i in left:
            yield i, frame
            if i == wanted[-1]:
                return


def seeking(
    container: InputContainer, stream: VideoStream, table: Table, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames by PTS, group of pictures by group: from its keyframe to the last frame wanted in it, no
    further."""
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
    """Decode from the keyframe with PTS `key` until all of `index` (PTS to frame number) have come; False
    where it is not met."""
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
