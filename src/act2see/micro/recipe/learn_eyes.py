"""Train the micro VLM's vision tower before any language: each merged token must show the content of its
cell.

Large VLMs start from a trained vision encoder; this training replaces it. Linear heads read shape, colour and
light separately from a token, and are discarded afterwards. They also read the token's own cell and the cell
of the next piece in reading order, so that the language model need not compute places from positions.

Looks without a name train one head alone: a shape in a nameless colour trains the shapes, a nameless shape
trains the colours. So the tower learns shapes independently of colours, and can recognise pairs that training
never shows. Nameless colours are never close to a named one, so that they cannot stand for a held-out pair.

After training, the tower's output is scaled to the size of word embeddings (it would be forty times as
large), and the tower is frozen.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.agent.packing import Packer
from act2see.micro.recipe.learn_encoder import draw_seen_board
from act2see.micro.recipe.models import IMAGE, PATCH
from act2see.micro.recipe.prefetch import Workers
from act2see.micro.world import CELLS, COLOURS, GRID, NAMELESS_SHAPES, SHAPES, SIDES, Board, Pixels, render
from act2see.tools.frames import FrameRef
from act2see.training.sft.forward import Batch, see, to_device
from act2see.training.sft.loop import Progress, fast_products, warm_cosine

if TYPE_CHECKING:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

RATE = 1e-3
IGNORED = -100
"""Label of what has no name, which the loss ignores."""
OUTPUT_RMS = 0.2
"""Root mean square of the tower's output after training, as of word embeddings."""
CLASSES = (len(SHAPES) + 1, len(COLOURS) + 1, 2, len(SIDES) + 1, GRID, GRID, len(CELLS) + 1)
"""Number of classes of each label of `cell_labels`."""
NAMELESS_COLOURS = tuple(
    f"#{r:02x}{g:02x}{b:02x}"
    for r, g, b in product(range(20, 256, 47), repeat=3)
    if max(r, g, b) > 90 and all(math.dist((r, g, b), named) > 75 for named in COLOURS.values())
)


def make_nameless(board: Board, rng: random.Random) -> Board:
    """Return the board with some pieces in nameless colours and some in nameless shapes."""
    pieces = []
    for p in board.pieces:
        kind = rng.random()
        if kind < 0.3:
            p = replace(p, colour=rng.choice(NAMELESS_COLOURS))
        elif kind < 0.5:
            p = replace(p, shape=rng.choice(NAMELESS_SHAPES))
        pieces.append(p)
    return replace(board, pieces=tuple(pieces))


def cell_labels(boards: list[Board]) -> torch.Tensor:
    """Return the labels of each cell, `(n, 9, 7)`.

    They are shape, colour, light, low side, row, column, and the cell of the next piece. 0 means none (except
    for rows and columns); looks without a name are `IGNORED`.
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


def _draw_patches(
    boards: list[Board], name: str, packer: Packer, rng: random.Random, noise: np.random.Generator
) -> torch.Tensor:
    """Draw a noisy picture of each board and return the patches of all: `(n * 36, patch)`."""
    drawn: dict[str, Pixels] = {}
    refs = []
    for i, board in enumerate(boards):
        pixels = render(board, IMAGE, jitter=rng.randrange(2**31))
        noisy = pixels + noise.normal(0, 4.0, pixels.shape)
        ref = FrameRef(digest=f"{name}-{i}", width=IMAGE, height=IMAGE, seconds=0.0)
        drawn[ref.digest] = noisy.clip(0, 255).astype(np.uint8)
        refs.append(ref)
    return packer.patches(refs, lambda ref: drawn[ref.digest])


@dataclass(frozen=True, slots=True)
class Looks:
    """The lesson of the eyes: boards and what their cells show.

    Its batches hold `pixel_values`, `image_grid_thw` (n, 3) and the `labels` of `cell_labels` (n, 9, 7).
    """

    packer: Packer
    batch: int
    seed: int

    def __call__(self, number: int) -> Batch:
        import torch

        rng, noise = random.Random(f"{self.seed} {number}"), np.random.default_rng((self.seed, number))
        boards = [make_nameless(draw_seen_board(rng), rng) for _ in range(self.batch)]
        patches = _draw_patches(boards, f"eyes-{self.seed}-{number}", self.packer, rng, noise)
        side = IMAGE // PATCH
        grids = torch.tensor([[1, side, side]] * self.batch)
        return {"pixel_values": patches, "image_grid_thw": grids, "labels": cell_labels(boards)}


def _reading_loss(heads: Any, seen: Sequence[torch.Tensor], labels: torch.Tensor) -> Any:
    """Return the sum of all heads' losses; `seen` holds the tokens `(n * 9, D)` of each output."""
    import torch
    from torch.nn.functional import cross_entropy

    wanted = labels.flatten(0, 1).unbind(-1)
    losses = []
    for head, tokens in zip(heads, seen, strict=True):
        for read, want in zip(head(tokens).split(CLASSES, -1), wanted, strict=True):
            losses.append(cross_entropy(read, want, ignore_index=IGNORED))
    return torch.stack(losses).sum()


def _scale_outputs(mergers: Sequence[Any], seen: Sequence[torch.Tensor]) -> None:
    """Scale the outputs of the tower to the size of word embeddings."""
    import torch

    with torch.no_grad():
        for merger, tokens in zip(mergers, seen, strict=True):
            scale = OUTPUT_RMS / tokens.pow(2).mean().sqrt()
            merger.linear_fc2.weight.mul_(scale)
            merger.linear_fc2.bias.mul_(scale)


def train_eyes(
    model: Qwen3VLForConditionalGeneration,
    packer: Packer,
    steps: int,
    batch: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> None:
    """Train a model's vision tower in place, with the outputs for DeepStack, and freeze it.

    Args:
        model: The VLM, on the device that trains it.
        packer: The packer of its frames.
        steps: The number of steps.
        batch: The number of boards in a step.
        seed: The seed of the data.
        progress: Called every 25 steps with a name, the step, the number of steps and the loss.
        workers: The processes that draw the boards. Default: this one.
    """
    import torch

    visual = model.model.visual
    mergers = [visual.merger, *visual.deepstack_merger_list]
    width = model.config.text_config.hidden_size
    device = model.device
    heads = torch.nn.ModuleList(torch.nn.Linear(width, sum(CLASSES)) for _ in mergers).to(device)
    trainable = [*visual.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(trainable, RATE, weight_decay=0.01, fused=device.type == "cuda" or None)
    looks = (workers or Workers(0)).batches(Looks(packer, batch, seed), steps)
    with fast_products(device.type):
        for step, drawn in enumerate(looks):
            on_device = to_device(drawn, device)
            merged, deep = see(visual, on_device["pixel_values"], on_device["image_grid_thw"])
            seen = (merged, *deep)
            loss = _reading_loss(heads, seen, on_device["labels"])
            for group in optimiser.param_groups:
                group["lr"] = warm_cosine(step, steps, RATE, 40)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimiser.step()
            if progress and (step % 25 == 0 or step == steps - 1):
                progress("eyes", step, steps, loss.item())
        _scale_outputs(mergers, seen)
    visual.requires_grad_(False)
