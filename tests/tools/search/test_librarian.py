"""Ranking the videos of a folder, with the encoder of micro and real clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.micro.questions import ToolCall, make_item
from act2see.micro.world import write_clip
from act2see.tools.search.finder import Finder
from act2see.tools.search.librarian import search_folder
from act2see.tools.video.folders import Folders

# Clips without a guest or a blink of this shape, and one with the guest out of every whole second.
GUEST = next(i for n in range(50) if (i := make_item("observe", n, "test")).kind == "guest" and not i.in_view)
QUERY = next(step.query for step in GUEST.chain if isinstance(step, ToolCall))
SHAPE = GUEST.clip.short[0].piece.shape
OTHERS = [i for n in range(60) if (i := make_item("imagine", n, "test")).clip.slow[0][1].find(SHAPE) is None][
    :2
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, item in (("a.mp4", OTHERS[0]), ("deep/b.mp4", GUEST), ("c.mp4", OTHERS[1])):
        write_clip(item.clip, folder / name)
    (folder / "d.mp4").write_bytes(b"no video")
    outside = tmp_path_factory.mktemp("outside")
    write_clip(GUEST.clip, outside / "z.mp4")
    (folder / "z.mp4").symlink_to(outside / "z.mp4")
    return folder


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Finder:
    return build_resources(load_config("micro", cache=str(tmp_path_factory.mktemp("cache")))).finder


def test_the_video_that_shows_it_comes_first(finder: Finder, folder: Path) -> None:
    steps = []
    found = search_folder(finder, Folders([folder]), QUERY, progress=lambda *step: steps.append(step))
    assert found.ranked[0].name == "deep/b.mp4"
    assert [r.match for r in found.ranked] == [True, False, False]
    guest = GUEST.clip.short[0]
    assert guest.start / 12 - 0.1 <= found.ranked[0].hits[0].seconds <= guest.stop / 12
    assert found.searched == 3
    (skipped,) = found.skipped  # the broken file is named; the link that leads out is not listed
    assert skipped[0] == "d.mp4"
    assert [(done, of) for _, done, of in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert str(found).splitlines()[1].startswith("1. deep/b.mp4: ")
    assert "Skipped d.mp4" in str(found)


def test_a_second_search_opens_nothing_and_is_bounded(finder: Finder, folder: Path) -> None:
    search_folder(finder, Folders([folder]), QUERY)
    before = finder.encoded
    found = search_folder(
        finder, Folders([folder]), "the board tipped to the left", count=1, frames=1, max_videos=2
    )
    assert finder.encoded == before
    assert (len(found.ranked), len(found.ranked[0].hits), found.limited) == (1, 1, True)
    assert "more videos than are searched" in str(found)
