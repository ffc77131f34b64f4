"""What is done of an index survives: a killed process, the end of one, a closed finder, a damaged segment."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from act2see.errors import StoreError, VideoError
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.search.finder import Finder
from act2see.tools.search.index import FrameIndex, read_index
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore

FRAMES, BATCH = 180, 8

# The child encodes three batches. It stops in the fourth, until it is killed (`wait`), or ends (`end`).
CHILD = """
import sys, threading, time
from pathlib import Path
from tests.tools.search.test_unfinished import Means, finder_in
from act2see.tools.search.finder import Finder

class Stops(Means):
    def frames(self, pixels):
        if self.encoded == 24:
            print("three batches", flush=True)
            if sys.argv[3] == "wait":
                threading.Event().wait()
        if self.encoded > 24:
            time.sleep(0.05)  # so that the process ends before the index
        return super().frames(pixels)

finder = finder_in(Path(sys.argv[2]), Stops())
if sys.argv[3] == "wait":
    finder.index(sys.argv[1])
import asyncio
asyncio.run(finder.request(sys.argv[1]))
while finder.encoded < 24:
    time.sleep(0.002)
"""


class Means:
    """An encoder without weights."""

    id, size, no_match = "means", 48, 0.0

    def __init__(self) -> None:
        self.encoded = 0
        self.stop_at = FRAMES
        self.error: Exception | None = None

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        if self.error and self.encoded >= self.stop_at:
            raise self.error
        self.encoded += len(pixels)
        mean = np.stack([p.reshape(-1, 3).mean(0) for p in pixels])[:, None] + 1.0
        unit: NDArray[np.float16] = (mean / np.linalg.norm(mean, axis=-1, keepdims=True)).astype(np.float16)
        return unit

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(texts), 3), 3**-0.5, np.float32)


def finder_in(cache: Path, encoder: Means, *, save_every: float = 0.0) -> Finder:
    library = VideoLibrary(cache, FrameStore(cache / "frames"), 96)
    return Finder(library, encoder, cache, batch=BATCH, save_every=save_every)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video of a minute: 180 frames to index."""
    clip = make_item("blink", 0, seconds=60).clip
    return str(write_clip(clip, tmp_path_factory.mktemp("film") / "film.mp4", 96))


@pytest.fixture(scope="module")
def whole(film: str, tmp_path_factory: pytest.TempPathFactory) -> FrameIndex:
    """The index of an uninterrupted build."""
    return finder_in(tmp_path_factory.mktemp("whole"), Means()).index(film)


def vectors(index: FrameIndex) -> list[bytes]:
    return [index.rows.reconstruct(n).tobytes() for n in range(index.rows.ntotal)]


class Replaces(Means):
    """Replaces the video by another one after three batches."""

    def __init__(self, film: Path, other: bytes) -> None:
        super().__init__()
        self.film, self.other = film, other

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        if self.encoded == 3 * BATCH:
            self.film.unlink()
            self.film.write_bytes(self.other)
        return super().frames(pixels)


def check_equal(index: FrameIndex, whole: FrameIndex) -> None:
    assert index.id == whole.id
    assert index.frames.tolist() == whole.frames.tolist()
    assert index.seconds.tolist() == whole.seconds.tolist()
    assert vectors(index) == vectors(whole)


def test_video_replaced_while_indexed(film: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.mp4"
    mine.write_bytes(Path(film).read_bytes())
    other = write_clip(make_item("blink", 1, seconds=60).clip, tmp_path / "other.mp4", 96)
    with pytest.raises(VideoError, match=r"mine\.mp4 changed while it was indexed: ask again"):
        finder_in(tmp_path / "cache", Replaces(mine, other.read_bytes())).index(str(mine))
    assert not list((tmp_path / "cache" / "indexes").glob("*.parts"))
    finder = finder_in(tmp_path / "cache", Means())
    check_equal(finder.index(str(mine)), finder_in(tmp_path / "other", Means()).index(str(other)))
    check_equal(finder.index(film), finder_in(tmp_path / "first", Means()).index(film))


class Overwrites(Replaces):
    """Replaces the video as `cp -p` does: another content in the same file, of the same size and time."""

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        if self.encoded == 3 * BATCH:
            before = self.film.stat()
            self.film.write_bytes(self.other)
            os.utime(self.film, ns=(before.st_atime_ns, before.st_mtime_ns))
        return Means.frames(self, pixels)


def test_a_video_overwritten_unnoticeably_while_indexed(film: str, tmp_path: Path) -> None:
    """No frame of the other content is kept under the digest of the first, not even in a segment."""
    mine = tmp_path / "mine.mp4"
    first = Path(film).read_bytes()
    mine.write_bytes(first)
    other = write_clip(make_item("blink", 1, seconds=60).clip, tmp_path / "other.mp4", 96).read_bytes()
    other = other[: len(first)].ljust(len(first), b"\0")
    encoder = Overwrites(mine, other)
    encoder.stop_at, encoder.error = 5 * BATCH, RuntimeError("interrupted")
    with pytest.raises(VideoError, match=r"mine\.mp4 changed while it was indexed: ask again"):
        finder_in(tmp_path / "cache", encoder).index(str(mine))
    mine.write_bytes(first)
    again = finder_in(tmp_path / "cache", Means()).index(str(mine))
    check_equal(again, finder_in(tmp_path / "fresh", Means()).index(film))


def interrupted(cache: Path, film: str, *, at: int = 48, save_every: float = 0.0) -> Path:
    """Build an index until the encoder fails, and return the folder of its segments."""
    encoder = Means()
    encoder.stop_at, encoder.error = at, RuntimeError("broken")
    finder = finder_in(cache, encoder, save_every=save_every)
    with pytest.raises(RuntimeError, match="broken"):
        finder.index(film)
    [folder] = (cache / "indexes").glob("*.parts")
    return folder


def run_child(film: str, cache: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, film, str(cache), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def test_a_killed_process_loses_only_its_last_batch(film: str, whole: FrameIndex, tmp_path: Path) -> None:
    with run_child(film, tmp_path, "wait") as child:
        assert child.stdout
        assert child.stdout.readline() == "three batches\n"
        child.kill()
    again = finder_in(tmp_path, Means())
    with pytest.raises(StoreError, match="no index"):
        read_index(again.folder(whole.id), whole.id)
    said: list[tuple[int, int]] = []
    check_equal(again.index(film, lambda done, total: said.append((done, total))), whole)
    assert again.encoded == FRAMES - 3 * BATCH
    assert said[0] == (3 * BATCH, FRAMES)
    assert not list((tmp_path / "indexes").glob("*.parts"))


def test_the_end_of_a_process_stops_an_index_and_keeps_what_is_done(
    film: str, whole: FrameIndex, tmp_path: Path
) -> None:
    child = run_child(film, tmp_path, "end")
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    again = finder_in(tmp_path, Means())
    check_equal(again.index(film), whole)
    assert again.encoded <= FRAMES - 3 * BATCH


async def test_a_closed_finder_has_no_threads_and_keeps_what_is_done(
    film: str, whole: FrameIndex, tmp_path: Path
) -> None:
    import asyncio
    import threading

    reached, go_on = threading.Event(), threading.Event()

    class Waits(Means):
        def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
            if self.encoded == 16:
                reached.set()
                assert go_on.wait(30)
            return super().frames(pixels)

    encoder = Waits()
    finder = finder_in(tmp_path, encoder, save_every=1000.0)
    await finder.request(film)
    assert await asyncio.to_thread(reached.wait, 30)
    closing = asyncio.create_task(asyncio.to_thread(finder.close, 30.0))
    waiting = asyncio.create_task(finder.ready(film))
    go_on.set()
    await closing
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    finder.close(30.0)
    assert not finder.building
    again = finder_in(tmp_path, Means())
    check_equal(again.index(film), whole)
    assert again.encoded <= FRAMES - 16


def test_an_error_keeps_what_is_done(film: str, whole: FrameIndex, tmp_path: Path) -> None:
    folder = interrupted(tmp_path, film, save_every=1000.0)
    assert [file.name for file in folder.iterdir()] == ["000000.npz"]
    again = finder_in(tmp_path, Means())
    check_equal(again.index(film), whole)
    assert again.encoded == FRAMES - 48


def test_a_damaged_segment_and_those_after_it_are_encoded_again(
    film: str, whole: FrameIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    third = interrupted(tmp_path, film) / "000002.npz"
    data = bytearray(third.read_bytes())
    data[len(data) // 2] ^= 1
    third.write_bytes(data)
    again = finder_in(tmp_path, Means())
    with caplog.at_level(logging.WARNING):
        check_equal(again.index(film), whole)
    assert again.encoded == FRAMES - 2 * BATCH
    assert "000002.npz cannot be used" in caplog.text


@pytest.mark.parametrize(
    "change", [{"id": np.array("other")}, {"frames": np.arange(BATCH)}, {"seconds": None}]
)
def test_a_segment_of_another_index_is_not_used(
    film: str, whole: FrameIndex, tmp_path: Path, change: dict[str, NDArray[np.int64] | None]
) -> None:
    first = interrupted(tmp_path, film) / "000000.npz"
    with np.load(first) as saved:
        arrays = {**saved, **change}
    np.savez(first, **{key: array for key, array in arrays.items() if array is not None})
    again = finder_in(tmp_path, Means())
    check_equal(again.index(film), whole)
    assert again.encoded == FRAMES


def test_an_index_at_another_rate_has_segments_of_its_own(film: str, tmp_path: Path) -> None:
    interrupted(tmp_path, film)
    slow = finder_in(tmp_path, Means())
    slow.fps = 1.0
    assert len(slow.index(film)) == slow.encoded == 60
    assert len(list((tmp_path / "indexes").glob("*.parts"))) == 1


def test_a_broken_end_is_indexed_alike_after_an_interruption(film: str, tmp_path: Path) -> None:
    data = Path(film).read_bytes()
    start = data.index(b"mdat")
    broken = tmp_path / "broken.mp4"
    # The pictures of the last third become zeros; the table of frames stays.
    length = len(data) - start if data.index(b"moov") < start else data.index(b"moov", start) - start
    cut = start + 2 * length // 3
    end = start + length - 8
    broken.write_bytes(data[:cut] + bytes(end - cut) + data[end:])
    whole = finder_in(tmp_path / "whole", Means()).index(str(broken))
    interrupted(tmp_path / "parts", str(broken), at=len(whole) - 2 * BATCH)
    again = finder_in(tmp_path / "parts", Means())
    check_equal(again.index(str(broken)), whole)
