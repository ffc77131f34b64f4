"""Videos that ask for much memory by the numbers in their headers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.videos import write_video

from act2see.errors import VideoError
from act2see.tools.video import limits, opening
from act2see.tools.video.limits import check_size, choose_threads, limit_packets
from act2see.tools.video.reader import open_video


def test_large_pictures_get_fewer_threads() -> None:
    assert [choose_threads(w, h, 8) for w, h in ((192, 192), (3840, 2160), (7680, 4320), (8192, 4320))] == [
        8,
        8,
        2,
        1,
    ]
    assert choose_threads(192, 192, 3) == 3
    assert choose_threads(0, 0) >= 1


def test_the_largest_common_size_is_read_and_a_larger_one_refused() -> None:
    check_size("clip.mp4", 8192, 4320)
    with pytest.raises(VideoError, match=r"clip\.mp4 has pictures of 16384 x 8192 pixels.*make it smaller"):
        check_size("clip.mp4", 16384, 8192)


def test_a_video_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", [i / 10 for i in range(20)])
    assert open_video(path).frames == 20
    monkeypatch.setattr(limits, "MAX_FRAMES", 10)
    path.touch()
    with pytest.raises(VideoError, match="more than 10 frames"):
        open_video(path)
    monkeypatch.setattr(limits, "MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="has pictures of 128 x 96 pixels"):
        open_video(path)


def test_packets_are_counted() -> None:
    assert list(limit_packets("x", range(3))) == [0, 1, 2]
    assert opening.MAX_PIXELS == limits.MAX_PIXELS
