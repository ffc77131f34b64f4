"""A long video in parts: of a given length, or between cuts.

By time, parts overlap, so that an event shorter than the overlap is whole in one of them; the last part ends
with the video and is as long as the others. By scene, no event crosses a cut, so nothing overlaps:
neighbouring scenes share a part while they fit into it, and only a scene that is too long is cut by time.

PySceneDetect finds the cuts (`act2see[scenes]`). Its adaptive detector compares a frame with those around it,
so a pan is no cut. No file is copied: the path of a part names its seconds (`tools/video/window.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from act2see.errors import ConfigError, VideoError
from act2see.tools.video.window import VideoPath, Window

_SHORTEST = 0.5  # seconds of a scene


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` to `stop`, in seconds of a video."""

    start: float
    stop: float

    def __str__(self) -> str:
        return f"{self.start:.1f} s to {self.stop:.1f} s"


def by_time(length: float, seconds: float, overlap: float, start: float = 0.0) -> tuple[Span, ...]:
    """Cut by time.

    Args:
        length: How many seconds to cut.
        seconds: How long a part is.
        overlap: How many seconds two neighbours share.
        start: Where the first part begins.

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
    """Cut between scenes.

    Args:
        cuts: When scenes end, in seconds.
        length: How long the video is.
        seconds: How long a part may be; longer scenes are cut by time.
        overlap: How many seconds two parts of one scene share.

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


def find_cuts(video: VideoPath, length: float) -> list[float]:
    """The times of the cuts in a video of `length` seconds. Decodes all of it.

    Raises:
        ConfigError: PySceneDetect is not installed.
        VideoError: PySceneDetect cannot read the video.
    """
    import av

    try:
        from scenedetect import AdaptiveDetector, VideoOpenFailure, detect
    except ImportError as e:
        raise ConfigError(
            "splitting by scene needs PySceneDetect: pip install 'act2see[scenes]', or split by time"
        ) from e
    window = Window.resolve(video)
    try:
        scenes = detect(
            window.path,
            AdaptiveDetector(min_scene_len=_SHORTEST),
            start_time=window.start,
            end_time=window.start + length,
            backend="pyav",
        )
    except (VideoOpenFailure, OSError) as e:
        raise VideoError(f"no scenes can be found in {window.path} ({e}): split it by time") from e
    finally:
        # PySceneDetect lets FFmpeg write to stderr, in the whole process and from then on.
        av.logging.set_level(None)
    return [start.seconds - window.start for start, _ in scenes[1:]]


def part_path(video: VideoPath, span: Span, length: float) -> str:
    """The path of a part of a video of `length` seconds: the video's own if the part is all of it."""
    if span.start <= 0 and span.stop >= length:
        return str(video)
    return str(Window.resolve(video).part(span.start, span.stop))
