"""Search in a real clip: its index is built once, cached, and built again if it is damaged."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from act2see.errors import StoreError
from act2see.tools.base import Resources
from act2see.tools.frames import Video
from act2see.tools.video.library import ProbedVideo
from act2see.tools.video.reader import frames_at

Make = Callable[..., Resources]
QUERY = "the circle blinks"

# An encoder without weights, so that a process of its own starts quickly.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from act2see.tools.video.library import VideoLibrary
from act2see.tools.search.finder import Finder
from act2see.tools.video.store import FrameStore

class Means:
    id, size, no_match = "means", 48, 0.0
    def frames(self, pixels):
        x = np.stack([p.reshape(-1, 3).mean(0) for p in pixels])[:, None] + 1.0
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float16)
    def phrases(self, texts):
        return np.full((len(texts), 3), 3 ** -0.5, np.float32)

cache = Path(sys.argv[2])
finder = Finder(VideoLibrary(cache, FrameStore(cache / "frames"), 96), Means(), cache)
print(finder.find(sys.argv[1], "x").hits[0].frame, finder.encoded)
"""


def test_hits_are_the_best_frames(resources: Make, clip: str) -> None:
    finder = resources().finder
    index = finder.index(clip)
    assert index.frames.tolist() == list(range(0, 72, 4))
    phrases = ["the circle blinks", "a lit circle"]
    found = finder.find(clip, phrases, k=4)
    scores = index.scores(finder.encoder.phrases(phrases))
    assert [h.frame for h in found.hits] == [
        int(index.frames[i]) for i in np.argsort(-scores, kind="stable")[:4]
    ]
    assert found.best == pytest.approx(scores.max())
    assert found.index_id == index.id == finder.index_id(clip)
    best = found.hits[0]
    assert best.seconds == pytest.approx(best.frame / 12, abs=1e-3)
    assert len(finder.find(clip, QUERY, k=99).hits) == 18


def test_frames_at_skipped_times_are_left_out(resources: Make, clip: str) -> None:
    finder = resources().finder
    first = finder.find(clip, QUERY).hits[0]
    second = finder.find(clip, QUERY, k=2).hits[1]
    assert finder.find(clip, QUERY, skip=[first.seconds]).hits == (second,)
    everything = finder.index(clip).seconds.tolist()
    assert finder.find(clip, QUERY, skip=everything).hits == ()


def test_segments_leave_skipped_frames_out(resources: Make, clip: str) -> None:
    finder = resources().finder
    first = finder.find(clip, QUERY, segments=True, threshold=-1.0).hits
    assert len(first) == 1
    again = finder.find(clip, QUERY, segments=True, threshold=-1.0, skip=[first[0].seconds]).hits
    assert again != first
    assert finder.find(clip, QUERY, segments=True, threshold=0.99).hits == ()


def test_a_second_question_opens_no_video_and_encodes_no_frame(resources: Make, clip: str) -> None:
    one = resources()
    found = one.finder.find(clip, QUERY)
    frames = one.finder.library.pictures(clip, [h.frame for h in found.hits])
    assert one.finder.encoded == 18
    two = resources()
    again = two.finder.find(clip, QUERY)
    assert again == found
    assert two.finder.library.pictures(clip, [h.frame for h in again.hits]) == frames
    assert two.store.get(frames[0].digest).shape == (96, 96, 3)
    assert (two.finder.library.opened, two.finder.encoded) == (0, 0)


def test_another_rate_has_an_index_of_its_own(resources: Make, clip: str) -> None:
    resources().finder.index(clip)
    slow = resources(fps=1.0).finder
    assert len(slow.index(clip)) == 6
    assert slow.encoded == 6


@pytest.mark.parametrize("name", ["rows.faiss", "meta.json", "frames.npz"])
def test_a_damaged_index_is_built_again_with_a_warning(
    resources: Make, clip: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    finder = resources().finder
    found = finder.find(clip, QUERY)
    (finder.folder(found.index_id) / name).write_bytes(b"rubbish")
    again = resources().finder
    with caplog.at_level(logging.WARNING):
        assert again.find(clip, QUERY) == found
    assert again.encoded == 18
    assert "is damaged" in caplog.text
    assert "building it again" in caplog.text


def test_damaged_cached_facts_are_read_again(
    resources: Make, clip: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = resources().finder.library
    facts = one.probe(clip)
    [file] = one.cache.glob("videos/*/*.json")
    file.write_text("rubbish")
    two = resources().finder.library
    with caplog.at_level(logging.WARNING):
        assert np.allclose(two.probe(clip).seconds, facts.seconds, atol=1e-6)
    assert "reading the video again" in caplog.text
    assert two.opened == 1


def test_pictures_missing_from_the_store_are_decoded_again(resources: Make, clip: str) -> None:
    one = resources()
    [ref] = one.finder.library.pictures(clip, [8])
    Path(one.store.path(ref.digest)).unlink()
    two = resources()
    assert two.finder.library.pictures(clip, [8]) == [ref]
    assert two.store.get(ref.digest).shape == (96, 96, 3)


def test_pictures_come_in_the_order_asked_for(resources: Make, clip: str) -> None:
    clips = resources().finder.library
    refs = clips.pictures(clip, [12, 0, 12])
    assert [round(r.seconds, 2) for r in refs] == [1.0, 0.0, 1.0]
    assert refs[0] == refs[2]


def test_threads_build_one_index(resources: Make, clip: str) -> None:
    shared = resources().finder
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: shared.find(clip, QUERY), range(4)))
    assert shared.encoded == 18
    assert len({f.hits for f in found}) == 1


def test_two_finders_at_once_build_one_index(resources: Make, clip: str) -> None:
    finders = [resources().finder, resources().finder]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda f: f.find(clip, QUERY), finders))
    assert found[0] == found[1]
    assert sorted(f.encoded for f in finders) == [0, 18]


def test_two_processes_build_one_index(clip: str, tmp_path: Path) -> None:
    run = [sys.executable, "-c", SCRIPT, clip, str(tmp_path)]
    both = [
        subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    frames, encoded = zip(*(out.split() for out, _ in said), strict=True)
    assert len(set(frames)) == 1
    assert sorted(encoded) == ["0", "18"]


def test_progress_counts_up_to_all(resources: Make, clip: str) -> None:
    said: list[tuple[int, int]] = []
    resources().finder.index(clip, lambda done, total: said.append((done, total)))
    assert said == [(8, 18), (16, 18), (18, 18)]


def test_a_cache_that_cannot_be_written_says_what_to_do(resources: Make, clip: str, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file stands where the folder should be")
    with pytest.raises(StoreError, match=r"cannot write to the cache .*blocked.*ACT2SEE_CACHE"):
        resources(cache=blocked).finder.find(clip, QUERY)
    good = tmp_path / "good"
    good.mkdir()
    (good / "indexes").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot write to the cache .*ACT2SEE_CACHE"):
        resources(cache=good).finder.find(clip, QUERY)


def odd_clip(seconds: list[float], length: float) -> ProbedVideo:
    """A clip with a variable frame rate."""
    frames = len(seconds)
    info = Video(
        path="x",
        digest="0" * 32,
        seconds=length,
        width=4,
        height=4,
        frames=frames,
        fps=frames / length,
    )
    return ProbedVideo(info, np.asarray(seconds))


def test_frames_are_placed_by_timestamp() -> None:
    clip = odd_clip([0.0, 0.1, 0.2, 1.5, 1.55, 3.0], 4.0)
    assert frames_at(clip.seconds, [0.0, 0.15, 1.49, 1.5, 2.9, 99.0]) == [0, 1, 2, 3, 4, 5]
    assert frames_at(clip.seconds, [1.4995]) == [3], "a millisecond early is the frame itself"
    assert frames_at(clip.seconds, [-1.0]) == [0]
    assert clip.every(1.0) == [0, 2, 4, 5]
    assert clip.every(2.0) == [0, 2, 3, 4, 5], "a frame that stays on screen comes once"
    assert clip.spread(2) == [2, 5]
    assert clip.spread(100) == [0, 1, 2, 3, 4, 5]
    assert odd_clip([0.5, 1.0], 1.5).every(1.0) == [0, 1], "before the first frame there is the first frame"
    assert odd_clip([0.0], 0.04).every(3.0) == [0]
    dated = odd_clip([0.0, 0.1, 1.728e9, 1.728e9 + 0.1], 1.728e9 + 1)
    assert dated.every(1.0) == [0, 1, 2], "a jump to the time of day takes no memory"
