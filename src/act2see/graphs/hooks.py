"""The hooks of a configuration's initial frames: the guard, and the framer.

Each is named as `module:Class` and built without arguments. The module may be beside the config file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from act2see.errors import ConfigError
from act2see.graphs.config import Config
from act2see.tools.runtime.local_modules import import_beside
from act2see.tools.video.framing import Framer


class Guard(Protocol):
    """Refuses videos that the model cannot understand, such as real footage for the micro models."""

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Return the reason to refuse the video, or None to accept it.

        Args:
            frames: The initial frames, each `(height, width, 3)`; or the one picture that a person supplies
                in place of a call.
        """
        ...


@runtime_checkable
class QuestionGuard(Protocol):
    """Refuses questions that the model cannot read. A guard may do so besides refusing videos."""

    def refuses_question(self, question: str) -> str | None:
        """Return the reason to refuse the question, or None to accept it."""
        ...


def build_guard(config: Config) -> Guard | None:
    """Return the guard that `view.guard` names; None if it names none.

    Raises:
        ConfigError: The guard cannot be imported.
    """
    guard: Guard | None = _build_hook("view.guard", config.view.guard, config.folder)
    return guard


def build_framer(config: Config) -> Framer | None:
    """Return the framer that `view.crop` names; None if it names none.

    Raises:
        ConfigError: The framer cannot be imported.
    """
    framer: Framer | None = _build_hook("view.crop", config.view.crop, config.folder)
    return framer


def _build_hook(key: str, path: str | None, folder: str | None) -> Any:
    """Return an object of the class at `module:Class`; None without a path."""
    if not path:
        return None
    module, _, name = path.partition(":")
    try:
        return getattr(import_beside(module, folder), name)()
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"{key} {path!r} cannot be imported: {e}") from e
