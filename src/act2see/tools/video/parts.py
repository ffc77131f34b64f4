"""A long video in parts: of a given length, or between cuts.

A part is a video of its own for whatever opens it (`clip.mp4#t=8,17`, see `tools/video/reader.py`); nothing
is copied. By time, parts overlap, so that an event shorter than the overlap is whole in one of them; the last
one ends with the video and is as long as the others. By scene, no event goes over a cut, so nothing overlaps:
neighbouring scenes share a part as far as they fit into it, and only a scene that is too long is cut by time.

PySceneDetect finds the cuts (`act2see[scenes]`). Its adaptive detector compares a frame with those around it,
so a pan is no cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from act2see.errors import ConfigError, VideoError
from act2see.tools.video.reader import split_part

_SHORTEST = 0.5  # seconds of a scene


@dataclass(frozen=True, slots=True)
class Part:
    """From `start` to `stop`, seconds of the video."""

    start: float
    stop: float

    def __str__(self) -> str:
        return f"{self.start:.1f} s to {self.stop:.1f} s"


def by_time(length: float, seconds: float, overlap: float, start: float = 0.0) -> tuple[Part, ...]:
    """Parts of `seconds` over `length` seconds from `start` on. Raises `ConfigError` where `overlap` is no
    shorter than a part."""
    if overlap >= seconds:
        raise ConfigError(
            f"parts of {seconds:g} s cannot overlap by {overlap:g} s: give a shorter overlap or longer parts"
        )
    parts, begin = [], 0.0
    while begin + seconds < length:
        parts.append(Part(start + begin, start + begin + seconds))
        begin += seconds - overlap
    return (*parts, Part(start + max(0.0, length - seconds), start + length))


def by_scene(cuts: Sequence[float], length: float, seconds: float, overlap: float) -> tuple[Part, ...]:
    """Parts of at most `seconds` between `cuts`; scenes that are longer are cut by time."""
    parts: list[Part] = []
    for start, stop in pairwise([0.0, *(c for c in cuts if 0.0 < c < length), length]):
        if stop - start > seconds:
            parts += by_time(stop - start, seconds, overlap, start)
        elif parts and parts[-1].stop == start and stop - parts[-1].start <= seconds:
            parts[-1] = Part(parts[-1].start, stop)
        else:
            parts.append(Part(start, stop))
    return tuple(parts)


def find_cuts(video: str, length: float) -> list[float]:
    """The times of the cuts in a video of `length` seconds, which may be a part of a file. Decodes all of it.

    Raises `ConfigError` without PySceneDetect, `VideoError` where it cannot read the video.
    """
    import av

    try:
        from scenedetect import AdaptiveDetector, VideoOpenFailure, detect
    except ImportError as e:
        raise ConfigError(
            "splitting by scene needs PySceneDetect: pip install 'act2see[scenes]', or split by time"
        ) from e
    path, within = split_part(video)
    first = within[0] if within else 0.0
    try:
        found = detect(
            path,
            AdaptiveDetector(min_scene_len=_SHORTEST),
            start_time=first,
            end_time=first + length,
            backend="pyav",
        )
    except (VideoOpenFailure, OSError) as e:
        raise VideoError(f"no scenes can be found in {path} ({e}): split it by time") from e
    finally:
        av.logging.set_level(
            None
        )  # PySceneDetect lets FFmpeg write to stderr, in the whole process and from then on
    return [start.seconds - first for start, _ in found[1:]]


def part_path(video: str, part: Part, length: float) -> str:
    """What to open for a part of a video of `length` seconds: the video itself where the part is all of
    it."""
    if part.start <= 0 and part.stop >= length:
        return video
    path, within = split_part(video)
    first = within[0] if within else 0.0
    return f"{path}#t={_number(first + part.start)},{_number(first + part.stop)}"


def _number(seconds: float) -> str:
    """To the millisecond, never in powers of ten."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
