"""What to do when a device's memory runs out: give back what is unused, and do the work in smaller parts.

And the contrary, for a command that trains on the processor: `retain_freed_memory`.

Which parts is the caller's: frames of a batch, rows that decode, tokens that are read. Other failures of a
batch are taken apart the same way, so that one bad item does not fail its neighbours.
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
    """Whether it says that there was no room: CUDA's own error, or what the CPU's and Apple's allocators
    raise."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)


def release() -> None:
    """Give back what nothing uses. Call it after the `except` block: within, the error still holds the
    tensors of its frames."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def retain_freed_memory() -> None:
    """From now on this process keeps the memory that it frees, up to a GiB. Nothing happens where the C
    library is not GNU's.

    GNU's allocator gives a block of some size back to the kernel, which clears each page of it when the next
    step asks again: a tenth of a step of training on a processor. Blocks above 32 MiB still go back. It
    concerns the whole process, so commands call it, and libraries do not.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option:
        for option, value in _KEEP.items():
            set_option(option, value)


def in_halves(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """`work(items)`; where that fails, its two halves, and so on. What fails alone is returned as its
    error."""
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
