"""Clips of the board world as people have them: of another size, in bars, re-encoded, and filmed less well.

`write_clip` writes one kind of file. A `Recording` is any other: the board is a square somewhere in a frame
of a plain dark colour, and contrast, brightness, sharpness, noise, rate and codec vary. What the clip shows
at a time stays the same, so a question has the same answer.

SVT-AV1, the only AV1 encoder of PyAV's wheels, gives its threads and the calling one real-time priority if it
may (as root), and then starves the machine. Every thread is given its ordinary scheduling back. Its preset 12
writes files of still pictures that no decoder reads, so a slower one is used. Its low delay (`pred-struct=1`)
stops for ever in about one of ten small clips, inside the encoder, where no timeout of Python interrupts it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from act2see.micro.world import FPS, Clip, Colour, Pixels, render

Codec = Literal["h264", "mpeg4", "vp8", "vp9", "av1", "mjpeg"]
_NTSC = Fraction(30_000, 1001)
_RATES = tuple(Fraction(rate) for rate in (10, 12, 15, 20, 24, 25, _NTSC, 30, 50, 60))
_FRAMES = (
    (144, 144),
    (176, 144),
    (200, 200),
    (240, 320),
    (256, 192),
    (320, 240),
    (360, 640),
    (426, 240),
    (480, 360),
    (500, 500),
    (640, 360),
    (640, 480),
    (854, 480),
    (960, 540),
    (1280, 720),
)
"""Widths and heights."""
_SMALLEST = 96
"""The side of the smallest board. The VLM reads boards at 48 pixels."""
_LARGEST_DRAWN = 768  # sprites are drawn at this size and reduced
_ENCODERS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "mp4", {"preset": "ultrafast", "crf": "24"}),
    "mpeg4": ("mpeg4", "avi", {"b": "2M", "qmin": "2", "qmax": "8"}),
    "vp8": ("libvpx", "webm", {"deadline": "realtime", "cpu-used": "8", "crf": "12", "b": "4M"}),
    "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8", "crf": "28", "b": "0"}),
    "av1": ("libsvtav1", "mp4", {"preset": "10", "crf": "32", "svtav1-params": "lp=1"}),
    "mjpeg": ("mjpeg", "matroska", {"q": "4"}),
}
"""The encoder of each codec, its container, and options."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How a clip was recorded. The defaults are those of `write_clip`, but for the codec's options."""

    width: int = 192
    height: int = 192
    side: int = 192
    """The side of the board, in pixels."""
    left: int = 0
    """Where the board begins, in pixels from the left."""
    top: int = 0
    """Where the board begins, in pixels from the top."""
    bars: Colour = (0, 0, 0)
    """The colour around the board."""
    codec: Codec = "h264"
    fps: Fraction = Fraction(FPS)
    keyframes: float = 1.0
    """Seconds between two keyframes."""
    contrast: float = 1.0
    """The factor of all values of the board."""
    brightness: float = 0.0
    """What is added to them afterwards, of 255."""
    blur: float = 0.0
    """Standard deviation of the blur, in pixels of a board of 192 pixels."""
    noise: float = 0.0
    """Standard deviation of the noise, of 255."""

    @property
    def container(self) -> str:
        """FFmpeg's name of the file format."""
        return _ENCODERS[self.codec][1]


def draw_recording(rng: random.Random) -> Recording:
    """Draw a recording: one in three fills its frame, and each kind of damage is absent from some."""
    width, height = rng.choice(_FRAMES)
    largest = min(width, height)
    side = largest
    if rng.random() < 0.5:
        side = rng.randint(max(_SMALLEST, round(0.6 * largest)), largest)
    elif rng.random() < 0.5:
        width = height = largest
    dark = rng.randint(0, 40)
    bars = rng.choice(((0, 0, 0), (18, 18, 22), (dark, dark, dark), _draw_dark(rng)))
    return Recording(
        width=width,
        height=height,
        side=side,
        left=rng.choice(((width - side) // 2, rng.randint(0, width - side))),
        top=rng.choice(((height - side) // 2, rng.randint(0, height - side))),
        bars=bars,
        codec=rng.choice(tuple(_ENCODERS)),
        fps=rng.choice(_RATES),
        keyframes=rng.choice((0.5, 1.0, 2.0, 10.0)),
        contrast=rng.choice((1.0, rng.uniform(0.75, 1.25))),
        brightness=rng.choice((0.0, rng.uniform(-12, 25))),
        blur=rng.choice((0.0, rng.uniform(0.3, 1.2))),
        noise=rng.choice((0.0, rng.uniform(1.0, 6.0))),
    )


def _draw_dark(rng: random.Random) -> Colour:
    return rng.randint(0, 48), rng.randint(0, 48), rng.randint(0, 48)


def write_recording(clip: Clip, path: str | Path, recording: Recording) -> Path:
    """Write a clip as a recording; return `path`.

    The file format is that of the codec, whatever the suffix of the path.
    """
    return write_frames(recorded_frames(clip, recording), path, recording)


def write_frames(frames: Iterable[Pixels], path: str | Path, recording: Recording) -> Path:
    """Encode frames, `(height, width, 3)` uint8, with the codec and at the rate of a recording."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder, container_format, options = _ENCODERS[recording.codec]
    if recording.codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes its settings to the terminal
    ordinary = _scheduling()
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = container.add_stream(encoder, rate=recording.fps, options=dict(options))
        stream.width, stream.height = recording.width, recording.height
        stream.pix_fmt = "yuvj420p" if recording.codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = max(1, round(recording.keyframes * recording.fps))
        stream.codec_context.thread_count = 1
        try:
            stream.codec_context.open(strict=False)
            _restore(ordinary)
            for pixels in frames:
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        finally:
            _restore(ordinary)
    return path


def recorded_frames(clip: Clip, recording: Recording) -> Iterator[Pixels]:
    """Yield every frame of a recording, `(height, width, 3)` uint8.

    Frame `n` shows the board at `n / fps` seconds. The noise is the same in each recording of a kind.
    """
    rng = np.random.default_rng(recording.width * 10_000 + recording.height)
    noises = [_draw_noise(rng, recording) for _ in range(4)] if recording.noise else []
    board, picture = None, None
    for n in range(round(clip.frames * recording.fps / FPS)):
        # The start of a frame of the clip is the first frame of the recording that shows it.
        now = clip.board(min(clip.frames - 1, int(n * FPS / recording.fps)))
        if picture is None or now != board:
            board, picture = now, record_picture(render(now, _drawn_size(recording.side)), recording)
        if not noises:
            yield picture
            continue
        noise = np.roll(noises[n % 4], int(rng.integers(recording.width)), axis=1)
        yield np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def _drawn_size(side: int) -> int:
    """Return the size at which a board is drawn, to be reduced to `side`."""
    return min(_LARGEST_DRAWN, 12 * -(-side // 12))


def _draw_noise(rng: np.random.Generator, recording: Recording) -> Any:
    """Return grey noise, `(height, width, 1)` int16."""
    shape = (recording.height, recording.width, 1)
    return np.rint(rng.normal(0, recording.noise, shape)).astype(np.int16)


def record_picture(board: Pixels, recording: Recording) -> Pixels:
    """Return a frame without noise: a square picture in its light, inside the bars, blurred."""
    from PIL import Image, ImageFilter

    light = board.astype(np.float32) * recording.contrast + recording.brightness
    lit = Image.fromarray(np.clip(np.rint(light), 0, 255).astype(np.uint8))
    frame = Image.new("RGB", (recording.width, recording.height), recording.bars)
    side = recording.side
    frame.paste(lit.resize((side, side), Image.Resampling.LANCZOS), (recording.left, recording.top))
    if recording.blur:
        frame = frame.filter(ImageFilter.GaussianBlur(recording.blur * side / 192))
    return np.asarray(frame)


Scheduling = tuple[int, int]
"""A policy of Linux, and a priority."""


def _scheduling() -> Scheduling | None:
    """Return the scheduling of this thread; None on a system without it."""
    if not hasattr(os, "sched_getscheduler"):
        return None
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def _restore(ordinary: Scheduling | None) -> None:
    """Give each thread of this process that has real-time priority the scheduling `ordinary`."""
    if ordinary is None:
        return
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # a thread that has ended, or a thread that we may not change
            thread = int(task.name)
            if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(thread, ordinary[0], os.sched_param(ordinary[1]))
