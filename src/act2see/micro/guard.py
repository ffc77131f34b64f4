"""Notice clips that are no boards: the micro models would give a confident wrong answer.

The VAE has been trained on boards alone, so a picture that it cannot reconstruct is no board.
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
"""Mean absolute error in [0, 1]. Clips of boards reach at most 0.014, two clips of real footage 0.14 and
0.16."""
MESSAGE = "I cannot tell: this clip does not show a 3 x 3 board, and the micro models know nothing else."


class BoardGuard:
    """Refuses videos whose frames are not boards."""

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
        """The mean reconstruction error of the worst frame."""
        import torch
        from PIL import Image

        small = np.stack(
            [np.asarray(Image.fromarray(f).resize((IMAGE, IMAGE), Image.Resampling.BOX)) for f in frames]
        )
        x = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            y = self._vae.decode(self._vae.encode(x).latent_dist.mean).sample
        return float((y - x).abs().mean((1, 2, 3)).max()) / 2

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Why a clip is refused, with what to do; None if its first, middle and last frame are boards."""
        chosen = [frames[0], frames[len(frames) // 2], frames[-1]]
        if await asyncio.to_thread(self.error, chosen) <= MAX_ERROR:
            return None
        # In a thread, since it looks for weights and at the disk.
        return f"{MESSAGE} {await asyncio.to_thread(recommend_preset)}"
