"""Clips for the tests, odd ones among them, written with PyAV and, where no encoder would do it, by bytes.

Every frame says which one it is: the upper half is eight bars, black or white, its number in binary from the
left; the lower half is red on the left and blue on the right, so that a frame on its side or head is noticed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
BITS = 8
TICK = Fraction(1, 1000)


def picture(number: int, width: int = 128, height: int = 96) -> Pixels:
    """The frame with this number, RGB."""
    out = np.zeros((height, width, 3), np.uint8)
    edges = [round(b * width / BITS) for b in range(BITS + 1)]
    for b in range(BITS):
        if number >> (BITS - 1 - b) & 1:
            out[: height // 2, edges[b] : edges[b + 1]] = 255
    out[height // 2 :, : width // 2] = (220, 30, 30)
    out[height // 2 :, width // 2 :] = (30, 30, 220)
    return out


def number(pixels: Pixels) -> int:
    """Which frame it is, at any size; raises AssertionError where it is not upright."""
    height, width = pixels.shape[:2]
    low = pixels[round(height * 0.75)].astype(int)
    assert low[width // 4, 0] > 150 > 100 > low[width // 4, 2], "the lower left is not red"
    assert low[width * 3 // 4, 2] > 150 > 100 > low[width * 3 // 4, 0], "the lower right is not blue"
    row = pixels[height // 4].mean(-1)
    return sum(int(row[int((b + 0.5) * width / BITS)] > 127) << (BITS - 1 - b) for b in range(BITS))


def write_video(
    path: Path,
    times: Sequence[float],
    *,
    width: int = 128,
    height: int = 96,
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    audio: bool = False,
    front: bool = False,
) -> Path:
    """H.264 with frame i at `times[i]` seconds. `rotation`: degrees clockwise that a player must turn it, the
    pictures being stored turned the other way; `front`: the tables before the pictures, as for streaming."""
    mp4 = path.suffix == ".mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"} if front and mp4 else {}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "12", "threads": "1", "preset": "veryfast", **(options or {})})
        turned = rotation % 180 != 0
        stream.width, stream.height = (height, width) if turned else (width, height)
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = TICK
        if rotation:
            stream.set_display_rotation(-rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for i, t in enumerate(times):
            stored = np.rot90(picture(i, width, height), rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            frame.pts, frame.time_base = round(t / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            write_sound(container, sound, 1.0)
    return path


def write_sound(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    rng = np.random.default_rng(0)
    for n in range(int(seconds * 16000) // 1024):
        frame = av.AudioFrame.from_ndarray(rng.normal(0, 0.1, (1, 1024)).astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, n * 1024, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        write_sound(container, container.add_stream("aac", rate=16000, layout="mono"), 1.0)
    return path


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[bytes, int, int]]:
    """The MP4 boxes of a range, those inside `moov` too: name, start and end of the content."""
    found = []
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        if size < 8:
            break
        found.append((name, start + 8, start + size))
        if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            found += boxes(data, start + 8, start + size)
        start += size
    return found


def claim_hours(path: Path, hours: float) -> Path:
    """Make the headers of an MP4 say that it lasts that long; its sample tables stay as they are."""
    data = bytearray(path.read_bytes())
    scale = {}
    for name, start, _ in boxes(bytes(data)):
        if name in (b"mvhd", b"mdhd"):
            assert data[start] == 0, "a version 0 box"
            scale[name] = struct.unpack(">I", data[start + 12 : start + 16])[0]
            data[start + 16 : start + 20] = struct.pack(">I", round(hours * 3600 * scale[name]))
    for name, start, _ in boxes(bytes(data)):
        if name == b"tkhd":
            data[start + 20 : start + 24] = struct.pack(">I", round(hours * 3600 * scale[b"mvhd"]))
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * part)])
    return path
