"""A background event loop, one for the process, that runs coroutines for synchronous callers.

A client of a chat model keeps connections open, and a connection works only on the event loop that opened it.
With a new loop for each call (`asyncio.run`) the second call would find dead connections. So `run_sync` runs
all coroutines on the same loop, and `relay` keeps a client on it for callers on other loops.

The loop's thread starts with the first call and ends with the process. A forked child starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from act2see.tools.runtime.forks import pause_at_fork, renew_after_fork

T = TypeVar("T")
E = TypeVar("E")
_PAUSE = 10.0  # seconds that a fork and the loop wait for each other


class _Background:
    """The loop and its thread, created on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._resumed: threading.Event | None = None  # during a fork: set when the loop may continue

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_forever, args=(loop,), name="act2see-loop", daemon=True)
                thread.start()
                # The loop is kept when it runs: an interrupt before this line must leave none that does not.
                self._loop, self._thread = loop, thread
                atexit.register(self.stop)
                renew_after_fork(self)
                pause_at_fork(self)
            return self._loop

    def stop(self) -> None:
        """Stop the loop at the end of the process. Coroutines that still run are abandoned."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1)
        if not thread.is_alive():
            loop.close()

    def pause(self) -> None:
        """Make the loop wait between two callbacks, where it holds no lock of any library."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive() or thread is threading.current_thread():
            return
        reached = threading.Event()
        resumed = threading.Event()

        def wait_for_fork() -> None:
            reached.set()
            resumed.wait(_PAUSE)

        self._resumed = resumed
        loop.call_soon_threadsafe(wait_for_fork)
        reached.wait(_PAUSE)

    def resume(self) -> None:
        """Let the loop continue, in the parent."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.set()

    def renew(self) -> None:
        """In a forked child, forget the loop, its thread, and the lock, which a lost thread may hold."""
        self._lock = threading.Lock()
        self._loop = self._thread = self._resumed = None


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue  # asyncio lets these two of one task through; the other tasks continue
        return


_background = _Background()


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from synchronous code and return its result. Works in notebooks, whose loop is busy.

    The coroutine sees the caller's context variables. Ctrl-C cancels it, waits for its end, and is raised in
    the caller.
    """
    return _wait_for(work, lambda running: running.result())


def run_sync_with_events(
    work: Callable[[Callable[[E], None]], Coroutine[Any, Any, T]], on_event: Callable[[E], None]
) -> T:
    """Run a coroutine that reports events, as `run_sync` does, and return its result.

    Args:
        work: Makes the coroutine. Its argument is the function that reports an event.
        on_event: Called with each event, in order, in this thread. An error that it raises cancels the
            coroutine.
    """
    events: SimpleQueue[E | None] = SimpleQueue()

    def listen(running: Future[T]) -> T:
        running.add_done_callback(lambda _: events.put(None))
        while (event := events.get()) is not None:
            on_event(event)
        return running.result()

    return _wait_for(work(events.put), listen)


async def run_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the background loop and return its result. Cancelling this call cancels it."""
    loop = _background.loop()
    if asyncio.get_running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def relay(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield the items of a generator that runs on the background loop. Closing this generator closes it.

    A single task runs the generator from the first item to the last, because clients use timeouts that must
    be left in the task that entered them.
    """
    here = asyncio.get_running_loop()
    background = _background.loop()
    if here is background:
        async for item in _close_after(items):
            yield item
        return
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

    def put(item: tuple[T] | None) -> None:
        with suppress(RuntimeError):  # the caller's loop is closed, so there is no reader any more
            here.call_soon_threadsafe(queue.put_nowait, item)

    async def pump() -> None:
        async for item in _close_after(items):
            put((item,))

    running = asyncio.run_coroutine_threadsafe(pump(), background)
    running.add_done_callback(lambda _: put(None))
    try:
        while (received := await queue.get()) is not None:
            yield received[0]
        running.result()
    finally:
        running.cancel()


async def _close_after(items: AsyncGenerator[T]) -> AsyncIterator[T]:
    """Yield the items, and close the generator however the loop over them ends."""
    try:
        async for item in items:
            yield item
    finally:
        await items.aclose()


def _wait_for(work: Coroutine[Any, Any, T], wait: Callable[[Future[T]], T]) -> T:
    """Start a coroutine on the background loop, and return the result of `wait` for it."""
    loop = _background.loop()
    if _running_loop() is loop:
        # Called within a run, for example by a tool. The loop cannot wait for itself: use another one.
        return _wait_on_own_loop(work, wait)
    task: asyncio.Task[T] | None = None
    outcome: Future[T] = Future()

    def start() -> None:
        nonlocal task
        task = loop.create_task(work)
        task.add_done_callback(lambda ended: _copy_outcome(ended, outcome))

    def stop() -> None:
        if task is not None:
            task.cancel()
            return
        work.close()
        outcome.cancel()

    try:
        loop.call_soon_threadsafe(start)
        return wait(outcome)
    except BaseException:
        # An interrupt can come at any line, also between the start and its return to here. The loop runs
        # these two in order, so `stop` knows whether there is a task.
        loop.call_soon_threadsafe(stop)
        # The caller gets the interrupt, so an error of the work is ignored.
        with suppress(Exception, CancelledError):
            outcome.result()
        raise


def _copy_outcome(task: asyncio.Task[T], outcome: Future[T]) -> None:
    """Give the result, the error or the cancellation of an ended task to the one who waits for it."""
    if task.cancelled():
        outcome.cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


def _wait_on_own_loop(work: Coroutine[Any, Any, T], wait: Callable[[Future[T]], T]) -> T:
    """Do as `_wait_for` does, on a new loop in a new thread."""
    running: Future[T] = Future()

    def run() -> None:
        try:
            running.set_result(asyncio.run(work))
        except BaseException as e:
            running.set_exception(e)

    thread = threading.Thread(target=run, name="act2see-nested", daemon=True)
    thread.start()
    return wait(running)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
