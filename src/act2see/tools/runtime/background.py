"""One event loop for the whole process, in a thread of its own, for coroutines of synchronous callers.

A client of a chat model keeps connections, and a connection belongs to the event loop that opened it. With a
loop for each call (`asyncio.run`) the second call would find the first one's connections dead. So `run_sync`
runs all coroutines on the same loop, and `relay` keeps a client on it for callers from other loops.

The thread starts with the first call and ends with the process. A forked child has no such thread; it starts
its own.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from act2see.tools.runtime.forks import pause_at_fork, renew_after_fork

T = TypeVar("T")
E = TypeVar("E")
_PAUSE = 10.0  # seconds that a fork and the loop wait for each other


class _Background:
    """The loop and its thread, made when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._paused: threading.Event | None = None  # set when the loop may continue

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_for_ever, args=(self._loop,), name="act2see-loop", daemon=True
                )
                self._thread.start()
                atexit.register(self.stop)
                renew_after_fork(self)
                pause_at_fork(self)
            return self._loop

    def stop(self) -> None:
        """End the loop at the end of the process; coroutines that still run are dropped."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1)
        if not thread.is_alive():
            loop.close()

    def pause(self) -> None:
        """Before a fork: the loop waits between two callbacks, where it holds no lock of any library."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive() or thread is threading.current_thread():
            return
        reached, go_on = threading.Event(), threading.Event()

        def wait_for_fork() -> None:
            reached.set()
            go_on.wait(_PAUSE)

        self._paused = go_on
        loop.call_soon_threadsafe(wait_for_fork)
        reached.wait(_PAUSE)

    def go_on(self) -> None:
        """After a fork, in the parent."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.set()

    def renew(self) -> None:
        """In a forked child: the thread is the parent's, and one of its threads may hold the lock."""
        self._lock = threading.Lock()
        self._loop = self._thread = self._paused = None


def _run_for_ever(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue  # raised by one task, and asyncio lets it through: the others continue
        return


_background = _Background()


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, for synchronous code: scripts, threads, notebooks (whose own loop is busy).

    It runs with the caller's context variables. Ctrl-C cancels it, waits for its end, and is raised in the
    caller.
    """
    return _wait_for(work, lambda running: running.result())


def run_sync_with_events(
    work: Callable[[Callable[[E], None]], Coroutine[Any, Any, T]], on_event: Callable[[E], None]
) -> T:
    """`run_sync` for a coroutine that reports events.

    Args:
        work: Makes the coroutine; it is given the function that reports an event. on_event: Called with each
        event, in order, in this thread. An error that it raises ends the coroutine.
    """
    events: SimpleQueue[E | None] = SimpleQueue()

    def listen(running: Future[T]) -> T:
        running.add_done_callback(lambda _: events.put(None))
        while (event := events.get()) is not None:
            on_event(event)
        return running.result()

    return _wait_for(work(events.put), listen)


async def run_in_background(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that runs on the background loop. Cancelling this cancels it."""
    loop = _background.loop()
    if asyncio.get_running_loop() is loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))


async def relay(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The items of a generator that runs on the background loop. Closing this closes it.

    One task runs it from the first item to the last, since clients hold timeouts that must end in the task in
    which they began.
    """
    here, there = asyncio.get_running_loop(), _background.loop()
    if here is there:
        async for item in _closing(items):
            yield item
        return
    queue: asyncio.Queue[tuple[T] | None] = asyncio.Queue()

    def put(item: tuple[T] | None) -> None:
        with suppress(RuntimeError):  # the caller's loop was closed meanwhile: nobody reads any more
            here.call_soon_threadsafe(queue.put_nowait, item)

    async def pump() -> None:
        async for item in _closing(items):
            put((item,))

    running = asyncio.run_coroutine_threadsafe(pump(), there)
    running.add_done_callback(lambda _: put(None))
    try:
        while (got := await queue.get()) is not None:
            yield got[0]
        running.result()
    finally:
        running.cancel()


async def _closing(items: AsyncGenerator[T]) -> AsyncIterator[T]:
    try:
        async for item in items:
            yield item
    finally:
        await items.aclose()


def _wait_for(work: Coroutine[Any, Any, T], wait: Callable[[Future[T]], T]) -> T:
    loop = _background.loop()
    if _running_loop() is loop:
        # Called inside a run, by a tool say. The loop cannot wait for itself, so this call gets its own loop.
        return _wait_apart(work, wait)
    task: Future[asyncio.Task[Any]] = Future()
    interrupted = threading.Event()

    async def main() -> T:
        task.set_result(cast("asyncio.Task[Any]", asyncio.current_task()))
        if interrupted.is_set():
            work.close()
            raise asyncio.CancelledError
        return await work

    running: Future[T] | None = None
    try:
        running = asyncio.run_coroutine_threadsafe(main(), loop)
        return wait(running)
    except BaseException:
        # An interrupt may come at any line. Either the task has begun and is cancelled here, or `main` sees
        # the flag and does not begin it.
        interrupted.set()
        if task.done():
            loop.call_soon_threadsafe(task.result().cancel)
        if running is not None:
            # Its own error is dropped: the caller gets the interrupt.
            with suppress(Exception, CancelledError):
                running.result()
        raise


def _wait_apart(work: Coroutine[Any, Any, T], wait: Callable[[Future[T]], T]) -> T:
    running: Future[T] = Future()

    def run() -> None:
        try:
            running.set_result(asyncio.run(work))
        except BaseException as e:
            running.set_exception(e)

    thread = threading.Thread(target=run, name="act2see-apart", daemon=True)
    thread.start()
    return wait(running)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
