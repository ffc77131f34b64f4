"""Refuse clips that do not show boards, to which the micro models would give confident wrong answers.

What is read from a picture is drawn again; a picture that looks otherwise does not show a board
(`likeness.py`). `python -m act2see.micro.study.refusals` measures this. The VAE's reconstruction error, the
alternative, accepted 73 of 303 drawn pictures that are not boards (this guard 4): the VAE reconstructs
what boards are made of, in any order. Left are boards with thin marks in a free cell.
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
MAX_WORST = 28.0
"""The largest error of a board's worst block."""
CONTRAST = (6.0, 30.0)
"""The smallest and largest contrast between rims and gaps; 21 is the world's. Encoders take some of it."""
_SQUARE = 1.04
"""The largest ratio of a board's sides."""
MAX_WORDS = 80
"""The longest question, in words. The few longer ones of micro's training are several questions in one."""
MAX_LETTERS = 600
MESSAGE = (
    "I cannot tell: this clip does not show a 3 x 3 board, and the micro models are trained on nothing else."
)


class BoardGuard:
    """A guard that refuses videos whose frames are not boards, and questions that are too long."""

    @natively
    def accepts(self, *frames: NDArray[np.uint8]) -> bool:
        """Return whether all pictures, `(height, width, 3)` uint8, show boards and nothing else."""
        contrasts = []
        for frame in frames:
            height, width = frame.shape[:2]
            if max(height, width) > _SQUARE * min(height, width):
                return False
            found = compare(frame)
            if found.error > MAX_ERROR or found.worst > MAX_WORST:
                return False
            # The world has no empty board, and no shape twice.
            shapes = [piece.shape for piece in found.board.pieces]
            if not shapes or len(shapes) != len(set(shapes)):
                return False
            contrasts.append(found.contrast)
        # One frame is enough: encoders take contrast from the frames after a keyframe.
        least, most = CONTRAST
        return least <= max(contrasts) <= most

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Return the reason for refusing a clip, with what to do.

        Return None if its first, middle and last frame are boards.
        """
        chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
        if await asyncio.to_thread(self.accepts, *chosen):
            return None
        # In a thread, since `recommend_preset` reads the disk to look for weights.
        return f"{MESSAGE} {await asyncio.to_thread(recommend_preset)}"

    def refuses_question(self, question: str) -> str | None:
        """Return the reason for refusing a question that is longer than all that micro has read."""
        words = len(question.split())
        if words <= MAX_WORDS and len(question) <= MAX_LETTERS:
            return None
        return (
            f"I cannot tell: the question has {words} words and {len(question)} letters, and the micro "
            f"models read questions of up to {MAX_WORDS} words and {MAX_LETTERS} letters. Ask one thing in a "
            "sentence."
        )
