"""The `generate` tool: imagine a frame.

Retrieve first with the same query: that real frame is the anchor. Then image-to-image from the anchor, with the query
as prompt, at the anchor's own aspect (the pipeline would squash it to a square), with a seed of its own. The paper's
pipeline is Stable Diffusion 3; any that diffusers knows as image-to-image for the weights will do. What comes back
carries its anchor and two similarities: of the result to the query, and of the anchor to the query; a person sees
whether imagining did anything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import Act2SeeError, ToolError, WeightsError
from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import Generated
from act2see.tools.weights import pick_device, resolve_weights

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]


class Generate:
    """Imagines frames by image-to-image diffusion from a retrieved anchor."""

    class Options(ToolOptions):
        weights: str = "stabilityai/stable-diffusion-3.5-large"
        strength: float = 0.7
        steps: int = 28
        guidance: float = 4.5
        pixels: int = 1024 * 1024
        text_tokens: int = 256
        text_encoder_3: bool = True
        device: str = "auto"
        dtype: str = "bfloat16"
        offload: bool = False
        usage: str = "an imagined frame: the video as it would look if the query were true"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage
        self.model = Path(options.weights).name if "/" in options.weights else options.weights
        self._pipeline: Any = None
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        return f"generate {self.model}"

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        finder, store = self.resources.finder, self.resources.store
        found = finder.find(context.video, query, k=1)
        anchor = finder.clips.pictures(context.video, [found.hits[0].frame])[0]
        source = store.get(anchor.digest)
        try:
            picture = self.imagine(source, query, context.seed)
        except Act2SeeError:
            raise
        except (RuntimeError, ValueError) as e:
            # Out of memory, a prompt that the pipeline refuses: the model hears of it and goes on.
            raise ToolError(f"the frame could not be imagined: {str(e).splitlines()[0]}") from e
        provenance = Generated(
            prompt=query,
            anchor=anchor,
            seed=context.seed,
            strength=self.options.strength,
            model=self.model,
            faithfulness=round(finder.encoder.similarity(picture, query), 4),
            anchor_score=round(found.hits[0].score, 4),
        )
        return ToolResult(frames=(store.ref(picture, anchor.seconds, provenance),), curve=found.curve)

    def imagine(self, source: Pixels, query: str, seed: int) -> Pixels:
        """The anchor as it would look if `query` were true: `(h, w, 3)` uint8."""
        import torch
        from PIL import Image

        o = self.options
        with self._lock:
            pipeline = self._load()
            multiple = pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1)
            width, height = target_size(source.shape[1], source.shape[0], o.pixels, multiple)
            takes = inspect.signature(pipeline.__call__).parameters
            # A UNet takes the picture's own size, and CLIP's text encoder its own length.
            given = {"height": height, "width": width, "guidance_scale": o.guidance, "max_sequence_length": o.text_tokens}
            given |= {"strength": o.strength, "num_inference_steps": o.steps}
            image = Image.fromarray(source).resize(
                (width, height), Image.Resampling.BOX if width < source.shape[1] else Image.Resampling.LANCZOS
            )
            out = pipeline(
                prompt=query,
                image=image,
                generator=torch.Generator("cpu").manual_seed(seed),
                **{name: value for name, value in given.items() if name in takes},
            ).images[0]
        return np.asarray(out.convert("RGB"))

    def _load(self) -> Any:
        if self._pipeline is None:
            import torch
            from diffusers import AutoPipelineForImage2Image

            o, weights = self.options, resolve_weights(self.options.weights)
            try:
                parts = AutoPipelineForImage2Image.load_config(weights)
                without = {} if o.text_encoder_3 else {p: None for p in ("text_encoder_3", "tokenizer_3") if p in parts}
                pipeline: Any = AutoPipelineForImage2Image.from_pretrained(weights, dtype=getattr(torch, o.dtype), **without)
            except (OSError, ValueError) as e:
                raise WeightsError(f"the generator's weights {o.weights} cannot be loaded: {str(e).splitlines()[0]}") from e
            pipeline.set_progress_bar_config(disable=True)
            if o.offload:
                pipeline.enable_model_cpu_offload()
            else:
                pipeline.to(pick_device(o.device))
            self._pipeline = pipeline
        return self._pipeline


def target_size(width: int, height: int, pixels: int, multiple: int) -> tuple[int, int]:
    """The size of about `pixels` pixels nearest to the frame's own aspect, in multiples the model can make."""
    scale = math.sqrt(pixels / (width * height))
    return max(multiple, round(width * scale / multiple) * multiple), max(multiple, round(height * scale / multiple) * multiple)
