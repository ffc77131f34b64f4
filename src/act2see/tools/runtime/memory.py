"""When a device's memory runs out: release what is unused, and do the work in smaller parts.

The parts are the caller's: frames of a batch, rows that decode, tokens that are read. A batch that fails for
another reason is taken apart in the same way, so that one bad item does not fail its neighbours.

`retain_freed_memory` does the contrary, for a command that trains on the processor.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
_KEEP = {-3: 2**25, -1: 2**30}  # malloc.h: M_MMAP_THRESHOLD (32 MiB is the most), M_TRIM_THRESHOLD


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: CUDA's own type, or those of the CPU and of Apple."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release() -> None:
    """Release unused memory to the device.

    Call it after the `except` block: inside, the error still holds the tensors of its stack frames.
    """
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def retain_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to a GiB. Does nothing without GNU's C library.

    GNU's allocator gives larger blocks back to the kernel, which clears each page when the next step asks for
    it: a tenth of a step of training on a processor. Blocks above 32 MiB still go back. It concerns the whole
    process, so commands call it, and libraries do not.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option:
        for option, value in _KEEP.items():
            set_option(option, value)


def in_halves(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """Do `work` on all items, or if it fails on each half, and so on.

    Args:
        work: Returns a result for each item.
        items: At least one.

    Returns:
        For each item its result, or the error of an item that fails alone.
    """
    full = False
    try:
        return list(work(items))
    except Exception as e:
        full = out_of_memory(e)
        if len(items) == 1:
            # Without its traceback: that would keep the tensors of the failed attempt.
            failed = e.with_traceback(None)
            failed.__context__ = None
    if full:
        release()
    if len(items) == 1:
        return [failed]
    middle = len(items) // 2
    log.warning(
        "%s; %d at once instead of %d",
        "out of memory" if full else "a batch failed",
        len(items) - middle,
        len(items),
    )
    return [*in_halves(work, items[:middle]), *in_halves(work, items[middle:])]
