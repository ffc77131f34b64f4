"""Work in smaller parts when a device's memory runs out.

`in_halves` splits any batch: frames, rows to decode, tokens to read. A batch that fails for another reason is
split in the same way, so that one bad item does not fail the others.

`retain_freed_memory` has the opposite purpose, for a command that trains on the CPU.
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
    """Return whether an error means that memory ran out, on CUDA, Apple's MPS or the CPU."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release() -> None:
    """Return cached, unused memory to the device.

    Call it after the `except` block: within it, the error still refers to the tensors of its stack frames.
    """
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def retain_freed_memory() -> None:
    """Let this process keep up to a GiB of the memory that it frees. Does nothing without glibc.

    glibc returns large blocks to the kernel, which clears each page again for the next step: this takes a
    tenth of a training step on the CPU. Blocks above 32 MiB are still returned. The setting applies to the
    whole process, so commands call this function and libraries do not.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option:
        for option, value in _KEEP.items():
            set_option(option, value)


def in_halves(work: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | Exception]:
    """Call `work` with all items. If it fails, call it with each half, and so on.

    Args:
        work: Returns a result for each item.
        items: At least one item.

    Returns:
        For each item its result, or the error of an item that fails alone.
    """
    full = False
    try:
        return list(work(items))
    except Exception as e:
        full = out_of_memory(e)
        if len(items) == 1:
            # The traceback and the context would keep the tensors of the failed attempt alive.
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
