"""What fails is the machine, not the file: such an error is said, and nothing of it is kept."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from benchmarks.faults.parts import in_av, wrong_vectors
from benchmarks.faults.scene import OTHERS, make_parts, write_scene
from benchmarks.fuzz.container_files import make_containers, mutate_container
from tests.tools.video.test_identity import library_in, shown
from tests.tools.videos import write_video

from act2see.errors import StoreError, VideoError
from act2see.tools.video.packets import is_of_file
from act2see.tools.video.reader import open_video
from act2see.trace.folder import frames_of

TIMES = [n / 10 for n in range(12)]
Make = Callable[[], Exception]


def no_memory() -> Exception:
    error: Exception = av.error.OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "clip.mp4")
    return error


def invalid() -> Exception:
    [code] = [code for code, kind in av.error.classes.items() if kind is av.error.InvalidDataError]
    return av.error.InvalidDataError(code, "invalid data", "clip.mp4")


def no_permission() -> Exception:
    error: Exception = av.error.PermissionError(errno.EPERM, os.strerror(errno.EPERM), "clip.mp4")
    return error


def reached() -> None:
    pass


def test_errors_of_the_machine_and_of_the_file_are_told_apart() -> None:
    made: Any = [no_memory(), invalid(), no_permission()]
    assert [is_of_file(error) for error in made] == [False, True, True]


@pytest.mark.parametrize("step", ["open", "demux", "decode"])
def test_what_ffmpeg_calls_not_permitted_is_damage(tmp_path: Path, step: str) -> None:
    video = write_video(tmp_path / "clip.avi", TIMES, codec="mpeg4")
    with (
        in_av(None, reached, step=step, make=no_permission, at=1, lasting=True),
        pytest.raises(VideoError) as caught,
    ):
        open_video(video)
    assert "ask again" not in str(caught.value)


@pytest.mark.parametrize("step", ["open", "demux", "decode", "reformat"])
def test_a_frame_that_lacked_memory_does_not_count_as_damaged(tmp_path: Path, step: str) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)
    library = library_in(tmp_path / "cache")
    with (
        in_av(None, reached, step=step, make=no_memory, at=1, lasting=True),
        pytest.raises(VideoError, match="ask again"),
    ):
        shown(library, video, 3)
    assert shown(library, video, 3) == 3
    assert shown(library_in(tmp_path / "cache"), video, 3) == 3


def test_a_frame_that_does_not_come_once_comes_at_a_second_try(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)
    library = library_in(tmp_path / "cache")
    library.probe(str(video))
    with in_av(None, reached, step="decode", make=invalid, at=4, lasting=False):
        assert [shown(library, video, n) for n in (3, 4)] == [3, 4]


@pytest.mark.parametrize("error", [ValueError("an odd value"), MemoryError()])
@pytest.mark.parametrize("step", ["open", "demux", "reformat"])
def test_errors_of_pyav_itself_are_ours(tmp_path: Path, step: str, error: Exception) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)
    with (
        in_av(None, reached, step=step, make=partial(type(error), *error.args), at=1, lasting=True),
        pytest.raises(VideoError, match="ask again"),
    ):
        shown(library_in(tmp_path / "cache"), video)


def test_a_file_that_goes_after_it_was_opened_is_a_video_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)

    def refuse(*arguments: Any, **options: Any) -> Any:
        video.unlink(missing_ok=True)
        raise invalid()

    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match="cannot be read"):
        open_video(video)


def test_a_mutated_file_without_a_first_frame_is_a_video_error(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    data = make_containers(("mkv",))["mkv"]
    path.write_bytes(mutate_container(data, random.Random("1 74")))
    try:
        video = open_video(path)
    except VideoError:
        return
    assert [frame[0] for frame in video.read([0])] == [0]


@pytest.mark.parametrize("change", ["time", "picture", "no checksum"])
def test_cached_facts_that_were_changed_are_read_again(tmp_path: Path, change: str) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)
    library = library_in(tmp_path / "cache")
    assert [shown(library, video, n) for n in (2, 3)] == [2, 3]
    [file] = (tmp_path / "cache" / "videos").glob("*/*.json")
    facts = json.loads(file.read_text())
    if change == "time":
        facts["seconds"][3] = 0.9
    elif change == "picture":
        facts["taken"]["3"] = facts["taken"]["2"]
    else:
        del facts["check"]
    file.write_text(json.dumps(facts))
    library = library_in(tmp_path / "cache")
    [ref] = library.pictures(str(video), [3])
    assert (shown(library, video, 3), ref.seconds) == (3, 0.3)


def test_a_saved_picture_that_was_replaced_is_not_shown(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4", TIMES)
    library = library_in(tmp_path / "cache")
    first, second = library.pictures(str(video), [0, 1])
    (tmp_path / "frames").mkdir()
    for ref in (first, second):
        library.store.export(ref.digest, tmp_path / "frames" / f"000-{ref.digest}.png")
    source = frames_of(tmp_path, library.store)
    assert source(second).tolist() == library.store(second).tolist()
    (tmp_path / "frames" / f"000-{first.digest}.png").replace(
        tmp_path / "frames" / f"000-{second.digest}.png"
    )
    with pytest.raises(StoreError, match="is not the one that was saved"):
        source(second)


def test_vectors_that_were_no_numbers_once_are_encoded_again(tmp_path: Path) -> None:
    video = write_scene(tmp_path / "clip.mp4", OTHERS[0])
    with wrong_vectors(None, reached, step="frames", kind="NaN", at=1, lasting=False):
        index = make_parts(tmp_path / "cache")[1].resources.finder.index(video)
    whole = make_parts(tmp_path / "other")[1].resources.finder.index(video)
    phrase = np.ones((1, 3), np.float32) / np.sqrt(np.float32(3))
    assert index.scores(phrase, len(index)).tolist() == whole.scores(phrase, len(index)).tolist()
