"""The packets of a video stream, numbered from the start of the file, and frames that carry these numbers.

Timestamps repeat, lie and are missing; the number of a packet does not. A decoder returns with each frame the
timestamp of its packet, so a packet is given its number as its timestamp before it is decoded.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from act2see.tools.video.headers import Headers, headers_in
from act2see.tools.video.limits import limit_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    OpenFile = Callable[[], AbstractContextManager[tuple[InputContainer, VideoStream]]]

log = logging.getLogger(__name__)
_START = 16  # bytes
_LOSSY = 2  # FFmpeg's AV_CODEC_PROP_LOSSY
UNKNOWN = -(1 << 63)
"""Stands in arrays for a time or position that a packet does not have."""

# Numbers of errors that say nothing about the file: they pass, and the same file can be read afterwards.
# EPERM is none of them: it is -1, which many parts of FFmpeg return for damage.
_PASSING = "EACCES EAGAIN ECONNRESET EINTR EMFILE ENFILE ENOMEM ENOSPC ESTALE ETIMEDOUT"
_NOT_OF_FILE = {getattr(errno, name) for name in _PASSING.split() if hasattr(errno, name)}


def is_of_file(error: FFmpegError) -> bool:
    """Return whether an error of FFmpeg means that the file is damaged; False if the machine has failed.

    A frame that did not come for want of memory must not count as damaged, since that is kept.
    """
    return error.errno not in _NOT_OF_FILE


class Mark(NamedTuple):
    """A packet of one frame, not decoded. Times are in ticks of the stream."""

    pts: int | None
    dts: int | None
    duration: int
    size: int
    """Length in bytes."""
    place: int | None
    """Position in the file, in bytes."""
    key: bool
    discard: bool
    """Whether an edit list removes it: such a packet is decoded but not shown."""
    corrupt: bool
    empty: bool
    """Whether it starts with zeros, as parts of a file do that were never downloaded. A decoder may decode
    the rest by tables of packets before. Black pixels of lossless codecs are no such packets."""
    palette: bool
    """Whether a palette comes beside it."""
    beside: bytes = b""
    """A header of the codec that comes beside it: it replaces the one before, for all later packets."""
    within: Headers = ()
    """The codec's headers in it, if it is a keyframe."""

    @classmethod
    def of(cls, p: Packet[VideoStream]) -> Mark:
        """Return the mark of a packet."""
        times = p.pts, p.dts, p.duration or 0
        context = p.stream.codec_context
        return cls(
            *times,
            p.size,
            p.pos,
            p.is_keyframe,
            p.is_discard,
            p.is_corrupt,
            _starts_empty(p),
            p.has_sidedata("palette"),
            bytes(p.get_sidedata("new_extradata")) if p.has_sidedata("new_extradata") else b"",
            headers_in(context.name, p, context.extradata or b"") if p.is_keyframe else (),
        )


def _starts_empty(p: Packet[VideoStream]) -> bool:
    if p.size < _START or any(memoryview(p)[:_START]):
        return False
    return bool(p.stream.codec_context.codec.properties & _LOSSY)


@dataclass(slots=True)
class Seen:
    """What `decode_all` has read so far."""

    marks: list[Mark] = field(default_factory=list)
    """The packets."""
    failed: list[int] = field(default_factory=list)
    """Numbers of the packets that cannot be decoded, or before which the file cannot be read."""


def demux(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of frames up to the end of the file, or up to where it cannot be read.

    Packets without content are left out: AVI has them for frames that were dropped.

    Raises:
        FFmpegError: The file cannot be read further.
        VideoError: It has too many packets.
    """
    for packet in limit_packets(container.name, container.demux(stream)):
        if packet.size:
            yield packet


def decode_all(
    container: InputContainer, stream: VideoStream, seen: Seen | None = None
) -> Iterator[VideoFrame]:
    """Yield every frame in presentation order, with the number of its packet as its `pts`.

    Packets that cannot be decoded are skipped.

    Args:
        container: The open container, at its start.
        stream: Its video stream.
        seen: Is filled with the packets.

    Raises:
        FFmpegError: The machine has failed, not the file, so no other frame may replace the one that failed.
    """
    import av

    seen = seen or Seen()
    try:
        for n, packet in enumerate(demux(container, stream)):
            seen.marks.append(Mark.of(packet))
            packet.pts = packet.dts = n
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.FFmpegError as e:
                if not is_of_file(e):
                    raise
                log.debug("packet %d of %s cannot be decoded: %s", n, container.name, e)
                seen.failed.append(n)
                continue
            yield from frames
    except av.error.FFmpegError as e:
        if not is_of_file(e):
            raise
        log.debug("%s cannot be read further: %s", container.name, e)
        seen.failed.append(len(seen.marks))
    left: list[VideoFrame] = []
    decode(stream, None, left)
    yield from left


def decode(stream: VideoStream, packet: Packet[VideoStream] | None, found: list[VideoFrame]) -> bool:
    """Decode a packet, or with None the last frames; return whether that was possible.

    Args:
        stream: The video stream.
        packet: A packet of it.
        found: Gets the frames.

    Raises:
        FFmpegError: The machine has failed, not the packet.
    """
    import av

    try:
        found += stream.codec_context.decode(packet)
    except av.error.EOFError:  # the last frames were returned before
        return True
    except av.error.FFmpegError as e:
        if not is_of_file(e):
            raise
        log.debug("a packet cannot be decoded: %s", e)
        return False
    return True
