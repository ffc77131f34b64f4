"""Faults inside libraries: PyAV while decoding, the encoder, and FAISS.

Each step (opening, demuxing, decoding, seeking, converting; encoding frames and queries; adding, writing,
reading, searching) fails at its first, second ... call with the errors that the library has, once or always.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.faults.scene import ColourEncoder
from benchmarks.faults.trial import Fault, Place

_NUMBERS = ("EIO", "ENOMEM", "EACCES", "EMFILE", "ETIMEDOUT", "ECONNRESET", "EINVAL", "EAGAIN", "ESTALE")


@dataclass
class Fails:
    """Fails at its `at`-th call, or at each from then on."""

    make: Callable[[], Exception]
    at: int
    lasting: bool
    reached: Callable[[], None]
    _calls: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        with self._lock:
            self._calls += 1
            fails = self._calls == self.at or (self.lasting and self._calls > self.at)
        if fails:
            self.reached()
            raise self.make()


class _Stand:
    """Stands for an object of PyAV, and fails at one of its methods."""

    def __init__(self, real: Any, step: str, fails: Fails) -> None:
        object.__setattr__(self, "_real", real)
        object.__setattr__(self, "_step", step)
        object.__setattr__(self, "_fails", fails)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name in ("codec_context",) and value is not None:
            return _Stand(value, self._step, self._fails)
        if name != self._step:
            return partial(_unwrapped, value) if name in ("demux", "seek") else value
        if name == "demux":
            return self._demux
        return partial(_unwrapped, value, before=self._fails)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)

    def _demux(self, *streams: Any) -> Iterator[Any]:
        for packet in _unwrapped(self._real.demux, *streams):
            self._fails()
            yield packet


def _unwrapped(call: Any, *arguments: Any, before: Callable[[], None] | None = None, **options: Any) -> Any:
    """Call with real objects instead of those that stand for them."""
    if before is not None:
        before()
    real = [value._real if isinstance(value, _Stand) else value for value in arguments]
    named = {k: value._real if isinstance(value, _Stand) else value for k, value in options.items()}
    return call(*real, **named)


def _av_errors() -> dict[str, Callable[[], Exception]]:
    """Return the errors of PyAV, by name."""
    import av

    def system(name: str) -> Exception:
        number = getattr(errno, name)
        kind: Any = av.error.classes.get(number, av.error.OSError)
        error: Exception = kind(number, os.strerror(number), "clip.mp4")
        return error

    made: dict[str, Callable[[], Exception]] = {name: partial(system, name) for name in _NUMBERS}
    codes = {kind: code for code, kind in av.error.classes.items()}
    for name in ("InvalidDataError", "EOFError", "BugError", "ExternalError"):
        kind: Any = getattr(av.error, name)
        made[name] = partial(kind, codes[kind], name, "clip.mp4")
    made["MemoryError"] = partial(MemoryError, "out of memory")
    made["Python's ValueError"] = partial(ValueError, "an odd value")
    return made


def decode_faults() -> Iterator[Fault]:
    """Yield faults of each step of decoding."""
    for name, make in _av_errors().items():
        for step, places in (
            ("open", (1, 2, 3, 5)),
            ("demux", (1, 7, 25, 40, 60)),
            ("decode", (1, 5, 12, 20, 30)),
            ("seek", (1, 2)),
            ("reformat", (1, 4)),
        ):
            for at in places:
                for lasting in (False, True):
                    if lasting and at not in places[:2]:
                        continue
                    inject = partial(in_av, step=step, make=make, at=at, lasting=lasting)
                    yield Fault("decode", name, f"{step} {at}{' and on' * lasting}", inject)


@contextmanager
def in_av(
    place: Place | None,
    reached: Callable[[], None],
    step: str,
    make: Callable[[], Exception],
    at: int,
    lasting: bool,
) -> Iterator[None]:
    import av
    import av.video.reformatter

    from act2see.tools.video import opening, reader

    fails = Fails(make, at, lasting, reached)
    real_open, real_container = av.open, opening.open_container
    real_reformatter = av.video.reformatter.VideoReformatter

    class Reformatter:  # PyAV's class cannot be derived from
        def __init__(self) -> None:
            self.real = real_reformatter()

        def reformat(self, *arguments: Any, **options: Any) -> Any:
            fails()
            return self.real.reformat(*arguments, **options)

    def open_av(*arguments: Any, **options: Any) -> Any:
        fails()
        return real_open(*arguments, **options)

    @contextmanager
    def open_container(*arguments: Any) -> Iterator[tuple[Any, Any]]:
        with real_container(*arguments) as (container, stream):
            yield _Stand(container, step, fails), _Stand(stream, step, fails)

    if step == "open":
        patched: Any = patch.object(av, "open", open_av)
    elif step == "reformat":
        patched = patch.object(av.video.reformatter, "VideoReformatter", Reformatter)
    else:
        patched = patch.object(reader, "open_container", open_container)
    with patched:
        yield


_ERRORS: dict[str, Callable[[], Exception]] = {
    "RuntimeError": partial(RuntimeError, "CUDA error: an illegal memory access was encountered"),
    "out of memory": partial(RuntimeError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    "MemoryError": partial(MemoryError),
    "ValueError": partial(ValueError, "operands could not be broadcast together"),
    "ENOSPC": partial(OSError, errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": partial(OSError, errno.EIO, os.strerror(errno.EIO)),
    "ECONNRESET": partial(ConnectionResetError, errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    "TimeoutError": partial(TimeoutError, "timed out"),
    "KeyError": partial(KeyError, "weight"),
    "AssertionError": partial(AssertionError),
}


def encode_faults() -> Iterator[Fault]:
    """Yield faults of the encoder: errors, vectors that are not numbers, and too few vectors."""
    for step, places in (("frames", (1, 2, 3)), ("phrases", (1, 2))):
        for at in places:
            for lasting in (False, True):
                where = f"{step} {at}{' and on' * lasting}"
                for name, make in _ERRORS.items():
                    yield Fault(
                        "encode",
                        name,
                        where,
                        partial(_in_encoder, step=step, make=make, at=at, lasting=lasting),
                    )
                if lasting:
                    continue  # then the weights are at fault; with others, the index has another name
                for name in ("NaN", "one vector less") if step == "frames" else ("NaN",):
                    inject = partial(wrong_vectors, step=step, kind=name, at=at, lasting=lasting)
                    yield Fault("encode", name, where, inject)


@contextmanager
def _in_encoder(
    place: Place | None,
    reached: Callable[[], None],
    step: str,
    make: Callable[[], Exception],
    at: int,
    lasting: bool,
) -> Iterator[None]:
    fails = Fails(make, at, lasting, reached)
    real = getattr(ColourEncoder, step)

    def encode(self: ColourEncoder, given: Any) -> Any:
        fails()
        return real(self, given)

    with patch.object(ColourEncoder, step, encode):
        yield


@contextmanager
def wrong_vectors(
    place: Place | None, reached: Callable[[], None], step: str, kind: str, at: int, lasting: bool
) -> Iterator[None]:
    calls = 0
    real = getattr(ColourEncoder, step)

    def encode(self: ColourEncoder, given: Any) -> Any:
        nonlocal calls
        calls += 1
        vectors = real(self, given)
        if calls == at or (lasting and calls > at):
            reached()
            return vectors[:-1] if kind != "NaN" else np.full_like(vectors, np.nan)
        return vectors

    with patch.object(ColourEncoder, step, encode):
        yield


def index_faults() -> Iterator[Fault]:
    """Yield faults of FAISS."""
    faiss_error = partial(
        RuntimeError, "Error in virtual size_t faiss::FileIOWriter::operator() at io.cpp:121: write error"
    )
    errors: dict[str, Callable[[], Exception]] = {"FAISS's RuntimeError": faiss_error, **_ERRORS}
    for step in ("write_index", "read_index", "add", "search"):
        for at in (1, 2, 3):
            for lasting in (False, True):
                for name, make in errors.items():
                    for warm in (False, True) if step in ("read_index", "search") else (False,):
                        where = f"{step} {at}{' and on' * lasting}{' of a second run' * warm}"
                        inject = partial(_in_faiss, step=step, make=make, at=at, lasting=lasting)
                        yield Fault("index", name, where, inject, warm)


@contextmanager
def _in_faiss(
    place: Place | None,
    reached: Callable[[], None],
    step: str,
    make: Callable[[], Exception],
    at: int,
    lasting: bool,
) -> Iterator[None]:
    import faiss

    fails = Fails(make, at, lasting, reached)
    owner: Any = faiss if step.endswith("_index") else faiss.IndexScalarQuantizer
    real = getattr(owner, step)

    def call(*arguments: Any, **options: Any) -> Any:
        fails()
        return real(*arguments, **options)

    with patch.object(owner, step, call):
        yield
