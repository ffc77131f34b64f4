"""python -m benchmarks.gpu.sft_8b [--mode full] [--tiny]: fine-tuning steps of a Qwen3-VL-8B with random
weights.

The config is the 8B model's (`common.py`), so nothing is downloaded; the steps are those of `act2see sft`.
It reports the step time, tokens per second, peak memory with the dry run's estimate, and the floating-point
operations of a step, with T tokens (t of them trained on), N parameters of the language model, A of LoRA
and N_v of the vision tower, query width q, vocabulary V, hidden sizes h and h_v, and P patches, p per frame:

    language model   2 N T forward, 2 N T for activation gradients, 2 N T for weight gradients (full only)
    LoRA             6 A T
    attention        2 T^2 q per layer forward (causal), twice that backward
    head             2 V h t forward, the same to recompute it, the same backward (twice for full)
    vision           2 N_v P, and 4 p^2 h_v per layer and frame; forward only, since it is frozen
    checkpointing    another forward pass of language model, LoRA and attention

In all, about 4 N T for LoRA and 6 N T for full, and 2 N T more with checkpointing. The bound is this number
at the speed of a large matrix product, measured in the same run; `share of bound` is the bound divided by the
step time.

`--tiny` uses micro's size on the CPU to show that the script runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Text, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.sft.dryrun import estimate
from act2see.training.sft.finetune import finetune, open_base, reader_of
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import lora_parameters
from benchmarks import machine
from benchmarks.gpu.common import TINY_HELP, matmul_speed, random_model, weightless, write_base


def make_trace(n: int, store: FrameStore, frames: int, side: int, words: int) -> Trace:
    """Return a trace of noise.

    Args:
        n: Seed and id.
        store: The store to which the frames are added.
        frames: Number of initial frames; one more is retrieved.
        side: Width and height of a frame in pixels.
        words: Words of thought, half of them before the retrieved frame.
    """
    rng = np.random.default_rng(n)
    shown = []
    for second in range(frames + 1):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        shown.append(store.ref(pixels, float(second)))
    thought = Text(text=" ".join(rng.choice(["north", "ring", "red", "circle", "blue", "west"], words // 2)))
    return Trace(
        id=f"noise-{n}",
        video=Video(
            path="noise.mp4",
            digest=str(n),
            seconds=float(frames),
            width=side,
            height=side,
            frames=frames,
            fps=1.0,
        ),
        question=Question(text="What happens?", options=("a ring", "a circle")),
        initial=tuple(shown[:-1]),
        segments=(
            thought,
            Call(text="<retrieve>the ring</retrieve>", tag="retrieve", query="the ring"),
            Frames(tag="retrieve", frames=(shown[-1],)),
            thought,
            Answer(text="<answer>a ring</answer>", body="a ring"),
        ),
        versions=Versions(tools={"retrieve": "1"}),
    )


def operations(model: Any, settings: SftSettings, size: Any, side: int, adapter: int) -> dict[str, float]:
    """Return the floating-point operations of a step by part, by the formulas at the top.

    Args:
        model: The VLM.
        settings: The settings of the training.
        size: The size of a sample.
        side: Width and height of a frame in pixels.
        adapter: The number of LoRA's parameters.
    """
    c, v = model.config.text_config, model.config.vision_config
    language = sum(
        p.numel()
        for n, p in model.model.language_model.named_parameters()
        if p.dim() == 2 and "embed" not in n and "lora" not in n
    )
    vision = sum(p.numel() for p in model.model.visual.parameters() if p.dim() == 2)
    full = settings.mode == "full"
    tokens = size.tokens
    patches = (side // v.patch_size) ** 2  # of one frame
    forward = 2 * language * tokens
    attention = 2 * tokens**2 * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    recomputed = forward + 2 * adapter * tokens + attention
    return {
        "language model": forward * (3 if full else 2),
        "LoRA": 6 * adapter * tokens,
        "attention": 3 * attention,
        "head": 2 * c.vocab_size * c.hidden_size * size.trainable * (4 if full else 3),
        "vision": 2 * vision * size.patches + 4 * patches * size.patches * v.hidden_size * v.depth,
        "checkpointing": recomputed if settings.gradient_checkpointing else 0,
    }


def make_settings(base: Path, mode: str, tiny: bool, steps: int) -> SftSettings:
    """Return the settings of the training.

    Args:
        base: The folder of the base model.
        mode: "lora" or "full".
        tiny: Whether to train on the CPU.
        steps: Number of steps.
    """
    return SftSettings.read(
        {
            "base": str(base),
            "mode": mode,
            "device": "cpu" if tiny else "auto",
            "max_steps": steps,
            "log_steps": 1,
            "learning_rate": 1e-5,
            "warmup": 0,
            "save_steps": 10**6,
        }
    )


def run(mode: str, tiny: bool, frames: int, side: int, words: int, steps: int) -> dict[str, Any]:
    """Train for some steps and return the figures.

    Args:
        mode: "lora" or "full".
        tiny: Whether to use micro's size on the CPU.
        frames: Number of initial frames of a trace.
        side: Width and height of a frame in pixels.
        words: Words of thought in a trace.
        steps: Number of steps.
    """
    import torch

    device = "cpu" if tiny else "cuda"
    dtype = torch.bfloat16 if mode == "lora" and not tiny else torch.float32
    with tempfile.TemporaryDirectory() as temporary:
        folder, store = Path(temporary) / "base", FrameStore(Path(temporary) / "frames")
        config = write_base(folder, tiny)
        settings = make_settings(folder, mode, tiny, steps)
        model = random_model(config, device, dtype)
        traces = [make_trace(n, store, frames, side, words) for n in range(min(steps, 8))]
        size = reader_of(open_base(str(folder))[0], settings, None).size(traces[0])
        adapter = 0 if mode == "full" else lora_parameters(model, settings)
        expected = estimate(model, settings, size)
        needed = operations(model, settings, size, side, adapter)
        times: list[float] = []
        with weightless(model):
            result = finetune(
                traces,
                store,
                Path(temporary) / "out",
                settings,
                model=model,
                progress=lambda *_: times.append(time.perf_counter()),
            )
        speed = matmul_speed(device, torch.float32 if tiny else torch.bfloat16)
    # The first steps warm up.
    seconds = statistics.median([b - a for a, b in itertools.pairwise(times[1:])])
    total = sum(needed.values())
    host = machine()
    if device == "cuda":
        host["gpu"] = torch.cuda.get_device_name()
    return {
        "machine": host,
        "mode": mode,
        "parameters": sum(p.numel() for n, p in model.named_parameters() if "lora" not in n),
        "LoRA parameters": adapter,
        "tokens a sample": size.tokens,
        "trainable": size.trainable,
        "loss": [round(loss, 4) for _, loss in result.losses],
        "step seconds": round(seconds, 4),
        "tokens a second": round(size.tokens / seconds, 1),
        "teraflop a step": {k: round(n / 1e12, 4) for k, n in needed.items()},
        "matrix product, teraflop/s": round(speed / 1e12, 3),
        "share of bound": round(total / speed / seconds, 3),
        "peak GiB": result.peak_gib,
        "estimated GiB": round(expected.per_gpu("ddp", 1) / 2**30, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("lora", "full"), default="lora")
    parser.add_argument("--tiny", action="store_true", help=TINY_HELP)
    parser.add_argument("--frames", type=int, default=64, help="initial frames")
    parser.add_argument("--side", type=int, default=448, help="pixels of a frame's side")
    parser.add_argument("--words", type=int, default=1500, help="words of thought")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    if args.tiny:
        args.frames = min(args.frames, 4)
        args.side = min(args.side, 64)
        args.words = min(args.words, 60)
    else:
        import torch

        if not torch.cuda.is_available():
            sys.exit(
                "this benchmark needs a CUDA GPU with 40 GB (lora) or 140 GB (full); "
                "--tiny runs a small version on a CPU"
            )
    if args.steps < 3:
        sys.exit("--steps must be at least 3: the first two warm up")
    print(json.dumps(run(args.mode, args.tiny, args.frames, args.side, args.words, args.steps), indent=1))


if __name__ == "__main__":
    main()
