"""python -m benchmarks.gpu.sft_8b [--mode full] [--tiny]: fine-tuning steps of a Qwen3-VL-8B of random
weights.

The config is the 8B model's, written out here, so nothing is downloaded; the steps are those of `act2see
sft`. Reported are step time, tokens a second, peak memory beside the dry run's estimate, and the
floating-point operations that a step needs:

    language model   2 N T forward, 2 N T back through it, 2 N T for its own gradients (full alone)
    LoRA             6 A T, where A are its parameters
    attention        2 T^2 q a layer forward (causal), twice that back
    head             2 V h for each learnt token forward, and again to recompute it, 2 V h back (and 2 V h, full)
    vision           2 N_v P and 4 p^2 h_v a layer and frame, forward alone: it is frozen
    checkpointing    another forward of language model, LoRA and attention

so about 4 N T for LoRA and 6 N T for full, and 2 N T more with checkpointing. The bound is that number at the
speed at which this machine multiplies two large matrices, measured in the same run; `share of bound` is how
near a step comes.

`--tiny` takes micro's size on the CPU, to see that the script runs; its figures mean nothing.
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

from act2see.micro.questions import sentences
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Answer, Call, Frames, Question, Text, Versions, Video
from act2see.trace.trace import Trace
from act2see.training.sft.dryrun import estimate
from act2see.training.sft.finetune import finetune, open_base, reader_of
from act2see.training.sft.settings import SftSettings
from act2see.training.sft.trainer import lora_parameters
from benchmarks import machine

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


def write_base(folder: Path, tiny: bool) -> Any:
    """A checkpoint folder without weights: config, preprocessor, and micro's tokenizer, whose few ids are
    among the 151,936."""
    from transformers import Qwen3VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = qwen_tokenizer(sentences())
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            **TEXT_8B,
            **({**TINY["text"], "vocab_size": len(tokenizer)} if tiny else {}),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={**VISION_8B, **(TINY["vision"] if tiny else {})},
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
    """Made where it will be: eight billion numbers take their time on a CPU."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen3VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)


def make_trace(n: int, store: FrameStore, frames: int, side: int, words: int) -> Trace:
    """A run with `frames` initial frames of noise, one that was retrieved, and `words` words of thought."""
    rng = np.random.default_rng(n)
    shown = [
        store.ref(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), float(i)) for i in range(frames + 1)
    ]
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
    """Floating-point operations of a step, by part; the formulas stand at the top."""
    c, v = model.config.text_config, model.config.vision_config
    language = sum(
        p.numel()
        for n, p in model.model.language_model.named_parameters()
        if p.dim() == 2 and "embed" not in n and "lora" not in n
    )
    vision = sum(p.numel() for p in model.model.visual.parameters() if p.dim() == 2)
    full, again = settings.mode == "full", settings.gradient_checkpointing
    tokens, patches = size.tokens, (side // v.patch_size) ** 2
    forward = 2 * language * tokens
    attention = 2 * tokens**2 * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    return {
        "language model": forward * (3 if full else 2),
        "LoRA": 6 * adapter * tokens,
        "attention": 3 * attention,
        "head": 2 * c.vocab_size * c.hidden_size * size.trainable * (4 if full else 3),
        "vision": 2 * vision * size.patches + 4 * patches * size.patches * v.hidden_size * v.depth,
        "checkpointing": (forward + 2 * adapter * tokens + attention) if again else 0,
    }


def matmul_speed(device: str, dtype: Any) -> float:
    """Operations a second of a large matrix product."""
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


def run(mode: str, tiny: bool, frames: int, side: int, words: int, steps: int) -> dict[str, Any]:
    """Train, and tell."""
    import torch

    device = "cpu" if tiny else "cuda"
    dtype = torch.bfloat16 if mode == "lora" and not tiny else torch.float32
    with tempfile.TemporaryDirectory() as temporary:
        folder, store = Path(temporary) / "base", FrameStore(Path(temporary) / "frames")
        config = write_base(folder, tiny)
        settings = SftSettings.read(
            {
                "base": str(folder),
                "mode": mode,
                "device": "cpu" if tiny else "auto",
                "max_steps": steps,
                "log_steps": 1,
                "learning_rate": 1e-5,
                "warmup": 0,
                "save_steps": 10**6,
            }
        )
        model = random_model(config, device, dtype)
        traces = [make_trace(n, store, frames, side, words) for n in range(min(steps, 8))]
        size = reader_of(open_base(str(folder))[0], settings, None).size(traces[0])
        adapter = 0 if mode == "full" else lora_parameters(model, settings)
        expected = estimate(model, settings, size)
        needed = operations(model, settings, size, side, adapter)
        times: list[float] = []
        result = finetune(
            traces,
            store,
            Path(temporary) / "out",
            settings,
            model=model,
            progress=lambda *_: times.append(time.perf_counter()),
        )
        speed = matmul_speed(device, torch.float32 if tiny else torch.bfloat16)
    seconds = statistics.median([b - a for a, b in itertools.pairwise(times[1:])])
    total = sum(needed.values())
    return {
        "machine": machine() | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
        "mode": mode,
        "parameters": sum(p.numel() for n, p in model.named_parameters() if "lora" not in n),
        "LoRA parameters": adapter,
        "tokens a sample": size.tokens,
        "learnt": size.trainable,
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
    parser.add_argument("--tiny", action="store_true", help="micro's size, on the CPU")
    parser.add_argument("--frames", type=int, default=64, help="initial frames")
    parser.add_argument("--side", type=int, default=448, help="pixels of a frame's side")
    parser.add_argument("--words", type=int, default=1500, help="of thought")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    if args.tiny:
        args.frames, args.side, args.words = min(args.frames, 4), min(args.side, 64), min(args.words, 60)
    else:
        import torch

        if not torch.cuda.is_available():
            sys.exit(
                "this benchmark needs a CUDA GPU with 40 GB (lora) or 140 GB (full); --tiny shows on a CPU that it runs"
            )
    if args.steps < 3:
        sys.exit("give at least 3 steps: the first two warm up")
    print(json.dumps(run(args.mode, args.tiny, args.frames, args.side, args.words, args.steps), indent=1))


if __name__ == "__main__":
    main()
