"""Batches made ahead of time by worker processes.

Batch i is made by process i % n, from its own seed, so that the batches are the same for every number of
processes. Each process has two requests at a time, and so makes the next batch while the last one waits: that
bounds the look-ahead.

A worker writes the tensors of a batch into a file that both processes map, and sends only their shapes. The
14 MB of 256 frames took 11 to 16 ms like that, and 70 to 95 ms through a pipe, on two shared cores. Workers
start slowly, since they import torch and transformers, so one pool serves all lessons of a stage.
"""

from __future__ import annotations

import mmap
import os
import pickle
import shutil
import signal
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from act2see.errors import Act2SeeError
from act2see.micro.recipe.processes import ignore_interrupts
from act2see.training.sft.forward import Batch, Lesson

if TYPE_CHECKING:
    import torch

_AHEAD = 2
"""Batches that are requested of each process at a time."""
_ALIGN = 64
_SHARED = Path("/dev/shm")
"""Files here stay in memory."""
_ROOM = 1 << 30
"""Free bytes with which `_SHARED` is used. In a container it can be too small."""


class WorkerError(Act2SeeError):
    """A worker process ended, or failed with an error that cannot be sent."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Lessons by turns: batch i is number i // n of lesson i % n.

    A lesson with k turns among the n makes k batches in a round, so that none comes twice.
    """

    lessons: Sequence[Lesson]

    def __call__(self, number: int) -> Batch:
        turn, done = number % len(self.lessons), number // len(self.lessons)
        lesson = self.lessons[turn]
        turns = sum(other == lesson for other in self.lessons)
        earlier = sum(other == lesson for other in self.lessons[:turn])
        return lesson(done * turns + earlier)


class _Field(NamedTuple):
    """Where a tensor is in a slot's file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


class _Made(NamedTuple):
    """A batch in a file."""

    file: str
    fields: list[_Field]


class Workers:
    """A pool of processes that make batches. Enter it to start them.

    Args:
        processes: The number of processes. With 0, batches are made when they are taken.
        pin: Whether batches are copied to pinned memory, from which copies to a GPU are fast.
    """

    def __init__(self, processes: int, pin: bool = False) -> None:
        self.processes = processes
        self.pin = pin
        self._workers: list[_Worker] = []
        self._round = 0
        self._exit = ExitStack()
        """Ends the processes, then deletes their folder."""

    def __enter__(self) -> Workers:
        if not self.processes:
            return self
        with ExitStack() as stack:
            folder = tempfile.mkdtemp(prefix="act2see-", dir=_shared_folder())
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with ignore_interrupts(), _one_thread():
                for number in range(self.processes):
                    worker = _Worker(str(Path(folder) / str(number)))
                    stack.callback(worker.join)
                    self._workers.append(worker)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for worker in self._workers:
            worker.stop(at_once=error is not None)
        self._workers = []
        self._exit.close()

    def batches(self, lesson: Lesson, steps: int) -> Iterator[Batch]:
        """Yield batches 0 to `steps - 1` of a lesson, in order.

        Args:
            lesson: The lesson. With processes it must be picklable.
            steps: The number of batches.

        Raises:
            WorkerError: A process was killed. Errors in the lesson itself are raised as they are, with their
                traceback in the process as the cause.
        """
        if not self.processes:
            yield from map(lesson, range(steps))
            return
        if not self._workers:
            raise WorkerError("the pool has not started: use it in a `with` block")
        self._round += 1
        current = self._round
        sent = pickle.dumps(("lesson", lesson))
        for worker in self._workers:
            worker.send(sent)
        ahead = len(self._workers) * _AHEAD
        for number in range(min(ahead, steps)):
            self._ask(current, number)
        for number in range(steps):
            worker = self._worker(number)
            batch = worker.copy(self._slot(number), worker.receive(current), self.pin)
            if number + ahead < steps:
                self._ask(current, number + ahead)
            yield batch

    def _worker(self, number: int) -> _Worker:
        return self._workers[number % len(self._workers)]

    def _slot(self, number: int) -> int:
        """Return which of a worker's files holds a batch."""
        return number // len(self._workers) % _AHEAD

    def _ask(self, current: int, number: int) -> None:
        request = ("batch", (current, number, self._slot(number)))
        self._worker(number).send(pickle.dumps(request))


def processes_for(device: str) -> int:
    """Return how many processes make batches for a device: a CPU that trains has no core to spare."""
    return max(1, (os.cpu_count() or 1) - 1) if device == "cuda" else 0


@contextmanager
def prefetch(lesson: Lesson, steps: int, processes: int, pin: bool = False) -> Iterator[Iterator[Batch]]:
    """Yield batches 0 to `steps - 1` of one lesson, made by processes of their own.

    Args:
        lesson: The lesson. With processes it must be picklable.
        steps: The number of batches.
        processes: The number of processes. With 0, batches are made when they are taken.
        pin: Whether batches are copied to pinned memory.
    """
    with Workers(processes, pin) as workers:
        yield workers.batches(lesson, steps)


class _Worker:
    """One process, as the first process sees it."""

    def __init__(self, path: str) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, path), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.maps: dict[int, tuple[str, mmap.mmap]] = {}
        """The file of each slot, and its map."""

    def send(self, message: bytes) -> None:
        try:
            self.pipe.send_bytes(message)
        except OSError:
            raise self._ended() from None

    def receive(self, current: int) -> _Made:
        """Return the next reply of a round; replies of earlier rounds are dropped."""
        while True:
            try:
                kind, number, content = pickle.loads(self.pipe.recv_bytes())
            except (EOFError, OSError):
                raise self._ended() from None
            if number != current:
                continue
            if kind == "error":
                raise content
            made: _Made = content
            return made

    def copy(self, slot: int, made: _Made, pin: bool) -> Batch:
        """Copy a batch from its slot's file."""
        import torch

        if self.maps.get(slot, ("",))[0] != made.file:
            with open(made.file, "r+b") as file:
                self.maps[slot] = made.file, mmap.mmap(file.fileno(), 0)
            # Both processes have mapped it. Without its name, it goes when they do, however they end.
            os.unlink(made.file)
        known = self.maps[slot][1]
        batch = {}
        for f in made.fields:
            out = torch.empty(f.shape, dtype=f.dtype, pin_memory=pin)
            if f.stop > f.start:
                flat = torch.frombuffer(known, dtype=f.dtype, count=out.numel(), offset=f.start)
                out.copy_(flat.view(f.shape))
            batch[f.name] = out
        return batch

    def stop(self, at_once: bool) -> None:
        if at_once:
            self.process.terminate()
        self.pipe.close()

    def join(self) -> None:
        # It ends after its batch, when it finds the pipe closed.
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _ended(self) -> WorkerError:
        self.process.join(5)
        code = self.process.exitcode
        return WorkerError(
            f"a process that makes batches ended with exit code {code}: use fewer processes if memory ran out"
        )


def _shared_folder() -> Path | None:
    """Return the folder of the mapped files; None for the default one."""
    with suppress(OSError):
        if shutil.disk_usage(_SHARED).free >= _ROOM and os.access(_SHARED, os.W_OK):
            return _SHARED
    return None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Start processes in this block to give each one thread: they inherit the environment."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _work(pipe: connection.Connection, path: str) -> None:
    """Make batches until the first process closes the pipe."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    files = _Files(path)
    lesson: Any = None
    with suppress(EOFError, OSError):
        while True:
            data = pipe.recv_bytes()
            current = 0
            try:
                kind, content = pickle.loads(data)
                if kind == "lesson":
                    lesson = content
                    continue
                current, number, slot = content
                reply = ("batch", current, files.write(lesson(number), slot))
            except Exception as error:
                text = traceback.format_exc()
                if current == 0:
                    # The lesson could not be read: all of its batches fail.
                    lesson = _Failed(text)
                    continue
                reply = ("error", current, _sendable(error, text))
            pipe.send_bytes(pickle.dumps(reply))


@dataclass(frozen=True, slots=True)
class _Failed:
    """A lesson that a process could not read."""

    text: str

    def __call__(self, number: int) -> Batch:
        raise WorkerError(f"a process could not read the lesson:\n{self.text}")


class _TracebackError(Exception):
    """The traceback of an error in another process, as its cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Sent(NamedTuple):
    """An error that keeps its traceback, as text, when it is pickled."""

    error: Exception
    text: str

    def __reduce__(self) -> tuple[Any, ...]:
        return _with_cause, (self.error, self.text)


def _with_cause(error: Exception, text: str) -> Exception:
    error.__cause__ = _TracebackError(text)
    return error


def _sendable(error: Exception, text: str) -> Any:
    sent = _Sent(error, text)
    try:
        pickle.loads(pickle.dumps(sent))
    except Exception:
        return WorkerError(f"a process that makes batches failed:\n{text}")
    return sent


class _Files:
    """The files of a worker's slots."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.made = 0
        self.maps: dict[int, tuple[str, mmap.mmap]] = {}

    def write(self, batch: Batch, slot: int) -> _Made:
        """Write the tensors of a batch into a slot's file, or into a larger one."""
        import torch

        fields = []
        at = 0
        for name, tensor in batch.items():
            stop = at + tensor.nbytes
            fields.append(_Field(name, tensor.dtype, tuple(tensor.shape), at, stop))
            at = -(-stop // _ALIGN) * _ALIGN
        if slot not in self.maps or len(self.maps[slot][1]) < at:
            self.maps[slot] = self._make(max(at + at // 4, _ALIGN))
        file, known = self.maps[slot]
        for f, tensor in zip(fields, batch.values(), strict=True):
            if f.stop > f.start:
                flat = torch.frombuffer(known, dtype=f.dtype, count=tensor.numel(), offset=f.start)
                flat.view(f.shape).copy_(tensor)
        return _Made(file, fields)

    def _make(self, size: int) -> tuple[str, mmap.mmap]:
        path = f"{self.path}-{self.made}"
        self.made += 1
        with open(path, "w+b") as file:
            # Zeros take the space now. On a full disk this is an error; later, it would end the process.
            file.write(bytes(size))
            file.flush()
            return path, mmap.mmap(file.fileno(), size)
