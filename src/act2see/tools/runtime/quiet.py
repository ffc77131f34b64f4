"""Silence libraries while we load and run their models.

Progress bars, notes on packages that are not installed and deprecation warnings mean nothing to a user who
asked a question, and in a notebook they bury the answer. They are silenced while a block runs, by the
libraries' own switches, which are put back after it: importing act2see changes nothing for anybody else. With
act2see's log at INFO or below, the libraries' notes are logged too; errors are always logged.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from act2see.tools.runtime.forks import Lock

# They have loggers, and no bars of their own.
_LOGGERS = ("accelerate", "huggingface_hub", "peft", "sentence_transformers")
# The modules that a warning is attributed to.
_WARNING = r"(transformers|diffusers|accelerate|huggingface_hub|peft|tokenizers|torch|act2see)(\.|$)"

_lock = Lock()
# By name: how many blocks silence it (those of several threads overlap), and the function that undoes it.
_silenced: dict[str, tuple[int, Callable[[], None]]] = {}


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Silence transformers, and others of the `libraries` that have bars (`diffusers`), for a block."""
    with ExitStack() as stack:
        for name in ("transformers", *libraries):
            stack.enter_context(_once(name, lambda name=name: _hush_library(name)))  # type: ignore[misc]
        stack.enter_context(_once("warnings", _hush_warnings))
        for name in _LOGGERS:
            stack.enter_context(_once(name, lambda name=name: _hush_logger(name)))  # type: ignore[misc]
        yield


@contextmanager
def _once(name: str, hush: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """The first block silences, the last one undoes it."""
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
    # Imported first: its logger and its bars are set up by that.
    module: Any = importlib.import_module(f"{name}.utils.logging")
    heard = _hush_logger(name)
    if not module.is_progress_bar_enabled():
        return heard
    module.disable_progress_bar()

    def undo() -> None:
        module.enable_progress_bar()
        heard()

    return undo


def _hush_logger(name: str) -> Callable[[], None]:
    logger = logging.getLogger(name)
    before = logger.level
    verbose = logging.getLogger("act2see").isEnabledFor(logging.INFO)
    if verbose or before not in (logging.NOTSET, logging.WARNING):  # somebody has chosen a level
        return lambda: None
    logger.setLevel(logging.ERROR)
    return lambda: logger.setLevel(before)


def _hush_warnings() -> Callable[[], None]:
    """Add a filter. `catch_warnings` would put back a list that other threads have changed meanwhile."""
    warnings.filterwarnings("ignore", module=_WARNING)
    ours = warnings.filters[0]

    def undo() -> None:
        # A `catch_warnings` elsewhere may have ended meanwhile and removed it.
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]

    return undo
