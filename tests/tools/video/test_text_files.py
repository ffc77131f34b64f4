"""Text is no video, whatever the name of its file: FFmpeg would draw it as pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.video.test_identity import library_in
from tests.tools.videos import write_video

from act2see.errors import VideoError

TEXT = b"user alice, password: hunter2\n" * 30
ENDS = ["txt", "nfo", "asc", "diz", "ans", "ice", "art", "vt", "bin", "xb", "idf", "adf", "md", "csv", "env"]
XBIN = b"XBIN\x1a" + bytes([80, 0, 25, 0, 16, 0]) + TEXT * 5  # 80 x 25 characters of 16 lines
IDF = b"\x041.4\0\0\0\0\x4f\0\x15\0" + TEXT * 8


@pytest.mark.parametrize("content", [TEXT, XBIN, IDF], ids=["text", "xbin", "idf"])
def test_text_is_no_video_under_any_name(tmp_path: Path, content: bytes) -> None:
    library = library_in(tmp_path / "cache")
    for end in ENDS:
        path = tmp_path / f"notes.{end}"
        path.write_bytes(content)
        with pytest.raises(VideoError, match="is not a video that can be read"):
            library.probe(path)


def test_a_film_is_one_under_the_name_of_a_text(tmp_path: Path) -> None:
    library = library_in(tmp_path / "cache")
    data = write_video(tmp_path / "clip.mp4", [n / 10 for n in range(4)]).read_bytes()
    for end in ENDS:
        path = tmp_path / f"notes.{end}"
        path.write_bytes(data + end.encode())  # different files, so that each is opened
        assert library.probe(path).info.frames == 4
