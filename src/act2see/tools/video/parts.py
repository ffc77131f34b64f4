"""Splitting a long video into parts: of a given length, or at cuts between scenes.

By time, parts overlap, so that each event shorter than the overlap lies within some part. The last part ends
with the video and is as long as the others. By scene, parts do not overlap, because events do not cross cuts.
Neighbouring scenes share a part if they fit into it, and only a scene that is too long is split by time.

PySceneDetect finds the cuts (`act2see[scenes]`). Its adaptive detector compares each frame with its
neighbours, so that a pan does not count as a cut. It is given the frames of the library and opens no file
itself: so the video stream, the times and the allowed formats are those of every other reader. No file is
copied: the path of a part contains its seconds (`tools/video/window.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from act2see.errors import ConfigError
from act2see.tools.video.window import VideoPath, Window

if TYPE_CHECKING:
    from act2see.tools.video.library import VideoLibrary

_SHORTEST = 0.5  # shortest scene, in seconds
_SIDE = 256  # longer side of the frames that are compared, in pixels; PySceneDetect's own choice


@dataclass(frozen=True, slots=True)
class Span:
    """An interval from `start` to `stop`, in seconds of a video."""

    start: float
    stop: float

    def __str__(self) -> str:
        return f"{self.start:.1f} s to {self.stop:.1f} s"


def by_time(length: float, seconds: float, overlap: float, start: float = 0.0) -> tuple[Span, ...]:
    """Split an interval into parts of equal length.

    Args:
        length: Length of the interval, in seconds.
        seconds: Length of a part, in seconds.
        overlap: Overlap of two neighbouring parts, in seconds.
        start: Start of the interval, in seconds.

    Raises:
        ConfigError: `overlap` is not shorter than a part.
    """
    if overlap >= seconds:
        raise ConfigError(
            f"parts of {seconds:g} s cannot overlap by {overlap:g} s: give a shorter overlap or longer parts"
        )
    spans = []
    begin = 0.0
    while begin + seconds < length:
        spans.append(Span(start + begin, start + begin + seconds))
        begin += seconds - overlap
    spans.append(Span(start + max(0.0, length - seconds), start + length))
    return tuple(spans)


def by_scene(cuts: Sequence[float], length: float, seconds: float, overlap: float) -> tuple[Span, ...]:
    """Split a video between scenes.

    Args:
        cuts: Times of the cuts, in seconds.
        length: Length of the video, in seconds.
        seconds: Largest length of a part, in seconds. Longer scenes are split by time.
        overlap: Overlap of two parts of one scene, in seconds.

    Raises:
        ConfigError: `overlap` is not shorter than a part.
    """
    spans: list[Span] = []
    edges = [0.0, *(cut for cut in cuts if 0.0 < cut < length), length]
    for start, stop in pairwise(edges):
        if stop - start > seconds:
            spans += by_time(stop - start, seconds, overlap, start)
        elif spans and spans[-1].stop == start and stop - spans[-1].start <= seconds:
            spans[-1] = Span(spans[-1].start, stop)
        else:
            spans.append(Span(start, stop))
    return tuple(spans)


def find_cuts(library: VideoLibrary, video: VideoPath) -> list[float]:
    """Return the times of the cuts in a video. Decodes all of it.

    Args:
        library: The library that opens the video.
        video: The video.

    Raises:
        ConfigError: PySceneDetect is not installed.
        VideoError: The video cannot be read.
    """
    try:
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as e:
        raise ConfigError(
            "splitting by scene needs PySceneDetect: pip install 'act2see[scenes]', or split by time"
        ) from e
    info = library.probe(video).info
    detector = AdaptiveDetector(min_scene_len=_SHORTEST)
    rate = info.fps or 25.0
    cuts: list[float] = []
    for _, seconds, pixels in library.decode(video, range(info.frames), info.fit(_SIDE), info.digest):
        blue_first = np.ascontiguousarray(pixels[..., ::-1])
        found = detector.process_frame(FrameTimecode(float(seconds), rate), blue_first)
        cuts += [cut.seconds for cut in found]
    return cuts


def part_path(video: VideoPath, span: Span, length: float) -> str:
    """Return the path of a part of a video. A part of all its `length` seconds has the video's path."""
    if span.start <= 0 and span.stop >= length:
        return str(video)
    return str(Window.resolve(video).part(span.start, span.stop))
