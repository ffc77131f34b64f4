"""Mutated containers, each read by act2see in a child process with limits of time and memory.

A file is fine if its frames are given, or one of act2see's own errors in one line. The child tells which, in
how many seconds, and how much memory it needed. It is replaced if it crashes or hangs, and now and then
anyway. Run as a program, this module is the child: it reads names of files line by line.

Memory is limited by `RLIMIT_DATA`, so an allocation beyond it fails. Such a file counts as one that needs too
much, even if the failure was clean: elsewhere there is no such limit. Since FFmpeg refuses some sizes by
itself, with the same error, such a file is read again with eight times the room.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import kib
from benchmarks.fuzz.container_files import make_containers, mutate_container

SECONDS = 20.0
"""The longest time for a file."""
MEMORY = 1 << 30
"""The most memory for a file, in bytes."""
_FILES = 250  # that one child reads
_SHOWN = 10  # failures that are kept
_PICTURES = 12  # that are read of each file
_REFUSED = ("cannot allocate memory", "memoryerror")  # words of an allocation beyond the limit


@dataclass
class Tally:
    """What became of the files."""

    files: int = 0
    read: Counter[str] = field(default_factory=Counter)
    """Files whose frames came, by format."""
    refused: Counter[str] = field(default_factory=Counter)
    """Files that got a clean error, by format."""
    failed: Counter[str] = field(default_factory=Counter)
    """Failures by kind: crash, hang, memory, error."""
    failures: list[str] = field(default_factory=list)
    """The first few, each with its seed."""
    slowest: float = 0.0
    """Seconds for the slowest file."""
    largest: float = 0.0
    """MB that the largest file needed."""


class Child:
    """A process that reads files; started when it is needed.

    Args:
        command: The program; by default this module.
        room: The limit of this module's memory, in bytes.
    """

    def __init__(self, command: Sequence[str] = (), room: int = MEMORY) -> None:
        self._command = command or [sys.executable, "-m", "benchmarks.fuzz.containers", str(room)]
        self._process: subprocess.Popen[bytes] | None = None
        self._left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()

    def read(self, path: Path) -> dict[str, Any]:
        """Let the child read a file; return its reply, or `crash` or `hang` with what is known."""
        if self._process is None or self._left == 0:
            self._end()
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._left -= 1
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        line = self._wait(process, SECONDS)
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        hangs = line is None
        self._end()
        if hangs:
            return {"hang": f"no reply in {SECONDS:g} s"}
        why = f"signal {signal.Signals(-process.returncode).name}" if process.returncode < 0 else "it exited"
        return {"crash": why}

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._left = _FILES
        self._wait(self._process, 120.0)  # it has imported everything

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
        """Return the child's next line, empty if it has ended; None after `seconds`."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            return process.stdout.readline() if selector.select(seconds) else None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def fuzz_containers(
    folder: Path, files: int, seed: int = 0, formats: list[str] | None = None, first: int = 0
) -> Tally:
    """Read mutated files, in turn of each format.

    Args:
        folder: A folder for the file of the moment.
        files: How many files are read.
        seed: File `i` of a seed is always the same.
        formats: The formats; by default all.
        first: The number of the first file.
    """
    valid = make_containers()
    names = formats or list(valid)
    tally = Tally()
    with Child() as child, Child(room=8 * MEMORY) as roomy:
        for i in range(first, first + files):
            suffix = names[i % len(names)]
            data = mutate_container(valid[suffix], random.Random(f"{seed} {i}"))
            path = folder / f"clip.{suffix}"
            path.write_bytes(data)
            reply = child.read(path)
            if reply.get("memory") and reply["refused"]:
                reply = roomy.read(path)
            _count(tally, reply, suffix, f"seed {seed}, file {i} ({suffix})")
    return tally


def _count(tally: Tally, reply: dict[str, Any], suffix: str, which: str) -> None:
    tally.files += 1
    tally.slowest = max(tally.slowest, reply.get("seconds", 0.0))
    tally.largest = max(tally.largest, reply.get("grown", 0.0))
    kind = next((kind for kind in ("crash", "hang", "memory", "error") if reply.get(kind)), None)
    if kind:
        tally.failed[kind] += 1
        if len(tally.failures) < _SHOWN:
            tally.failures.append(f"{which}: {kind}: {reply[kind]}")
    elif reply.get("refused"):
        tally.refused[suffix] += 1
    else:
        tally.read[suffix] += 1


def _read(path: str) -> None:
    """Read a video as an index and a question do."""
    import numpy as np

    from act2see.tools.video.reader import frames_at, open_video

    video = open_video(path)
    info = video.info()
    if not np.isfinite(video.timestamps).all() or (np.diff(video.timestamps) < 0).any():
        raise AssertionError("the times are not in order")
    if not 0 < info.seconds < float("inf"):
        raise AssertionError(f"it lasts {info.seconds} s")
    wanted = frames_at(video.timestamps, np.linspace(0, info.seconds, _PICTURES))
    size = info.fit(192)
    got = []
    for number, _, pixels in video.read(wanted, size):
        got.append(number)
        if pixels.shape != (size[1], size[0], 3) or pixels.dtype != np.uint8:
            raise AssertionError(f"a picture is {pixels.shape} {pixels.dtype}")
    if got != sorted(set(wanted)):
        raise AssertionError(f"frames {got} came, not {wanted}")


def _reply(path: str) -> dict[str, Any]:
    from benchmarks.fuzz.readers import find_fault

    refused = ""

    def read() -> None:
        nonlocal refused
        try:
            _read(path)
        except Exception as e:
            refused = str(e) or type(e).__name__
            raise

    _reset_peak()
    before, begin = kib("VmRSS"), time.monotonic()
    fault = find_fault(read)
    seconds = time.monotonic() - begin
    grown = max(0, kib("VmHWM") - before) / 1e3
    reply = {"seconds": seconds, "grown": grown, "refused": refused, "error": fault}
    if _room() == MEMORY and any(words in f"{fault} {refused}".lower() for words in _REFUSED):
        reply["memory"] = f"it asked for more than {MEMORY >> 20} MiB ({fault or refused})"
    elif grown * 1e6 > MEMORY:
        reply["memory"] = f"{grown:.0f} MB"
    return reply


def _room() -> int:
    return int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY


def _reset_peak() -> None:
    """Begin to measure the peak of memory anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # then the peak is that of all files so far


def main() -> None:
    """Reply to names of files until there are no more."""
    import logging

    import act2see.tools.video.reader  # noqa: F401

    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_room(), _room()))
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(_reply(line.rstrip("\n"))), flush=True)


if __name__ == "__main__":
    main()
