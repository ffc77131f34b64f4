"""Opening a file by PyAV: a single local file and one of its video streams.

Every error of FFmpeg becomes a `VideoError` here, also those of later steps, while the file is open.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from act2see.errors import VideoError
from act2see.tools.runtime.forks import native
from act2see.tools.video.limits import MAX_PIXELS, check_size, choose_threads
from act2see.tools.video.packets import is_of_file
from act2see.tools.video.streams import choose, count_packets, list_streams, stream_at

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)
# Formats that refer to other files or addresses, which an untrusted video must not make us open.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf", "vobsub", "avisynth", "vapoursynth"})
# Formats and codecs that draw any bytes as text, by the end of the file's name alone (.txt, .nfo, .ans). A
# list of passwords would be a film, and under another name it would not.
_TEXTS = frozenset({"adf", "bin", "idf", "tty", "xbin"})
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})
# First bytes of the common playlists.
_PLAYLIST_MARKS = (b"#EXTM3U", b"ffconcat version", b"<MPD", b"v=0")


@contextmanager
def open_container(path: str, number: int | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and one of its video streams.

    Args:
        path: The file.
        number: The number of the stream among the video streams; None for the one that a player shows.

    Raises:
        VideoError: The file is a playlist, is not a video, is truncated, has no picture or no such stream, or
            has an unknown codec or pictures that are too large; or FFmpeg fails while it is open.
    """
    with _open(path) as container:
        import av

        if not container.streams.video:
            raise _no_picture(path, container)
        if number is None:
            number = _number_shown(path, container)
        stream = stream_at(container, number, path)
        if stream.codec_context is None:
            raise VideoError(
                f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264"
            )
        if stream.codec_context.name in _TEXT_CODECS:
            raise VideoError(f"{path} contains text, not pictures: give a video file")
        width, height = stream.codec_context.width, stream.codec_context.height
        check_size(path, width, height)
        # The size may also change in mid-stream: FFmpeg then refuses the frame.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        stream.codec_context.thread_count = choose_threads(width, height)
        stream.thread_type = "AUTO"
        try:
            yield container, stream
        except av.error.FFmpegError as e:  # of any step between here and the picture
            why = e.strerror or type(e).__name__
            raise VideoError(f"FFmpeg cannot read {path} ({why}): {_advise(e)}") from e
        except (ValueError, MemoryError) as e:  # of PyAV itself
            why = str(e) or type(e).__name__
            raise VideoError(f"{path} cannot be read ({why}): ask again, or convert it to H.264") from e


def _advise(error: FFmpegError) -> str:
    if is_of_file(error):
        return "copy or download it again, or convert it to H.264"
    if error.errno == errno.ENOMEM:  # a damaged file may ask for more than any machine has
        return "ask again; if this is said again, the file is damaged: copy or download it again"
    return "ask again"


def _open(path: str) -> InputContainer:
    with native():
        import av

    # Playlists are rejected before they are opened: opening one opens the files that it names, possibly a
    # pipe that never ends.
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS - _TEXTS)),
        # A name such as `p%03d.png` is that of one picture, not of a sequence.
        "pattern_type": "none",
    }
    try:
        return av.open(os.path.abspath(path), options=options, metadata_errors="ignore")
    except av.error.FFmpegError as e:
        raise _explain_unreadable(path, e) from e
    except (ValueError, MemoryError) as e:
        raise VideoError(f"{path} cannot be read ({str(e) or type(e).__name__}): ask again") from e


def _no_picture(path: str, container: InputContainer) -> VideoError:
    found = "has sound but no picture" if container.streams.audio else "contains no video"
    return VideoError(f"{path} {found}: give a video file")


def _number_shown(path: str, container: InputContainer) -> int:
    """Return the number of the video stream that a player shows. Raises `VideoError` for a mere cover."""
    try:
        stat = os.stat(path)
    except OSError as e:
        raise VideoError(f"{path} cannot be read ({e.strerror}): check the path") from e
    found = _choose(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if found is not None:
        return found
    if any(stream.codec_context is None for stream in container.streams.video):
        raise VideoError(
            f"{path} is encoded with a codec that this FFmpeg cannot decode: convert it to H.264"
        )
    raise _no_picture(path, container)


@lru_cache(64)
def _choose(path: str, *unchanged: int) -> int | None:
    """Choose a video stream, once for each file, and say which if there were others.

    Args:
        path: The file.
        unchanged: What changes with the file.
    """
    with _open(path) as container:
        candidates = list_streams(container, {})
        several = sum(not one.hidden for one in candidates) > 1
        if several and not all(one.frames for one in candidates):
            candidates = list_streams(container, count_packets(container))
    chosen = choose(candidates)
    if chosen is not None and several:
        others = ", ".join(str(one) for one in candidates if one is not chosen)
        log.warning(
            "%s has several video streams: %s is shown, not %s; #v=N after the name chooses",
            path,
            chosen,
            others,
        )
    return chosen.number if chosen else None


def _explain_unreadable(path: str, error: FFmpegError) -> VideoError:
    """Return an error that says why FFmpeg does not open a file as a video."""
    if not is_of_file(error):
        return VideoError(f"{path} cannot be read now ({error.strerror}): ask again")
    try:
        with open(path, "rb") as f:
            start = f.read(512)
    except OSError as e:
        return VideoError(f"{path} cannot be read ({e.strerror}): check its permissions, and ask again")
    if start.startswith(_PLAYLIST_MARKS) or (start.startswith(b"<?xml") and b"<MPD" in start):
        return VideoError(f"{path} is a playlist, not a video: give the video file itself")
    if start[4:8] == b"ftyp":  # an MP4 or MOV file
        return VideoError(f"{path} is cut off before its table of frames: copy or download it again")
    return VideoError(
        f"{path} is not a video that can be read: give a video file, such as MP4, MOV, MKV or WebM"
    )
