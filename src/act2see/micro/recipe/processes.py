"""Several processes that work side by side, and end with the one that started them.

Ctrl-C reaches every process of a terminal. Here it is the first one's to hear: it ends the others, which
would else print a traceback each, and be waited for until they are done.
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
    """A pool of new processes. Where the block is left by an exception, they are ended at once."""
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
def deaf() -> Iterator[None]:
    """Processes that are started in this block do not hear Ctrl-C: a signal that is ignored stays so in a
    child."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
