"""Opening and sampling videos, on real files, ordinary and odd, with both decoders."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tests.tools.videos import (
    claim_hours,
    cut_start,
    damage,
    hold_last,
    number,
    truncate,
    write_palette,
    write_sound,
    write_video,
)

from act2see.errors import VideoError
from act2see.tools.frames import Video
from act2see.tools.video.reader import Decoder, VideoFile, frames_at, open_video, video_digest

EVEN = [i / 30 for i in range(60)]
UNEVEN = [0, 0.1, 0.2, 0.25, 0.3, 5, 5.1, 5.2, 9.0, 9.05, 20.0, 20.5]
DECODERS: list[Decoder] = ["decord", "pyav"]
EVERY_THIRD = [i / 3 for i in range(6)]  # 0, 1/3 ... of two seconds


def numbers(video: VideoFile, indices: list[int], size: tuple[int, int] | None = None) -> list[int]:
    """Return the numbers that frames show. Checks their order and their times."""
    got = list(video.read(indices, size))
    assert [i for i, _, _ in got] == sorted(set(indices))
    assert [s for _, s, _ in got] == [float(video.timestamps[i]) for i, _, _ in got]
    width, height = size or (video.width, video.height)
    assert all(p.shape == (height, width, 3) and p.dtype == np.uint8 for _, _, p in got)
    return [number(p) for _, _, p in got]


def check(video: VideoFile, expected: list[int] | None = None) -> None:
    """Check that frame i shows `expected[i]`: all in order, a few from anywhere, at other sizes."""
    expected = list(range(video.frames)) if expected is None else expected
    assert numbers(video, list(range(video.frames))) == expected
    rng = np.random.default_rng(0)
    for size in ((64, 48), (63, 49), video.info().fit(90)):
        few = sorted(rng.choice(video.frames, min(5, video.frames), replace=False).tolist())
        assert numbers(video, few, size) == [expected[i] for i in few]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_come_by_timestamp_however_uneven(tmp_path: Path, suffix: str, decoder: Decoder) -> None:
    video = open_video(write_video(tmp_path / f"clip{suffix}", UNEVEN), decoder=decoder)
    assert video.timestamps == pytest.approx(UNEVEN, abs=1e-3)
    assert (video.width, video.height, video.frames, video.decoder) == (128, 96, 12, decoder)
    check(video)
    on_screen = {0: 0, 4.99: 4, 5: 5, 8.5: 7, 9.04: 8, 9.0495: 9, 19: 9, 99: 11, -1: 0}
    for seconds, expected in on_screen.items():
        assert frames_at(video.timestamps, [seconds]) == [expected]


@pytest.mark.parametrize("decoder", DECODERS)
def test_even_frames(tmp_path: Path, decoder: Decoder) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4", EVEN), decoder=decoder)
    check(video)
    assert video.seconds == pytest.approx(2, abs=2e-3)
    assert video.fps == pytest.approx(30, abs=0.1)
    assert frames_at(video.timestamps, EVERY_THIRD) == [0, 10, 20, 30, 40, 50]
    assert list(video.read([])) == []
    assert video.info() == Video(
        path=str(tmp_path / "clip.mp4"),
        digest=video_digest(tmp_path / "clip.mp4"),
        seconds=video.seconds,
        width=128,
        height=96,
        frames=60,
        fps=video.fps,
    )


# (suffix, codec, options): where keyframes are not where decord looks for them, where there are no
# timestamps.
KINDS = {
    "h264": (".mp4", "libx264", {}),
    "h264 open gop": (".mp4", "libx264", {"x264-params": "open-gop=1"}),
    "h264 in mkv, open gop": (".mkv", "libx264", {"x264-params": "open-gop=1"}),
    "h264 in ts": (".ts", "libx264", {}),
    "h264 in avi": (".avi", "libx264", {}),
    "h264 bare": (".h264", "libx264", {}),
    "hevc": (".mp4", "libx265", {"x265-params": "log-level=none:keyint=12:pools=1:frame-threads=1"}),
    "mpeg4": (".mp4", "mpeg4", {"bf": "2"}),
    "mpeg4 in avi": (".avi", "mpeg4", {"bf": "2"}),
    "vp9": (".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_any_codec_and_container(tmp_path: Path, kind: str, decoder: Decoder) -> None:
    suffix, codec, options = KINDS[kind]
    video = open_video(
        write_video(tmp_path / f"clip{suffix}", EVEN, codec=codec, options=options), decoder=decoder
    )
    assert np.diff(video.timestamps) == pytest.approx(
        np.full(59, 1 / 25 if kind == "h264 bare" else 1 / 30), abs=2e-3
    )
    check(video)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 59), min_size=1), st.sampled_from(DECODERS))
def test_any_selection(tmp_path_factory: pytest.TempPathFactory, indices: set[int], decoder: Decoder) -> None:
    path = tmp_path_factory.getbasetemp() / "selection.mp4"
    if not path.exists():
        write_video(path, EVEN)
    assert numbers(open_video(path, decoder=decoder), sorted(indices), (64, 48)) == sorted(indices)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_rotation_metadata_gives_upright_frames(
    tmp_path: Path, suffix: str, rotation: int, decoder: Decoder
) -> None:
    video = open_video(write_video(tmp_path / f"clip{suffix}", EVEN[:14], rotation=rotation), decoder=decoder)
    assert (video.width, video.height) == (128, 96)
    check(video)


def test_mirrored_and_non_square_pixels(tmp_path: Path) -> None:
    check(open_video(write_video(tmp_path / "mirror.mp4", EVEN[:14], mirror=True)))
    wide = open_video(write_video(tmp_path / "wide.mp4", EVEN[:14], pixel_shape=Fraction(2, 1)))
    assert (wide.width, wide.height) == (256, 96)
    check(wide)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("width", "height", "pixel_format", "codec"),
    [
        (131, 97, "yuv444p", "libx264"),
        (131, 97, "yuv420p", "libvpx-vp9"),
        (130, 98, "yuv420p10le", "libx264"),
    ],
)
def test_odd_sizes_and_ten_bits(
    tmp_path: Path, width: int, height: int, pixel_format: str, codec: str, decoder: Decoder
) -> None:
    path = tmp_path / ("clip.mkv" if "vpx" in codec else "clip.mp4")
    options = {"deadline": "realtime", "cpu-used": "8"} if "vpx" in codec else {}
    video = open_video(
        write_video(
            path,
            EVEN[:14],
            width=width,
            height=height,
            pixel_format=pixel_format,
            codec=codec,
            options=options,
        ),
        decoder=decoder,
    )
    assert (video.width, video.height) == (width, height)
    check(video)


@pytest.mark.parametrize("decoder", DECODERS)
def test_one_frame(tmp_path: Path, decoder: Decoder) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4", [0.0]), decoder=decoder)
    assert video.frames == 1
    assert frames_at(video.timestamps, EVERY_THIRD) == [0]
    check(video)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("hours", [0, 3])
def test_a_wrong_duration_in_the_header_is_ignored(tmp_path: Path, suffix: str, hours: float) -> None:
    video = open_video(claim_hours(write_video(tmp_path / f"clip{suffix}", EVEN[:10]), hours))
    assert video.seconds == pytest.approx(1 / 3, abs=2e-3)
    check(video)


def test_a_last_frame_of_three_hours_does_not_hide_the_others(tmp_path: Path) -> None:
    video = open_video(hold_last(write_video(tmp_path / "clip.mp4", [*EVEN[:9], 0.4]), 3))
    assert video.seconds < 1
    check(video)


def test_a_late_start_counts_from_the_first_frame(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "clip.mkv", [10 + t for t in EVEN]))
    assert video.timestamps[:3] == pytest.approx(EVEN[:3], abs=2e-3)
    assert video.seconds == pytest.approx(2, abs=2e-3)
    check(video)


def test_frames_removed_by_an_edit_list_are_not_shown(tmp_path: Path) -> None:
    video = open_video(cut_start(write_video(tmp_path / "clip.mp4", EVEN), 0.5))
    assert video.timestamps[:2] == pytest.approx(EVEN[:2], abs=2e-3)
    check(video, list(range(15, 60)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_frames_of_a_truncated_file_are_read(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = truncate(write_video(tmp_path / f"clip{suffix}", EVEN, front=suffix == ".mp4"), 0.75)
    with caplog.at_level(logging.WARNING):
        video = open_video(path)
    assert 10 < video.frames < 59
    whole = numbers(video, list(range(video.frames)))
    assert whole[:-3] == list(range(video.frames - 3))  # B-frames before the last whole packet may be gone
    assert [round(t * 30) for t in video.timestamps] == whole
    assert numbers(video, [video.frames - 1, 3], (64, 48)) == [3, whole[-1]]
    if suffix == ".mp4":  # its header says how long the video should be
        found = re.search(
            r"is cut off at (.*) s of 2\.0 s: the last (.*) s are missing, so copy", caplog.text
        )
        assert found
        at, missing = (float(seconds) for seconds in found.groups())
        assert at == pytest.approx(video.seconds, abs=0.2)
        assert at + missing == pytest.approx(2.0, abs=0.11)
        assert len(caplog.records) == 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_frames_are_replaced_by_neighbours(
    tmp_path: Path, decoder: Decoder, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    video = open_video(
        damage(write_video(tmp_path / "clip.mp4", EVEN, front=True), 0.5, 0.505), decoder=decoder
    )
    with caplog.at_level(logging.WARNING):
        got = numbers(video, list(range(60)), (64, 48))
    assert sum(a != b for a, b in enumerate(got)) < 12  # within one group of pictures
    assert got[-12:] == list(range(48, 60))
    assert "are replaced by their neighbours" in caplog.text
    assert ("continuing with PyAV" in caplog.text) == (decoder == "decord")
    assert capfd.readouterr().err == ""


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_playlist(path: Path) -> None:
    other = write_video(path.with_name("secret.mp4"), EVEN[:3])
    path.write_text(f"ffconcat version 1.0\nfile {other.name}\n")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: None, "there is no file .*: check the path"),
    "a folder": (lambda p: p.mkdir(), "is a folder: name a video file"),
    "a pipe": (lambda p: os.mkfifo(p), "is a device or a pipe: give a video file"),
    "empty": (make_empty, "is empty: copy or download it again"),
    "text": (lambda p: p.write_text("It is a nice day.\n" * 200), "is not a video .*: give a video file"),
    "noise": (
        lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)),
        "is not a video .*: give a video file",
    ),
    "truncated": (lambda p: truncate(write_video(p, EVEN), 0.5), "is cut off .*: copy or download it again"),
    "pictures lost": (
        lambda p: damage(write_video(p, EVEN, front=True), 0, 1),
        "no frame that can be decoded: copy",
    ),
    "audio only": (write_sound, "has sound but no picture: give a video file"),
    "a song with a cover": (
        lambda p: write_sound(p, cover=True),
        "has sound but no picture: give a video file",
    ),
    "a list of other files": (make_playlist, "is a playlist, not a video: give the video file itself"),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("what", BAD)
def test_files_that_are_not_videos_are_refused_in_one_line(
    tmp_path: Path, what: str, decoder: Decoder, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[what]
    path = tmp_path / "clip.mp4"
    make(path)
    capfd.readouterr()
    with pytest.raises(VideoError, match=message) as caught:
        open_video(path, decoder=decoder)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4", "ffconcat version 1.0\nfile pipe.ts\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\npipe.ts\n#EXT-X-ENDLIST\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("a.mpd", '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>\n'),
    ],
)
def test_a_playlist_opens_none_of_the_files_that_it_names(tmp_path: Path, name: str, text: str) -> None:
    os.mkfifo(tmp_path / "pipe.ts")  # opening it would block forever
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match="is a playlist"):
        open_video(tmp_path / name)


def test_indices_outside_the_video_are_refused(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4", EVEN[:3]))
    for bad in ([3], [-1, 0]):
        with pytest.raises(IndexError, match="frames 0 to 2"):
            list(video.read(bad))


def test_the_digest_depends_only_on_the_content(tmp_path: Path) -> None:
    a = write_video(tmp_path / "a.mp4", EVEN[:3])
    b = tmp_path / "b.mp4"
    b.write_bytes(a.read_bytes())
    assert video_digest(a) == video_digest(b) == open_video(a).digest
    b.write_bytes(a.read_bytes() + b"\0")
    assert video_digest(a) != video_digest(b)
    for path in (tmp_path / "none.mp4", tmp_path, "a\0b.mp4"):
        with pytest.raises(VideoError):
            video_digest(path)


def test_threads_share_a_video(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4", EVEN))
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda k: numbers(video, list(range(k, 60, 7))), range(7)))
    assert got == [list(range(k, 60, 7)) for k in range(7)]


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    for decoder in DECODERS:
        frames = open_video(write_video(tmp_path / "clip.mp4", EVEN), decoder=decoder).read(range(60))
        assert number(next(frames)[2]) == 0
        frames.close()  # type: ignore[attr-defined]


def test_a_frame_kept_does_not_keep_its_batch(tmp_path: Path) -> None:
    for decoder in DECODERS:
        for _, _, pixels in open_video(write_video(tmp_path / "clip.mp4", EVEN[:3]), decoder=decoder).read(
            range(3), (64, 48)
        ):
            owner = pixels if pixels.base is None else pixels.base
            assert owner.nbytes == 64 * 48 * 3


def test_heavy_packages_are_imported_on_first_use() -> None:
    code = """
import sys
import act2see.tools.video.reader, act2see.tools.video.store
sys.exit(bool({"av", "decord", "PIL", "fsspec"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_part_of_a_file_is_a_video_of_its_own(tmp_path: Path, decoder: Decoder) -> None:
    file = write_video(tmp_path / "clip.mp4", UNEVEN)
    part = open_video(f"{file}#t=5.05,9.05", decoder=decoder)
    assert part.seconds == pytest.approx(4.0)
    # The frame of 5.0 s is still on screen at the start of the part; that of 9.05 s starts at its end.
    assert part.timestamps == pytest.approx([0, 0.05, 0.15, 3.95], abs=1e-3)
    check(part, [5, 6, 7, 8])
    assert [number(p) for _, _, p in open_video(f"{file}#t=20", decoder=decoder).read([0, 1])] == [10, 11]
    assert open_video(f"{file}#t=,0.21", decoder=decoder).frames == 3
    assert len({open_video(f"{file}{t}").digest for t in ("", "#t=1,2", "#t=1,3", "#t=1")}) == 4
    assert open_video(f"{file}#t=4,99").seconds == pytest.approx(open_video(file).seconds - 4)
    with pytest.raises(VideoError, match=r"before the part starts \(30 s\)"):
        open_video(f"{file}#t=30,40")


def test_a_file_that_is_named_like_a_part_is_itself(tmp_path: Path) -> None:
    file = write_video(tmp_path / "clip.mp4", EVEN).rename(tmp_path / "clip.mp4#t=0,1")
    assert open_video(file).frames == 60


def test_pictures_with_a_palette_are_read(tmp_path: Path) -> None:
    video = open_video(write_palette(tmp_path / "palette.mov", 6))
    assert [number(pixels) for _, _, pixels in video.read(range(6), None)] == list(range(6))
