"""A child that is gone, silent or hostile is an error soon: nobody waits for it without an end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.tools.videos import number, write_video

from act2see.errors import ConfigError, VideoError
from act2see.tools.video.isolation import process
from act2see.tools.video.isolation.messages import READY, Limits, encode
from act2see.tools.video.isolation.pool import Decoders
from act2see.tools.video.isolation.process import Child, Lost
from act2see.tools.video.window import Window

HOSTILE = (
    "import sys, time; from multiprocessing.connection import Connection; import os; "
    f"fd = int(sys.argv[1]); pipe = Connection(fd); pipe.send_bytes({encode(READY, {'unlimited': []})!r}); "
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", [i / 10 for i in range(60)])


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child(Limits())
    yield made
    made.kill()


def test_nobody_waits_for_what_was_not_asked(child: Child) -> None:
    began = time.monotonic()
    with pytest.raises(Lost, match="was not asked for"):
        child.receive(b"F", "clip.mp4", 480)
    assert time.monotonic() - began < 1
    assert child.alive


def test_the_end_of_a_child_shows_although_its_side_of_the_pipe_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []
    make = process._pipe

    def keep() -> tuple[int, int]:
        ours, theirs = make()
        kept.append(os.dup(theirs))
        return ours, theirs

    monkeypatch.setattr(process, "_pipe", keep)
    child = Child(Limits())
    child._working = True
    os.kill(child.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(Lost, match=r"SIGKILL"):
        child.receive(b"F", "clip.mp4", 480)
    assert time.monotonic() - began < 5  # 0.5 s, on a machine that has time
    os.close(kept[0])


@pytest.mark.parametrize(
    ("does", "seconds", "said"),
    [
        ("time.sleep(600)", 0.5, "was not decoded within"),
        ('\nwhile True: pipe.send_bytes(b\'L["act2see.hostile", 10, "x"]\')', 0.5, "was not decoded within"),
        ("os.write(fd, b'\\0\\0\\0\\x40half'); time.sleep(600)", 30, "made the decoder end"),
    ],
    ids=["is silent", "logs for ever", "stops in a message"],
)
def test_a_child_that_never_answers_is_ended(
    monkeypatch: pytest.MonkeyPatch, does: str, seconds: float, said: str
) -> None:
    monkeypatch.setattr(process, "_PROGRAM", HOSTILE + does)
    monkeypatch.setattr(process, "_STALL", 1)
    child = Child(Limits())
    child.ask({}, "clip.mp4")
    began = time.monotonic()
    with pytest.raises(Lost, match=said):
        child.receive(b"F", "clip.mp4", seconds)
    assert time.monotonic() - began < 10
    assert not child.alive


def test_frames_without_an_end_do_not_hold_who_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", HOSTILE + "\nwhile True: pipe.send_bytes(b'F')")
    child = Child(Limits())
    child.ask({}, "clip.mp4")
    assert not child.stop("clip.mp4", 0.5)


def test_a_child_that_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", HOSTILE + "time.sleep(600)")
    monkeypatch.setattr(process, "_STALL", 1)
    child = Child(Limits())
    with pytest.raises(Lost, match="made the decoder end"):
        child.ask({"frames": list(range(500_000))}, "clip.mp4")
    assert not child.alive


def test_a_program_that_ends_at_once_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(ConfigError, match="cannot be started"):
        Child(Limits())


def test_no_child_holds_the_pipe_of_another() -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not show open files")
    children = [Child(Limits()) for _ in range(2)]
    held = []
    for child in children:
        files = [os.readlink(file) for file in Path(f"/proc/{child.pid}/fd").iterdir()]
        held.append([name for name in files if name.startswith("socket:")])
        assert any(name.startswith("/memfd:act2see") for name in files)
    assert [len(names) for names in held] == [1, 1]
    assert held[0] != held[1]
    for child in children:
        child.kill()


def test_children_that_are_killed_at_any_moment_are_an_error_or_nothing(clip: Path) -> None:
    decoders = Decoders(most=2)
    chosen = random.Random(5)

    def read(n: int) -> list[int] | str:
        try:
            frames = decoders.frames(Window(str(clip)), "pyav", range(n, 60, 20), (64, 48))
            return [number(pixels) for _, _, pixels in frames]
        except VideoError as e:
            return str(e)

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(read, n) for n in range(4)]
        while not all(answer.done() for answer in answers):
            time.sleep(chosen.uniform(0.05, 0.8))
            if pids := decoders.pids:
                os.kill(chosen.choice(pids), signal.SIGKILL)
        found = [answer.result(timeout=60) for answer in answers]
    for n, numbers in enumerate(found):
        assert numbers == list(range(n, 60, 20)) or "the decoder" in str(numbers)
    read(7)  # the child that was idle may be the last one killed
    assert read(7) == [7, 27, 47]
    decoders.close()
