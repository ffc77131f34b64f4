"""Train the micro VLM's vision tower before any language: each merged token tells what its cell holds.

Large VLMs start from a vision encoder that can see; this is micro's. Linear heads read shape, colour and
light off a token separately, and are thrown away afterwards. They also read where the token is and which cell
holds the next piece in reading order, so that the language model need not work out places from positions.

Looks without a name train one head alone: a shape in a nameless colour trains the shapes, a nameless shape
trains the colours. So shapes are known independently of colours, which is how pairs that training never shows
are told. Nameless looks are never near a named colour: no held-out pair is shown in disguise.

Afterwards the tower's output is scaled to the size of word embeddings (it would be forty times as large), and
the tower is frozen.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.agent.packing import Packer
from act2see.micro.recipe.learn_encoder import draw_shown
from act2see.micro.recipe.models import IMAGE
from act2see.micro.world import CELLS, COLOURS, GRID, NAMELESS_SHAPES, SHAPES, SIDES, Board, Pixels, render
from act2see.tools.frames import FrameRef
from act2see.training.sft.collate import equal_frames
from act2see.training.sft.loop import Progress, warm_cosine

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

RATE, IGNORED, OUTPUT_RMS = 1e-3, -100, 0.2
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
    """Shape, colour, light, low side, row and column of each cell, and the cell of the next piece: `(n, 9,
    7)`.

    0 means none (except for rows and columns); looks without a name are ignored.
    """
    import torch

    out = torch.zeros(len(boards), len(CELLS), 7, dtype=torch.long)
    out[:, :, 4:6] = torch.tensor(CELLS)
    for row, board in zip(out, boards, strict=True):
        row[:, 3] = SIDES.index(board.tipped) + 1 if board.tipped else 0
        for p in board.pieces:
            shape = SHAPES.index(p.shape) + 1 if p.shape in SHAPES else IGNORED
            colour = list(COLOURS).index(p.colour) + 1 if p.colour in COLOURS else IGNORED
            row[CELLS.index(p.cell), :3] = torch.tensor((shape, colour, int(p.lit)))
        for p in reversed(board.ordered()):
            row[: CELLS.index(p.cell), 6] = CELLS.index(p.cell) + 1
    return out


def train_eyes(
    model: Qwen3VLForConditionalGeneration,
    packer: Packer,
    steps: int,
    batch: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Train `model`'s vision tower in place, with DeepStack's outputs, and freeze it."""
    import torch
    from torch.nn.functional import cross_entropy

    rng, noise = random.Random(seed), np.random.default_rng(seed)
    sizes = (len(SHAPES) + 1, len(COLOURS) + 1, 2, len(SIDES) + 1, GRID, GRID, len(CELLS) + 1)
    visual = model.model.visual
    outputs = [visual.merger, *visual.deepstack_merger_list]
    heads = torch.nn.ModuleList(
        torch.nn.Linear(model.config.text_config.hidden_size, sum(sizes)) for _ in outputs
    )
    trainable = [*visual.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(trainable, RATE, weight_decay=0.01)
    grid = torch.tensor([[1, IMAGE // 8, IMAGE // 8]] * batch)
    with equal_frames(model):
        for step in range(steps):
            boards = [strange(draw_shown(rng), rng) for _ in range(batch)]
            refs = [
                FrameRef(digest=f"eyes-{seed}-{step}-{i}", width=IMAGE, height=IMAGE, seconds=0.0)
                for i in range(batch)
            ]
            drawn: dict[str, Pixels] = {}
            for ref, board in zip(refs, boards, strict=True):
                pixels = render(board, IMAGE, jitter=rng.randrange(2**31))
                noisy = pixels + noise.normal(0, 4.0, pixels.shape)
                drawn[ref.digest] = noisy.clip(0, 255).astype(np.uint8)
            out = visual(packer.patches(refs, lambda ref: drawn[ref.digest]), grid)  # noqa: B023
            seen = (out.pooler_output, *out.deepstack_features)
            wanted = labels(boards).flatten(0, 1).unbind(-1)
            losses = []
            for head, tokens in zip(heads, seen, strict=True):
                for read, want in zip(head(tokens).split(sizes, -1), wanted, strict=True):
                    losses.append(cross_entropy(read, want, ignore_index=IGNORED))
            loss: Any = torch.stack(losses).sum()
            for group in optimiser.param_groups:
                group["lr"] = warm_cosine(step, steps, RATE, 40)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimiser.step()
            if progress and (step % 25 == 0 or step == steps - 1):
                progress("eyes", step, steps, loss.item())
        with torch.no_grad():
            for merger, tokens in zip(outputs, seen, strict=True):
                scale = OUTPUT_RMS / tokens.pow(2).mean().sqrt()
                merger.linear_fc2.weight.mul_(scale)
                merger.linear_fc2.bias.mul_(scale)
    visual.requires_grad_(False)
