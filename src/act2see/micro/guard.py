"""Refuse clips that do not show boards, to which the micro models would give confident wrong answers.

What is read from a picture is drawn again; a picture that looks otherwise does not show a board
(`likeness.py`). `python -m act2see.micro.study.refusals` measures this. The VAE's reconstruction error, the
alternative, accepts more pictures that are nearly boards: 13 of 225 drawn ones, this guard none. The VAE
reconstructs what boards are made of, in any order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from act2see.graphs.machine import recommend_preset
from act2see.micro.likeness import compare
from act2see.tools.runtime.forks import natively

MAX_ERROR = 14.0
"""The largest error of a board's worst cell (`likeness.Likeness`), of 255."""
CONTRAST = (13.0, 30.0)
"""The smallest and largest contrast between rims and gaps; 21 is the world's."""
_SQUARE = 1.04
"""The largest ratio of a board's sides."""
MESSAGE = (
    "I cannot tell: this clip does not show a 3 x 3 board, and the micro models are trained on nothing else."
)


class BoardGuard:
    """A guard that refuses videos whose frames are not boards."""

    @natively
    def accepts(self, frame: NDArray[np.uint8]) -> bool:
        """Return whether a picture, `(height, width, 3)` uint8, shows a board and nothing else."""
        height, width = frame.shape[:2]
        if max(height, width) > _SQUARE * min(height, width):
            return False
        found = compare(frame)
        least, most = CONTRAST
        if not least <= found.contrast <= most or found.error > MAX_ERROR:
            return False
        # The world has no empty board, and no shape twice.
        shapes = [piece.shape for piece in found.board.pieces]
        return bool(shapes) and len(shapes) == len(set(shapes))

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Return the reason for refusing a clip, with what to do.

        Return None if its first, middle and last frame are boards.
        """
        chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
        if await asyncio.to_thread(lambda: all(self.accepts(frame) for frame in chosen)):
            return None
        # In a thread, since `recommend_preset` reads the disk to look for weights.
        return f"{MESSAGE} {await asyncio.to_thread(recommend_preset)}"
