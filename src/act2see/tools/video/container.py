"""Access to a video container by PyAV: its table of frames, its orientation, and its frames.

The packets give the timestamp of every frame without decoding. If they cannot be trusted, `scan` decodes the
whole file once. Parts of a file and sizes of pictures are handled by `reader`.
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
from act2see.tools.video.limits import MAX_PIXELS, check_size, choose_threads, limit_packets
from act2see.tools.video.store import Pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)
# Formats that refer to other files or addresses, which an untrusted video must not make us open.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf", "vobsub", "avisynth", "vapoursynth"})
# First bytes of the common ones.
_PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat version", b"<MPD", b"v=0")


@dataclass(frozen=True, slots=True)
class Table:
    """The frames of a file in presentation order."""

    seconds: NDArray[np.float64]
    """Start of each frame, `(frames,)`, in seconds from the first frame."""
    last: float
    """Duration of the last frame, in seconds."""
    pts: NDArray[np.int64] | None = None
    """Presentation timestamp (PTS) of each frame, `(frames,)`; None if frames can only be counted."""
    keys: NDArray[np.int64] | None = None
    """PTS of the keyframes, in order."""
    key_dts: NDArray[np.int64] | None = None
    """Decoding timestamps (DTS) of the keyframes, in the order of `keys`."""
    decord: bool = False
    """Whether decord's frame numbers mean the same frames."""


@dataclass(frozen=True, slots=True)
class Upright:
    """The transformation from stored to upright pixels: first `turn`, then mirror."""

    turn: bool = False
    """Whether the axes are exchanged."""
    mirror_x: bool = False
    mirror_y: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return upright pixels, `(height, width, 3)` uint8."""
        if self.turn:
            pixels = pixels.transpose(1, 0, 2)
        down = -1 if self.mirror_y else 1
        across = -1 if self.mirror_x else 1
        return np.ascontiguousarray(pixels[::down, ::across])


@contextmanager
def open_container(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream.

    Raises:
        VideoError: The file is a playlist, is not a video, is truncated, has no picture, or has an unknown
            codec, or pictures that are too large.
    """
    with native():
        import av
        from av.stream import Disposition

    # Playlists are rejected before they are opened: opening one opens the files that it names, possibly a
    # pipe that never ends.
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
    }
    try:
        container = av.open(os.path.abspath(path), options=options, metadata_errors="ignore")
    except av.error.FFmpegError as e:
        raise _explain_unreadable(path) from e
    with container:
        # To FFmpeg the cover picture of a song is a video stream.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            found = "has sound but no picture" if container.streams.audio else "contains no video"
            raise VideoError(f"{path} {found}: give a video file")
        stream = streams[0]
        if stream.codec_context is None:
            raise VideoError(
                f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264"
            )
        width, height = stream.codec_context.width, stream.codec_context.height
        check_size(path, width, height)
        # The size may also change in mid-stream: FFmpeg then refuses the frame.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.codec_context.thread_count = choose_threads(width, height)
        stream.thread_type = "AUTO"
        yield container, stream


def _explain_unreadable(path: str) -> VideoError:
    """Return an error that says why FFmpeg does not open a file as a video."""
    with open(path, "rb") as f:
        start = f.read(512)
    if start.startswith(_PLAYLIST_MARKS) or (start.startswith(b"<?xml") and b"<MPD" in start):
        return VideoError(f"{path} is a playlist, not a video: give the video file itself")
    if start[4:8] == b"ftyp":  # an MP4 or MOV file
        return VideoError(f"{path} is cut off before its table of frames: copy or download it again")
    return VideoError(
        f"{path} is not a video that can be read: give a video file, such as MP4, MOV, MKV or WebM"
    )


class _Packet(NamedTuple):
    """A packet of one frame, not decoded. Times are in ticks of the stream."""

    pts: int
    dts: int
    duration: int
    key: bool
    discard: bool
    """Whether an edit list removes it: such a packet is decoded but not shown."""


def read_table(container: InputContainer, stream: VideoStream) -> Table | None:
    """Return the table of frames from the packets' timestamps; None if these cannot be used."""
    packets = _packets(container, stream)
    keys = [n for n, packet in enumerate(packets) if packet.key]
    if not keys:
        return None
    if stream.frames > len(packets) and not any(packet.discard for packet in packets):
        log.warning(
            "%s should have %d frames but has %d: it may be cut off",
            container.name,
            stream.frames,
            len(packets),
        )
    # Frames before the first keyframe, on screen or in the file, cannot be decoded.
    first = packets[keys[0]]
    shown = [packet for packet in packets[keys[0] :] if packet.pts >= first.pts and not packet.discard]
    shown.sort(key=lambda packet: packet.pts)
    pts = np.array([packet.pts for packet in shown])
    if not shown or (np.diff(pts) == 0).any():
        return None
    by_pts = sorted((packets[n] for n in keys), key=lambda packet: packet.pts)
    seconds, last = _to_seconds(pts, shown[-1].duration, stream)
    return Table(
        seconds,
        last,
        pts=pts,
        keys=np.array([packet.pts for packet in by_pts]),
        key_dts=np.array([packet.dts for packet in by_pts]),
        decord=len(shown) == len(packets) and _suits_decord(container, pts, packets, keys),
    )


def _packets(container: InputContainer, stream: VideoStream) -> list[_Packet]:
    """Return the packets in decoding order; none if one is damaged or has no timestamp."""
    import av

    packets: list[_Packet] = []
    try:
        for p in limit_packets(container.name, container.demux(stream)):
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
    """Return whether decord returns the requested frames of this file (`tools/video/decord.py`).

    decord counts keyframes in decoding order, so each must have the same position in presentation order.
    """
    formats = set(container.format.name.split(","))
    if not formats & {"mp4", "matroska"} or len(container.streams.video) != 1:
        return False
    on_screen = np.searchsorted(pts, [packets[n].pts for n in keys])
    return np.array_equal(on_screen, keys)


def scan(path: str) -> Table:
    """Decode all frames and return their table, for files with damaged packets or without timestamps.

    Raises:
        VideoError: No frame can be decoded.
    """
    log.warning("%s is damaged or has no usable timestamps: decoding all of it to list its frames", path)
    with open_container(path) as (container, stream):
        stream.codec_context.thread_count = 1  # so that damage is concealed in the same way each time
        frames = [(frame.pts, frame.duration) for frame in decode_all(container, stream)]
        if not frames:
            raise VideoError(
                f"{path} contains no frame that can be decoded: copy or download it again, "
                "or convert it to H.264"
            )
        times = [pts for pts, _ in frames if pts is not None]
        if len(times) == len(frames) and all(a < b for a, b in pairwise(times)):
            seconds, last = _to_seconds(np.array(times), frames[-1][1] or 0, stream)
            return Table(seconds, last)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
    log.warning("%s has no timestamps: its frames are assumed to be %.3f s apart", path, 1 / rate)
    return Table(np.arange(len(frames)) / rate, 1 / rate)


def _to_seconds(pts: NDArray[np.int64], last: int, stream: VideoStream) -> tuple[NDArray[np.float64], float]:
    """Convert ticks of a stream to seconds.

    Args:
        pts: `(frames,)` presentation timestamps.
        last: Duration of the last frame.
        stream: The stream, which has the length of a tick.

    Returns:
        `(frames,)` seconds from the first frame, and the duration of the last frame in seconds.
    """
    tick = float(stream.time_base or 1)
    seconds = (pts - pts[0]) * tick
    usual = float(np.median(np.diff(seconds))) if len(pts) > 1 else 1 / float(stream.average_rate or 25)
    duration = last * tick
    # A wrong length in a header can end up in the last frame: ignore one longer than all frames before it.
    if not 0 < duration <= max(60.0, float(seconds[-1])):
        duration = usual
    return seconds, duration


def orientation(frame: VideoFrame) -> tuple[Upright, bool]:
    """Return the transformation that makes a frame upright, and whether it mirrors the picture.

    Angles other than quarter turns are ignored.
    """
    # The matrix is read from a small copy: a frame and its side data refer to each other, which would keep
    # the picture in memory until the next garbage collection.
    matrix: Any = frame.reformat(16, 16, format="rgb24").side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = ax + cy, y' = bx + dy
        if a and d and not (b or c):
            return Upright(False, a < 0, d < 0), (a < 0) != (d < 0)
        if b and c and not (a or d):
            return Upright(True, c < 0, b < 0), (b < 0) == (c < 0)
    return Upright(), False


def decode_all(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield every frame in presentation order. Packets that cannot be decoded are skipped."""
    import av

    packets = limit_packets(container.name, container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            packet = None
        yield from _decode(stream, packet)
        if packet is None or not packet.size:
            return


def _decode(stream: VideoStream, packet: Any) -> list[VideoFrame]:
    """Decode a packet, or with None the last frames; return no frames if it is damaged."""
    import av

    try:
        frames: list[VideoFrame] = stream.codec_context.decode(packet)
    except av.error.EOFError:  # the last frames were returned before
        return []
    except av.error.FFmpegError as e:
        log.debug("a packet cannot be decoded: %s", e)
        return []
    return frames


def read_by_counting(
    container: InputContainer, stream: VideoStream, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield frames by their numbers (ascending), counted from the start of the file."""
    left = set(wanted)
    for i, frame in enumerate(decode_all(container, stream)):
        if i in left:
            yield i, frame
            if i == wanted[-1]:
                return


def read_by_seeking(
    container: InputContainer, stream: VideoStream, table: Table, wanted: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield frames by their numbers (ascending), one group of pictures after another.

    In each group with wanted frames, decoding starts at the keyframe and ends at the last wanted frame.

    Args:
        container: The open container.
        stream: Its video stream.
        table: The table of frames, with presentation timestamps.
        wanted: The numbers of the frames, in ascending order.
    """
    import av

    assert table.pts is not None
    assert table.keys is not None
    assert table.key_dts is not None
    groups = np.maximum(np.searchsorted(table.keys, table.pts[wanted], side="right") - 1, 0)
    for group, members in groupby(zip(wanted, groups.tolist(), strict=True), key=lambda m: m[1]):
        numbers = {int(table.pts[i]): i for i, _ in members}
        for start in (group, 0):  # if seeking fails, the file is read from its first keyframe
            try:
                # By DTS: some containers seek by DTS, and in the others it is not after the keyframe.
                container.seek(int(table.key_dts[start]), stream=stream)
                if (yield from _decode_group(container, stream, int(table.keys[start]), numbers)):
                    break
            except av.error.FFmpegError as e:
                log.debug("seeking in %s failed: %s", container.name, e)


def _decode_group(
    container: InputContainer, stream: VideoStream, key: int, numbers: dict[int, int]
) -> Generator[tuple[int, VideoFrame], None, bool]:
    """Decode from a keyframe until all wanted frames are decoded.

    Args:
        container: The open container, after a seek to the keyframe or before it.
        stream: Its video stream.
        key: PTS of the keyframe.
        numbers: The wanted frames: PTS to frame number.

    Returns:
        Whether the keyframe was found.
    """
    codec = stream.codec_context
    left = set(numbers)
    key_found = False
    for packet in container.demux(stream):
        if not packet.size or not left:
            break
        key_found = key_found or (packet.is_keyframe and packet.pts == key)
        if not key_found:
            continue
        # Skip unwanted frames that no other frame refers to. libdav1d reads this only when it is opened, and
        # would leave out such frames also where they are wanted.
        if codec.name != "libdav1d":
            codec.skip_frame = "DEFAULT" if packet.pts in numbers else "NONREF"
        left.discard(packet.pts)
        for frame in _decode(stream, packet):
            if frame.pts in numbers:
                yield numbers[frame.pts], frame
    if key_found:
        for frame in _decode(stream, None):
            if frame.pts in numbers:
                yield numbers[frame.pts], frame
    return key_found
