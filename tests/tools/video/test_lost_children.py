"""A child that is gone, silent or hostile is an error soon: nobody waits for it without an end.

Most children here are short programs that speak the protocol and decode nothing: they start in a tenth of the
time, so many can be killed, and they can be hostile. What a real child does is in `test_isolation.py`.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest

from act2see.errors import ConfigError, VideoError
from act2see.tools.video.isolation import process
from act2see.tools.video.isolation.messages import READY, Limits, encode
from act2see.tools.video.isolation.pool import Decoders
from act2see.tools.video.isolation.process import Child, Lost
from act2see.tools.video.window import Window

LIGHT = f"""
import json, mmap, os, struct, sys, time
fd, memory = int(sys.argv[1]), int(sys.argv[2])
def send(message):
    os.write(fd, struct.pack("!i", len(message)) + message)
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data)) or sys.exit()
    return data
def take():
    return read(*struct.unpack("!i", read(4)))
send({encode(READY, {"unlimited": []})!r})
"""
ANSWERS = (
    LIGHT
    + """
shared = mmap.mmap(memory, 64)
while True:
    message = take()
    if message[:1] != b"{":
        continue
    send(b'J{"width": 2, "height": 2, "slots": 2}')
    free = 2
    for count, number in enumerate(json.loads(message)["frames"]):
        time.sleep(0.003)
        while not free:
            if take() == b"-":
                break
            free += 1
        if not free:
            break
        slot = count % 2
        shared[slot * 12 : slot * 12 + 12] = bytes([number]) * 12
        free -= 1
        send(b"F" + struct.pack("<IQd", slot, number, number / 10))
    send(b"D")
"""
)


def start(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(process, "_PROGRAM", program)
    monkeypatch.setattr(process, "_STALL", 0.2)


def test_nobody_waits_for_what_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, ANSWERS)
    child = Child(Limits())
    began = time.monotonic()
    with pytest.raises(Lost, match="was not asked for"):
        child.receive(b"F", "clip.mp4", 480)
    assert time.monotonic() - began < 1
    assert child.alive
    child.kill()


def test_the_end_of_a_child_shows_although_its_side_of_the_pipe_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []
    make = process._pipe

    def keep() -> tuple[int, int]:
        ours, theirs = make()
        kept.append(os.dup(theirs))
        return ours, theirs

    start(monkeypatch, LIGHT + "time.sleep(600)")
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
        ("time.sleep(600)", 0.2, "was not decoded within"),
        ('while True: send(b\'L["act2see.hostile", 10, "x"]\')', 0.2, "was not decoded within"),
        ("os.write(fd, b'\\0\\0\\0\\x40half'); time.sleep(600)", 30, "made the decoder end"),
        ("os.write(fd, b'\\x7f\\xff\\xff\\xffmuch'); time.sleep(600)", 30, "made the decoder end"),
        ("os.write(fd, b'\\xff\\xff\\xff\\xff' + b'\\x7f' * 8)", 30, "made the decoder end"),
        ("os.close(fd); time.sleep(600)", 30, "made the decoder end"),
    ],
    ids=["is silent", "logs for ever", "stops in a message", "promises 2 GiB", "more", "closes the pipe"],
)
def test_a_child_that_never_answers_is_ended(
    monkeypatch: pytest.MonkeyPatch, does: str, seconds: float, said: str
) -> None:
    start(monkeypatch, LIGHT + does)
    monkeypatch.setattr(process, "_GRACE", 0.2)
    child = Child(Limits())
    began = time.monotonic()
    with suppress(Lost):  # it may have ended already, which the next call says too
        child.ask({}, "clip.mp4")
    with pytest.raises(Lost, match=said):
        child.receive(b"F", "clip.mp4", seconds)
    assert time.monotonic() - began < 10
    assert not child.alive


def test_a_child_that_was_ended_here_did_not_run_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, LIGHT + "time.sleep(600)")
    child = Child(Limits())
    child._working = True
    child.kill()
    with pytest.raises(Lost, match="made the decoder end"):
        child.receive(b"F", "clip.mp4", 30)


def test_frames_without_an_end_do_not_hold_who_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, LIGHT + "while True: send(b'F')")
    child = Child(Limits())
    child.ask({}, "clip.mp4")
    assert not child.stop("clip.mp4", 0.2)


def test_a_child_that_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, LIGHT + "time.sleep(600)")
    monkeypatch.setattr(process, "_GRACE", 0.2)
    child = Child(Limits())
    with pytest.raises(Lost, match="made the decoder end"):
        child.ask({"frames": list(range(100_000))}, "clip.mp4")
    assert not child.alive


def test_a_program_that_ends_at_once_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(ConfigError, match="cannot be started"):
        Child(Limits())


def test_no_child_holds_the_pipe_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not show open files")
    start(monkeypatch, ANSWERS)
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


def test_children_that_are_killed_at_any_moment_are_an_error_or_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, ANSWERS)
    decoders = Decoders(most=2)
    chosen = random.Random(5)

    def read(n: int) -> list[int] | str:
        try:
            frames = decoders.frames(Window("clip.mp4"), "pyav", range(n, 240, 8), (2, 2))
            return [int(pixels[0, 0, 0]) for _, _, pixels in frames]
        except (VideoError, ConfigError) as e:
            return str(e)

    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(read, n) for n in range(8)]
        while wait(answers, chosen.uniform(0.01, 0.25)).not_done:
            if pids := decoders.pids:
                os.kill(chosen.choice(pids), signal.SIGKILL)
        found = [answer.result(timeout=60) for answer in answers]
    for n, numbers in enumerate(found):
        assert numbers == list(range(n, 240, 8)) or "the decoder" in str(numbers)
    read(7)  # the child that was idle may be the last one killed
    assert read(7) == list(range(7, 240, 8))
    decoders.close()
