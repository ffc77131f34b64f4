"""The protocol of frame encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from act2see.tools.video.store import Pixels


class FrameEncoder(Protocol):
    """An encoder of frames and texts, such as `Blip2Encoder`."""

    @property
    def id(self) -> str:
        """Name of the weights. An index is only valid for the weights that made it."""
        ...

    @property
    def size(self) -> int:
        """Side of its square input pictures, in pixels."""
        ...

    @property
    def no_match(self) -> float:
        """Threshold of the weights: a frame with a lower score does not match. -1 if none is known."""
        ...

    def frames(self, pixels: Sequence[Pixels]) -> NDArray[np.float16]:
        """Encode pictures as `(pictures, vectors per picture, dim)`, L2-normalised."""
        ...

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts as `(texts, dim)`, L2-normalised."""
        ...
