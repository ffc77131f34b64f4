"""The `zoom` tool: parsing of queries, and parts that are cut from the video, not from shown frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tests.graphs.doubles import NoEncoder
from tests.tools.videos import write_video

from act2see.tools.base import Resources, ToolContext
from act2see.tools.frames import Cropped, FrameRef, Generated
from act2see.tools.queries import find_frame, find_times
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import open_video
from act2see.tools.video.store import FrameStore
from act2see.tools.zoom import EXAMPLE, Zoom, box_within, parse_box, pixel_box

WIDTH, HEIGHT = 640, 480


@pytest.fixture
def video(tmp_path: Path) -> str:
    """Four frames a second for three seconds, larger than what is shown of it."""
    return str(write_video(tmp_path / "clip.mp4", [i / 4 for i in range(12)], width=WIDTH, height=HEIGHT))


@pytest.fixture
def resources(tmp_path: Path) -> Resources:
    store = FrameStore(tmp_path / "frames")
    return Resources(
        store, Finder(VideoLibrary(tmp_path / "cache", store, 96), NoEncoder(), tmp_path / "cache")
    )  # type: ignore[arg-type]


def zoom(resources: Resources, **options: int) -> Zoom:
    return Zoom("zoom", Zoom.Options(**options), resources)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("upper left of the", (0, 0, 0.5, 0.5)),
        ("the bottom right corner of", (0.5, 0.5, 1, 1)),
        ("left half of", (0, 0, 0.5, 1)),
        ("Lower third", (0, 2 / 3, 1, 1)),
        ("middle", (0.25, 0.25, 0.75, 0.75)),
        ("upper middle of the frame", (0.25, 0, 0.75, 0.5)),
        ("center third", (1 / 3, 1 / 3, 2 / 3, 2 / 3)),
        ("the whole frame", (0, 0, 1, 1)),
        ("", (0, 0, 1, 1)),
        ("0.2,0.1,0.6,0.5 of", (0.2, 0.1, 0.6, 0.5)),
        ("of [200, 100, 600, 500]", (0.2, 0.1, 0.6, 0.5)),
        ("(.2,.1),(.6,.5)", (0.2, 0.1, 0.6, 0.5)),
        ("20% 10% 60% 50%", (0.2, 0.1, 0.6, 0.5)),
        ("the red sign", None),
        ("left and right", None),
        ("0.2,0.1,0.6", None),
        ("0.6,0.1,0.2,0.5", None),
        ("0.2,0.1,0.2,0.5", None),
        ("0,0,2000,2000", None),
        ("0.2,0.1,0.6,1500", None),
        ("0.1,0.2,0.3,0.4,0.5", None),
    ],
)
def test_regions(text: str, box: tuple[float, ...] | None) -> None:
    found = parse_box(text)
    assert found == (pytest.approx(box) if box else None)


@given(st.text("0123456789.,%[]() leftrightuppermiddlethirdofthe", max_size=60))
def test_any_text_is_a_box_in_the_frame_or_none(text: str) -> None:
    box = parse_box(text)
    if box:
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1


SHARE = st.integers(0, 1000).map(lambda n: n / 1000)


@settings(max_examples=300)
@given(SHARE, SHARE, SHARE, SHARE, st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 64))
def test_a_pixel_box_contains_the_box_and_stays_in_the_frame(
    a: float, b: float, c: float, d: float, width: int, height: int, least: int
) -> None:
    box = min(a, c), min(b, d), max(a, c) + 0.001 * (a == c), max(b, d) + 0.001 * (b == d)
    box = (*box[:2], min(box[2], 1.0), min(box[3], 1.0))
    left, top, right, bottom = pixel_box(box, width, height, least)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left >= min(least, width)
    assert bottom - top >= min(least, height)
    assert left <= box[0] * width + 1e-3 or right == width
    assert right >= box[2] * width - 1e-3


def test_times() -> None:
    assert find_times("upper left of 3.7 seconds") == ([3.7], "upper left of  ")
    assert find_times("<3.7 seconds>")[0] == [3.7]
    assert find_times("at 1:03.5")[0] == [63.5]
    assert find_times("1:02:03")[0] == [3723.0]
    assert find_times("from 2 to 5.5 s")[0] == [2.0, 5.5]
    assert find_times("2-5 seconds")[0] == [2.0, 5.0]
    assert find_times("0.2,0.1,0.6,0.5 of the last frame")[0] == []


async def test_a_part_has_all_the_pixels_of_the_video(resources: Resources, video: str) -> None:
    shown = resources.finder.library.pictures(video, [0, 4, 8])
    assert (shown[0].width, shown[0].height) == (96, 72)
    result = await zoom(resources).call("upper left of 1 second", ToolContext(video, shown))
    [part] = result.frames
    [(_, _, whole)] = open_video(video).read([4])
    assert np.array_equal(resources.store.get(part.digest), whole[:240, :320])
    assert (part.width, part.height, part.seconds) == (320, 240, 1.0)
    assert part.provenance == Cropped(query="upper left of 1 second", source=shown[1], box=(0, 0, 0.5, 0.5))
    assert not part.imagined
    assert part.part == "from 0 to 50 % across, from 0 to 50 % down"
    assert FrameRef.model_validate_json(part.model_dump_json()) == part


async def test_a_part_of_a_part_is_a_part_of_the_whole(resources: Resources, video: str) -> None:
    shown = resources.finder.library.pictures(video, [0, 4])
    [first] = (await zoom(resources).call("right half of the last frame", ToolContext(video, shown))).frames
    [second] = (
        await zoom(resources).call("0.5,0.5,1,1 of the last frame", ToolContext(video, [*shown, first]))
    ).frames
    [(_, _, whole)] = open_video(video).read([4])
    assert isinstance(second.provenance, Cropped)
    assert second.provenance.source == shown[1]
    assert second.provenance.box == (0.75, 0.5, 1, 1)
    assert np.array_equal(resources.store.get(second.digest), whole[240:, 480:])
    assert box_within((0.2, 0.2, 0.6, 0.6), (0, 0, 1, 1)) == pytest.approx((0.2, 0.2, 0.6, 0.6))


async def test_a_part_of_an_imagined_frame_is_cut_from_the_stored_picture(
    resources: Resources, video: str
) -> None:
    [real] = resources.finder.library.pictures(video, [4])
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    imagined = resources.store.ref(
        pixels, 1.0, Generated(prompt="x", anchor=real, seed=0, strength=0.5, model="m")
    )
    for query in ("left half of the last frame", "left half of the imagined frame", "left half of frame 2"):
        [part] = (await zoom(resources).call(query, ToolContext(video, [real, imagined]))).frames
        assert np.array_equal(resources.store.get(part.digest), pixels[:, :40])
        assert part.imagined
    # Times are times of the video.
    [part] = (
        await zoom(resources).call("left half of 1.0 seconds", ToolContext(video, [real, imagined]))
    ).frames
    assert not part.imagined


@pytest.mark.parametrize(
    ("query", "which"),
    [
        ("the last frame", 2),
        ("first frame", 0),
        ("frame 2", 1),
        ("frame 2, upper left", 1),
        ("1.3 s", 1),
        ("0:02", 2),
        ("upper left", 2),
        (
            "2.9 seconds",
            "No frame at 2.9 seconds has been shown; the nearest are at 0.0, 1.0 and 2.0 seconds.",
        ),
        ("frame 4", "There is no frame 4: 3 have been shown."),
        ("the imagined frame", "No imagined frame has been shown."),
    ],
)
def test_a_query_names_a_frame(query: str, which: int | str) -> None:
    shown = [FrameRef(digest=f"{i:032x}", width=9, height=9, seconds=float(i)) for i in range(3)]
    found, _ = find_frame(query, shown)
    assert found == (shown[which] if isinstance(which, int) else which)


async def test_an_unreadable_query_is_answered_with_an_example(resources: Resources, video: str) -> None:
    shown = resources.finder.library.pictures(video, [4])
    result = await zoom(resources).call("the red sign", ToolContext(video, shown))
    assert (result.frames, result.note) == ((), EXAMPLE)
    for example in ("upper left of 1.0 seconds", "0.2,0.1,0.6,0.5 of the last frame"):
        assert (await zoom(resources).call(example, ToolContext(video, shown))).frames


async def test_an_agent_without_shown_frames_may_name_any_time(resources: Resources, video: str) -> None:
    [part] = (await zoom(resources).call("left half of 2.5 s", ToolContext(video))).frames
    assert part.seconds == 2.5
    assert (
        await zoom(resources).call("left half", ToolContext(video))
    ).note == "No frame has been shown yet."


async def test_sizes_are_limited(resources: Resources, video: str) -> None:
    shown = resources.finder.library.pictures(video, [4])
    [part] = (await zoom(resources, max_side=100).call("whole", ToolContext(video, shown))).frames
    assert (part.width, part.height) == (100, 75)
    [part] = (await zoom(resources).call("0.999,0.999,1,1", ToolContext(video, shown))).frames
    assert (part.width, part.height) == (32, 32)
    assert isinstance(part.provenance, Cropped)
    assert part.provenance.box == (0.95, pytest.approx(0.9333, abs=1e-4), 1, 1)
