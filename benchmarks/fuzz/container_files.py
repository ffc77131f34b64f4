"""Small valid files of twelve containers, made by PyAV, and mutations of them.

A mutation does what discs, networks and strangers do: it flips bits, cuts the end, repeats, swaps or removes
blocks, or sets a length to an extreme. Lengths stand beside the four letters that name a box, a chunk or an
atom, and in the first bytes of most files, so half of all changes are made there.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

FORMATS: dict[str, tuple[str, str, str]] = {
    "mp4": ("mp4", "libx264", "yuv420p"),
    "mov": ("mov", "mpeg4", "yuv420p"),
    "mkv": ("matroska", "libx264", "yuv420p"),
    "webm": ("webm", "libvpx", "yuv420p"),
    "ts": ("mpegts", "mpeg2video", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "flv": ("flv", "flv", "yuv420p"),
    "mpg": ("mpeg", "mpeg1video", "yuv420p"),
    "ogg": ("ogg", "libvpx", "yuv420p"),
    "gif": ("gif", "gif", "rgb8"),
    "mxf": ("mxf", "mpeg2video", "yuv420p"),
    "wmv": ("asf", "wmv2", "yuv420p"),
}
"""By suffix: FFmpeg's names of the container, the codec and the pixel format."""
_FRAMES, _RATE, _SIZE = 30, 25, (64, 48)
_EXTREMES = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, (1 << 63) - 1)
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9 ]{3}|\x1a\x45\xdf\xa3|\x00\x00\x01[\xb0-\xff]")


@lru_cache(8)
def make_containers(formats: tuple[str, ...] = tuple(FORMATS)) -> dict[str, bytes]:
    """Return a file of each format."""
    with TemporaryDirectory() as folder:
        return {suffix: _make(Path(folder) / f"clip.{suffix}", *FORMATS[suffix]) for suffix in formats}


def _make(path: Path, container_name: str, codec: str, pixels: str) -> bytes:
    import av
    import numpy as np
    from av.video.stream import VideoStream

    width, height = _SIZE
    ramp = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
    with av.open(str(path), "w", format=container_name) as container:
        stream = container.add_stream(codec, rate=_RATE, options={"g": "10", "threads": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.time_base = Fraction(1, _RATE)
        for n in range(_FRAMES):
            picture = np.stack([ramp + 8 * n, ramp * 2, 255 - ramp], -1)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24").reformat(
                format=pixels
            )
            frame.pts, frame.time_base = n, Fraction(1, _RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def mutate_container(data: bytes, rng: random.Random) -> bytes:
    """Return the data with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        place, size = _choose_place(changed, rng), rng.choice((1, 8, 64, 512))
        match rng.randrange(8):
            case 0:
                for _ in range(rng.choice((1, 4, 32))):
                    changed[_choose_place(changed, rng)] ^= 1 << rng.randrange(8)
            case 1:
                changed[place : place + size] = rng.randbytes(len(changed[place : place + size]))
            case 2:
                del changed[rng.randrange(len(changed)) :]
            case 3:
                del changed[place : place + size]
            case 4:
                changed[place:place] = changed[place : place + size] * rng.choice((1, 1, 3, 50))
            case 5:
                other = rng.randrange(len(changed))
                first, second = changed[place : place + size], changed[other : other + size]
                changed[place : place + size], changed[other : other + size] = second, first
            case _:
                _set_length(changed, place, rng)
    return bytes(changed)


def _choose_place(data: bytearray, rng: random.Random) -> int:
    """Return a place in the data: any, near its beginning, or beside a name."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(min(len(data), 256))
    if kind == 1 and (names := [found.start() for found in _NAME.finditer(data)]):
        return min(len(data) - 1, max(0, rng.choice(names) + rng.choice((-4, 4, 8, 12, 16))))
    return rng.randrange(len(data))


def _set_length(data: bytearray, place: int, rng: random.Random) -> None:
    """Overwrite a number of two to eight bytes with an extreme one."""
    width = rng.choice((2, 4, 4, 8))
    number = rng.choice(_EXTREMES) & ((1 << 8 * width) - 1)
    end = min(len(data), place + width)
    data[place:end] = number.to_bytes(width, rng.choice(("big", "little")))[: end - place]
