"""Train the micro VLM's vision tower, before there is any language: each merged token tells what its cell holds.

Large VLMs start from a vision encoder that can see; this is micro's. Linear heads read shape, colour and light off a
token separately, and are thrown away. What has no name teaches one head alone: a shape in a nameless colour teaches
shapes, a nameless shape teaches colours. So a shape is known whatever its colour and the other way round, which is
what pairs that training never shows are told by. Nameless looks are never near a named colour: no held-out pair is
shown in disguise.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from act2see.agent.packing import Packer
from act2see.micro.learn_encoder import draw_shown
from act2see.micro.models import IMAGE
from act2see.micro.world import CELLS, COLOURS, NAMELESS_SHAPES, SHAPES, SIDES, Board, render
from act2see.tools.frames import FrameRef
from act2see.training.collate import equal_frames
from act2see.training.sft import Progress, warm_cosine

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

RATE, IGNORED, EMPTY = 1e-3, -100, 0
NAMELESS_COLOURS = tuple(
    f"#{r:02x}{g:02x}{b:02x}"
    for r, g, b in product(range(20, 256, 47), repeat=3)
    if max(r, g, b) > 90 and all(math.dist((r, g, b), named) > 75 for named in COLOURS.values())
)


def strange(board: Board, rng: random.Random) -> Board:
    """The board with some of its pieces in nameless colours and some in nameless shapes."""
    pieces = []
    for p in board.pieces:
        kind = rng.random()
        if kind < 0.3:
            p = replace(p, colour=rng.choice(NAMELESS_COLOURS))
        elif kind < 0.5:
            p = replace(p, shape=rng.choice(NAMELESS_SHAPES))
        pieces.append(p)
    return replace(board, pieces=tuple(pieces))


def labels(boards: list[Board]) -> torch.Tensor:
    """`(n, 9, 4)`: shape, colour, light and low side of each cell; 0 is none, what has no name is ignored."""
    import torch

    out = torch.zeros(len(boards), len(CELLS), 4, dtype=torch.long)
    for row, board in zip(out, boards, strict=True):
        row[:, 3] = SIDES.index(board.tipped) + 1 if board.tipped else 0
        for p in board.pieces:
            shape = SHAPES.index(p.shape) + 1 if p.shape in SHAPES else IGNORED
            colour = list(COLOURS).index(p.colour) + 1 if p.colour in COLOURS else IGNORED
            row[CELLS.index(p.cell), :3] = torch.tensor((shape, colour, int(p.lit)))
    return out


def train_eyes(
    model: Qwen3VLForConditionalGeneration, packer: Packer, steps: int, batch: int = 96, seed: int = 0, progress: Progress | None = None
) -> None:
    """Train `model`'s vision tower in place."""
    import torch
    from torch.nn.functional import cross_entropy

    rng, noise = random.Random(seed), np.random.default_rng(seed)
    sizes = (len(SHAPES) + 1, len(COLOURS) + 1, 2, len(SIDES) + 1)
    visual = model.model.visual
    heads = torch.nn.Linear(model.config.text_config.hidden_size, sum(sizes))
    learnt = [*visual.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(learnt, RATE, weight_decay=0.01)
    grid = torch.tensor([[1, IMAGE // 8, IMAGE // 8]] * batch)
    with equal_frames(model):
        for step in range(steps):
            boards = [strange(draw_shown(rng), rng) for _ in range(batch)]
            refs = [FrameRef(digest=f"eyes-{seed}-{step}-{i}", width=IMAGE, height=IMAGE, seconds=0.0) for i in range(batch)]
            drawn = {
                ref.digest: (render(b, IMAGE, jitter=rng.randrange(2**31)) + noise.normal(0, 4.0, (IMAGE, IMAGE, 3)))
                .clip(0, 255)
                .astype(np.uint8)
                for ref, b in zip(refs, boards, strict=True)
            }
            seen = visual(packer.patches(refs, lambda ref: drawn[ref.digest]), grid).pooler_output  # noqa: B023
            told = heads(seen).split(sizes, -1)
            wanted = labels(boards).flatten(0, 1).unbind(-1)
            loss = torch.stack([cross_entropy(t, w, ignore_index=IGNORED) for t, w in zip(told, wanted, strict=True)]).sum()
            for group in optimiser.param_groups:
                group["lr"] = warm_cosine(step, steps, RATE, 40)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimiser.step()
            if progress and (step % 25 == 0 or step == steps - 1):
                progress("eyes", step, steps, loss.item())
