"""The image-to-image pipeline: how it is loaded, and frames made with it, many in one call.

It is whatever diffusers knows as image-to-image for the weights: Stable Diffusion 3 as in the paper, one with
a UNet, a distilled one. Loaded as the options say: without the T5 text encoder, the transformer in four bits,
parts kept in the CPU's memory until they are used. On a CPU there is nothing to offload from, and `offload`
changes nothing.

One pipeline and its queue serve every tool that loads the same, whatever each asks of a frame (`GenerationParams`). Each
frame has a generator of its own, so its pixels do not depend on what else is in the batch, beyond the
rounding of a larger matrix product. Where memory runs out the batch is halved, then the frame made smaller.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from act2see.errors import ConfigError, ToolError
from act2see.tools.runtime.batching import MicroBatcher
from act2see.tools.runtime.forks import RLock, check_inherited, natively, renew_after_fork
from act2see.tools.runtime.memory import in_halves, out_of_memory, release
from act2see.tools.runtime.quiet import quiet
from act2see.tools.runtime.weights import Wanted, local_weights, not_loaded, pick_device

if TYPE_CHECKING:
    from act2see.tools.generate import Generate

log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]
Size = tuple[int, int]
_SMALLEST = 8  # a frame is made at an eighth of its pixels at the least, where there is no memory for more


LOADING = frozenset(
    {"weights", "device", "dtype", "quantise", "offload", "text_encoder_3"}
)  # options that make it another pipeline


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How frames are made, the same for all of a batch. `size` is width and height."""

    size: Size
    steps: int
    strength: float
    guidance: float
    text_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One frame to imagine."""

    source: Pixels
    prompt: str
    seed: int


class Diffuser:
    """One pipeline, loaded when it is first needed, and the queue of those who want frames. Thread-safe: one
    call at a time."""

    def __init__(self, options: Generate.Options) -> None:
        self.options = options
        self.queue: MicroBatcher[GenerationParams, GenerationRequest, Pixels] = MicroBatcher(
            self.make, most=options.batch, waiting=options.waiting, name="act2see-generate"
        )
        self._pipeline: Any = None
        self._lock = RLock()
        self._inherited = False  # from the process that this one was forked from
        renew_after_fork(self)
        if options.quantise == "nf4" and find_spec("bitsandbytes") is None:
            raise ConfigError(
                "generate: `quantise: nf4` needs bitsandbytes: pip install bitsandbytes, or set `quantise: none`"
            )

    def renew(self) -> None:
        """In a forked child: the pipeline is as it was, and may be out of reach."""
        self._inherited = self._pipeline is not None

    def wanted(self, part: str) -> Iterator[Wanted]:
        """The weights that would be loaded now."""
        if self._pipeline is None:
            yield Wanted(
                part, self.options.weights, () if self.options.text_encoder_3 else ("text_encoder_3",)
            )

    def how(self, source: Pixels, options: Generate.Options | None = None) -> GenerationParams:
        """How a frame is made of this one: by these options, or those that the pipeline was loaded with."""
        o = options or self.options
        size = target_size(source.shape[1], source.shape[0], o.pixels, self._multiple())
        return GenerationParams(size, o.steps, o.strength, o.guidance, o.text_tokens)

    def make(
        self,
        how: GenerationParams,
        jobs: Sequence[GenerationRequest],
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Pixels | Exception]:
        """`(h, w, 3)` uint8 for each job, or why there is none. Frames may come smaller than `how` says where
        memory ran out."""
        with self._lock:
            self.pipeline()
            made = in_halves(lambda some: self._call(how, some, stop), jobs)
            return [
                self._smaller(how, job, m, stop) if isinstance(m, Exception) else m
                for job, m in zip(jobs, made, strict=True)
            ]

    def _smaller(
        self, how: GenerationParams, job: GenerationRequest, error: Exception, stop: Callable[[], bool]
    ) -> Pixels | Exception:
        if not out_of_memory(error):
            return error
        size = at = how.size
        for divisor in (2, 4, _SMALLEST):
            tried, at = at, target_size(*size, size[0] * size[1] // divisor, self._multiple())
            if at == tried:
                continue
            log.warning("no memory for a frame of %d x %d; trying %d x %d", *tried, *at)
            [made] = in_halves(lambda some, at=at: self._call(replace(how, size=at), some, stop), [job])  # type: ignore[misc]
            if not isinstance(made, Exception):
                return made
            if not out_of_memory(made):
                return made
        return ToolError(f"there is no memory left to imagine a frame, not even one of {at[0]} x {at[1]}")

    @natively
    @quiet("diffusers")
    def _call(
        self, how: GenerationParams, jobs: Sequence[GenerationRequest], stop: Callable[[], bool]
    ) -> list[Pixels]:
        import torch
        from PIL import Image

        pipeline, (width, height) = self._pipeline, how.size
        takes = inspect.signature(pipeline.__call__).parameters
        # A UNet takes the picture's own size, and CLIP's text encoder its own length.
        given: dict[str, Any] = {
            "height": height,
            "width": width,
            "guidance_scale": how.guidance,
            "max_sequence_length": how.text_tokens,
        }
        given |= {
            "strength": how.strength,
            "num_inference_steps": how.steps,
            "callback_on_step_end": _interrupt(stop),
        }
        images = [
            Image.fromarray(j.source).resize(
                (width, height),
                Image.Resampling.BOX if width < j.source.shape[1] else Image.Resampling.LANCZOS,
            )
            for j in jobs
        ]
        out = pipeline(
            prompt=[j.prompt for j in jobs],
            image=images,
            generator=[torch.Generator("cpu").manual_seed(j.seed) for j in jobs],
            **{name: value for name, value in given.items() if name in takes},
        ).images
        return [np.asarray(picture.convert("RGB")) for picture in out]

    def _multiple(self) -> int:
        pipeline = self.pipeline()
        return int(pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1))

    def pipeline(self) -> Any:
        """The pipeline, loaded if need be. Raises `WeightsError`, or `ToolError` where there is no memory for
        it."""
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
                if full:
                    release()
                    raise ToolError(
                        "there is no memory for the generator's weights (`offload: model` or `quantise: nf4` take less)"
                    )
            return self._pipeline

    @natively
    @quiet("diffusers")
    def _load(self) -> Any:
        import torch
        from diffusers import AutoPipelineForImage2Image

        o = self.options
        weights = local_weights(
            "the generator's weights", o.weights, () if o.text_encoder_3 else ("text_encoder_3",)
        )
        try:
            parts = AutoPipelineForImage2Image.load_config(weights)
            # Weights saved without a T5 must be told so as well.
            t5 = [p for p in ("text_encoder_3", "tokenizer_3") if p in parts]
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
    """The large part in NF4 by bitsandbytes; the text encoders and the VAE as they are."""
    import torch
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
    )
    return PipelineQuantizationConfig(
        quant_mapping={"transformer" if "transformer" in parts else "unet": config}
    )


def _interrupt(stop: Callable[[], bool]) -> Callable[..., dict[str, Any]]:
    """Ends the denoising where nobody waits for the frames any more: diffusers' own way, between two
    steps."""

    def after(pipeline: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if stop():
            pipeline._interrupt = True
        return kept

    return after


def target_size(width: int, height: int, pixels: int, multiple: int) -> Size:
    """The size of about `pixels` pixels nearest to the frame's own aspect, in multiples the model can
    make."""
    scale = math.sqrt(pixels / (width * height))
    return max(multiple, round(width * scale / multiple) * multiple), max(
        multiple, round(height * scale / multiple) * multiple
    )
