"""The image-to-image pipeline: how it is loaded, and frames made with it, many in one call.

It is whatever diffusers knows as image-to-image for the weights: Stable Diffusion 3 as in the paper, one with
a UNet, a distilled one. Loaded as the options say: without the T5 text encoder, the transformer in four bits,
parts kept in the CPU's memory until they are used. On a CPU there is nothing to offload from, and `offload`
changes nothing.

One pipeline and its queue serve every tool that loads the same, whatever each asks of a frame
(`GenerationParams`). Each frame has a generator of its own, so its pixels do not depend on what else is in
the batch, beyond the rounding of a larger matrix product. If memory runs out, the batch is halved, then the
frame made smaller.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from act2see.errors import ConfigError, ToolError
from act2see.tools.base import ToolOptions
from act2see.tools.runtime.batching import MicroBatcher, Stop
from act2see.tools.runtime.forks import RLock, check_inherited, natively, renew_after_fork
from act2see.tools.runtime.memory import in_halves, out_of_memory, release
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import Wanted, local_weights, not_loaded, pick_device
from act2see.tools.video.store import Pixels

log = logging.getLogger(__name__)
Size = tuple[int, int]
"""Width and height."""
Count = Annotated[int, Field(ge=1)]
_DIVISORS = (2, 4, 8)  # without memory for a frame, one of so many times fewer pixels is made

LOADING = frozenset({"weights", "device", "dtype", "quantise", "offload", "text_encoder_3"})
"""Options that make it another pipeline."""


class DiffusionOptions(ToolOptions):
    """How the pipeline is loaded, and how it makes a frame.

    Tools that load the same pipeline share it and its queue, whose `batch` and `waiting` are those of the
    first.
    """

    weights: str = "stabilityai/stable-diffusion-3.5-large"
    """A folder or a hub repository."""
    steps: Count = 28
    """Of the scheduler; a distilled (Turbo) model takes few."""
    strength: Annotated[float, Field(gt=0, le=1, validate_default=True)] = 0.7
    """The share of the `steps` that is done, from noise of that strength."""
    guidance: Annotated[float, Field(ge=0)] = 4.5
    """0 for a distilled model."""
    pixels: Count = 1024 * 1024
    """The frame's area."""
    text_tokens: Count = 256
    """The prompt is cut there; at 77 without `text_encoder_3`."""
    text_encoder_3: bool = True
    """Whether the T5 text encoder is loaded."""
    batch: Count = 4
    """How many frames are made in one call."""
    waiting: Count = 64
    """How many may be in the queue."""
    device: str = "auto"
    dtype: str = "bfloat16"
    quantise: Literal["none", "nf4"] = "none"
    """Whether the transformer or UNet is loaded in four bits."""
    offload: Literal["none", "model", "sequential"] = "none"
    """What waits in the CPU's memory: nothing, whole models, or single layers."""

    @field_validator("strength")
    @classmethod
    def _does_a_step(cls, strength: float, info: ValidationInfo) -> float:
        steps = info.data.get("steps")
        if steps and int(steps * strength) < 1:
            raise ValueError(f"{steps} steps at this strength are none: steps x strength must be 1 or more")
        return strength


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How frames are made: the same for all of a batch."""

    size: Size
    steps: int
    strength: float
    guidance: float
    text_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One frame to imagine."""

    source: Pixels
    """The anchor, `(height, width, 3)`."""
    prompt: str
    seed: int


class Diffuser:
    """One pipeline, loaded when it is first needed, and the queue of those who want frames.

    Thread-safe: one call at a time.

    Raises:
        ConfigError: Four-bit weights are asked for and bitsandbytes is not installed.
    """

    def __init__(self, options: DiffusionOptions) -> None:
        self.options = options
        self.queue: MicroBatcher[GenerationParams, GenerationRequest, Pixels] = MicroBatcher(
            self.make, max_size=options.batch, waiting=options.waiting, name="act2see-generate"
        )
        self._pipeline: Any = None
        self._lock = RLock()
        self._inherited = False  # from the process that this one was forked from
        renew_after_fork(self)
        if options.quantise == "nf4" and find_spec("bitsandbytes") is None:
            raise ConfigError(
                "generate: `quantise: nf4` needs bitsandbytes: pip install bitsandbytes, "
                "or set `quantise: none`"
            )

    def renew(self) -> None:
        """In a forked child: the pipeline is as it was, and may be out of reach."""
        self._inherited = self._pipeline is not None

    def wanted(self, part: str) -> Iterator[Wanted]:
        """The weights that would be loaded now, for the part of this name."""
        if self._pipeline is None:
            yield Wanted(part, self.options.weights, self._left_out)

    @property
    def _left_out(self) -> tuple[str, ...]:
        """The parts of the pipeline that are not loaded."""
        return () if self.options.text_encoder_3 else ("text_encoder_3",)

    def params(self, source: Pixels, options: DiffusionOptions | None = None) -> GenerationParams:
        """How a frame is made of this one.

        Args:
            source: The anchor, `(height, width, 3)`.
            options: By default those that the pipeline was loaded with.

        Raises:
            ToolError: There is no memory for the pipeline.
            WeightsError: The pipeline cannot be loaded.
        """
        o = options or self.options
        height, width, _ = source.shape
        size = target_size(width, height, o.pixels, self._multiple())
        return GenerationParams(size, o.steps, o.strength, o.guidance, o.text_tokens)

    def make(
        self,
        params: GenerationParams,
        requests: Sequence[GenerationRequest],
        stop: Stop = lambda: False,
    ) -> list[Pixels | Exception]:
        """Make frames in one call of the pipeline, or several if memory runs out.

        Args:
            params: How they are made; one may come smaller if memory runs out.
            requests: What they show.
            stop: Asked after each step; once it returns true, the frames are given up.

        Returns:
            For each request `(height, width, 3)` uint8, or the error that it failed with.

        Raises:
            ToolError: There is no memory for the pipeline.
            WeightsError: The pipeline cannot be loaded.
        """
        with self._lock:
            self.pipeline()
            made = in_halves(lambda some: self._call(params, some, stop), requests)
            for n, request in enumerate(requests):
                error = made[n]
                if isinstance(error, Exception) and out_of_memory(error):
                    made[n] = self._make_smaller(params, request, stop)
            return made

    def _make_smaller(
        self, params: GenerationParams, request: GenerationRequest, stop: Stop
    ) -> Pixels | Exception:
        """One frame of the largest size, below the one asked for, that there is memory for."""
        width, height = size = params.size
        for divisor in _DIVISORS:
            tried, size = size, target_size(width, height, width * height // divisor, self._multiple())
            if size == tried:
                continue
            log.warning("no memory for a frame of %d x %d; trying %d x %d", *tried, *size)
            smaller = replace(params, size=size)
            [made] = in_halves(lambda some, smaller=smaller: self._call(smaller, some, stop), [request])  # type: ignore[misc]
            if not isinstance(made, Exception) or not out_of_memory(made):
                return made
        return ToolError(f"there is no memory left to imagine a frame, not even one of {size[0]} x {size[1]}")

    @natively
    @quiet("diffusers")
    def _call(
        self, params: GenerationParams, requests: Sequence[GenerationRequest], stop: Stop
    ) -> list[Pixels]:
        import torch

        pipeline, (width, height) = self._pipeline, params.size
        given: dict[str, Any] = {
            "height": height,
            "width": width,
            "guidance_scale": params.guidance,
            "max_sequence_length": params.text_tokens,
            "strength": params.strength,
            "num_inference_steps": params.steps,
            "callback_on_step_end": _interrupt(stop),
        }
        # A UNet takes the picture's own size, and CLIP's text encoder its own length.
        takes = inspect.signature(pipeline.__call__).parameters
        out = pipeline(
            prompt=[request.prompt for request in requests],
            image=[_resized(request.source, params.size) for request in requests],
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            **{name: value for name, value in given.items() if name in takes},
        ).images
        return [np.asarray(picture.convert("RGB")) for picture in out]

    def _multiple(self) -> int:
        """What the pipeline's sides are multiples of."""
        pipeline = self.pipeline()
        return int(pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1))

    def pipeline(self) -> Any:
        """The pipeline, loaded unless it is.

        Raises:
            SetupError: A parent process loaded it on an accelerator.
            ToolError: There is no memory for it.
            WeightsError: It cannot be loaded.
        """
        if self._inherited:
            check_inherited("the generator", pick_device(self.options.device))
        with self._lock:
            if self._pipeline is None:
                full = False
                try:
                    self._pipeline = self._load()
                except Exception as e:
                    if not out_of_memory(e):
                        raise
                    full = True
                if full:  # outside `except`, whose error holds what was loaded so far
                    release()
                    raise ToolError(
                        "there is no memory for the generator's weights "
                        "(`offload: model` or `quantise: nf4` take less)"
                    )
            return self._pipeline

    @natively
    @quiet("diffusers")
    def _load(self) -> Any:
        import torch
        from diffusers import AutoPipelineForImage2Image

        o = self.options
        weights = local_weights("the generator's weights", o.weights, self._left_out)
        try:
            parts = AutoPipelineForImage2Image.load_config(weights)
            # Weights saved without a T5 must be told so as well.
            t5 = [part for part in ("text_encoder_3", "tokenizer_3") if part in parts]
            given: dict[str, Any] = {p: None for p in t5 if not o.text_encoder_3 or not parts[p][0]}
            if o.quantise != "none":
                given["quantization_config"] = quantisation(o.dtype, parts)
            pipeline: Any = AutoPipelineForImage2Image.from_pretrained(
                weights, dtype=getattr(torch, o.dtype), use_safetensors=True, **given
            )
        except (OSError, ValueError) as e:
            raise not_loaded("the generator's weights", o.weights, e) from e
        pipeline.set_progress_bar_config(disable=True)
        device = pick_device(o.device)
        if o.offload == "model" and device != "cpu":
            pipeline.enable_model_cpu_offload(device=device)
        elif o.offload == "sequential" and device != "cpu":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
        return pipeline


def quantisation(dtype: str, parts: Any) -> Any:
    """The large part in NF4 by bitsandbytes; the text encoders and the VAE as they are.

    Args:
        dtype: What is computed in.
        parts: The pipeline's parts by name.
    """
    import torch
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )
    large = "transformer" if "transformer" in parts else "unet"
    return PipelineQuantizationConfig(quant_mapping={large: config})


def _resized(source: Pixels, size: Size) -> Any:
    """A Pillow image of this size."""
    from PIL import Image

    smaller = size[0] < source.shape[1]
    return Image.fromarray(source).resize(size, Image.Resampling.BOX if smaller else Image.Resampling.LANCZOS)


def _interrupt(stop: Stop) -> Callable[..., dict[str, Any]]:
    """A callback that ends the denoising, as diffusers documents it, once nobody awaits the frames."""

    def after_step(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if stop():
            pipeline._interrupt = True
        return kept

    return after_step


def target_size(width: int, height: int, pixels: int, multiple: int) -> Size:
    """The size with about `pixels` pixels that is nearest to the frame's own aspect.

    Args:
        width: Of the frame, as is `height`.
        height: Of the frame.
        pixels: The area.
        multiple: What both sides are multiples of.
    """
    scale = math.sqrt(pixels / (width * height))

    def side(length: int) -> int:
        return max(multiple, round(length * scale / multiple) * multiple)

    return side(width), side(height)
