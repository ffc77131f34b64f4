"""Refuse clips that do not show boards, to which the micro models would give confident wrong answers.

The VAE is trained only on boards, so a picture that it cannot reconstruct does not show a board.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.graphs.machine import recommend_preset
from act2see.micro.recipe.models import IMAGE
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import resolve_weights

MAX_ERROR = 0.03
"""The largest mean absolute error of a board, for pixels in [0, 1]. Clips of boards have at most 0.014, two
clips of real footage 0.14 and 0.16."""
MESSAGE = (
    "I cannot tell: this clip does not show a 3 x 3 board, and the micro models are trained on nothing else."
)


class BoardGuard:
    """A guard that refuses videos whose frames are not boards."""

    def __init__(self, weights: str = "micro:generator") -> None:
        self.weights = weights

    @cached_property
    def _vae(self) -> Any:
        import torch

        with quiet("diffusers"):
            from diffusers import AutoencoderKL

            return AutoencoderKL.from_pretrained(
                resolve_weights(self.weights), subfolder="vae", dtype=torch.float32
            ).eval()

    @natively
    def error(self, frames: Sequence[NDArray[np.uint8]]) -> float:
        """Return the mean reconstruction error of the worst frame; frames are `(height, width, 3)` uint8."""
        import torch
        from PIL import Image

        small = []
        for frame in frames:
            resized = Image.fromarray(frame).resize((IMAGE, IMAGE), Image.Resampling.BOX)
            small.append(np.asarray(resized))
        pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2)  # (n, 3, 48, 48)
        x = pixels.float() / 127.5 - 1
        with torch.inference_mode():
            y = self._vae.decode(self._vae.encode(x).latent_dist.mean).sample
        return float((y - x).abs().mean((1, 2, 3)).max()) / 2

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Return the reason for refusing a clip, with what to do.

        Return None if its first, middle and last frame are boards.
        """
        chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
        if await asyncio.to_thread(self.error, chosen) <= MAX_ERROR:
            return None
        # In a thread, since `recommend_preset` reads the disk to look for weights.
        return f"{MESSAGE} {await asyncio.to_thread(recommend_preset)}"
