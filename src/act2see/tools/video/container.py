"""Opening a video container by PyAV, and the orientation of its pictures.

Its frames are listed by `table` and read by `seeking`. Parts of a file and sizes of pictures are handled by
`reader`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.errors import VideoError
from act2see.tools.runtime.forks import native
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
            codec.
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
