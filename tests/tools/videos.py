"""Clips for the tests, written with PyAV. For odd files that no encoder writes, bytes are changed afterwards.

Every frame shows its number: the upper half has eight black or white bars, the number in binary from the
left. The lower half is red on the left and blue on the right, so that a rotated frame is noticed.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
BITS = 8
TICK = Fraction(1, 1000)


def picture(number: int, width: int = 128, height: int = 96) -> Pixels:
    """Return a frame that shows its number, RGB."""
    out = np.zeros((height, width, 3), np.uint8)
    edges = [round(b * width / BITS) for b in range(BITS + 1)]
    for b in range(BITS):
        if number >> (BITS - 1 - b) & 1:
            out[: height // 2, edges[b] : edges[b + 1]] = 255
    out[height // 2 :, : width // 2] = (220, 30, 30)
    out[height // 2 :, width // 2 :] = (30, 30, 220)
    return out


def number(pixels: Pixels) -> int:
    """Return the number that a frame of any size shows. Raises AssertionError if it is not upright."""
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
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rotation: int = 0,
    mirror: bool = False,
    pixel_shape: Fraction | None = None,
    options: dict[str, str] | None = None,
    front: bool = False,
    first: int = 0,
) -> Path:
    """Write a clip with frame i at `times[i]` seconds.

    Args:
        path: The file.
        times: Times of the frames, in seconds.
        codec: The codec.
        width: Width of the pictures, in pixels.
        height: Height of the pictures, in pixels.
        pixel_format: The pixel format.
        rotation: Clockwise rotation that a player must apply, in degrees.
        mirror: Whether a player must mirror the picture.
        pixel_shape: Aspect ratio of a pixel.
        options: Options of the codec.
        front: Whether the tables come before the pictures.
        first: The number that frame 0 shows.
    """
    tick = TICK if codec == "libx264" and path.suffix in (".mp4", ".mkv") else Fraction(1, 30)
    with av.open(str(path), "w", options={"movflags": "faststart"} if front else {}) as container:
        stream = container.add_stream(codec, rate=30, options={"g": "12", "threads": "1", **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = (height, width) if rotation % 180 else (width, height)
        stream.pix_fmt = pixel_format
        stream.time_base = stream.codec_context.time_base = tick
        if pixel_shape:
            stream.codec_context.sample_aspect_ratio = pixel_shape
        if rotation:
            stream.set_display_rotation(-rotation)
        if mirror:
            stream.set_display_matrix([-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30])
        for i, t in enumerate(times):
            stored = np.rot90(picture(first + i, width, height), rotation // 90)[:, :: -1 if mirror else 1]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            frame.pts, frame.time_base = round(t / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, cover: bool = False) -> Path:
    """Write a second of noise as AAC, optionally with a cover picture."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        assert isinstance(stream, av.AudioStream)
        art = container.add_stream("mjpeg", rate=30) if cover else None
        if art is not None:
            assert isinstance(art, av.VideoStream)
            art.width, art.height, art.pix_fmt = 128, 96, "yuvj420p"
            art.disposition = Disposition.attached_pic
            container.mux(art.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
            container.mux(art.encode())
        for n in range(16):
            frame = av.AudioFrame.from_ndarray(
                rng.normal(0, 0.1, (1, 1024)).astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = 16000, n * 1024, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def boxes(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[bytes, int, int]]:
    """Yield the MP4 boxes of a range, and those inside `moov`: name, start and end of the content."""
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
    """Write a duration into the headers of an MP4 or MKV, without changing its frames."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".mkv":
        at = data.index(b"\x44\x89\x88") + 3  # Duration: a double, in milliseconds
        data[at : at + 8] = struct.pack(">d", hours * 3_600_000)
    scale = {}
    for name, start, _ in boxes(bytes(data)):
        if name in (b"mvhd", b"mdhd"):  # version 0 boxes: 32-bit times
            scale[name] = struct.unpack(">I", data[start + 12 : start + 16])[0]
            data[start + 16 : start + 20] = struct.pack(">I", round(hours * 3600 * scale[name]))
    for name, start, _ in boxes(bytes(data)):
        if name == b"tkhd":
            data[start + 20 : start + 24] = struct.pack(">I", round(hours * 3600 * scale[b"mvhd"]))
    path.write_bytes(bytes(data))
    return path


def hold_last(path: Path, hours: float) -> Path:
    """Write a duration of the last frame into the sample table of an MP4 with unevenly spaced frames."""
    data = bytearray(path.read_bytes())
    scale = next(
        struct.unpack(">I", data[s + 12 : s + 16])[0] for n, s, _ in boxes(bytes(data)) if n == b"mdhd"
    )
    stop = next(e for n, _, e in boxes(bytes(data)) if n == b"stts")
    data[stop - 4 : stop] = struct.pack(">I", round(hours * 3600 * scale))
    path.write_bytes(bytes(data))
    return path


def cut_start(path: Path, seconds: float) -> Path:
    """Move the start of an MP4's edit list, as a cut without re-encoding does: it hides the frames before."""
    data = bytearray(path.read_bytes())
    scale = next(
        struct.unpack(">I", data[s + 12 : s + 16])[0] for n, s, _ in boxes(bytes(data)) if n == b"mdhd"
    )
    at = data.index(b"elst") + 16
    data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + round(seconds * scale))
    path.write_bytes(bytes(data))
    return path


def damage(path: Path, start: float, stop: float) -> Path:
    """Zero a part of the pictures of an MP4."""
    data = bytearray(path.read_bytes())
    first, last = next((s, e) for n, s, e in boxes(bytes(data)) if n == b"mdat")
    a, b = (first + round((last - first) * x) for x in (start, stop))
    data[a:b] = bytes(b - a)
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * part)])
    return path


def write_palette(path: Path, frames: int) -> Path:
    """Write a MOV of PNG pictures with a palette (`pal8`), which no installed encoder writes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=4)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "rgb24"
        stream.time_base = Fraction(1, 4)
        for n in range(frames):
            out = io.BytesIO()
            Image.fromarray(picture(n)).convert("P", palette=Image.Palette.ADAPTIVE).save(out, "PNG")
            packet = av.Packet(out.getvalue())
            packet.stream, packet.time_base, packet.pts, packet.dts, packet.duration = (
                stream,
                Fraction(1, 4),
                n,
                n,
                1,
            )
            packet.is_keyframe = True
            container.mux(packet)
    return path
