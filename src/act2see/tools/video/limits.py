"""Limits of a video: what a file of a few kilobytes may ask for.

The size of a picture and the number of frames are numbers in a header, and cost the file nothing. A decoder
holds a picture for each of its threads, besides the pictures that others refer to. So large pictures get
fewer threads, larger ones than any camera makes are refused, and so are more frames than a day has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from act2see.errors import VideoError

P = TypeVar("P")
MAX_PIXELS = 36_000_000
"""The largest picture of a video: 8192 x 4320 is the largest common size."""
MAX_FRAMES = 5_184_000
"""The most frames of a video: a day of 60 a second."""
MAX_THREADS = 8
"""The most decoding threads."""
_AT_ONCE = MAX_THREADS * 3840 * 2160  # pixels that the threads decode at a time


def check_size(path: str, width: int, height: int) -> None:
    """Raise `VideoError` if the pictures of a video are too large to be decoded."""
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{path} has pictures of {width} x {height} pixels, and at most "
            f"{MAX_PIXELS / 1e6:.0f} million can be decoded: make it smaller"
        )


def choose_threads(width: int, height: int, wanted: int = 0) -> int:
    """Return the number of decoding threads.

    Args:
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.
        wanted: The number asked for; 0 is one for each core, but at most 8.
    """
    threads = wanted or min(MAX_THREADS, os.cpu_count() or 1)
    return max(1, min(threads, _AT_ONCE // max(1, width * height)))


def limit_packets(path: str, packets: Iterable[P]) -> Iterator[P]:
    """Yield the packets of a video. Raises `VideoError` if there are too many."""
    for number, packet in enumerate(packets):
        if number > MAX_FRAMES:
            raise VideoError(f"{path} has more than {MAX_FRAMES:,} frames: give a part of it as a file")
        yield packet
