"""Train the micro VLM: first to see (base), then to use its tools (SFT).

The base model learns to describe initial frames, to look up facts in the description, and to answer from it,
on boards drawn at its own resolution. It never sees a tool tag. SFT uses traces that the real graph made with
the real tools (`corpus`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from act2see.agent.packing import Packer
from act2see.micro.questions import sentences
from act2see.micro.recipe.corpus import after_view
from act2see.micro.recipe.learn_eyes import train_eyes
from act2see.micro.recipe.lessons import (
    Batches,
    answer_batches,
    base_batches,
    facts_batches,
    glance_batches,
    trace_batches,
)
from act2see.micro.recipe.models import build_vlm, vlm_image_processor
from act2see.micro.recipe.prefetch import Workers, processes_for
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.tools.video.store import FrameStore
from act2see.trace.trace import Trace
from act2see.training.sft.loop import Progress, fit

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


def train_base(
    steps: int = 3200,
    answers: int = 490,
    batch: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    """Train the base model from random weights.

    Args:
        steps: The number of steps of all lessons before answering.
        answers: The number of further steps, of answering.
        batch: The number of rollouts in a step.
        seed: The seed of weights and data.
        progress: Called every 25 steps.
        device: The device that trains it.

    Returns:
        The model and its packer.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer(sentences())
    model = build_vlm(tokenizer).to(device)
    packer = Packer(tokenizer, vlm_image_processor(), model.config.image_token_id, cache_bytes=128 << 20)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.pad_token_id

    def learn(name: str, batches: Batches, steps: int, warmup: int = 20) -> None:
        fit(model, batches, steps, rate=1e-3, warmup=warmup, name=name, progress=progress)

    part = steps // 16
    with Workers(processes_for(device), pin=device == "cuda") as workers:
        train_eyes(model, packer, 2 * part, seed=seed, progress=progress, workers=workers)
    # First single frames, with many in a step, then short clips, then whole ones. At twice this learning rate
    # the model does not learn to see at all.
    learn("frames", glance_batches(packer, pad, end, 48, seed), 2 * part, warmup=60)
    learn("short clips", base_batches(packer, pad, end, batch, seed + 1, (2, 5), busy=1.0), 2 * part)
    whole = base_batches(packer, pad, end, batch, seed + 2, (6, 10))
    learn("clips", whole, 2 * part)
    # A place is the hardest thing to look up, since it comes before its shape: after 400 mixed steps it is at
    # chance, while 50 steps of this lesson suffice.
    learn("recall", facts_batches(packer, pad, end, 48, seed + 5, (1, 2), with_events=False), part)
    few = facts_batches(packer, pad, end, batch, seed + 3, (1, 3))
    many = facts_batches(packer, pad, end, batch, seed + 4, (4, 8))
    # Clips stay in the mix, because the model soon forgets how to see when it is trained on text alone.
    mixed = chain.from_iterable(zip(few, many, few, many, whole, strict=False))
    learn("facts", mixed, steps - 9 * part)
    # Last, to answer from the view. The model learns this fast on text alone, but does not transfer it to
    # frames.
    text = answer_batches(packer, pad, end, batch, seed + 6, shown=False)
    shown = answer_batches(packer, pad, end, batch, seed + 7, shown=True)
    few = facts_batches(packer, pad, end, batch, seed + 13, (1, 3))
    many = facts_batches(packer, pad, end, batch, seed + 14, (4, 8))
    whole = base_batches(packer, pad, end, batch, seed + 12, (6, 10))
    mixed = chain.from_iterable(zip(text, shown, few, whole, text, shown, many, strict=False))
    learn("answers", mixed, answers)
    return model, packer


def train_sft(
    base: Path,
    traces: Sequence[Trace],
    store: FrameStore,
    steps: int,
    batch: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    """Fine-tune the base model on traces.

    Args:
        base: The folder of the base model.
        traces: The traces of the corpus.
        store: The store of their frames.
        steps: The number of steps.
        batch: The number of traces in a step.
        seed: The seed of the data.
        progress: Called every 25 steps.
        device: The device that trains it.

    Returns:
        The model and its packer.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    packer = Packer.from_pretrained(base)
    packer.cache_bytes = 11 << 30  # 200,000 frames
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    model.to(device)
    model.model.visual.requires_grad_(False)
    tokenizer = packer.codec.tokenizer
    pad, end = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    observing = base_batches(packer, pad, end, batch, seed + 3, (6, 10))
    recalling = facts_batches(packer, pad, end, batch, seed + 4, (4, 8))
    chains = trace_batches(traces, packer, store, batch, seed)
    ends = trace_batches([after_view(t) for t in traces], packer, store, batch, seed + 1)
    # A chain is mostly description, which the base model has learned: most of the new content comes after it.
    # One batch in four is of the base model's lessons, so that it does not forget them.
    order = (chains, ends, ends, observing, chains, ends, ends, recalling)
    mixed = chain.from_iterable(zip(*order, strict=False))
    fit(model, mixed, steps, rate=1e-3, warmup=40, name="vlm", progress=progress)
    return model, packer


def save(model: Qwen3VLForConditionalGeneration, packer: Packer, folder: Path) -> None:
    """Save a model with its tokenizer and image processor in an ordinary folder."""
    model.save_pretrained(folder, safe_serialization=True)
    packer.codec.tokenizer.save_pretrained(folder)
    packer.image_processor.save_pretrained(folder)
