"""Keep what libraries say about themselves off the screen while we load and run their models.

Bars, notes on packages that are not installed and warnings about their own future tell whoever asked a
question nothing, and in a notebook they bury the answer. They are silenced while a block runs, by the
libraries' own switches, and are as they were after it: importing act2see changes nothing for anybody else.
Who logs at INFO or below hears the libraries' notes as well; errors are always heard.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from act2see.tools.runtime.forks import Lock

_NOTED = (
    "accelerate",
    "huggingface_hub",
    "peft",
    "sentence_transformers",
)  # they have loggers, and no bars of their own
_WARNING = r"(transformers|diffusers|accelerate|huggingface_hub|peft|tokenizers|torch|act2see)(\.|$)"  # whom a warning is blamed on

_lock = Lock()
_silenced: dict[
    str, tuple[int, Callable[[], None]]
] = {}  # how often, and what undoes it: blocks of several threads overlap


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Silence transformers, and others of the `libraries` that have bars (`diffusers`), for a block."""
    with ExitStack() as stack:
        for name in ("transformers", *libraries):
            stack.enter_context(_once(name, lambda name=name: _hush_library(name)))  # type: ignore[misc]
        stack.enter_context(_once("warnings", _hush_warnings))
        for name in _NOTED:
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
    if (
        logging.getLogger("act2see").isEnabledFor(logging.INFO)
        or before > logging.WARNING
        or 0 < before < logging.WARNING
    ):
        return lambda: None
    logger.setLevel(logging.ERROR)
    return lambda: logger.setLevel(before)


def _hush_warnings() -> Callable[[], None]:
    """One filter more, and not `catch_warnings`, which puts back a list that other threads have changed
    since."""
    warnings.filterwarnings("ignore", module=_WARNING)
    ours = warnings.filters[0]

    def undo() -> None:
        # Somebody's `catch_warnings` may have ended in between, and taken it along.
        if ours in warnings.filters:
            warnings.filters.remove(ours)  # type: ignore[attr-defined]

    return undo
