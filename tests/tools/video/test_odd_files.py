"""Files with odd timestamps, and frames that do not come at first: the right frame at the right time.

FFmpeg's decoding of the whole file is the truth for the pictures.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from tests.tools.videos import number, write_video

from act2see.tools.video.library import ProbedVideo
from act2see.tools.video.reader import Decoder, VideoFile, open_video

DECODERS: list[Decoder] = ["pyav", "decord"] if importlib.util.find_spec("decord") else ["pyav"]
EVEN = [i / 30 for i in range(48)]
NO_B_FRAMES = {"bf": "0"}


def decode_whole(path: Path) -> list[int]:
    """Return the numbers that the frames of a file show."""
    with av.open(str(path)) as container:
        return [
            number(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            for frame in container.decode(video=0)
        ]


def check(path: Path, times: Sequence[float], *, within: float = 1 / 60) -> VideoFile:
    """Check that all frames come, at their times, however they are asked for."""
    video = open_video(path)
    truth = decode_whole(path)
    assert video.timestamps == pytest.approx(np.array(times), abs=within)
    asked = [list(range(video.frames)), list(range(0, video.frames, 7)), *([i] for i in range(5, 48, 9))]
    for indices in asked:
        shown = {i: number(pixels) for i, _, pixels in video.read(indices, (64, 48))}
        assert shown == {i: truth[i] for i in indices}
    return video


def write_flv(path: Path, stamps: dict[int, int]) -> Path:
    """Write an FLV without B-frames, with other timestamps for some of its frames, in ms."""
    write_video(path, EVEN, options=NO_B_FRAMES, codec="flv1")
    data = bytearray(path.read_bytes())
    at, n = 13, 0
    while at + 11 < len(data):
        if data[at] == 9:  # a tag with a picture
            if n in stamps:
                stamp = stamps[n].to_bytes(4, "big")
                data[at + 4 : at + 8] = stamp[1:] + stamp[:1]
            n += 1
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    path.write_bytes(bytes(data))
    return path


def repeat_stamp(path: Path, source: Path, at: int) -> Path:
    """Copy a file without decoding it; the frame in place `at` on screen gets the timestamp before it."""
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        packets = [p for p in original.demux(video=0) if p.size]
        stamps = sorted(p.pts for p in packets if p.pts is not None)
        for packet in packets:
            if packet.pts == stamps[at]:
                packet.pts = stamps[at - 1]
                packet.dts = min(packet.dts or 0, packet.pts)
            packet.stream = stream
            container.mux(packet)
    return path


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_one_repeated_timestamp_changes_one_time(tmp_path: Path, b_frames: str) -> None:
    hole = [t + 3 * (n > 20) for n, t in enumerate(EVEN)]
    source = write_video(tmp_path / "source.mkv", hole, options={"bf": b_frames})
    check(repeat_stamp(tmp_path / "clip.mkv", source, 30), hole, within=0.018)


@pytest.mark.parametrize("ahead", [100.0, 0.0])
def test_a_clock_set_back_in_ts_continues(tmp_path: Path, ahead: float) -> None:
    first = write_video(tmp_path / "first.ts", [ahead + t for t in EVEN])
    second = write_video(tmp_path / "second.ts", EVEN)
    video = check(join(tmp_path / "clip.ts", first, second), [n / 30 for n in range(96)])
    assert video.seconds == pytest.approx(3.2, abs=0.01)


def test_the_same_recording_twice_is_read_twice(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.ts", EVEN)
    check(join(tmp_path / "clip.ts", part, part), [n / 30 for n in range(96)])


def test_a_hole_in_reception_stays_a_hole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ts", [t + 6 * (n >= 30) for n, t in enumerate(EVEN)])
    data = path.read_bytes()
    lost = 188 * (len(data) // 188 // 3)
    path.write_bytes(data[:lost] + data[lost + 188 * 3 :])
    video = open_video(path)
    truth = decode_whole(path)
    got = [number(pixels) for _, _, pixels in video.read(range(video.frames))]
    assert got == truth
    assert video.seconds == pytest.approx(7.6, abs=0.1)
    times = [(n + 180 * (n >= 30)) / 30 for n in truth]
    assert video.timestamps == pytest.approx(np.array(times) - times[0], abs=0.05)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_dropped_in_avi_leave_their_time_empty(tmp_path: Path, codec: str) -> None:
    times = [n / 30 + (n > 20) * 0.5 for n in range(48)]
    path = write_video(tmp_path / "clip.avi", times, codec=codec, options={"bf": "2"})
    # AVI counts frames in the order of decoding, so its gap can lie a few frames off.
    video = check(path, times, within=0.51)
    assert np.diff(video.timestamps).max() > 0.4
    assert video.seconds == pytest.approx(2.1, abs=0.05)
    assert (np.abs(video.timestamps - times) > 1 / 60).sum() <= 3


def test_a_jump_to_the_epoch_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    times = [t + 1.728e9 * (n > 1) for n, t in enumerate(EVEN)]
    path = write_video(tmp_path / "clip.mkv", times, options=NO_B_FRAMES)
    with caplog.at_level(logging.WARNING):
        video = check(path, EVEN)
    assert "1 jumps of its clock were closed" in caplog.text
    assert video.seconds == pytest.approx(1.6, abs=0.01)
    assert len(ProbedVideo(video.info(), video.timestamps).every(3)) == 5


@pytest.mark.parametrize("stamps", [{20: 37_600_000}, {20: 37_600_000, 21: 3}, {47: 37_600_000}])
def test_a_timestamp_far_away_is_set_aside_and_said(
    tmp_path: Path, stamps: dict[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(write_flv(tmp_path / "clip.flv", stamps), EVEN)
    assert "odd timestamps" in caplog.text


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_frames_before_the_picture_has_recovered_are_read(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(
        tmp_path / f"clip{suffix}", EVEN, options={"x264-params": "intra-refresh=1:keyint=12:bframes=0"}
    )
    with caplog.at_level(logging.WARNING):
        check(path, EVEN)
    assert "cannot be decoded" not in caplog.text


def test_frames_that_come_before_the_picture_has_recovered_are_not_taken(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "x264-params": "intra-refresh=1:keyint=12:bframes=0"}
    path = write_video(tmp_path / "clip.mp4", [i / 25 for i in range(60)], options=options)
    truth = decode_whole(path)
    for decoder in DECODERS:
        video = open_video(path, decoder=decoder)
        assert video.decoder == "pyav"
        for i in range(36, 60):
            [(_, _, pixels)] = video.read([i], (64, 48))
            assert number(pixels) == truth[i] == i


def test_a_frame_that_cannot_be_decoded_is_the_one_that_stays_on_screen(tmp_path: Path) -> None:
    source = write_video(tmp_path / "source.mp4", EVEN, codec="mjpeg", pixel_format="yuvj420p")
    path = tmp_path / "clip.mp4"
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        for n, packet in enumerate(p for p in original.demux(video=0) if p.size):
            if 20 <= n < 25:
                packet.update(bytes(packet.size))
            packet.stream = stream
            container.mux(packet)
    video = open_video(path)
    shown = {i: number(pixels) for i, _, pixels in video.read([0, 22, 24, 25, 47], (64, 48))}
    assert shown == {0: 0, 22: 19, 24: 19, 25: 25, 47: 47}
    [(_, _, pixels)] = video.read([23], (64, 48))
    assert number(pixels) == 19


def test_a_frame_whose_packet_starts_empty_is_read_as_ffmpeg_reads_it(tmp_path: Path) -> None:
    source = write_video(tmp_path / "source.mov", EVEN, codec="mjpeg", pixel_format="yuvj420p")
    path = tmp_path / "clip.mov"
    with av.open(str(source)) as original, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        for n, packet in enumerate(p for p in original.demux(video=0) if p.size):
            if n == 20:
                packet.update(bytes(100) + bytes(packet)[100:])
            packet.stream = stream
            container.mux(packet)
    video = open_video(path)
    assert decode_whole(path) == list(range(48))
    for i in (20, 21):
        [(_, _, pixels)] = video.read([i])
        assert number(pixels) == i
