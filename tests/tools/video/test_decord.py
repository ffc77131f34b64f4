"""Decoding by decord: the same frames as PyAV's, only for suitable files, and the config key."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tools.videos import number, write_video

from act2see.errors import ConfigError
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.tools.video.reader import Decoder, VideoFile, open_video

EVEN = [i / 30 for i in range(60)]
DECODERS: list[Decoder] = ["decord", "pyav"]


def numbers(video: VideoFile, indices: list[int]) -> list[int]:
    """Return the numbers that frames show."""
    return [number(pixels) for _, _, pixels in video.read(indices)]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_both_decoders_give_the_same_frames(tmp_path: Path, pixel_format: str) -> None:
    path = write_video(tmp_path / "clip.mp4", EVEN, pixel_format=pixel_format)
    ours, theirs = (list(open_video(path, decoder=d).read(range(0, 60, 7), (64, 48))) for d in DECODERS)
    assert len(ours) == 9
    for (i, seconds, pixels), (j, other_seconds, other) in zip(ours, theirs, strict=True):
        assert (i, seconds) == (j, other_seconds)
        assert np.abs(pixels.astype(int) - other.astype(int)).mean() < 1


def test_decord_is_used_only_for_files_that_it_reads_correctly(tmp_path: Path) -> None:
    """For other files, decord2 3.4 silently returns wrong frames."""
    closed = write_video(tmp_path / "closed.mp4", EVEN)
    opened = write_video(tmp_path / "open.mp4", EVEN, options={"x264-params": "open-gop=1"})
    stream = write_video(tmp_path / "stream.ts", EVEN)
    mirrored = write_video(tmp_path / "mirrored.mp4", EVEN, mirror=True)
    for path in (closed, opened, stream, mirrored):
        video = open_video(path, decoder="decord")
        assert video.decoder == ("decord" if path == closed else "pyav")
        assert numbers(video, [47, 49, 51]) == [47, 49, 51]
    assert open_video(closed).decoder == "pyav"


@pytest.mark.parametrize("side", [16, 32, 48, 96])
def test_sizes_at_which_decord_fails_are_read_by_pyav(tmp_path: Path, side: int) -> None:
    video = open_video(write_video(tmp_path / "clip.mp4", EVEN[:14]), decoder="decord")
    frames = list(video.read([0, 13], (side, side)))
    assert all(pixels.shape == (side, side, 3) for _, _, pixels in frames)
    assert [number(pixels) for _, _, pixels in frames] == [0, 13]


def config(tmp_path: Path, **changes: Any) -> Any:
    return load_config("micro", cache=str(tmp_path / "cache"), **changes)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_config_key_chooses_the_decoder(tmp_path: Path, decoder: Decoder) -> None:
    path = str(write_video(tmp_path / "clip.mp4", EVEN))
    resources = build_resources(config(tmp_path, video={"decoder": decoder}))
    library = resources.finder.library
    assert library.decoder == decoder
    frames = library.pictures(path, [0, 47])
    assert [number(resources.store(frame)) for frame in frames] == [0, 47]


def test_pictures_of_the_two_decoders_are_kept_apart(tmp_path: Path) -> None:
    path = str(write_video(tmp_path / "clip.mp4", EVEN))
    for decoder in DECODERS:
        library = build_resources(config(tmp_path, video={"decoder": decoder})).finder.library
        assert library.probe(path).taken == {}
        library.pictures(path, [0])
    again = build_resources(config(tmp_path)).finder.library
    assert list(again.probe(path).taken) == [0]
    assert again.opened == 0


def test_another_decoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"video\.decoder: .*'pyav' or 'decord'"):
        config(tmp_path, video={"decoder": "opencv"})


def test_the_default_decoder_changes_no_hash(tmp_path: Path) -> None:
    default = config(tmp_path).hash
    assert config(tmp_path, video={"decoder": "pyav"}).hash == default
    assert config(tmp_path, video={"decoder": "decord"}).hash != default


def test_decord_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "act2see.tools.video.decord.find_spec",
        lambda name: None if name == "decord" else find_spec(name),
    )
    with pytest.raises(ConfigError, match=r"not installed: pip install 'act2see\[decord\]'"):
        build_resources(config(tmp_path, video={"decoder": "decord"}))
    with pytest.raises(ConfigError, match=r"act2see\[decord\]"):
        open_video(write_video(tmp_path / "clip.mp4", EVEN[:3]), decoder="decord")
    build_resources(config(tmp_path))
