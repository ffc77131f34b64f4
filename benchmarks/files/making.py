"""Making a file: a film whose pictures show their numbers, encoded and written by PyAV.

A `Film` says all that matters of it. What no muxer writes is done to the bytes afterwards (`changes.py`).
SVT-AV1, the only encoder of AV1 in PyAV's wheels, gives its threads and ours real-time priority if it may (as
root); they get their ordinary scheduling back.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.files.pictures import MATRICES, draw, turn

NTSC = Fraction(30_000, 1001)
_VARIABLE = (1, 1, 2, 1, 3, 1, 1, 4)  # steps between the frames of a film of variable rate, in frames
_TICK = Fraction(1, 1000)
BESIDE = 3000
"""The first number of another video stream's pictures."""
_SOUND = 0.1  # loudness
_TRC = {"pq": 16, "hlg": 18}


@dataclass(frozen=True)
class Film:
    """What a file contains."""

    suffix: str
    codec: str
    rate: Fraction = Fraction(25)
    variable: bool = False
    seconds: float = 3.0
    width: int = 96
    height: int = 64
    pixels: str = "yuv420p"
    """The pixel format."""
    options: dict[str, str] = field(default_factory=dict)
    """Options of the encoder."""
    muxer: str | None = None
    """FFmpeg's name of the format, where the suffix does not tell it."""
    mux: dict[str, str] = field(default_factory=dict)
    """Options of the muxer."""
    turned: str = ""
    """One of `TURNS`."""
    aspect: Fraction | None = None
    """Aspect ratio of a pixel."""
    start: float = 0.0
    """Time of the first frame, in seconds."""
    sound: float | None = None
    """Time at which sound starts; None for no sound."""
    dropped: tuple[int, ...] = ()
    """Numbers that are not encoded."""
    repeated: tuple[int, ...] = ()
    """Places on screen that get the timestamp of the frame before."""
    light: str = ""
    """pq or hlg."""
    beside: str = ""
    """Another video stream: `cover before`, `cover after`, `still before`, `small before`."""
    first: int = 0
    """The number of the first picture."""
    see_through: bool = False
    """Whether the dark block of the first row is transparent."""

    @cached_property
    def times(self) -> dict[int, float]:
        """The time of each number, from the first picture."""
        count = round(self.seconds * self.rate)
        at, out = 0, {}
        for n in range(count):
            if not self.variable or at < count:
                out[self.first + n] = float(at / self.rate)
            at += _VARIABLE[n % len(_VARIABLE)] if self.variable else 1
        return {n: t for n, t in out.items() if n - self.first not in self.dropped}


def write(film: Film, path: Path) -> Path:
    """Write a film to a file."""
    import av

    os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 writes its settings to the terminal
    with av.open(str(path), "w", format=film.muxer, options=film.mux) as container:
        if film.beside.endswith("before"):
            beside = _add_beside(container, film)
        stream, tick = _add_stream(container, film)
        if film.beside.endswith("after"):
            beside = _add_beside(container, film)
        sound = None if film.sound is None else _add_sound(container, film)
        container.start_encoding()
        _slow_down()
        for packet in beside if film.beside else ():
            container.mux(packet)
        if sound is not None:
            for packet in _encode_sound(sound, film):
                container.mux(packet)
        packets = [packet for picture in _frames(film, tick) for packet in stream.encode(picture)]
        packets += stream.encode()
        _slow_down()
        _repeat(packets, film.repeated)
        for packet in packets:
            container.mux(packet)
    return path


def _slow_down() -> None:
    """Take real-time priority from all threads of this process."""
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread that has ended, or a thread that we may not change
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))


def _add_stream(container: Any, film: Film) -> tuple[Any, Fraction]:
    from av.stream import Disposition

    options = {"threads": "1", **film.options}
    stream = container.add_stream(film.codec, rate=film.rate, options=options)
    turned = film.turned in ("90", "270", "transpose")
    stream.width, stream.height = (film.height, film.width) if turned else (film.width, film.height)
    stream.pix_fmt = film.pixels
    if film.beside:
        stream.disposition = Disposition.default
    tick = _TICK if film.variable and film.suffix not in ("avi", "mpg", "gif") else 1 / film.rate
    stream.time_base = stream.codec_context.time_base = tick
    if film.aspect:
        stream.codec_context.sample_aspect_ratio = film.aspect
    if film.light:
        stream.codec_context.color_trc = _TRC[film.light]
        stream.codec_context.color_primaries, stream.codec_context.colorspace = 9, 9
    if film.turned in MATRICES:
        a, b, c, d = (value << 16 for value in MATRICES[film.turned])
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
    elif film.turned:
        stream.set_display_rotation(-int(film.turned))
    return stream, tick


def _frames(film: Film, tick: Fraction) -> Any:
    import av

    for number, seconds in film.times.items():
        stored = turn(draw(number, film.width, film.height), film.turned)
        picture = av.VideoFrame.from_ndarray(stored, format="rgb24")
        if film.see_through:
            picture = _make_hole(stored)
        if film.light:
            picture.color_trc, picture.color_primaries, picture.colorspace = _TRC[film.light], 9, 9
        picture.pts, picture.time_base = round(seconds / tick) + round(film.start / tick), tick
        yield picture


def _make_hole(stored: Any) -> Any:
    import av

    alpha = np.full((*stored.shape[:2], 1), 255, np.uint8)
    height, width = stored.shape[:2]
    alpha[: height // 4, width // 4 : width // 2] = 0
    return av.VideoFrame.from_ndarray(np.concatenate([stored, alpha], 2), format="rgba")


def _repeat(packets: list[Any], places: tuple[int, ...]) -> None:
    """Give the packets in these places on screen the timestamp of the frame before them."""
    shown = sorted(packets, key=lambda p: p.pts)
    for place in places:
        shown[place].pts = shown[place - 1].pts
        shown[place].dts = min(shown[place].dts, shown[place].pts)


def _add_beside(container: Any, film: Film) -> list[Any]:
    """Add another video stream of one picture or of a small film; return its packets."""
    import av
    from av.stream import Disposition

    small = film.beside.startswith("small")
    width, height = (48, 32) if small else (film.width * 2, film.height * 2)
    stream = container.add_stream("mpeg4" if small else "mjpeg", rate=film.rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if small else "yuvj420p"
    stream.time_base = stream.codec_context.time_base = 1 / film.rate
    if film.beside.startswith("cover"):
        stream.disposition = Disposition.attached_pic
    packets: list[Any] = []
    for n in range(len(film.times) if small else 1):
        picture = av.VideoFrame.from_ndarray(draw(BESIDE + n, width, height), format="rgb24")
        picture.pts, picture.time_base = n, 1 / film.rate
        packets += stream.encode(picture)
    return [*packets, *stream.encode()]


def _add_sound(container: Any, film: Film) -> Any:
    codec = {"webm": "libopus", "avi": "pcm_s16le", "mpg": "mp2", "ts": "mp2", "ogg": "libopus"}
    return container.add_stream(codec.get(film.suffix, "aac"), rate=48_000, layout="mono")


def _encode_sound(stream: Any, film: Film) -> list[Any]:
    import av

    stream.codec_context.open(strict=False)
    size = stream.codec_context.frame_size or 1024
    kind = stream.format.name
    rng = np.random.default_rng(0)
    packets: list[Any] = []
    for n in range(int(film.seconds * 48_000 / size)):
        noise: Any = rng.normal(0, _SOUND, (1, size))
        noise = (noise * 32767).astype(np.int16) if kind.startswith("s16") else noise.astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format=kind, layout="mono")
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = n * size + round((film.sound or 0.0) * 48_000)
        packets += stream.encode(frame)
    return [*packets, *stream.encode()]


def write_palette(film: Film, path: Path) -> Path:
    """Write pictures with a palette as PNG, which PyAV's encoder does not write."""
    import av
    from PIL import Image

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("png", rate=film.rate)
        stream.width, stream.height, stream.pix_fmt = film.width, film.height, "rgb24"
        stream.time_base = 1 / film.rate
        for n, number in enumerate(film.times):
            out = io.BytesIO()
            picture = Image.fromarray(draw(number, film.width, film.height))
            picture.convert("P", palette=Image.Palette.ADAPTIVE).save(out, "PNG")
            packet = av.Packet(out.getvalue())
            packet.stream, packet.time_base, packet.duration = stream, 1 / film.rate, 1
            packet.pts = packet.dts = n
            packet.is_keyframe = True
            container.mux(packet)
    return path
