"""The `clip` tool: the frames around a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.graphs.doubles import NoEncoder
from tests.tools.videos import number, write_video

from act2see.tools.base import Resources, ToolContext
from act2see.tools.clip import EXAMPLE, ClipTool
from act2see.tools.frames import Taken
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore


@pytest.fixture
def video(tmp_path: Path) -> str:
    """Ten frames a second for six seconds."""
    return str(write_video(tmp_path / "clip.mp4", [i / 10 for i in range(60)]))


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    store = FrameStore(tmp_path / "frames")
    return Resources(
        store, Finder(VideoLibrary(tmp_path / "cache", store, 96), NoEncoder(), tmp_path / "cache")
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "options", "seconds"),
    [
        ("3 seconds", {}, [2.2, 2.7, 3.2, 3.7]),
        ("around 3.0 s", {"count": 3, "spacing": 0.2}, [2.8, 3.0, 3.2]),
        ("0:03", {"count": 1}, [3.0]),
        ("2 to 5 seconds", {}, [2.0, 3.0, 4.0, 5.0]),
        ("5 s to 2 s", {}, [2.0, 3.0, 4.0, 5.0]),
        ("0 s", {}, [0.0, 0.5, 1.0, 1.5]),  # as many frames as in the middle
        ("5.9 seconds", {"count": 3}, [5.0, 5.5, 5.9]),
        ("4 to 90 seconds", {"count": 3}, [4.0, 5.0, 5.9]),
        ("1 s", {"count": 4, "spacing": 0.04}, [0.9, 1.0]),  # a frame comes once
        ("1 s", {"count": 9, "spacing": 60}, [0.0, 0.7, 1.5, 2.2, 3.0, 3.7, 4.5, 5.2, 5.9]),
    ],
)
async def test_the_frames_around_a_time(
    resources: Resources, video: str, query: str, options: dict[str, float], seconds: list[float]
) -> None:
    result = await ClipTool("clip", ClipTool.Options.model_validate(options), resources).call(
        query, ToolContext(video)
    )
    assert [f.seconds for f in result.frames] == pytest.approx(seconds, abs=0.051)
    assert [number(resources.store.get(f.digest)) for f in result.frames] == [
        round(f.seconds * 10) for f in result.frames
    ]
    assert {f.provenance for f in result.frames} == {Taken(query=query)}


async def test_a_frame_that_was_shown_is_a_time_too(resources: Resources, video: str) -> None:
    shown = resources.finder.library.pictures(video, [10, 30])
    tool = ClipTool("clip", ClipTool.Options(count=1), resources)
    for query, seconds in (("the last frame", 3.0), ("frame 1", 1.0)):
        assert [f.seconds for f in (await tool.call(query, ToolContext(video, shown))).frames] == [seconds]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("the circle blinks", EXAMPLE),
        ("the last frame", EXAMPLE),
        ("7 seconds", "The video ends at 6.0 seconds."),
    ],
)
async def test_a_query_without_a_time_is_answered_with_an_example(
    resources: Resources, video: str, query: str, says: str
) -> None:
    result = await ClipTool("clip", ClipTool.Options(), resources).call(query, ToolContext(video))
    assert (result.frames, result.note) == ((), says)
