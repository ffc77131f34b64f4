"""The child process that decodes: it answers one request at a time, and ends with its parent.

It is a new Python, started with few variables of the environment, without write access to files (a size
limit of 0), and with limits of memory, computing time and open files. It is the process that the system ends
first if memory runs out. An allocation beyond the limit fails; since not every codec reports that well, the
process ends after such a request.
"""

from __future__ import annotations

import logging
import mmap
import os
import resource
import select
import signal
import threading
import traceback
from contextlib import suppress
from math import ceil
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from act2see.errors import ConfigError, VideoError
from act2see.tools.runtime.text import first_line
from act2see.tools.video.isolation.messages import (
    AHEAD,
    END,
    ERROR,
    FRAME,
    HEADER,
    LOG,
    READY,
    REPLY,
    ROOM,
    STOP,
    TAKEN,
    TIMES,
    Limits,
    decode,
    encode,
)
from act2see.tools.video.reader import open_video
from act2see.tools.video.window import Window

log = logging.getLogger(__name__)
_NEAR = 0.9  # an error with this part of the memory in use is one of memory
_LONGEST_LOG = 2000  # characters


class _Stopped(Exception):
    """The parent wants no more frames."""


def main(pipe_fd: int, memory_fd: int, settings: str) -> None:
    """Answer requests until the parent closes the pipe.

    Args:
        pipe_fd: Descriptor of the pipe to the parent.
        memory_fd: Descriptor of the shared memory.
        settings: The limits and the level of the log, as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    chosen: dict[str, Any] = decode(b" " + settings.encode())
    level = chosen.pop("level")
    pipe = Connection(pipe_fd)
    threading.Thread(target=_end_with_parent, args=(pipe_fd,), daemon=True).start()
    logging.basicConfig(level=level, handlers=[_Forward(pipe)])
    import av  # noqa: F401  # before the limit of memory

    shared = mmap.mmap(memory_fd, ROOM)
    limits = Limits(**chosen)
    unlimited = _set_limits(limits)
    pipe.send_bytes(encode(READY, {"unlimited": unlimited}))
    server = _Server(pipe, shared, limits)
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            message = pipe.recv_bytes()
            if message not in (TAKEN, STOP):  # these are late, for frames that have ended
                server.answer(decode(b" " + message))


class _Server:
    def __init__(self, pipe: Connection, shared: mmap.mmap, limits: Limits) -> None:
        self.pipe = pipe
        self.shared = shared
        self.limits = limits
        self.free = AHEAD
        """Slots that the parent has taken the picture from."""

    def answer(self, request: dict[str, Any]) -> None:
        """Answer a request: with facts or frames and `END`, or with `ERROR`."""
        window = Window(request["path"], request["start"], request["end"], request["stream"])
        try:
            self._renew_time(window.path)
            video = open_video(window, decoder=request["decoder"])
            if request["frames"] is None:
                facts = {"seconds": video.seconds, "width": video.width, "height": video.height}
                self.pipe.send_bytes(encode(REPLY, facts))
                self.pipe.send_bytes(TIMES + np.ascontiguousarray(video.timestamps, "<f8").tobytes())
            else:
                size = tuple(request["size"] or (video.width, video.height))
                self._send_frames(window.path, video.read(request["frames"], size), size)
        except _Stopped:
            pass
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as e:
            kind, text, fatal = _explain(e, window.path, self.limits)
            self.pipe.send_bytes(encode(ERROR, {"kind": kind, "text": text, "ends": fatal}))
            if fatal:
                os._exit(0)
            return
        self.pipe.send_bytes(END)

    def _send_frames(self, path: str, frames: Any, size: tuple[int, int]) -> None:
        length = size[0] * size[1] * 3
        if length > ROOM:
            raise VideoError(f"{path} has pictures of {size[0]} x {size[1]} pixels: make it smaller")
        slots = max(1, min(AHEAD, ROOM // length))
        self.free = slots
        self.pipe.send_bytes(encode(REPLY, {"width": size[0], "height": size[1], "slots": slots}))
        space = np.frombuffer(self.shared, np.uint8)
        for count, (number, seconds, pixels) in enumerate(frames):
            while not self.free or self.pipe.poll(0):
                if self.pipe.recv_bytes() == STOP:
                    raise _Stopped
                self.free += 1
            slot = count % slots
            space[slot * length : (slot + 1) * length].reshape(pixels.shape)[:] = pixels
            self.free -= 1
            self.pipe.send_bytes(FRAME + HEADER.pack(slot, number, seconds))
            self._renew_time(path)

    def _renew_time(self, path: str) -> None:
        """Let the next step compute for as long as a step may."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        with suppress(OSError, ValueError):  # there is no such file: opening it says so
            until = used.ru_utime + used.ru_stime + self.limits.computing(os.path.getsize(path))
            resource.setrlimit(resource.RLIMIT_CPU, (ceil(until), resource.RLIM_INFINITY))


def _set_limits(limits: Limits) -> list[str]:
    """Set the limits that do not change, and return the names of those that this system does not have."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.files, limits.files))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    used = _address_space()
    if used is None:  # macOS accepts the limit and ignores it
        return ["memory"]
    resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory, used + limits.memory))
    return []


def _address_space() -> int | None:
    """Return the bytes of address space of this process; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return None


def _explain(error: Exception, path: str, limits: Limits) -> tuple[str, str, bool]:
    """Return the kind and the text of an error, and whether this process must end."""
    if _ran_out(error):
        text = f"{path} takes more than {limits.memory / 2**30:.2g} GiB to decode: make it smaller"
        return "VideoError", text, True
    if isinstance(error, VideoError | ConfigError | IndexError):
        return type(error).__name__, str(error), False
    log.error("%s: %s", path, "".join(traceback.format_exception(error))[-_LONGEST_LOG:])
    return (
        "VideoError",
        f"{path} cannot be decoded ({type(error).__name__}: {first_line(error)}): "
        "copy or download it again, or convert it to H.264",
        True,
    )


def _ran_out(error: BaseException | None) -> bool:
    """Return whether an error, or one of those that led to it, is one of memory."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    used = _address_space()
    return used is not None and used > _NEAR * resource.getrlimit(resource.RLIMIT_AS)[0] > 0


def _end_with_parent(pipe_fd: int) -> None:
    """End this process when its parent does, whatever the decoder is doing."""
    poll = select.poll()
    poll.register(pipe_fd, 0)  # the end of the other side is always reported
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll()):
        pass
    os._exit(0)


class _Forward(logging.Handler):
    """Sends records to the parent, which logs them."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self.pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        content = [record.name, record.levelno, record.getMessage()[:_LONGEST_LOG]]
        with suppress(OSError):
            self.pipe.send_bytes(encode(LOG, content))
