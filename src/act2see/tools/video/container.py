"""Inside a video container, by PyAV: its table of frames, its orientation, and frames by counting or seeking.

The table of packets gives every frame's timestamp without decoding a picture; if it cannot be trusted, `scan`
decodes the whole clip once. Nothing here knows of parts of a file or of sizes: that is `reader`'s.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from act2see.errors import VideoError
from act2see.tools.runtime.forks import native
from act2see.tools.video.store import Pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)
# They name other files or addresses, and a video from outside must not make us open those.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf", "vobsub", "avisynth", "vapoursynth"})
# How the common ones begin.
_PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat version", b"<MPD", b"v=0")


@dataclass(frozen=True, slots=True)
class Table:
    """The frames of a file in presentation order."""

    seconds: NDArray[np.float64]
    """When each comes on the screen, counted from the first."""
    last: float
    """How many seconds the last one stays."""
    pts: NDArray[np.int64] | None = None
    """The presentation timestamp of each; None if frames are told apart by counting alone."""
    keys: NDArray[np.int64] | None = None
    """The presentation timestamps of the keyframes, in order."""
    key_dts: NDArray[np.int64] | None = None
    """The decoding timestamps of the keyframes, in the same order."""
    decord: bool = False
    """Whether decord's frame numbers mean the same frames."""


@dataclass(frozen=True, slots=True)
class Upright:
    """How stored pixels become upright ones: first `turn`, then mirror."""

    turn: bool = False
    """Exchange the axes."""
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        if self.turn:
            pixels = pixels.transpose(1, 0, 2)
        down, across = -1 if self.mirror_y else 1, -1 if self.mirror_x else 1
        return np.ascontiguousarray(pixels[::down, ::across])


@contextmanager
def open_container(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream.

    Raises:
        VideoError: It is a playlist, not a video, cut off, without a picture, or of an unknown codec.
    """
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
        raise _unreadable(path) from e
    with container:
        # The cover picture of a song is a video stream to FFmpeg.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            found = "has sound but no picture" if container.streams.audio else "has no video in it"
            raise VideoError(f"{path} {found}: give a video file")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(
                f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264"
            )
        stream.thread_type = "AUTO"
        yield container, stream


def _unreadable(path: str) -> VideoError:
    """What a file is that FFmpeg does not open as a video."""
    with open(path, "rb") as f:
        begin = f.read(512)
    if begin.startswith(_PLAYLIST_MARKS) or (begin.startswith(b"<?xml") and b"<MPD" in begin):
        return VideoError(f"{path} is a playlist, not a video: give the video file itself")
    if begin[4:8] == b"ftyp":
        return VideoError(f"{path} is cut off before its table of frames: copy or download it again")
    return VideoError(
        f"{path} is not a video that can be read: give a video file, such as MP4, MOV, MKV or WebM"
    )


class _Packet(NamedTuple):
    """A frame as the container has it, not decoded. Times are in ticks of the stream."""

    pts: int
    dts: int
    duration: int
    key: bool
    discard: bool
    """An edit list cuts it: it is decoded and not shown."""


def read_table(container: InputContainer, stream: VideoStream) -> Table | None:
    """The table of frames from the packets' timestamps; None if it cannot be had from them."""
    packets = _packets(container, stream)
    keys = [n for n, packet in enumerate(packets) if packet.key]
    if not keys:
        return None
    if stream.frames > len(packets) and not any(packet.discard for packet in packets):
        log.warning(
            "%s announces %d frames and holds %d: it may be cut off",
            container.name,
            stream.frames,
            len(packets),
        )
    # What comes before the first keyframe, on screen or in the file, cannot be decoded.
    first = packets[keys[0]]
    shown = [packet for packet in packets[keys[0] :] if packet.pts >= first.pts and not packet.discard]
    shown.sort(key=lambda packet: packet.pts)
    pts = np.array([packet.pts for packet in shown])
    if not shown or (np.diff(pts) == 0).any():
        return None
    by_pts = sorted((packets[n] for n in keys), key=lambda packet: packet.pts)
    seconds, last = _seconds(pts, shown[-1].duration, stream)
    return Table(
        seconds,
        last,
        pts=pts,
        keys=np.array([packet.pts for packet in by_pts]),
        key_dts=np.array([packet.dts for packet in by_pts]),
        decord=len(shown) == len(packets) and _suits_decord(container, pts, packets, keys),
    )


def _packets(container: InputContainer, stream: VideoStream) -> list[_Packet]:
    """The packets in decoding order; none if one is damaged or has no timestamp."""
    import av

    packets: list[_Packet] = []
    try:
        for p in container.demux(stream):
            if not p.size:
                continue
            if p.pts is None or p.is_corrupt:
                return []
            dts = p.pts if p.dts is None else p.dts
            packets.append(_Packet(p.pts, dts, p.duration or 0, p.is_keyframe, p.is_discard))
    except av.error.FFmpegError:
        return []
    return packets


def _suits_decord(
    container: InputContainer, pts: NDArray[np.int64], packets: Sequence[_Packet], keys: Sequence[int]
) -> bool:
    """Whether decord gives the frames that it is asked for (`tools/video/decord.py`).

    It counts keyframes in decoding order, so they must stand there where they stand on the screen.
    """
    formats = set(container.format.name.split(","))
    if not formats & {"mp4", "matroska"} or len(container.streams.video) != 1:
        return False
    on_screen = np.searchsorted(pts, [packets[n].pts for n in keys])
    return np.array_equal(on_screen, keys)


def scan(path: str) -> Table:
    """The table of frames from decoding them all, for files whose packets are damaged or without timestamps.

    Raises:
        VideoError: No frame can be decoded.
    """
    log.warning("%s is damaged or has no usable timestamps: decoding all of it to list its frames", path)
    with open_container(path) as (container, stream):
        stream.codec_context.thread_count = 1  # damage is concealed in the same way each time
        seen = [(f.pts, f.duration) for f in decoded(container, stream)]
        if not seen:
            raise VideoError(
                f"{path} holds no frame that can be decoded: copy or download it again, "
                "or convert it to H.264"
            )
        times = [pts for pts, _ in seen if pts is not None]
        if len(times) == len(seen) and all(a < b for a, b in pairwise(times)):
            seconds, last = _seconds(np.array(times), seen[-1][1] or 0, stream)
            return Table(seconds, last)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
    log.warning("%s has no timestamps: its frames are taken to be %.3f s apart", path, 1 / rate)
    return Table(np.arange(len(seen)) / rate, 1 / rate)


def _seconds(pts: NDArray[np.int64], last: int, stream: VideoStream) -> tuple[NDArray[np.float64], float]:
    """Seconds from the first frame on, and how long the last frame stays; `last` in ticks of the stream."""
    base = float(stream.time_base or 1)
    seconds = (pts - pts[0]) * base
    usual = float(np.median(np.diff(seconds))) if len(pts) > 1 else 1 / float(stream.average_rate or 25)
    stays = last * base
    # A header that claims hours can end up in the last frame, so one that outlasts all before it is ignored.
    if not 0 < stays <= max(60.0, float(seconds[-1])):
        stays = usual
    return seconds, stays


def orientation(frame: VideoFrame) -> tuple[Upright, bool]:
    """How to set a frame upright, and whether that takes a mirror.

    Angles other than quarter turns are left alone.
    """
    # From a small copy: a frame and its side data refer to each other, which keeps the picture in memory
    # until the next garbage collection.
    matrix: Any = frame.reformat(16, 16, format="rgb24").side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
        if a and d and not (b or c):
            return Upright(False, a < 0, d < 0), (a < 0) != (d < 0)
        if b and c and not (a or d):
            return Upright(True, c < 0, b < 0), (b < 0) == (c < 0)
    return Upright(), False


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that can be decoded, in presentation order; packets that cannot be are skipped."""
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
    """Frames by their numbers (ascending), counted from the beginning of the file."""
    left = set(wanted)
    for i, frame in enumerate(decoded(container, stream)):
        if i in left:
            yield i, frame
            if i == wanted[-1]:
                return


def seeking(
    container: InputContainer, stream: VideoStream, table: Table, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Frames by their numbers (ascending), group of pictures by group, by presentation timestamp.

    Of a group, frames are decoded from its keyframe to the last one wanted in it.
    """
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
    """Decode from the keyframe with PTS `key` until all of `index` (PTS to frame number) have come.

    Returns:
        Whether the keyframe was found.
    """
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
