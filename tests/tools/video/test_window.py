"""Parsing and writing paths of videos and of their parts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.tools.videos import write_video

from act2see.errors import VideoError
from act2see.tools.video.reader import open_video
from act2see.tools.video.window import Window, absolute_path


@pytest.mark.parametrize(
    ("path", "window", "written"),
    [
        ("a.mp4", Window("a.mp4"), "a.mp4"),
        ("a.mp4#t=2,8", Window("a.mp4", 2, 8), "a.mp4#t=2,8"),
        ("a.mp4#t=2.50,8.125", Window("a.mp4", 2.5, 8.125), "a.mp4#t=2.5,8.125"),
        ("a.mp4#t=2", Window("a.mp4", 2, math.inf), "a.mp4#t=2"),
        ("a.mp4#t=,8", Window("a.mp4", 0, 8), "a.mp4#t=0,8"),
        ("a.mp4#t=0", Window("a.mp4"), "a.mp4"),
        ("a.mp4#t=1234567.125,1234570", Window("a.mp4", 1234567.125, 1234570), None),
        ("a.mp4#t=", Window("a.mp4#t="), None),
        ("a.mp4#t=two,8", Window("a.mp4#t=two,8"), None),
        ("a#t=1,2.mp4", Window("a#t=1,2.mp4"), None),
        ("a.mp4#t=0:02,0:05", Window("a.mp4", 2, 5), "a.mp4#t=2,5"),
        ("a.mp4#t=00:00:02,00:00:05.5", Window("a.mp4", 2, 5.5), "a.mp4#t=2,5.5"),
        ("a.mp4#t=npt:2,5", Window("a.mp4", 2, 5), "a.mp4#t=2,5"),
        ("a.mp4#t=npt:1:02:03", Window("a.mp4", 3723), "a.mp4#t=3723"),
        ("a.mp4#t=0:75", Window("a.mp4#t=0:75"), None),
        ("a.mp4#t=1:75:00", Window("a.mp4#t=1:75:00"), None),
        ("a.mp4#t=2,", Window("a.mp4#t=2,"), None),
        ("a.mp4#t=5,2", Window("a.mp4", 5, 2), None),
        ("a.mp4#v=1", Window("a.mp4", stream=1), None),
        ("a.mp4#v=1&t=2,5", Window("a.mp4", 2, 5, 1), "a.mp4#t=2,5&v=1"),
        ("a.mp4#v=one", Window("a.mp4#v=one"), None),
        ("a b#1.mp4#t=1,2", Window("a b#1.mp4", 1, 2), None),
        ("file:///a/b%20c.mp4#t=1,2", Window("/a/b c.mp4", 1, 2), "/a/b c.mp4#t=1,2"),
        ("file://localhost/a.mp4", Window("/a.mp4"), "/a.mp4"),
    ],
)
def test_a_path_is_read_and_written(path: str, window: Window, written: str | None) -> None:
    assert Window.parse(path) == window
    assert str(window) == (written or path)
    assert Window.parse(str(window)) == window


def test_a_file_with_the_exact_name_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4#t=0,1"
    assert Window.resolve(path) == Window(str(tmp_path / "clip.mp4"), 0, 1)
    path.touch()
    assert Window.resolve(path) == Window(str(path))
    assert Window.parse(path) == Window(str(tmp_path / "clip.mp4"), 0, 1), "as text it is a part"


@pytest.mark.parametrize(
    ("end", "problem"),
    [
        ("#t=5,2", r"the part #t=5,2 of .*clip\.mp4 ends before it starts: write the start first"),
        ("#t=two,8", r"#t=two,8 is not a part of .*clip\.mp4: write seconds"),
        ("#t=0:75", r"#t=0:75 is not a part of .*clip\.mp4: write seconds"),
        ("#t=" + "9" * 5000, r"before the part starts"),
    ],
)
def test_a_wrong_part_is_explained(tmp_path: Path, end: str, problem: str) -> None:
    clip = write_video(tmp_path / "clip.mp4", [0, 0.1])
    with pytest.raises(VideoError, match=problem):
        open_video(f"{clip}{end}")


def test_a_file_url_is_a_path_and_other_addresses_are_refused(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a b#c.mp4", [0, 0.1])
    assert open_video(clip.as_uri()).frames == 2
    assert absolute_path(f"{clip.as_uri()}#t=1,2") == f"{clip}#t=1,2"
    for url in ("https://example.org/a.mp4", "file://elsewhere/a.mp4", "rtsp://example.org/1"):
        assert absolute_path(url) == url
        with pytest.raises(
            VideoError, match=r"is an address .*, and only files are opened: download the video"
        ):
            open_video(url)


def test_a_part_of_a_part() -> None:
    inner = Window("a.mp4", 4, 16).part(2, 5)
    assert inner == Window("a.mp4", 6, 9)
    assert not inner.whole
    assert Window.resolve(inner) is inner
    assert Window("a.mp4", 4, 16, 1).part(2, 5) == Window("a.mp4", 6, 9, 1)
