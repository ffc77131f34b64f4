"""A child process as its parent sees it: start, ask, take pictures, end.

It is started as a new program (no fork: this process has threads and models), and knows neither the keys in
the environment nor the files that are open here. What it sends is checked: it has read a stranger's file.

Nothing here waits without an end. A step has one time for all its messages. While this process waits for a
message, it looks whether the child still runs: the end of the pipe alone would not show it if some other
process held the child's side. A message that stops in its middle, in either direction, ends the child.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import Act2SeeError, ConfigError, VideoError
from act2see.tools.runtime.forks import native, renew_after_fork
from act2see.tools.video.isolation.messages import (
    END,
    ERROR,
    FRAME,
    HEADER,
    LOG,
    LONGEST,
    READY,
    REPLY,
    ROOM,
    STOP,
    TAKEN,
    TIMES,
    Limits,
    decode,
)
from act2see.tools.video.store import Pixels

log = logging.getLogger(__name__)
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[4:]; from act2see.tools.video.isolation.child import main; "
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])"
)
_KEPT = ("PATH", "HOME", "TZ", "TMPDIR", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "VIRTUAL_ENV", "SYSTEM")
# One thread of BLAS, which is not used; few arenas of malloc, each of which takes address space.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
_START = 120.0  # seconds for a child to start: on a busy machine imports take long
_GRACE = 1.0  # seconds for it to end
_LOOK = 0.5  # seconds between two looks whether it still runs
_STALL = 10.0  # seconds that a message may stop in its middle
_ERRORS: Mapping[str, Callable[[str], Exception]] = {
    "VideoError": VideoError,
    "ConfigError": ConfigError,
    "IndexError": IndexError,
}


class Lost(Act2SeeError):
    """The child has ended, by itself or since it broke a limit."""


class Child:
    """A decoding process. One thread at a time may use it.

    Args:
        limits: Its limits.

    Raises:
        ConfigError: It cannot be started.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        with native():  # a process that forked in here would hold both sides of the pipe
            memory = _make_memory()
            try:
                self._shared = mmap.mmap(memory, ROOM)
                self._pipe, self._process = _start(memory, limits)
            finally:
                os.close(memory)
            renew_after_fork(self)
        self._killed = False  # by us
        self._working = True  # something is asked and not answered to its end: here, whether it has started
        self._slots = self._length = 0
        self._shape = (0, 0, 3)
        try:
            unlimited = decode(self.receive(READY, "a process that decodes videos", _START))["unlimited"]
        except Act2SeeError as e:
            self.kill()
            raise _cannot_start(str(e)) from e
        self._working = False
        if unlimited:
            log.info("this system does not limit the %s of decoding processes", " and ".join(unlimited))

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], path: str) -> None:
        """Send a request about a file. Raises `Lost` if the child has ended."""
        self._working = True
        self._send(json.dumps(request).encode("ascii"), path)

    def receive(self, kind: bytes, path: str, seconds: float) -> bytes:
        """Return the next message, which must be of this kind or the end. Log records are logged.

        Args:
            kind: The kind of the message.
            path: The file that is decoded, for errors.
            seconds: How long to wait, log records included.

        Raises:
            Lost: The child has ended, or was ended after that time; or nothing was asked.
            VideoError, ConfigError, IndexError: The child reports this error.
        """
        if not self._working:  # it would never come
            raise Lost(f"{path} was not asked for in the process that decodes it: ask again")
        end = time.monotonic() + seconds
        while True:
            try:
                if not self._wait(end):
                    self.kill()
                    raise Lost(f"{path} was not decoded within {seconds:.0f} s: give a shorter part of it")
                message = self._pipe.recv_bytes(LONGEST)
            except (EOFError, OSError):
                raise self._ended(path) from None
            found = message[:1]
            try:
                if found in (kind, END):
                    self._working = self._working and found != END
                    return message
                content = decode(message)
                if found == ERROR:
                    self._working = False
                    if content["ends"]:
                        self.kill()
                    raise _ERRORS[content["kind"]](str(content["text"]))
                if found != LOG:
                    raise ValueError(found)
                name, level, text = content
                logging.getLogger(str(name)).log(int(level), "%s", text)
            except (ValueError, KeyError, TypeError) as e:
                raise self._broken(path) from e

    def _wait(self, end: float) -> bool:
        """Wait for a message. Return whether one has come before `end`. Raises `EOFError` without a child."""
        while True:
            left = end - time.monotonic()
            alive = self.alive  # before the pipe is read: the last message may come just before the end
            if self._pipe.poll(min(_LOOK, max(left, 0.0))):
                return left > 0
            if not alive:
                raise EOFError
            if left <= 0:
                return False

    def read_facts(self, path: str, seconds: float) -> tuple[Mapping[str, Any], NDArray[np.float64]]:
        """Return the answer to a request for facts: they, and the times of the frames.

        Raises the errors of `receive`.
        """
        facts = self.receive(REPLY, path, seconds)
        times = self.receive(TIMES, path, seconds)
        end = self.receive(END, path, seconds)
        if facts[:1] != REPLY or times[:1] != TIMES or end[:1] != END or len(times) % 8 != 1:
            raise self._broken(path)
        return decode(facts), np.frombuffer(times, "<f8", offset=1).astype(np.float64)

    def start_frames(self, path: str, seconds: float) -> None:
        """Wait until the child has opened a file, and prepare for its pictures.

        Raises the errors of `receive`.
        """
        try:
            reply = decode(self.receive(REPLY, path, seconds))
            width, height, self._slots = (int(reply[key]) for key in ("width", "height", "slots"))
            self._shape, self._length = (height, width, 3), width * height * 3
            if min(width, height, self._slots) < 1 or self._slots * self._length > ROOM:
                raise ValueError(reply)
        except (ValueError, KeyError, TypeError) as e:
            raise self._broken(path) from e

    def take_frame(self, path: str, seconds: float) -> tuple[int, float, Pixels] | None:
        """Return the next frame: its number, its time and its pixels; None after the last.

        Raises the errors of `receive`.
        """
        message = self.receive(FRAME, path, seconds)
        if message == END:
            return None
        if len(message) != 1 + HEADER.size:
            raise self._broken(path)
        slot, number, time = HEADER.unpack_from(message, 1)
        if slot >= self._slots:
            raise self._broken(path)
        flat = np.frombuffer(self._shared, np.uint8, self._length, slot * self._length)
        pixels = flat.reshape(self._shape).copy()
        with suppress(Lost):  # it may have sent its last frames and ended
            self._send(TAKEN, path)
        return number, time, pixels

    def stop(self, path: str, seconds: float = _GRACE) -> bool:
        """End the frames under way. Return whether the child is free again; if not, it was ended.

        Args:
            path: The file that is decoded.
            seconds: How long the child may need for the frame under way, and those before it.
        """
        end = time.monotonic() + seconds
        try:
            if self._working:
                self._send(STOP, path)
            while self._working:
                self.receive(FRAME, path, max(end - time.monotonic(), 0.0))
        except (Act2SeeError, IndexError):
            pass  # it has failed, and is free unless that ended it
        return self.alive

    def release_memory(self) -> None:
        """Give back the memory of pictures, if they were large."""
        if self._slots * self._length > ROOM // 16 and hasattr(mmap, "MADV_REMOVE"):
            with suppress(OSError):
                self._shared.madvise(mmap.MADV_REMOVE)

    def kill(self) -> None:
        """End the child now."""
        self._killed |= self.alive
        self._process.kill()
        self._process.wait()
        self._close()

    def renew(self) -> None:
        """In a forked process: leave the child to the parent."""
        self._process.returncode = 0  # it is not ours to wait for
        self._close()

    def _close(self) -> None:
        self._pipe.close()
        with suppress(BufferError):  # another thread copies a picture
            self._shared.close()

    def _send(self, message: bytes, path: str) -> None:
        try:
            self._pipe.send_bytes(message)
        except OSError:
            raise self._ended(path) from None

    def _broken(self, path: str) -> Lost:
        self.kill()
        return Lost(f"{path} made the decoder send nonsense: copy or download it again")

    def _ended(self, path: str) -> Lost:
        """Return an error that says why the child has ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        code = self._process.poll()
        self.kill()
        if self._killed or code is None or code >= 0:
            return Lost(f"{path} made the decoder end: copy or download it again")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        if name == "SIGXCPU":
            return Lost(f"{path} takes too long to decode: give a shorter part of it, or convert it to H.264")
        if name == "SIGKILL":
            return Lost(
                f"{path} was not decoded: the system ended the decoder ({name}), as it does when memory runs "
                "out; make the video smaller"
            )
        return Lost(
            f"{path} made the decoder crash ({name}): copy or download it again, or convert it to H.264"
        )


def _start(memory: int, limits: Limits) -> tuple[Connection, subprocess.Popen[bytes]]:
    """Start the program of the child, and return the pipe to it."""
    if not sys.executable:
        raise _cannot_start("this Python does not know its own program")
    settings = {**asdict(limits), "level": logging.getLogger("act2see").getEffectiveLevel()}
    environment = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    ours, theirs = _pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(theirs), str(memory), json.dumps(settings), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a server may speak its protocol there
            pass_fds=(theirs, memory),
            env={**environment, **_ENVIRONMENT},
            process_group=0,  # Ctrl-C in a terminal is for the parent
        )
    except OSError as e:
        os.close(ours)
        raise _cannot_start(e.strerror or str(e)) from e
    finally:
        os.close(theirs)
    return Connection(ours), process


def _pipe() -> tuple[int, int]:
    """Return the descriptors of both ends of a pipe for both directions."""
    ours, theirs = socket.socketpair()
    stall = struct.pack("ll", int(_STALL), int(_STALL % 1 * 1e6))
    for limit in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        ours.setsockopt(socket.SOL_SOCKET, limit, stall)
    return ours.detach(), theirs.detach()


def _make_memory() -> int:
    """Return a descriptor of memory without a name, which goes when both processes do."""
    if hasattr(os, "memfd_create"):
        import fcntl

        memory = os.memfd_create("act2see", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, ROOM)
        # If the child made it shorter, reading it here would end this process.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
        return memory
    with tempfile.TemporaryFile() as file:
        file.truncate(ROOM)
        return os.dup(file.fileno())


def _cannot_start(why: str) -> ConfigError:
    return ConfigError(
        f"the process that decodes videos cannot be started ({why}): "
        "set `video: {isolate: never}` to decode in this process"
    )
