"""The background loop: synchronous callers in any thread or loop, interrupts, and relayed generators."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from act2see.tools.runtime.background import relay, run_in_background, run_sync, run_sync_with_events

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def loop_and_value() -> tuple[int, str]:
    await asyncio.sleep(0)
    return id(asyncio.get_running_loop()), VARIABLE.get()


def test_all_callers_share_one_loop_and_keep_their_context() -> None:
    VARIABLE.set("mine")
    first, value = run_sync(loop_and_value())
    assert value == "mine"
    seen: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: seen.append(run_sync(loop_and_value())))
    thread.start()
    thread.join()

    async def from_a_running_loop() -> tuple[int, str]:
        return run_sync(loop_and_value())

    seen.append(asyncio.run(from_a_running_loop()))
    assert [loop for loop, _ in seen] == [first, first]


def test_run_sync_inside_the_loop_does_not_deadlock() -> None:
    async def outer() -> tuple[int, str]:
        return run_sync(loop_and_value())

    assert run_sync(outer())[0] != run_sync(loop_and_value())[0]


def test_errors_reach_the_caller_and_system_exit_leaves_the_loop_running() -> None:
    async def fails(error: BaseException) -> None:
        raise error

    for error in (ValueError("no"), SystemExit(3)):
        with pytest.raises(type(error)):
            run_sync(fails(error))
    assert run_sync(loop_and_value())


def test_events_are_handled_in_the_callers_thread_and_an_error_there_ends_the_work() -> None:
    ended: list[str] = []

    def counting(report: Any) -> Any:
        async def count() -> int:
            try:
                for n in range(100):
                    report(n)
                    await asyncio.sleep(0)
                await asyncio.sleep(60 if stubborn else 0)
                return 100
            finally:
                ended.append("ended")

        return count()

    heard: list[tuple[int, int]] = []
    stubborn = False
    assert run_sync_with_events(counting, lambda n: heard.append((n, threading.get_ident()))) == 100
    assert heard == [(n, threading.get_ident()) for n in range(100)]

    def fails(n: int) -> None:
        raise ValueError(f"at {n}")

    stubborn = True
    with pytest.raises(ValueError, match="at 0"):
        run_sync_with_events(counting, fails)
    assert ended == ["ended", "ended"]


INTERRUPTED = """
import asyncio, os, signal
from act2see.tools.runtime.background import run_sync

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def say(line):
    os.write(1, line.encode() + b"\\n")  # whole: `print` of two threads may mix its line and its end

async def work():
    try:
        say("begun")
        await asyncio.sleep(600)
    finally:
        say("ended")

try:
    run_sync(work())
except KeyboardInterrupt:
    say("interrupted")
"""


def test_an_interrupt_ends_the_work_and_then_reaches_the_caller() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate()
    assert (said, complaints, process.returncode) == ("ended\ninterrupted\n", "", 0)


def test_an_interrupt_at_any_line_leaves_no_work_behind() -> None:
    states: list[str] = []

    async def work() -> None:
        states.append("begun")
        try:
            await asyncio.sleep(0)
        finally:
            states.append("ended")

    interrupted: list[list[str]] = []
    for line in range(1, 1_000):
        states.clear()
        waiting = work()
        with _interrupt_at(line):
            try:
                run_sync(waiting)
                break
            except KeyboardInterrupt:
                interrupted.append(states.copy())
        waiting.close()  # the first lines only prepare: nobody has taken the work yet
    assert interrupted.count([]) >= 5, "before the start"
    assert interrupted.count(["begun", "ended"]) >= 5, "after the start"
    assert len(interrupted) == interrupted.count([]) + interrupted.count(["begun", "ended"])


_INTERRUPTED_FILES = ("runtime/background.py", "asyncio/base_events.py", "futures/_base.py")


@contextmanager
def _interrupt_at(line: int) -> Iterator[None]:
    """Interrupt this thread at the n-th line that it runs in `run_sync`, or in asyncio on its behalf."""
    left = line

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal left
        within = frame.f_code.co_filename.endswith(_INTERRUPTED_FILES)
        if not within or frame.f_code.co_name == "loop":
            return None  # a tracer, unlike a signal, can interrupt between a `with` and its lock's release
        left -= event == "line"
        if left == 0 and event == "line":
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


FORKED = """
import asyncio, os
from act2see.tools.runtime.background import run_sync

async def work():
    await asyncio.sleep(0)
    return 7

assert run_sync(work()) == 7
child = os.fork()
if child == 0:
    os._exit(run_sync(work()))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), run_sync(work()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("7 7\n", "")


async def test_work_in_the_background_is_cancelled_with_its_caller() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()

    caller = asyncio.create_task(run_in_background(work()))
    assert await asyncio.to_thread(begun.wait, 60)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await asyncio.to_thread(ended.wait, 60)


class Numbers:
    """A generator that records the loops it ran on, and whether it was closed."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.loops: set[int] = set()
        self.closed = threading.Event()

    async def __call__(self) -> AsyncGenerator[int]:
        try:
            for n in range(5):
                self.loops.add(id(asyncio.get_running_loop()))
                yield n
                await asyncio.sleep(0)
            if self.fails:
                raise ValueError("after all")
            await asyncio.sleep(0)
        finally:
            self.closed.set()


async def test_a_relayed_generator_runs_on_the_background_loop() -> None:
    numbers = Numbers()
    assert [n async for n in relay(numbers())] == [0, 1, 2, 3, 4]
    assert numbers.loops == {(await run_in_background(loop_and_value()))[0]}
    failing = relay(Numbers(fails=True)())
    assert [await anext(failing) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="after all"):
        await anext(failing)


async def test_a_relayed_generator_is_closed_with_its_reader() -> None:
    numbers = Numbers()
    relayed = relay(numbers())
    assert await anext(relayed) == 0
    await relayed.aclose()
    assert await asyncio.to_thread(numbers.closed.wait, 60)
