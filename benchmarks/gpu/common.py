"""Shared by the GPU benchmarks: the paper's models with random weights, and the measured limits of the
machine.

Models are built on the device from the published configs (`tests/models/published/`), so nothing is
downloaded and no 46 GB are written to disk. The loaders are act2see's own; only reading the weights is
replaced (`weightless`). Tokenizers are micro's, whose ids lie within the large vocabularies. `--tiny` uses
micro's sizes on the CPU, to check that a script runs.

Two bounds are measured in the same run: the speed of a large matrix product bounds compute-bound work, and
the bandwidth of a large copy (read and write both counted) bounds memory-bound work, such as decoding single
tokens, which reads all weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from act2see.micro.questions import sentences
from act2see.micro.recipe.tokenizers import bert_tokenizer, clip_tokenizer, qwen_tokenizer
from benchmarks import machine

TINY_HELP = "use micro's size on the CPU, to check that the script runs"
PUBLISHED = Path(__file__).parents[2] / "tests" / "models" / "published"

TEXT_8B = dict(
    vocab_size=151_936,
    hidden_size=4096,
    intermediate_size=12_288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=262_144,
    rms_norm_eps=1e-6,
    rope_parameters=dict(
        rope_type="default", rope_theta=5_000_000.0, mrope_section=[24, 20, 20], mrope_interleaved=True
    ),
)
VISION_8B = dict(
    depth=27,
    hidden_size=1152,
    intermediate_size=4304,
    num_heads=16,
    patch_size=16,
    spatial_merge_size=2,
    temporal_patch_size=2,
    out_hidden_size=4096,
    num_position_embeddings=2304,
    deepstack_visual_indexes=[8, 16, 24],
)
TINY: dict[str, dict[str, Any]] = {
    "text": dict(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    ),
    "vision": dict(
        depth=3,
        hidden_size=96,
        intermediate_size=256,
        num_heads=4,
        out_hidden_size=128,
        deepstack_visual_indexes=[1],
    ),
}
TINY["text"]["rope_parameters"] = dict(TEXT_8B["rope_parameters"], mrope_section=[8, 4, 4])  # type: ignore[call-overload]


def published(name: str) -> dict[str, Any]:
    """Return a published config."""
    return dict(json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8")))


def parse_arguments(about: str, memory: int, **options: tuple[int, int, str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        about: The script's docstring; its first paragraph is the description.
        memory: The GPU memory that the benchmark needs, in GB.
        options: The default of each integer option, its value with `--tiny`, and its help.

    Raises:
        SystemExit: If no GPU is available and `--tiny` is not given.
    """
    import torch

    parser = argparse.ArgumentParser(description=about.partition("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help=TINY_HELP)
    for name, (default, tiny, help_text) in options.items():
        parser.add_argument(f"--{name}", type=int, help=f"{help_text} (default {default}; tiny {tiny})")
    given = parser.parse_args()
    for name, (default, tiny, _) in options.items():
        if getattr(given, name) is None:
            setattr(given, name, tiny if given.tiny else default)
    if not given.tiny and not torch.cuda.is_available():
        sys.exit(f"this benchmark needs a CUDA GPU with {memory} GB; --tiny runs a small version on a CPU")
    return given


def device_of(tiny: bool) -> str:
    """Return the device of a run."""
    return "cpu" if tiny else "cuda"


def sync() -> None:
    """Wait until the GPU, if there is one, has finished its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(
    call: Callable[[], Any], times: int, warm: int = 1, before: Callable[[], None] = lambda: None
) -> list[float]:
    """Return the seconds of each call, device work included.

    Args:
        call: The call to measure.
        times: The number of measured calls.
        warm: The number of calls before them, which do not count.
        before: Called before each call, outside the measured time.
    """
    out = []
    for n in range(warm + times):
        before()
        sync()
        started = time.perf_counter()
        call()
        sync()
        if n >= warm:
            out.append(time.perf_counter() - started)
    return out


def matmul_speed(device: str, dtype: Any) -> float:
    """Return the operations per second of a large matrix product."""
    import torch

    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * n**3 / (time.perf_counter() - started))
    return best


def copy_speed(device: str) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    import torch

    a = torch.empty(2**31 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / min(timed(lambda: b.copy_(a), 10))


def bounds(tiny: bool) -> dict[str, float]:
    """Return the operations and bytes per second that this machine reaches."""
    import torch

    device = device_of(tiny)
    return {
        "matrix product, op/s": matmul_speed(device, torch.float32 if tiny else torch.bfloat16),
        "copy, bytes/s": copy_speed(device),
    }


def report(tiny: bool, bound: dict[str, float], figures: dict[str, Any]) -> None:
    """Print machine, bounds and figures as JSON."""
    import torch

    result: dict[str, Any] = {
        "machine": machine(),
        "tiny": tiny,
        "weights": "random",
        "matrix product, teraflop/s": bound["matrix product, op/s"] / 1e12,
        "copy, GB/s": bound["copy, bytes/s"] / 1e9,
        **figures,
    }
    if not tiny:
        result["machine"]["gpu"] = torch.cuda.get_device_name()
        result["peak GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    print(json.dumps(round_numbers(result), indent=1))


def round_numbers(value: Any) -> Any:
    """Round every number to four significant digits; the rest is noise."""
    if isinstance(value, dict):
        return {k: round_numbers(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [round_numbers(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@contextlib.contextmanager
def construct_on(device: str, dtype: Any) -> Iterator[None]:
    """Construct the modules of this block on this device and in this dtype, with a fixed seed."""
    import torch

    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(default)


def write_base(folder: Path, tiny: bool) -> Any:
    """Write a checkpoint folder without weights and return its config.

    The tokenizer is micro's, whose few ids lie within the 151,936 of the 8B model.
    """
    from transformers import Qwen3VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = qwen_tokenizer(sentences())
    ids = tokenizer.convert_tokens_to_ids
    text: dict[str, Any] = {
        **TEXT_8B,
        "eos_token_id": ids("<|im_end|>"),
        "pad_token_id": ids("<|endoftext|>"),
    }
    vision: dict[str, Any] = dict(VISION_8B)
    if tiny:
        text |= {**TINY["text"], "vocab_size": len(tokenizer)}
        vision |= TINY["vision"]
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=16_777_216
    ).save_pretrained(folder)
    return config


def random_model(config: Any, device: str, dtype: Any) -> Any:
    """Build a Qwen3-VL on its device: to draw eight billion numbers on a CPU takes minutes."""
    from transformers import Qwen3VLForConditionalGeneration

    with construct_on(device, dtype):
        return Qwen3VLForConditionalGeneration(config)


def make_reasoner(folder: Path, tiny: bool) -> Any:
    """Build Qwen3-VL-8B; write its config, tokenizer and preprocessor to the folder."""
    import torch

    config = write_base(folder, tiny)
    return random_model(config, device_of(tiny), torch.float32 if tiny else torch.bfloat16)


def make_blip2(folder: Path, tiny: bool, dtype: Any = None) -> Any:
    """Build BLIP-2 ITM ViT-g; write its config, tokenizer and preprocessor to the folder.

    The no-match threshold is -1, so that every frame matches: scores of random weights mean nothing.
    """
    import torch
    from transformers import Blip2Config, Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from act2see.micro.recipe.models import build_encoder

    tokenizer = bert_tokenizer(sentences())
    with construct_on(device_of(tiny), dtype or (torch.float32 if tiny else torch.bfloat16)):
        if tiny:
            model = build_encoder(len(tokenizer))
        else:
            model = Blip2ForImageTextRetrieval(Blip2Config(**published("blip2_itm_vit_g")["config"]))
            torch.nn.init.normal_(model.query_tokens, std=0.5)
    model.config.act2see_no_match = -1.0
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    BlipImageProcessorPil().save_pretrained(folder)
    return model.eval()


def make_generator(tiny: bool) -> Any:
    """Build the image-to-image pipeline of Stable Diffusion 3.5 Large with all three text encoders."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Img2ImgPipeline,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    from act2see.micro.recipe.models import build_generator, build_vae

    tokenizer = clip_tokenizer(sentences())
    with construct_on(device_of(tiny), torch.float32 if tiny else torch.bfloat16):
        if tiny:
            pipeline = build_generator(build_vae(), tokenizer)
        else:
            c = {name: part["config"] for name, part in published("sd35_large")["parts"].items()}
            tokenizer.model_max_length = 77
            pipeline = StableDiffusion3Img2ImgPipeline(
                transformer=SD3Transformer2DModel(**c["transformer"]),
                scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
                vae=AutoencoderKL(**c["vae"]),
                text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**c["text_encoder"])),
                tokenizer=tokenizer,
                text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**c["text_encoder_2"])),
                tokenizer_2=tokenizer,
                text_encoder_3=T5EncoderModel(T5Config(**c["text_encoder_3"])),
                tokenizer_3=tokenizer,
            )
    pipeline.set_progress_bar_config(disable=True)
    for part in (
        pipeline.transformer,
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.text_encoder_2,
        pipeline.text_encoder_3,
    ):
        if part is not None:
            part.eval().requires_grad_(False)
    return pipeline


def count_weights(model: Any) -> dict[str, int]:
    """Return, by part, the number of a Qwen3-VL's weights that multiply a token or a patch."""
    counts = {"language": 0, "head": model.lm_head.weight.numel(), "vision": 0}
    for name, parameter in model.named_parameters():
        # Embeddings are looked up, not multiplied.
        if parameter.dim() < 2 or "embed_tokens" in name or "pos_embed" in name:
            continue
        if "language_model" in name:
            counts["language"] += parameter.numel()
        elif "visual" in name:
            counts["vision"] += parameter.numel()
    return counts


@contextlib.contextmanager
def weightless(reasoner: Any = None, blip2: Any = None, generator: Any = None) -> Iterator[None]:
    """Make loaders return these models instead of reading weights; missing weight files raise no error."""
    from transformers import Blip2ForImageTextRetrieval, Qwen3VLForConditionalGeneration

    from act2see.tools.diffusion import Diffuser

    with (
        mock.patch.object(Qwen3VLForConditionalGeneration, "from_pretrained", return_value=reasoner),
        mock.patch.object(Blip2ForImageTextRetrieval, "from_pretrained", return_value=blip2),
        mock.patch.object(Diffuser, "_load", return_value=generator),
        mock.patch("act2see.tools.runtime.weights.weight_files", return_value=[]),
    ):
        yield
