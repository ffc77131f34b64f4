"""The choice of a file's video stream, and the zero of its time."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from tests.tools.videos import number, picture

from act2see.errors import VideoError
from act2see.tools.video.reader import open_video, video_digest
from act2see.tools.video.streams import Candidate, choose
from act2see.tools.video.subtitles import Line, Transcript

TICK = Fraction(1, 1000)


def write_streams(
    path: Path,
    streams: Sequence[tuple[int, int, Disposition]],
    picture_start: float = 0,
    sound_start: float | None = None,
) -> Path:
    """Write a file of several video streams, and sound.

    Args:
        path: The file.
        streams: Width, number of frames (each 0.1 s) and disposition. Stream `n` shows numbers from `50 n`.
        picture_start: Time of the first frames, in seconds.
        sound_start: Time of the sound, which is as long as the longest picture; None for no sound.
    """
    with av.open(str(path), "w") as container:
        packets = []
        for n, (width, frames, disposition) in enumerate(streams):
            stream = container.add_stream("mpeg4", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, width * 3 // 4, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 10)
            stream.disposition = disposition
            for i in range(frames):
                shown = picture(50 * n + i, width, width * 3 // 4)
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                frame.pts, frame.time_base = i + round(picture_start * 10), Fraction(1, 10)
                packets += stream.encode(frame)
            packets += stream.encode()
        if sound_start is not None:
            sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            assert isinstance(sound, av.AudioStream)
            blocks = round(max(picture_start, sound_start) * 10) + max(frames for _, frames, _ in streams)
            for n in range(blocks):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
                block.sample_rate, block.time_base = 8000, Fraction(1, 8000)
                block.pts = round(sound_start * 8000) + 800 * n
                packets += sound.encode(block)
        packets.sort(key=lambda packet: (packet.dts or 0) * packet.time_base)
        for packet in packets:
            container.mux(packet)
    return path


def shown(path: Path | str) -> int:
    return number(next(open_video(path).read([0]))[2])


NONE, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([(256, 1, NONE), (128, 8, NONE)], 1),  # a still, larger than the film
        ([(128, 8, NONE), (256, 8, NONE)], 1),  # a preview
        ([(128, 8, DEFAULT), (256, 8, NONE)], 0),
        ([(128, 8, NONE), (128, 8, NONE)], 0),
        ([(128, 1, NONE)], 0),
    ],
)
def test_the_stream_of_a_player_is_read(
    tmp_path: Path,
    streams: Sequence[tuple[int, int, Disposition]],
    expected: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = write_streams(tmp_path / "clip.mkv", streams)
    with caplog.at_level(logging.WARNING, "act2see"):
        assert shown(clip) == 50 * expected
        assert open_video(clip).frames == streams[expected][1]
    said = [message for message in caplog.messages if f"v={expected} (mpeg4" in message]
    assert len(said) == (len(streams) > 1), "it says once which stream is shown"


def test_a_path_chooses_another_stream(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_streams(tmp_path / "clip.mkv", [(128, 6, NONE), (256, 8, NONE)])
    assert shown(f"{clip}#v=0") == 0
    assert shown(f"{clip}#v=1") == 50
    part = open_video(f"{clip}#t=0.2,0.5&v=0")
    assert [number(pixels) for _, _, pixels in part.read(range(part.frames))] == [2, 3, 4]
    assert part.info().path == f"{clip}#t=0.2,0.5&v=0"
    digests = {video_digest(f"{clip}{end}") for end in ("", "#v=0", "#v=1", "#t=0.2,0.5", "#t=0.2,0.5&v=0")}
    assert len(digests) == 5, "their pictures are kept apart"
    assert not caplog.messages
    with pytest.raises(VideoError, match=r"no video stream v=2: it has the video streams v=0 to v=1"):
        open_video(f"{clip}#v=2")


def test_a_replaced_file_is_looked_at_again(tmp_path: Path) -> None:
    clip = write_streams(tmp_path / "clip.mkv", [(128, 6, NONE), (256, 8, NONE)])
    assert shown(clip) == 50
    other = write_streams(tmp_path / "other.mkv", [(256, 8, NONE), (128, 6, NONE)])
    shutil.copy(other, clip)
    assert shown(clip) == 0


def test_covers_are_never_chosen_by_themselves() -> None:
    film = Candidate(1, "h264", 640, 360, 100, default=False, hidden=False)
    cover = Candidate(0, "mjpeg", 2000, 2000, 1, default=True, hidden=True)
    chapters = Candidate(2, "mjpeg", 1280, 720, 4, default=True, hidden=False)
    assert choose([cover, film, chapters]) == film
    assert choose([cover]) is None


@pytest.mark.parametrize(
    ("picture_start", "sound_start", "first"), [(2, 0, 2), (3, 1, 2), (0, 0, 0), (0, 1, 0), (2, None, 0)]
)
def test_a_picture_after_the_sound_keeps_the_time_of_players(
    tmp_path: Path, picture_start: float, sound_start: float | None, first: float
) -> None:
    clip = write_streams(tmp_path / "clip.mkv", [(128, 8, DEFAULT)], picture_start, sound_start)
    video = open_video(clip)
    assert video.timestamps == pytest.approx([first + i / 10 for i in range(8)], abs=2e-3)
    assert video.seconds == pytest.approx(first + 0.8, abs=2e-3)
    part = open_video(f"{clip}#t={first + 0.3},{first + 0.5}")
    assert [number(pixels) for _, _, pixels in part.read(range(part.frames))] == [3, 4]
    if first:
        with pytest.raises(VideoError, match=r"has sound but no picture before 2\.0 s: ask for another part"):
            open_video(f"{clip}#t=0,1")


def test_the_transcript_of_a_part_counts_from_its_start() -> None:
    lines = (Line(0, 2, "before"), Line(1, 4, "across"), Line(5, 6, "within"), Line(8, 9, "after"))
    part = Transcript("clip.srt", lines).within(3, 8)
    assert part.lines == (Line(0, 1, "across"), Line(2, 3, "within"))
