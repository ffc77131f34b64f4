"""The image-to-image pipeline of diffusers: loading it, and generating frames in batches.

Any image-to-image pipeline of diffusers works: Stable Diffusion 3 as in the paper, one with a UNet, a
distilled one. Options load it without the T5 text encoder, with its transformer in four bits, or with its
parts offloaded to the CPU's memory until they are used. On a CPU `offload` has no effect.

Tools with the same loading options share one pipeline and its queue, even if they request frames of
different `GenerationParams`. Each frame has its own random generator, so its pixels do not depend on the rest
of the batch, except for rounding in the larger matrix products. If memory runs out, the batch is halved, and
then the frame is made smaller.
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
from act2see.tools.runtime.weights import Wanted, local_weights, not_loaded, pick_device, pick_dtype
from act2see.tools.video.store import Pixels

log = logging.getLogger(__name__)
Size = tuple[int, int]
"""Width and height."""
Count = Annotated[int, Field(ge=1)]
_DIVISORS = (2, 4, 8)  # of the number of pixels, tried in order if memory is insufficient for a frame

LOADING = frozenset({"weights", "device", "dtype", "quantise", "offload", "text_encoder_3"})
"""Options that determine the pipeline. Tools with the same values share it."""


class DiffusionOptions(ToolOptions):
    """Options for loading the pipeline and for generating a frame.

    Tools that share a pipeline share its queue too, with the `batch` and `waiting` of the first tool.
    """

    weights: str = "stabilityai/stable-diffusion-3.5-large"
    """Folder or hub repository."""
    steps: Count = 28
    """Number of steps of the scheduler. A distilled (Turbo) model needs few."""
    strength: Annotated[float, Field(gt=0, le=1, validate_default=True)] = 0.7
    """Strength of the noise added to the anchor, which is also the share of the `steps` that are run."""
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.5
    """Guidance scale; 0 for a distilled model."""
    pixels: Count = 1024 * 1024
    """Area of the frame, in pixels."""
    text_tokens: Count = 256
    """Length at which the prompt is cut; 77 without `text_encoder_3`."""
    text_encoder_3: bool = True
    """Whether the T5 text encoder is loaded."""
    batch: Count = 4
    """Largest number of frames in one call."""
    waiting: Count = 64
    """Largest number of frames in the queue."""
    device: str = "auto"
    dtype: str = "auto"
    """Data type of the computation; `auto` is bfloat16 where it is fast."""
    quantise: Literal["none", "nf4"] = "none"
    """Whether the transformer or UNet is loaded in four bits."""
    offload: Literal["none", "model", "sequential"] = "none"
    """What stays in the CPU's memory until it is used: nothing, whole models, or single layers."""

    @field_validator("strength")
    @classmethod
    def _does_a_step(cls, strength: float, info: ValidationInfo) -> float:
        steps = info.data.get("steps")
        if steps and int(steps * strength) < 1:
            raise ValueError(
                f"{steps} steps at this strength round down to zero: steps x strength must be 1 or more"
            )
        return strength


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """Parameters of a frame, which are the same for all frames of a batch."""

    size: Size
    steps: int
    strength: float
    guidance: float
    text_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One frame to imagine."""

    source: Pixels
    """The anchor, `(height, width, 3)` uint8."""
    prompt: str
    seed: int


class Diffuser:
    """A pipeline, loaded on first use, and the queue of its requests.

    Thread-safe: one call of the pipeline at a time.

    Raises:
        ConfigError: Four-bit weights are requested and bitsandbytes is not installed.
    """

    def __init__(self, options: DiffusionOptions) -> None:
        self.options = options
        self.queue: MicroBatcher[GenerationParams, GenerationRequest, Pixels] = MicroBatcher(
            self.make, max_size=options.batch, waiting=options.waiting, name="act2see-generate"
        )
        self._pipeline: Any = None
        self._lock = RLock()
        self._inherited = False  # whether the pipeline was loaded before this process was forked
        renew_after_fork(self)
        if options.quantise == "nf4" and find_spec("bitsandbytes") is None:
            raise ConfigError(
                "generate: `quantise: nf4` needs bitsandbytes: pip install bitsandbytes, "
                "or set `quantise: none`"
            )

    def renew(self) -> None:
        """In a forked child, note that the pipeline is the parent's, which a GPU does not share."""
        self._inherited = self._pipeline is not None

    def wanted(self, part: str) -> Iterator[Wanted]:
        """Yield the weights that would be loaded now, named as those of `part`."""
        if self._pipeline is None:
            yield Wanted(part, self.options.weights, self._left_out)

    @property
    def _left_out(self) -> tuple[str, ...]:
        """The parts of the pipeline that are not loaded."""
        return () if self.options.text_encoder_3 else ("text_encoder_3",)

    def params(self, source: Pixels, options: DiffusionOptions | None = None) -> GenerationParams:
        """Return the parameters of a frame that is made from this one. Loads the pipeline.

        Args:
            source: The anchor, `(height, width, 3)` uint8.
            options: The options of the frame; by default those that the pipeline was loaded with.

        Raises:
            ToolError: Memory is insufficient for the pipeline.
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
        """Generate frames in one call of the pipeline, or in several if memory runs out.

        Args:
            params: The parameters of the frames. A frame may be smaller if memory runs out.
            requests: The anchors, prompts and seeds of the frames.
            stop: Called after each step. When it returns true, the frames are abandoned.

        Returns:
            For each request its picture, `(height, width, 3)` uint8, or its error.

        Raises:
            ToolError: Memory is insufficient for the pipeline.
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
        """Generate one frame, smaller than `params` says, at the largest size that memory allows."""
        width, height = size = params.size
        for divisor in _DIVISORS:
            tried = size
            size = target_size(width, height, width * height // divisor, self._multiple())
            if size == tried:
                continue
            log.warning("not enough memory for a frame of %d x %d; trying %d x %d", *tried, *size)
            smaller = replace(params, size=size)
            [made] = in_halves(lambda some, smaller=smaller: self._call(smaller, some, stop), [request])  # type: ignore[misc]
            if not isinstance(made, Exception) or not out_of_memory(made):
                return made
        return ToolError(f"not enough memory to imagine a frame, not even one of {size[0]} x {size[1]}")

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
        # Pipelines with a UNet take neither a size (they keep the picture's) nor a text length (CLIP's).
        takes = inspect.signature(pipeline.__call__).parameters
        out = pipeline(
            prompt=[request.prompt for request in requests],
            image=[_resized(request.source, params.size) for request in requests],
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
            **{name: value for name, value in given.items() if name in takes},
        ).images
        return [np.asarray(picture.convert("RGB")) for picture in out]

    def _multiple(self) -> int:
        """Return the number of pixels that both sides of a frame must be a multiple of."""
        pipeline = self.pipeline()
        return int(pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1))

    def pipeline(self) -> Any:
        """Return the pipeline, and load it on first use.

        Raises:
            SetupError: A parent process loaded the pipeline on an accelerator.
            ToolError: Memory is insufficient for the pipeline.
            WeightsError: The pipeline cannot be loaded.
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
                if full:  # after `except`, because the error refers to the parts loaded so far
                    release()
                    raise ToolError(
                        "not enough memory for the generator's weights: "
                        "set `offload: model` or `quantise: nf4`"
                    )
            return self._pipeline

    @natively
    @quiet("diffusers")
    def _load(self) -> Any:
        import torch
        from diffusers import AutoPipelineForImage2Image

        o = self.options
        weights = local_weights("the generator's weights", o.weights, self._left_out)
        device = pick_device(o.device)
        dtype = pick_dtype(o.dtype, device)
        try:
            parts = AutoPipelineForImage2Image.load_config(weights)
            given: dict[str, Any] = {}
            for part in ("text_encoder_3", "tokenizer_3"):
                # None skips a part. Weights saved without T5 need it too: they list the part as null.
                if part in parts and not (o.text_encoder_3 and parts[part][0]):
                    given[part] = None
            if o.quantise != "none":
                given["quantization_config"] = quantisation(dtype, parts)
            pipeline: Any = AutoPipelineForImage2Image.from_pretrained(
                weights, dtype=getattr(torch, dtype), use_safetensors=True, **given
            )
        except (OSError, ValueError) as e:
            raise not_loaded("the generator's weights", o.weights, e) from e
        pipeline.set_progress_bar_config(disable=True)
        if o.offload == "model" and device != "cpu":
            pipeline.enable_model_cpu_offload(device=device)
        elif o.offload == "sequential" and device != "cpu":
            pipeline.enable_sequential_cpu_offload(device=device)
        else:
            pipeline.to(device)
        return pipeline


def quantisation(dtype: str, parts: Any) -> Any:
    """Return a configuration that loads the transformer or UNet in NF4, and the other parts unchanged.

    Args:
        dtype: Data type of the computation.
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
    """Return a Pillow image of this size."""
    from PIL import Image

    shrinks = size[0] < source.shape[1]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS
    return Image.fromarray(source).resize(size, method)


def _interrupt(stop: Stop) -> Callable[..., dict[str, Any]]:
    """Return a callback that ends the denoising, as diffusers documents it, when `stop` returns true."""

    def after_step(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if stop():
            pipeline._interrupt = True
        return kept

    return after_step


def target_size(width: int, height: int, pixels: int, multiple: int) -> Size:
    """Return the size with about `pixels` pixels and nearly the frame's aspect ratio.

    Args:
        width: Width of the frame, in pixels.
        height: Height of the frame, in pixels.
        pixels: Area of the result, in pixels.
        multiple: The number that both sides must be a multiple of.
    """
    scale = math.sqrt(pixels / (width * height))

    def side(length: int) -> int:
        return max(multiple, round(length * scale / multiple) * multiple)

    return side(width), side(height)
