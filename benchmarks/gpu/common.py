"""What the GPU benchmarks share: the paper's models with random weights, and what a machine can do at the
most.

Models are made on the device, from the published configs (`tests/models/published/`), so nothing is
downloaded and nothing of 46 GB is written to a disk. The loaders are ours; only their reading of weights is
replaced (`weightless`). Tokenizers are micro's, whose ids are among the large vocabularies. `--tiny` takes
micro's sizes on the CPU: it shows that a script runs, no more.

Two bounds are measured in the same run: the speed of a large matrix product, for what is bound by arithmetic,
and that of a large copy, read and write both counted, for what is bound by memory, as the decoding of single
tokens is by its weights.
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
from act2see.micro.recipe.tokenizers import bert_tokenizer, clip_tokenizer
from benchmarks import machine
from benchmarks.gpu.sft_8b import matmul_speed, random_model, write_base

PUBLISHED = Path(__file__).parents[2] / "tests" / "models" / "published"


def published(name: str) -> dict[str, Any]:
    return dict(json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8")))


def arguments(about: str, memory: int, **options: tuple[int, int, str]) -> argparse.Namespace:
    """The command line: each option is its default, its value with `--tiny`, and its help. Ends where there
    is no GPU."""
    import torch

    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="micro's size, on the CPU: that the script runs")
    for name, (default, tiny, said) in options.items():
        parser.add_argument(f"--{name}", type=int, help=f"{said} (default {default}; tiny {tiny})")
    given = parser.parse_args()
    for name, (default, tiny, _) in options.items():
        if getattr(given, name) is None:
            setattr(given, name, tiny if given.tiny else default)
    if not given.tiny and not torch.cuda.is_available():
        sys.exit(f"this benchmark needs a CUDA GPU with {memory} GB; --tiny shows on a CPU that it runs")
    return given


def device_of(tiny: bool) -> str:
    return "cpu" if tiny else "cuda"


def sync() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(
    call: Callable[[], Any], times: int, warm: int = 1, before: Callable[[], None] = lambda: None
) -> list[float]:
    """Seconds of each call, the device's work included."""
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


def copy_speed(device: str) -> float:
    """Bytes a second that a large copy reads and writes."""
    import torch

    a = torch.empty(2**31 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() / min(timed(lambda: b.copy_(a), 10))


def bounds(tiny: bool) -> dict[str, float]:
    """Operations and bytes a second that this machine reaches."""
    import torch

    device = device_of(tiny)
    return {
        "matrix product, op/s": matmul_speed(device, torch.float32 if tiny else torch.bfloat16),
        "copy, bytes/s": copy_speed(device),
    }


def report(tiny: bool, bound: dict[str, float], figures: dict[str, Any]) -> None:
    """Print everything as JSON."""
    import torch

    gpu = {} if tiny else {"gpu": torch.cuda.get_device_name()}
    peak = {} if tiny else {"peak GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2)}
    said = {
        "matrix product, teraflop/s": bound["matrix product, op/s"] / 1e12,
        "copy, GB/s": bound["copy, bytes/s"] / 1e9,
    }
    head = {"machine": machine() | gpu, "tiny": tiny, "weights": "random"}
    print(json.dumps(rounded({**head, **said, **figures, **peak}), indent=1))


def rounded(value: Any) -> Any:
    """Four significant digits: the rest is noise."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


@contextlib.contextmanager
def made_on(device: str, dtype: Any) -> Iterator[None]:
    """Modules made inside are on the device and of the type, with the random numbers of their
    constructors."""
    import torch

    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(default)


def make_reasoner(folder: Path, tiny: bool) -> Any:
    """Qwen3-VL-8B; the folder holds its config, tokenizer and preprocessor."""
    import torch

    config = write_base(folder, tiny)
    return random_model(config, device_of(tiny), torch.float32 if tiny else torch.bfloat16)


def make_blip2(folder: Path, tiny: bool, dtype: Any = None) -> Any:
    """BLIP-2 ITM ViT-g; the folder holds its config, tokenizer and preprocessor. Everything matches: random
    scores say nothing."""
    import torch
    from transformers import Blip2Config, Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from act2see.micro.recipe.models import build_encoder

    tokenizer = bert_tokenizer(sentences())
    with made_on(device_of(tiny), dtype or (torch.float32 if tiny else torch.bfloat16)):
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
    """The image-to-image pipeline of Stable Diffusion 3.5 Large, all three text encoders."""
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
    with made_on(device_of(tiny), torch.float32 if tiny else torch.bfloat16):
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


def sizes(model: Any) -> dict[str, int]:
    """Numbers in the matrices of a Qwen3-VL that a token (or a patch) is multiplied with."""
    named = [
        (n, p.numel())
        for n, p in model.named_parameters()
        if p.dim() > 1 and "embed_tokens" not in n and "pos_embed" not in n
    ]
    return {
        "language": sum(n for name, n in named if "language_model" in name),
        "head": model.lm_head.weight.numel(),
        "vision": sum(n for name, n in named if "visual" in name),
    }


@contextlib.contextmanager
def weightless(reasoner: Any = None, blip2: Any = None, generator: Any = None) -> Iterator[None]:
    """Loaders get these models where they would read weights, and nobody looks for the files."""
    from transformers import Blip2ForImageTextRetrieval, Qwen3VLForConditionalGeneration

    from act2see.tools.diffusion import Diffuser

    with (
        mock.patch.object(Qwen3VLForConditionalGeneration, "from_pretrained", return_value=reasoner),
        mock.patch.object(Blip2ForImageTextRetrieval, "from_pretrained", return_value=blip2),
        mock.patch.object(Diffuser, "_load", return_value=generator),
        mock.patch("act2see.tools.runtime.weights.weight_files", return_value=[]),
    ):
        yield
