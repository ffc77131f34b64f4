"""python -m benchmarks.gpu.encoder_g [--tiny]: frames per second of BLIP-2 ViT-g, compared with the matrix
peak and the reference path.

It measures `Blip2Encoder.frames` in bfloat16 (from uint8 pixels in host memory to fp16 features in host
memory, with stacking, copies and normalisation) and the forward pass alone. The reference runs as in LAVIS:
the same model with its ViT in fp16 and the rest in fp32, eager attention, fp16 autocast, batch 256. All are
measured in one run.

Operations per frame, with T = (image / patch)^2 + 1 tokens, ViT width v and MLP width f, Q queries of width
w, Q-Former MLP width g, L and l layers:

    ViT             L (2 T (4 v^2 + 2 v f) + 4 T^2 v), and 2 (T - 1) 3 p^2 v for the patches
    Q-Former        l (2 Q (4 w^2 + 2 w g) + 4 Q^2 w)
    cross-attention a layer of `cross_attention_frequency`: 2 Q 2 w^2 + 2 T 2 v w + 4 Q T w

Goal: 50 % of the measured matrix peak.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act2see.tools.search.blip2 import Blip2Encoder
from benchmarks import at_least
from benchmarks.gpu.common import bounds, device_of, make_blip2, parse_arguments, report, timed, weightless


def operations(config: Any) -> int:
    """Return the operations for one frame, by the formulas at the top."""
    v, q = config.vision_config, config.qformer_config
    patches = (v.image_size // v.patch_size) ** 2
    t, n, w = patches + 1, config.num_query_tokens, q.hidden_size
    vit_layer = 2 * t * (4 * v.hidden_size**2 + 2 * v.hidden_size * v.intermediate_size)
    vit_layer += 4 * t * t * v.hidden_size
    vit = v.num_hidden_layers * vit_layer + 2 * patches * 3 * v.patch_size**2 * v.hidden_size
    qformer_layer = 2 * n * (4 * w * w + 2 * w * q.intermediate_size) + 4 * n * n * w
    cross_layer = 4 * n * w * w + 4 * t * v.hidden_size * w + 4 * n * t * w
    cross_layers = len(range(0, q.num_hidden_layers, q.cross_attention_frequency))
    return int(vit + q.num_hidden_layers * qformer_layer + cross_layers * cross_layer)


def time_reference(model: Any, frames: int, tiny: bool, times: int) -> float:
    """Return the seconds of one batch that runs as in LAVIS. This changes the model's dtypes and attention.

    Args:
        model: The BLIP-2 model.
        frames: The number of frames in the batch.
        tiny: Whether the model has micro's size and runs on the CPU.
        times: The number of repetitions.
    """
    import torch
    from torch.nn.functional import normalize

    device = device_of(tiny)
    low = torch.bfloat16 if tiny else torch.float16
    model.float().set_attn_implementation("eager")
    model.vision_model.to(low)
    pixels = torch.randn(frames, 3, *[model.config.vision_config.image_size] * 2, device=device)

    def forward() -> Any:
        with torch.inference_mode(), torch.autocast(device, low):
            seen = model.vision_model(pixel_values=pixels.to(low))[0].float()  # (B, T, v)
            queries = model.query_tokens.expand(frames, -1, -1)  # (B, Q, w)
            read = model.qformer(query_embeds=queries, encoder_hidden_states=seen)[0]
            return normalize(model.vision_projection(read), dim=-1)

    return min(timed(forward, times))


def run(tiny: bool, batches: list[int], times: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the bounds and the figures."""
    import torch

    rng = np.random.default_rng(0)
    bound = bounds(tiny)
    dtype = "float32" if tiny else "bfloat16"
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        model = make_blip2(Path(temporary), tiny)
        with weightless(blip2=model):
            encoder = Blip2Encoder(temporary, device=device_of(tiny), dtype=dtype)
    per_frame = operations(model.config)
    for batch in batches:
        pixels = list(rng.integers(0, 256, (batch, encoder.size, encoder.size, 3), dtype=np.uint8))
        shape = (batch, 3, encoder.size, encoder.size)
        images = torch.randn(shape, device=device_of(tiny), dtype=encoder.dtype)

        def forward(images: Any = images, batch: int = batch) -> None:
            with torch.inference_mode():
                seen = model.vision_model(pixel_values=images)[0]
                queries = model.query_tokens.expand(batch, -1, -1)
                model.qformer(query_embeds=queries, encoder_hidden_states=seen)

        whole = min(timed(partial(encoder.frames, pixels), times))
        alone = min(timed(forward, times))
        bound_seconds = batch * per_frame / bound["matrix product, op/s"]
        rows.append(
            {
                "batch": batch,
                "seconds": whole,
                "frames/s": batch / whole,
                "share of matrix peak": bound_seconds / whole,
                "frames/s, forward alone": batch / alone,
                "share of matrix peak, forward alone": bound_seconds / alone,
            }
        )
    best = max(rows, key=lambda r: r["frames/s"])
    seconds = time_reference(model, batches[-1], tiny, times)
    reference_rate = batches[-1] / seconds
    return bound, {
        "teraflop a frame": per_frame / 1e12,
        "dtype": dtype,
        "batches": rows,
        "reference": {"batch": batches[-1], "seconds": seconds, "frames/s": reference_rate},
        "times the reference": best["frames/s"] / reference_rate,
        "goals": {"share of matrix peak": at_least(best["share of matrix peak"], 0.5)},
    }


def main() -> None:
    given = parse_arguments(
        __doc__ or "",
        24,
        batch=(256, 4, "the largest batch"),
        times=(10, 2, "repetitions of each measurement"),
    )
    batches = sorted({max(1, given.batch // n) for n in (8, 4, 2, 1)})
    report(given.tiny, *run(given.tiny, batches, given.times))


if __name__ == "__main__":
    main()
