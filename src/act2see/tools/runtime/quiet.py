"""Silence libraries while their models are loaded and run.

Progress bars, notes on missing packages and deprecation warnings mean nothing to a user who asked a question,
and in a notebook they bury the answer. A block silences them by the libraries' own switches and restores
these at its end, so that importing act2see does not change other code. If act2see logs at INFO or below, the
libraries' notes are logged too. Errors are always logged.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from act2see.tools.runtime.forks import Lock

# Libraries with loggers and without progress bars of their own.
_LOGGERS = ("accelerate", "huggingface_hub", "peft", "sentence_transformers")
# Modules that the silenced warnings are attributed to.
_WARNING = r"(transformers|diffusers|accelerate|huggingface_hub|peft|tokenizers|torch|act2see)(\.|$)"

_lock = Lock()
# By name: the number of open blocks that silence it (threads overlap), and the function that restores it.
_silenced: dict[str, tuple[int, Callable[[], None]]] = {}


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Silence transformers for a block, and other `libraries` with progress bars (`diffusers`)."""
    with ExitStack() as stack:
        for name in ("transformers", *libraries):
            stack.enter_context(_once(name, lambda name=name: _hush_library(name)))  # type: ignore[misc]
        stack.enter_context(_once("warnings", _hush_warnings))
        for name in _LOGGERS:
            stack.enter_context(_once(name, lambda name=name: _hush_logger(name)))  # type: ignore[misc]
        yield


@contextmanager
def _once(name: str, hush: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Call `hush` before the first block of this name, and the function that it returns after the last."""
    with _lock:
        count, undo = _silenced.get(name) or (0, hush())
        _silenced[name] = (count + 1, undo)
    try:
        yield
    finally:
        with _lock:
            count, undo = _silenced.pop(name)
            if count > 1:
                _silenced[name] = (count - 1, undo)
            else:
                undo()


def _hush_library(name: str) -> Callable[[], None]:
    """Silence a library's logger and its progress bars, and return the function that restores them."""
    # The import sets up the library's logger and its bars, so it comes first.
    module: Any = importlib.import_module(f"{name}.utils.logging")
    restore_logger = _hush_logger(name)
    if not module.is_progress_bar_enabled():
        return restore_logger
    module.disable_progress_bar()

    def undo() -> None:
        module.enable_progress_bar()
        restore_logger()

    return undo


def _hush_logger(name: str) -> Callable[[], None]:
    """Silence a logger below ERROR, and return the function that restores it."""
    logger = logging.getLogger(name)
    before = logger.level
    verbose = logging.getLogger("act2see").isEnabledFor(logging.INFO)
    if verbose or before not in (logging.NOTSET, logging.WARNING):  # the user has chosen a level
        return lambda: None
    logger.setLevel(logging.ERROR)
    return lambda: logger.setLevel(before)


def _hush_warnings() -> Callable[[], None]:
    """Add a filter for warnings, and return the function that removes it.

    `catch_warnings` would not do: it restores the whole list, which other threads may have changed meanwhile.
    """
    warnings.filterwarnings("ignore", module=_WARNING)
    ours = warnings.filters[0]

    def undo() -> None:
        # The end of a `catch_warnings` elsewhere may have removed it already.
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]

    return undo
