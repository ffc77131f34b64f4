"""Worker processes that end with the process that started them.

Ctrl-C reaches every process of a terminal. Here only the first process reacts and terminates the others.
Otherwise each would print a traceback, and the first would wait until all are done.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context


@contextmanager
def pool_of(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of new processes. If an exception leaves the block, terminate them."""
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    try:
        yield pool
    except BaseException:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def ignore_interrupts() -> Iterator[None]:
    """Start processes in this block to make them ignore Ctrl-C: children inherit an ignored signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
