"""Parsing and writing paths of videos and of their parts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from act2see.tools.video.window import Window


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


def test_a_part_of_a_part() -> None:
    inner = Window("a.mp4", 4, 16).part(2, 5)
    assert inner == Window("a.mp4", 6, 9)
    assert not inner.whole
    assert Window.resolve(inner) is inner
