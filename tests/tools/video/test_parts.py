"""Splitting a video: parts that cover it, whole events, real cuts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.errors import ConfigError, VideoError
from act2see.micro.world import FPS, Board, Clip, Piece, write_clip
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.parts import Span, by_scene, by_time, find_cuts, part_path
from act2see.tools.video.reader import open_video, video_digest
from act2see.tools.video.store import FrameStore
from act2see.tools.video.window import Window

FULL = Board(
    tuple(
        Piece("square", colour, (r, c))
        for r in range(3)
        for c, colour in enumerate(("red", "orange", "yellow"))
    )
)
BARE = Board((Piece("ring", "blue", (1, 1)),))


def test_parts_are_of_one_length_and_the_last_ends_with_the_video() -> None:
    assert by_time(26, 9, 1) == (Span(0, 9), Span(8, 17), Span(16, 25), Span(17, 26))
    assert by_time(25, 9, 1)[-1] == Span(16, 25)
    assert by_time(6, 9, 1) == (Span(0, 6),)
    with pytest.raises(ConfigError, match=r"parts of 2 s cannot overlap by 2 s"):
        by_time(26, 2, 2)


@settings(deadline=None)
@given(st.floats(0.1, 5000), st.floats(2, 60), st.floats(0, 1.9), st.floats(0, 1))
def test_an_event_shorter_than_the_overlap_lies_within_some_part(
    length: float, seconds: float, overlap: float, where: float
) -> None:
    parts = by_time(length, seconds, overlap)
    start = where * max(0.0, length - overlap)
    assert any(p.start <= start + 1e-6 and min(start + overlap, length) <= p.stop + 1e-6 for p in parts)
    assert all(0 <= p.start < p.stop <= length and p.stop - p.start <= seconds + 1e-9 for p in parts)


def test_scenes_share_a_part_if_they_fit_and_long_ones_are_split_by_time() -> None:
    assert by_scene([3, 5, 11, 31], 33, 9, 1) == (
        Span(0, 5),
        Span(5, 11),
        Span(11, 20),
        Span(19, 28),
        Span(22, 31),
        Span(31, 33),
    )
    assert by_scene([], 5, 9, 1) == (Span(0, 5),)
    assert by_scene([0.0, 5.0], 5, 9, 1) == (Span(0, 5),)


def test_the_path_of_a_part_opens_it_also_within_a_part(tmp_path: Path) -> None:
    clip = str(write_clip(Clip(20 * FPS, ((0, FULL),)), tmp_path / "clip.mp4"))
    assert part_path(clip, Span(0, 20), 20) == clip
    assert part_path(clip, Span(2.5, 20), 20) == f"{clip}#t=2.5,20"
    assert part_path("a.mp4", Span(1234567.125, 1234570), 2e6) == "a.mp4#t=1234567.125,1234570"
    inner = part_path(f"{clip}#t=4,16", Span(2, 5), 12)
    assert inner == f"{clip}#t=6,9"
    assert open_video(inner).seconds == pytest.approx(3)


def library_in(folder: Path) -> VideoLibrary:
    return VideoLibrary(folder / "cache", FrameStore(folder / "frames"), 96)


def test_cuts_are_found_at_their_times(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scenedetect")
    library = library_in(tmp_path)
    slow = ((0, FULL), (4 * FPS, BARE), (9 * FPS, FULL))
    clip = str(write_clip(Clip(12 * FPS, slow), tmp_path / "clip.mp4"))
    assert find_cuts(library, clip) == pytest.approx([4, 9], abs=0.1)
    assert find_cuts(library, f"{clip}#t=3,11") == pytest.approx([1, 6], abs=0.1)
    assert find_cuts(library, f"{clip}#t=5,8") == []
    capfd.readouterr()
    (tmp_path / "text.mp4").write_text("no video " * 99)
    with pytest.raises(VideoError):
        open_video(tmp_path / "text.mp4")
    assert capfd.readouterr().err == ""  # FFmpeg is silent, as before


def test_cuts_are_those_of_the_stream_that_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    clip = str(write_two_streams(tmp_path / "clip.mkv"))
    library = library_in(tmp_path)
    assert find_cuts(library, f"{clip}#v=0") == []
    assert find_cuts(library, f"{clip}#v=1") == pytest.approx([1.0], abs=0.1)


def write_two_streams(path: Path) -> Path:
    """Write two seconds of two streams: the first without a cut, the second with one after a second."""
    import av

    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            for number, stream in enumerate(streams):
                value = 220 if number and i >= 10 else 30
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
                container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode())
    return path


def test_find_cuts_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_in(tmp_path)
    playlist = tmp_path / "clip.mp4"
    playlist.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(VideoError, match="is a playlist"):
        find_cuts(library, str(playlist))
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ConfigError, match=r"act2see\[scenes\]"):
        find_cuts(library, str(playlist))


def test_parts_far_into_a_video_have_digests_of_their_own(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"any content")
    starts = (10_000, 10_000.25, 10_000.5, 123_456.5, 123_456.75)
    assert len({video_digest(Window(str(video), start, start + 1)) for start in starts}) == len(starts)
    assert len({video_digest(Window(str(video), 0, end)) for end in (100_000.125, 100_000.25)}) == 2
