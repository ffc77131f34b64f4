"""The choice of a file's video stream, as players choose it.

A file may have several: the film, its cover, a preview, a second camera. To FFmpeg the cover of a song is a
video stream, too. Covers and thumbnails that are marked as such are never chosen by themselves. Of the
others, stills come last, then streams that are not the default, then smaller ones, then those with fewer
frames; and of equals the first is chosen. A path chooses another one by its number (`clip.mkv#v=1`).

Some containers do not say how many frames a stream has. Then the packets are counted, without decoding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from act2see.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_FEW = 20  # a stream with so many times fewer frames than another one shows stills


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a video stream before decoding."""

    number: int
    """Its number among the video streams of the file, from 0."""
    codec: str
    width: int
    height: int
    frames: int
    default: bool
    hidden: bool
    """Whether it is marked as a cover or as thumbnails, or has an unknown codec."""

    def __str__(self) -> str:
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return f"v={self.number} ({self.codec}, {self.width} x {self.height}, {frames})"


def list_streams(container: InputContainer, counted: Mapping[int, int]) -> list[Candidate]:
    """Return the video streams of a file.

    Args:
        container: The open file.
        counted: The number of packets of streams whose header has no number of frames, by stream index.
    """
    from av.stream import Disposition

    found = []
    for number, stream in enumerate(container.streams.video):
        codec = stream.codec_context
        marked = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
        found.append(
            Candidate(
                number,
                codec.name if codec else "unknown codec",
                codec.width if codec else 0,
                codec.height if codec else 0,
                counted.get(stream.index, stream.frames),
                bool(stream.disposition & Disposition.default),
                bool(marked) or codec is None,
            )
        )
    return found


def count_packets(container: InputContainer) -> dict[int, int]:
    """Return the number of packets of each video stream, by its index. Reads the whole file."""
    import av

    counts: Counter[int] = Counter()
    try:
        for packet in container.demux(video=tuple(range(len(container.streams.video)))):
            if packet.size:
                counts[packet.stream.index] += 1
    except av.error.FFmpegError:
        pass  # a damaged end: those before it are compared
    return dict(counts)


def choose(candidates: list[Candidate]) -> Candidate | None:
    """Return the stream that a player shows; None if all are covers or cannot be decoded."""
    shown = [one for one in candidates if not one.hidden]
    most = max((one.frames for one in shown), default=0)

    def worth(one: Candidate) -> tuple[bool, bool, int, int]:
        still = one.frames <= 1 < most or one.frames * _FEW < most
        return not still, one.default, one.width * one.height, one.frames

    return max(shown, key=worth, default=None)  # the first of equals


def stream_at(container: InputContainer, number: int, path: str) -> VideoStream:
    """Return a video stream by its number.

    Raises:
        VideoError: The file has no such stream.
    """
    streams = container.streams.video
    if number >= len(streams):
        have = f"the video stream{'s' if len(streams) > 1 else ''} v=0"
        have += f" to v={len(streams) - 1}" if len(streams) > 1 else ""
        raise VideoError(f"{path} has no video stream v={number}: it has {have}")
    return streams[number]
