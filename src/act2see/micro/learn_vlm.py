"""Train the micro VLM: first to see (base), then to use its tools (SFT).

The base model learns *observe* and to name what initial frames show, on boards drawn at its own resolution. It
never sees a tool tag. SFT learns from traces that the real graph made with the real tools (see `corpus`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.rollout import Rollout, render
from act2see.agent.trace import Answer, Question, Text, Trace, Video
from act2see.micro.learn_encoder import draw_shown
from act2see.micro.learn_eyes import train_eyes
from act2see.micro.models import IMAGE, PATCH, build_vlm
from act2see.micro.questions import FAMILIES, Item, describe, describe_view, make_item, sentences
from act2see.micro.tokenizers import qwen_tokenizer
from act2see.micro.world import FPS, Board, render as draw
from act2see.tools.frames import FrameRef
from act2see.training.collate import collate
from act2see.training.sft import Progress, fit

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

TAGS = ("retrieve", "generate")


def image_processor() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    pixels = IMAGE * IMAGE
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=2, temporal_patch_size=2, min_pixels=pixels, max_pixels=pixels,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip


def prompt(rng: random.Random) -> Prompt:
    """Mostly both tools, sometimes one or none: the model must read which tools it has."""
    tags = rng.choice((TAGS, TAGS, TAGS, TAGS[:1], TAGS[1:], ()))
    return Prompt(dict.fromkeys(tags, ""), "short")


class Drawn:
    """Frames drawn on demand: boards by digest, with the noise that compression leaves."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.boards: dict[str, Board] = {}
        self.noise = np.random.default_rng(seed)

    def ref(self, board: Board) -> FrameRef:
        digest = f"drawn-{self.seed}-{len(self.boards)}"
        self.boards[digest] = board
        return FrameRef(digest=digest, width=IMAGE, height=IMAGE, seconds=0.0)

    def __call__(self, ref: FrameRef) -> np.ndarray[Any, np.dtype[np.uint8]]:
        pixels = draw(self.boards[ref.digest], IMAGE) + self.noise.normal(0, 4.0, (IMAGE, IMAGE, 3))
        return pixels.clip(0, 255).astype(np.uint8)


def base_rollout(item: Item, frames: Drawn, rng: random.Random) -> Rollout:
    """An observation: of the item's question where its view answers it, else of what the view shows."""
    asked = item.family == "observe" and item.in_view
    text = item.text if asked else "What do you see?"
    closing = item.closing() if asked else "</think>\n<answer>done</answer>"
    said = describe_view(item.clip)
    known: dict[Board, FrameRef] = {}
    initial = []
    for second, board in enumerate(item.clip.view()):
        if board not in known:
            known[board] = frames.ref(board)
        initial.append(known[board].model_copy(update={"seconds": float(second)}))
    return _rollout(Question(text=text, options=item.options if asked else ()), initial, said + closing, rng)


def glance_rollout(frames: Drawn, rng: random.Random) -> Rollout:
    """One frame of anything the world can show, described in full: where seeing is learnt fastest."""
    board = draw_shown(rng)
    said = f"Second 0: {describe(board)}</think>\n<answer>done</answer>"
    return _rollout(Question(text="What do you see?"), [frames.ref(board)], said, rng)


def _rollout(question: Question, initial: list[FrameRef], written: str, rng: random.Random) -> Rollout:
    thought, _, answer = written.partition("<answer>")
    trace = Trace(
        id="base",
        video=Video(path="", digest="", seconds=float(len(initial)), width=IMAGE, height=IMAGE, frames=len(initial) * FPS, fps=FPS),
        question=question,
        initial=tuple(initial),
        segments=(Text(text=thought), Answer(text="<answer>" + answer, body="")),
    )
    return render(trace, prompt(rng), end_of_turn=True)


def glance_batches(packer: Packer, pad: int, end: int, batch: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    rng = random.Random(seed)
    while True:
        frames = Drawn(rng.randrange(2**31))
        yield collate(packer, [glance_rollout(frames, rng) for _ in range(batch)], frames, pad, end)


def base_batches(packer: Packer, pad: int, end: int, batch: int, seed: int, seconds: tuple[int, int]) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches of clips of one length each, drawn from `seconds` (shortest and longest); one in eight of single frames."""
    rng = random.Random(seed)
    glances = glance_batches(packer, pad, end, 48, seed)
    index = seed % 20 * 100_000  # well below the numbers of the other splits
    while True:
        if rng.random() < 1 / 8:
            yield next(glances)
        frames = Drawn(rng.randrange(2**31))
        length = rng.randint(*seconds)
        rollouts = []
        for _ in range(batch):
            index += 1
            family = "observe" if rng.random() < 0.5 else rng.choice(FAMILIES)
            rollouts.append(base_rollout(make_item(family, 100_000 + index, "train", seconds=length), frames, rng))
        yield collate(packer, rollouts, frames, pad, end)


def train_base(
    steps: int = 1500, batch: int = 32, seed: int = 0, progress: Progress | None = None
) -> tuple[Qwen3VLForConditionalGeneration, Packer]:
    import torch

    torch.manual_seed(seed)
    tokenizer = qwen_tokenizer(sentences())
    model = build_vlm(tokenizer)
    packer = Packer(tokenizer, image_processor(), model.config.image_token_id, cached_images=2048)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.pad_token_id
    train_eyes(model, packer, steps // 4, seed=seed, progress=progress)
    # First single frames, many a second, then short clips, then whole ones. At twice this rate seeing is not learnt at all.
    glances = glance_batches(packer, pad, end, 48, seed)
    fit(model, glances, steps // 5, rate=1e-3, warmup=60, name="frames", progress=progress)
    fit(
        model,
        base_batches(packer, pad, end, batch, seed + 1, (4, 5)),
        steps // 5,
        rate=1e-3,
        warmup=20,
        name="short clips",
        progress=progress,
    )
    whole = base_batches(packer, pad, end, batch, seed + 2, (6, 10))
    fit(model, whole, steps // 2, rate=1e-3, warmup=20, name="clips", progress=progress)
    return model, packer


def save(model: Qwen3VLForConditionalGeneration, packer: Packer, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)
    packer.codec.tokenizer.save_pretrained(folder)
    packer.image_processor.save_pretrained(folder)
