"""Keyframes at which decoding cannot start: what comes from the whole file is the truth."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tests.tools.videos import picture, write_video

from act2see.tools.video.reader import open_video

FRAMES = 30
COLOURS = [(230, 255, 220), (30, 60, 200), (200, 30, 30)]


def check(path: Path, frames: int = FRAMES) -> None:
    """Check that every frame is that of a decoding of the whole file, however it is asked for."""
    with av.open(str(path)) as container:
        truth = [np.asarray(f.to_ndarray(format="rgb24"), int) for f in container.decode(video=0)]
    assert len(truth) == frames
    assert all(np.abs(a - b).mean() > 2 for a, b in pairwise(truth)), "frames are alike"
    video = open_video(path)
    assert video.frames == frames
    asked: list[Sequence[int]] = [range(frames), *([i] for i in range(4, frames, 9)), [5, 12, 25]]
    for indices in asked:
        for i, _, pixels in video.read(indices, truth[0].shape[1::-1]):
            assert np.abs(pixels - truth[i]).mean() < 3, f"frame {i} of {indices}"


def write_palette(path: Path, codec: str, *, change: bool = False) -> Path:
    """Write numbered pictures with a palette of odd colours, which may change in the middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "pal8"
        for n in range(FRAMES):
            colours = np.roll(COLOURS, change and n >= FRAMES // 2, axis=0)
            palette = np.zeros((256, 4), np.uint8)
            palette[:, 0] = 255
            palette[[1, 4, 7], 1:] = colours
            shades = picture(n)
            places = np.full((96, 128), 1, np.uint8)
            places[(shades > 128).all(-1)] = 4
            places[shades[..., 0] == 220] = 7
            indexed: Any = (places, palette)  # PyAV's types do not know it
            frame = av.VideoFrame.from_ndarray(indexed, format="pal8")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("clip.avi", "rawvideo"),
        ("clip.mov", "rawvideo"),
        ("clip.mov", "smc"),
        ("clip.avi", "msrle"),
        ("clip.avi", "zmbv"),
    ],
)
def test_a_palette_that_comes_once_holds_for_all_frames(tmp_path: Path, name: str, codec: str) -> None:
    check(write_palette(tmp_path / name, codec))


def test_a_palette_that_changes_is_that_of_the_frame(tmp_path: Path) -> None:
    check(write_palette(tmp_path / "clip.avi", "rawvideo", change=True))


@pytest.mark.parametrize(
    ("name", "pixel_format"), [("clip.avi", "monow"), ("clip.mov", "gray"), ("clip.mov", "bgr8")]
)
def test_raw_pictures_of_few_bits_keep_their_shades(tmp_path: Path, name: str, pixel_format: str) -> None:
    times = [n / 30 for n in range(FRAMES)]
    check(write_video(tmp_path / name, times, codec="rawvideo", pixel_format=pixel_format))


@pytest.mark.parametrize(
    ("end", "codec", "b_frames"),
    [("mpg", "mpeg2video", "0"), ("vob", "mpeg2video", "2"), ("mpg", "mpeg1video", "2")],
)
def test_two_recordings_with_the_same_clock_are_not_mixed(
    tmp_path: Path, end: str, codec: str, b_frames: str
) -> None:
    times = [n / 30 for n in range(FRAMES)]
    parts = [
        write_video(tmp_path / f"{first}.{end}", times, codec=codec, options={"bf": b_frames}, first=first)
        for first in (0, 100)
    ]
    path = tmp_path / f"clip.{end}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    check(path, 2 * FRAMES)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("clip.avi", "h263p"), ("clip.h261", "h261"), ("clip.h263", "h263"), ("clip.3gp", "h263")],
)
def test_flags_of_keyframes_that_a_parser_guessed_are_not_trusted(
    tmp_path: Path, name: str, codec: str
) -> None:
    times = [n / 30 for n in range(FRAMES)]
    check(write_video(tmp_path / name, times, codec=codec, width=176, height=144))


def test_a_recording_of_keyframes_alone_is_not_decoded_from_its_start(tmp_path: Path) -> None:
    times = [n / 30 for n in range(FRAMES)]
    for name, codec, options in [
        ("a.avi", "mpeg4", {"g": "1"}),
        ("b.mp4", "libx264", {"g": "1"}),
        ("c.avi", "rawvideo", {}),
    ]:
        video = open_video(write_video(tmp_path / name, times, codec=codec, options=options))
        assert len(video._table.keys) == FRAMES


def join_flv(path: Path, *parts: Path) -> Path:
    """Join files of FLV with one clock: the header of each part's codec is in its first tag."""
    out, moved = bytearray(), 0
    for part in parts:
        data, at, last = bytearray(part.read_bytes()), 13, 0
        out += data[:13] if not out else b""
        while at + 11 < len(data):
            end = at + 15 + int.from_bytes(data[at + 1 : at + 4], "big")
            if data[at] == 9:  # a tag of a picture
                last = int.from_bytes(data[at + 4 : at + 7], "big") + moved
                data[at + 4 : at + 7] = last.to_bytes(3, "big")
                out += data[at:end]
            at = end
        moved = last + 33
    path.write_bytes(out)
    return path


def write_joined_mpeg4(path: Path) -> Path:
    """Write an AVI of two parts of MPEG-4, each of which has its header in its first packet alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for part, options in enumerate(({}, {"mpeg_quant": "1", "flags": "+global_header+qpel+mv4"})):
            encoder = av.CodecContext.create("mpeg4", "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = 128, 96, "yuv420p"
            encoder.time_base = Fraction(1, 30)
            encoder.gop_size = 5
            encoder.options = {"flags": "+global_header", "qscale": "4", **options}
            sent = 0
            for n in range(FRAMES // 2):
                frame = av.VideoFrame.from_ndarray(picture(15 * part + n), format="rgb24").reformat(
                    format="yuv420p"
                )
                frame.pts = n
                for packet in encoder.encode(frame):
                    data = (encoder.extradata or b"") * (sent == 0) + bytes(packet)
                    copied = av.Packet(data)
                    copied.stream, copied.is_keyframe = stream, packet.is_keyframe
                    copied.pts = copied.dts = 15 * part + sent
                    copied.time_base = Fraction(1, 30)
                    container.mux(copied)
                    sent += 1
    return path


@pytest.mark.parametrize(
    "second", [{"coder": "0", "bf": "0"}, {"bf": "0", "refs": "4", "8x8dct": "0", "qp": "9"}]
)
def test_a_header_that_changes_in_flv_holds_for_what_follows(tmp_path: Path, second: dict[str, str]) -> None:
    times = [n / 30 for n in range(FRAMES // 2)]
    first = write_video(tmp_path / "1.flv", times, options={"g": "5", "bf": "0", "qp": "30"})
    other = write_video(tmp_path / "2.flv", times, options={"g": "5", **second}, first=15)
    check(join_flv(tmp_path / "clip.flv", first, other))


def test_a_header_in_the_first_keyframe_of_a_joined_part_holds_for_the_part(tmp_path: Path) -> None:
    check(write_joined_mpeg4(tmp_path / "clip.avi"))


PARTS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("libx264", {"preset": "fast"}, {"preset": "fast", "x264-params": "cqm=jvt:ref=3"}),
    (
        "libx265",
        {"x265-params": "log-level=none:pools=1:keyint=5:bframes=0"},
        {"x265-params": "log-level=none:pools=1:keyint=5:bframes=0:ctu=16:no-sao=1:qp=12"},
    ),
]


def write_sets(path: Path, codec: str, *parts: dict[str, str], repeated: bool, within: bool = True) -> Path:
    """Write a recording in parts, each with parameter sets of its own; those of the first are the file's.

    Args:
        path: The file.
        codec: The encoder.
        parts: Options of the encoder for each part.
        repeated: Whether every keyframe has the sets of its part, or only the part's first one.
        within: Whether the other parts have them at all.
    """
    with av.open(str(path), "w") as container:
        options = {"g": "5", "bf": "0", "threads": "1"}
        stream = container.add_stream(codec, rate=30, options=options | parts[0])
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.flags |= 1 << 22  # global headers
        container.start_encoding()
        for part, own in enumerate(parts):
            encoder = av.CodecContext.create(codec, "w")
            assert isinstance(encoder, av.VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = 128, 96, "yuv420p"
            encoder.time_base, encoder.flags = Fraction(1, 30), encoder.flags | 1 << 22
            encoder.options = options | own
            begin = part * FRAMES // len(parts)
            encoded: list[Any] = []
            for n in range(begin, (part + 1) * FRAMES // len(parts)):
                frame = av.VideoFrame.from_ndarray(picture(n), format="rgb24").reformat(format="yuv420p")
                frame.pts = n - begin
                encoded += encoder.encode(frame)
            for n, packet in enumerate([*encoded, *encoder.encode()]):
                has_sets = within and part and packet.is_keyframe and (repeated or n == 0)
                copied = av.Packet((encoder.extradata or b"") * bool(has_sets) + bytes(packet))
                copied.stream, copied.is_keyframe = stream, packet.is_keyframe
                copied.pts = copied.dts = begin + n
                copied.time_base = Fraction(1, 30)
                container.mux(copied)
    return path


@pytest.mark.parametrize(("codec", "first", "second"), PARTS)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_parameter_sets_in_the_first_keyframe_of_a_part_hold_for_the_part(
    tmp_path: Path, name: str, codec: str, first: dict[str, str], second: dict[str, str]
) -> None:
    path = write_sets(tmp_path / name, codec, first, second, repeated=False)
    check(path)
    assert open_video(path)._table.keys.tolist() == [0, 5, 10, 15]


@pytest.mark.parametrize(("codec", "first", "second"), PARTS)
def test_decoding_starts_at_keyframes_that_repeat_the_parameter_sets(
    tmp_path: Path, codec: str, first: dict[str, str], second: dict[str, str]
) -> None:
    path = write_sets(tmp_path / "clip.mkv", codec, first, second, repeated=True)
    check(path)
    assert open_video(path)._table.keys.tolist() == list(range(0, FRAMES, 5))


STSD = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def change_box(data: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Change the content of a box of MP4."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + size]
        if name == path[0]:
            content = change_box(content, path[1:], change) if path[1:] else change(content)
        out += struct.pack(">I4s", len(content) + 8, name) + content
        at += size
    return out


@pytest.mark.parametrize(("codec", "first", "second"), PARTS)
def test_an_mp4_with_two_sample_descriptions_is_decoded_by_each(
    tmp_path: Path, codec: str, first: dict[str, str], second: dict[str, str]
) -> None:
    """As editors write it: the second half of the pictures refers to the second description."""
    path = write_sets(tmp_path / "clip.mp4", codec, first, second, repeated=False, within=False)
    other = write_sets(tmp_path / "other.mp4", codec, second, repeated=False, within=False)
    found: dict[str, bytes] = {}

    def note(name: str) -> Callable[[bytes], bytes]:
        return lambda content: found.setdefault(name, content)

    change_box(other.read_bytes(), (*STSD, b"stsd"), note("description"))
    data = path.read_bytes()
    change_box(data, (*STSD, b"stsz"), note("sizes"))
    half = FRAMES // 2
    length = sum(struct.unpack(f">{half}I", found["sizes"][12 : 12 + 4 * half]))
    two = struct.pack(">I", 2)
    chunks = struct.pack(">6I", 1, half, 1, 2, half, 2)
    data = change_box(data, (*STSD, b"stsd"), lambda b: b[:4] + two + b[8:] + found["description"][8:])
    data = change_box(data, (*STSD, b"stsc"), lambda b: b[:4] + two + chunks)
    data = change_box(
        data,
        (*STSD, b"stco"),
        lambda b: b[:4] + two + b[8:12] + struct.pack(">I", int.from_bytes(b[8:12], "big") + length),
    )
    path.write_bytes(data)
    check(path)
