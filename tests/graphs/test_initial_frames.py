"""The choice of initial frames: as many as fit, spread evenly, or where the picture changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from act2see.graphs.initial_frames import choose_frames
from act2see.graphs.sections import ViewConfig
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore, Pixels

FPS = 4
CHANGES = ViewConfig(fps=1, max_frames=12, max_side=96, choose="changes")


def write(path: Path, pictures: list[Pixels]) -> str:
    """Write a video that shows each picture for a second."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for _ in range(FPS):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def pictures_of(states: list[int], noise: float = 0.0) -> list[Pixels]:
    """Return a picture for each state: the state's number of white squares on grey, with noise."""
    random = np.random.default_rng(0)
    made = []
    for state in states:
        picture = np.full((96, 96, 3), 60.0)
        for n in range(state):
            row, column = divmod(n, 6)
            picture[row * 16 : row * 16 + 12, column * 16 : column * 16 + 12] = 230
        made.append(np.clip(picture + random.normal(0, noise, picture.shape), 0, 255).astype(np.uint8))
    return made


def library_in(folder: Path) -> VideoLibrary:
    return VideoLibrary(folder / "cache", FrameStore(folder / "frames"), 96)


def seconds_of(library: VideoLibrary, view: ViewConfig, video: str) -> list[int]:
    return [number // FPS for number in choose_frames(library, view, video)]


@pytest.mark.parametrize("length", [3, 12])
def test_a_short_video_has_a_frame_each_second(tmp_path: Path, length: int) -> None:
    video = write(tmp_path / "v.mp4", pictures_of([1] * length))
    assert seconds_of(library_in(tmp_path), CHANGES, video) == list(range(length))


@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_the_frames_of_a_long_video_are_its_changes(tmp_path: Path, noise: float) -> None:
    states = [1] * 20 + [2] + [1] * 9 + [5] * 10
    video = write(tmp_path / "v.mp4", pictures_of(states, noise))
    assert seconds_of(library_in(tmp_path), CHANGES, video) == [0, 20, 21, 30, 39]


def test_evenly_is_the_default(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", pictures_of([1] * 23))
    view = ViewConfig(fps=1, max_frames=12, max_side=96)
    assert seconds_of(library_in(tmp_path), view, video) == list(range(0, 23, 2))


def test_of_too_many_changes_the_largest_are_kept(tmp_path: Path) -> None:
    levels = np.full(20, 100)
    levels[1::2] = 140
    levels[7], levels[13] = 250, 220
    pictures = [np.full((96, 96, 3), level, np.uint8) for level in levels]
    video = write(tmp_path / "v.mp4", pictures)
    view = CHANGES.model_copy(update={"max_frames": 6})
    assert seconds_of(library_in(tmp_path), view, video) == [0, 7, 8, 13, 14, 19]


def test_changes_are_found_once(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", pictures_of([1] * 10 + [3] * 10))
    library = library_in(tmp_path)
    chosen = choose_frames(library, CHANGES, video)
    opened = library.opened
    assert choose_frames(library, CHANGES, video) == chosen
    library.pictures(video, chosen)
    assert library.opened == opened, "the pictures are in the store already"
    later = library_in(tmp_path)
    assert choose_frames(later, CHANGES, video) == chosen
    assert later.opened == 0
    fewer = CHANGES.model_copy(update={"max_frames": 2})
    assert seconds_of(later, fewer, video) == [0, 19]


def test_one_frame_is_the_first(tmp_path: Path) -> None:
    video = write(tmp_path / "v.mp4", pictures_of([1, 2, 3]))
    assert seconds_of(library_in(tmp_path), CHANGES.model_copy(update={"max_frames": 1}), video) == [0]
