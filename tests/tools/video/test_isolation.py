"""Decoding in a child process: the same frames, and a file that crashes or exhausts it is one error."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.tools.videos import number, write_video

from act2see.errors import ConfigError, VideoError
from act2see.tools.video import packets
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.tools.video.isolation.messages import Limits
from act2see.tools.video.isolation.pool import Decoders
from act2see.tools.video.isolation.video import IsolatedVideo
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import open_video
from act2see.tools.video.store import FrameStore
from act2see.tools.video.window import Window

TIMES = [i / 10 for i in range(60)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", TIMES)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    made = Decoders()
    yield made
    made.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(state: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not state():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("part", ["", "#t=1,3", "#v=0"])
def test_facts_and_frames_are_those_of_this_process(clip: Path, decoders: Decoders, part: str) -> None:
    here = open_video(f"{clip}{part}")
    there = IsolatedVideo(f"{clip}{part}", decoders=decoders)
    assert there.info() == here.info()
    assert np.array_equal(there.timestamps, here.timestamps)
    assert (there.width, there.height, there.seconds) == (here.width, here.height, here.seconds)
    for size in (None, (64, 48), (33, 17)):
        for ours, theirs in zip(there.read([9, 0, 4, 4], size), here.read([9, 0, 4, 4], size), strict=True):
            assert ours[:2] == theirs[:2]
            assert np.array_equal(ours[2], theirs[2])
            assert ours[2].flags.owndata
            assert ours[2].flags.writeable
    assert len(decoders.pids) == 1


def test_errors_are_those_of_this_process(clip: Path, decoders: Decoders, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video" * 99)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n/etc/passwd\n")
    IsolatedVideo(clip, decoders=decoders)
    [child] = decoders.pids
    for name in (
        str(tmp_path / "text.mp4"),
        str(tmp_path / "list.m3u8"),
        "/none.mp4",
        "/none\0.mp4",
        "/none\udc80.mp4",
        "https://example.org/clip.mp4",
        f"{clip}#t=5,2",
        f"{clip}#t=50",
        f"{clip}#v=3",
    ):
        with pytest.raises(VideoError) as here:
            open_video(name)
        with pytest.raises(VideoError) as there:
            IsolatedVideo(name, decoders=decoders)
        assert str(there.value) == str(here.value)
    with pytest.raises(IndexError, match="has frames 0 to 59, not 99"):
        list(IsolatedVideo(clip, decoders=decoders).read([99]))
    assert decoders.pids == [child]  # none of them ended it


def test_a_library_that_isolates_gives_the_same_pictures(clip: Path, tmp_path: Path) -> None:
    found = []
    for isolate in (False, True):
        cache = tmp_path / str(isolate)
        library = VideoLibrary(cache, FrameStore(cache / "frames"), 96, isolate=isolate)
        fenced = FencedLibrary(library, Folders([clip.parent]))
        assert fenced.isolate is isolate
        found.append((fenced.probe(str(clip)).info, fenced.pictures(str(clip), [0, 7, 59])))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (signal.SIGSEGV, r"made the decoder crash \(SIGSEGV\): copy or download it again"),
        (signal.SIGKILL, r"was not decoded: the system ended the decoder \(SIGKILL\)"),
        (signal.SIGXCPU, "takes too long to decode"),
    ],
)
def test_the_end_of_a_child_is_one_error_of_one_reading(clip: Path, how: int, said: str) -> None:
    decoders = Decoders()
    other = decoders.frames(Window(str(clip)), "pyav", range(60), (64, 48))
    assert number(next(other)[2]) == 0
    [kept] = decoders.pids
    hit = decoders.frames(Window(str(clip)), "pyav", range(60), (64, 48))
    next(hit)
    [victim] = set(decoders.pids) - {kept}
    os.kill(victim, how)
    with pytest.raises(VideoError, match=said):
        list(hit)
    assert [number(pixels) for _, _, pixels in other] == list(range(1, 60))
    assert [i for i, *_ in IsolatedVideo(clip, decoders=decoders).read([3])] == [3]
    assert victim not in decoders.pids
    decoders.close()


def test_a_child_that_ends_between_two_readings_is_replaced(clip: Path) -> None:
    decoders = Decoders()
    IsolatedVideo(clip, decoders=decoders)
    [child] = decoders.pids
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not decoders._idle[0].alive)
    assert IsolatedVideo(clip, decoders=decoders).info() == open_video(clip).info()
    assert len(decoders.pids) == 1
    assert decoders.pids != [child]
    decoders.close()


def write_grey(path: Path, width: int, height: int, count: int) -> Path:
    """Write a grey picture `count` times. Two pictures are encoded; the second one is the same as before."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        grey = np.full((height * 3 // 2, width), 128, np.uint8)
        packets = []
        for pts in range(2):
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts = pts
            packets += stream.encode(frame)
        first, second = [bytes(packet) for packet in [*packets, *stream.encode()]]
        for i in range(count):
            packet = av.Packet(second if i else first)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), i == 0
            packet.pts = packet.dts = i
            container.mux(packet)
    return path


def test_a_small_file_that_takes_much_memory_is_an_error(clip: Path, tmp_path: Path) -> None:
    large = write_grey(tmp_path / "large.mkv", 6016, 4512, 3)
    assert large.stat().st_size < 2 << 20
    decoders = Decoders(Limits(memory=100 << 20))
    for _ in range(2):  # the next request finds a new child
        with pytest.raises(VideoError, match=r"large\.mkv takes more than 0\.098 GiB to decode: make it sma"):
            IsolatedVideo(large, decoders=decoders)
    assert len(IsolatedVideo(clip, decoders=decoders).timestamps) == 60
    decoders.close()


def test_a_file_that_computes_too_long_is_an_error(tmp_path: Path) -> None:
    slow = write_grey(tmp_path / "slow.mkv", 3840, 2160, 600)
    # Only the first packet is a keyframe, so the way to the last frame is one step.
    decoders = Decoders(Limits(seconds=0.001, seconds_per_mib=0, patience=60_000))
    with pytest.raises(VideoError, match=r"slow\.mkv takes too long to decode: give a shorter part"):
        list(decoders.frames(Window(str(slow)), "pyav", [599], (64, 48)))
    decoders.close()


def test_memory_that_runs_out_is_no_damage() -> None:
    import av

    def fail(*_: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    class Codec:
        decode = fail

    class Stream:
        codec_context = Codec()

    with pytest.raises(MemoryError):
        packets.decode(Stream(), None)  # type: ignore[arg-type]


def test_a_child_that_hangs_is_ended(clip: Path) -> None:
    decoders = Decoders()
    reading = decoders.frames(Window(str(clip)), "pyav", range(60), (64, 48))
    next(reading)
    [child] = decoders.pids
    os.kill(child, signal.SIGSTOP)
    decoders.limits = Limits(seconds=1, patience=1, seconds_per_mib=0)
    with pytest.raises(VideoError, match=r"was not decoded within 1 s: give a shorter part"):
        list(reading)
    assert not is_running(child)
    decoders.close()


def test_a_reading_that_is_given_up_frees_its_child(clip: Path, decoders: Decoders) -> None:
    for _ in range(3):
        reading = decoders.frames(Window(str(clip)), "pyav", range(60), None)
        assert next(reading)[0] == 0
        reading.close()
        assert not decoders._busy
        assert not decoders._paused
        assert len(decoders._idle) == 1


def test_many_readings_share_few_children(clip: Path) -> None:
    decoders = Decoders(most=2)
    # Each is paused after each frame, so each loses its child to another one, and goes on.
    readings = [decoders.frames(Window(str(clip)), "pyav", range(n, 60, 7), (64, 48)) for n in range(5)]
    found: list[list[int]] = [[] for _ in readings]
    for _ in range(3):
        for n, reading in enumerate(readings):
            found[n].append(number(next(reading)[2]))
            assert len(decoders.pids) <= 2

    def read(n: int) -> list[int]:
        return found[n] + [number(pixels) for _, _, pixels in readings[n]]

    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(read, range(5)))
    assert results == [list(range(n, 60, 7)) for n in range(5)]
    decoders.close()


def test_warnings_of_the_child_are_logged_here(
    decoders: Decoders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_video(tmp_path / "clip.mp4", TIMES)
    data = bytearray(clip.read_bytes())
    place = data.find(b"mdat")
    length = int.from_bytes(data[place - 4 : place])
    data[place + length // 2 : place + length // 2 + 200] = bytes(200)
    clip.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        frames = list(decoders.frames(Window(str(clip)), "pyav", range(60), None))
    there = [(record.name, record.getMessage()) for record in caplog.records]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        same = list(open_video(clip).read(range(60)))
    assert there == [(record.name, record.getMessage()) for record in caplog.records]
    assert there
    for ours, theirs in zip(frames, same, strict=True):
        assert np.array_equal(ours[2], theirs[2])


def test_the_child_knows_no_keys_and_writes_no_files(
    clip: Path, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACT2SEE_API_KEY", "secret")
    decoders.close()
    IsolatedVideo(clip, decoders=decoders)
    [child] = decoders.pids
    if not Path("/proc/self/limits").exists():
        pytest.skip("this system does not show the limits of processes")
    assert b"secret" not in Path(f"/proc/{child}/environ").read_bytes()
    limits = Path(f"/proc/{child}/limits").read_text()
    assert re.search(r"Max file size +0 +0", limits)
    assert re.search(r"Max open files +64 +64", limits)
    assert re.search(r"Max core file size +0 +0", limits)
    assert not re.search(r"Max (address space|cpu time) +unlimited", limits)


def test_a_child_that_sends_nonsense_is_ended(clip: Path) -> None:
    decoders = Decoders()
    reading = decoders.frames(Window(str(clip)), "pyav", range(60), (64, 48))
    next(reading)
    [lent] = decoders._paused
    child = lent.child
    assert child
    child._slots = 0  # so every slot that it names is a wrong one
    with pytest.raises(VideoError, match="made the decoder send nonsense"):
        next(reading)
    assert not child.alive
    decoders.close()


@pytest.mark.parametrize("how", ["ends", "is killed", "forks"])
def test_nothing_is_left_behind(clip: Path, how: str) -> None:
    code = """
import os, signal, sys
from act2see.tools.video.isolation.pool import Decoders
from act2see.tools.video.window import Window
decoders = Decoders()
reading = decoders.frames(Window(sys.argv[1]), "pyav", range(60), (64, 48))
next(reading)
print(*decoders.pids, flush=True)
if sys.argv[2] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "forks":
    if not os.fork():
        assert not decoders.pids
        assert [i for i, *_ in reading] == list(range(1, 60))
        decoders.close()
        os._exit(0)
    assert os.wait()[1] == 0
    assert [i for i, *_ in reading] == list(range(1, 60))
"""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(clip), how],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert run.returncode == (-signal.SIGKILL if how == "is killed" else 0), run.stderr
    assert run.stderr == ""
    [child] = map(int, run.stdout.split())
    wait_for(lambda: not is_running(child) or is_zombie(child))
    if before:
        assert not {name for name in set(os.listdir("/dev/shm")) - before if "act2see" in name}


def is_zombie(pid: int) -> bool:
    """Return whether a process has ended and waits for the first process of the system to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def test_a_child_that_cannot_start_is_a_clear_error(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/none/python")
    decoders = Decoders()
    with pytest.raises(ConfigError, match=r"cannot be started \(No such file.*`video: {isolate: never}`"):
        IsolatedVideo(clip, decoders=decoders)
    assert not decoders._busy
