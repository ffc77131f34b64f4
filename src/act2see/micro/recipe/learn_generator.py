"""Train the micro generator: a VAE, then Stable Diffusion 3 as a world model of tipping boards.

Image-to-image starts from x_s = (1 - s) source + s noise. The transformer is trained on the straight line
from that point to the latent of the *edited* board, at constant velocity (x_s - target) / s, so that the
stock `StableDiffusion3Img2ImgPipeline` follows it. s is not the strength: it comes from the pipeline's own
schedule. Strength 0.3 keeps enough of the source to read every shape and colour. At 0.5, after the same
training, colours blur and a third of the pieces end up in wrong cells. Half of the training samples are at s
itself, where the outcome is decided; the rest of the line only sharpens it.

The text towers are trained together with the transformer, on the queries that the VLM writes.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.micro.draws import draw_board, draw_colour
from act2see.micro.recipe.models import IMAGE, build_generator, build_vae
from act2see.micro.recipe.tokenizers import clip_tokenizer
from act2see.micro.words import edit_query
from act2see.micro.world import SHAPES, SIDES, Board, Cell, Edit, Pixels, read_board, render
from act2see.training.sft.loop import Progress

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusion3Img2ImgPipeline

log = logging.getLogger(__name__)
STRENGTH = 0.3
STEPS = 20
POOL_STEPS = 400
"""Training steps in one pass over a pool of encoded boards."""


def edit_texts() -> list[str]:
    """Return every query of the world, which are all texts that the tokenizer is trained on."""
    shapes = (None, *SHAPES)
    edits = [Edit(side, without) for side in SIDES for without in shapes]
    return [edit_query(edit, blinking) for edit in edits for blinking in shapes]


def draw_source(rng: random.Random, held_out: bool = False) -> Board:
    """Draw a board like those of anchor frames: often with a blink, sometimes already tipped."""
    board = draw_board(rng, held_out, pieces=rng.choice((3, 4, 4, 4)))
    if rng.random() < 0.1:
        board = board.tip(rng.choice(SIDES))
    if rng.random() < 0.4:
        p = rng.choice(board.pieces)
        board = board.change(p.shape, colour=draw_colour(rng, p.shape, held_out, p.colour), lit=True)
    return board


def draw_edit(rng: random.Random, board: Board) -> tuple[Edit, str]:
    """Draw an edit of a board, with its query."""
    edit = Edit(rng.choice(SIDES), rng.choice(board.pieces).shape if rng.random() < 0.4 else None)
    lit = board.lit
    return edit, edit_query(edit, lit.shape if lit and rng.random() < 0.8 else None)


def to_tensor(boards: Sequence[Board], rng: np.random.Generator | None = None) -> torch.Tensor:
    """Return the pictures of boards, `(n, 3, 48, 48)` in [-1, 1]; `rng` adds noise like that of
    compression."""
    import torch

    pixels = np.stack([render(b, IMAGE) for b in boards]).astype(np.float32)
    if rng is not None:
        pixels += rng.normal(0, 3.0, pixels.shape).astype(np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def _rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step: 50 steps of warm-up, then a cosine to almost zero."""
    return peak * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-5


def train_vae(
    steps: int = 1200,
    batch: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> AutoencoderKL:
    """Train the VAE on boards, half of them edited.

    Args:
        steps: The number of steps.
        batch: The number of boards in a step.
        seed: The seed of weights and data.
        progress: Called every 50 steps with a name, the step, the number of steps and the loss.
        device: The device that trains it.
    """
    import torch

    torch.manual_seed(seed)
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    vae = build_vae().to(device)
    optimiser = torch.optim.AdamW(vae.parameters(), 2e-3)
    for step in range(steps):
        boards = []
        for _ in range(batch):
            board = draw_source(rng)
            if rng.random() < 0.5:
                edit, _ = draw_edit(rng, board)
                board = edit.apply(board)
            boards.append(board)
        clean = to_tensor(boards).to(device)
        drawn = noise.normal(0, 3 / 127.5, clean.shape).astype(np.float32)
        x = clean + torch.from_numpy(drawn).to(device)
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, steps, 2e-3)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / (8 * 12 * 12)  # per number of the latent
        loss = (y - clean).abs().mean() + 1e-4 * kl
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        if progress and (step % 50 == 0 or step == steps - 1):
            progress("vae", step, steps, loss.item())
    with torch.no_grad():
        pixels = to_tensor([draw_source(rng) for _ in range(128)]).to(device)
        z = vae.encode(pixels).latent_dist.mean
    vae.register_to_config(scaling_factor=float(1 / z.std()), shift_factor=float(z.mean()))
    return vae.eval()


def start_sigma(
    pipeline: StableDiffusion3Img2ImgPipeline, strength: float = STRENGTH, steps: int = STEPS
) -> float:
    """Return the noise level at which the stock pipeline starts for this strength."""
    scheduler: Any = pipeline.scheduler
    scheduler.set_timesteps(steps)
    timesteps, _ = pipeline.get_timesteps(steps, strength, "cpu")
    return float(timesteps[0]) / float(scheduler.config.num_train_timesteps)


@dataclass(slots=True)
class _Pool:
    """Pairs of a board and its edit, encoded once for several passes.

    Encoding takes a third of a step, so a pool of `POOL_STEPS` batches serves four passes, with new noise in
    each.
    """

    sources: torch.Tensor
    """Latents of the boards, `(n, 8, 12, 12)`."""
    targets: torch.Tensor
    """Latents of the edited boards, `(n, 8, 12, 12)`."""
    queries: list[str]
    """The query of each edit."""


def _draw_pool(vae: AutoencoderKL, count: int, rng: random.Random, noise: np.random.Generator) -> _Pool:
    boards = [draw_source(rng) for _ in range(count)]
    edits = [draw_edit(rng, board) for board in boards]
    edited = [edit.apply(board) for (edit, _), board in zip(edits, boards, strict=True)]
    sources = _encode(vae, boards, noise)
    targets = _encode(vae, edited, noise)
    return _Pool(sources, targets, [query for _, query in edits])


def _encode(vae: AutoencoderKL, boards: Sequence[Board], noise: np.random.Generator) -> torch.Tensor:
    """Return the scaled latents of boards, `(n, 8, 12, 12)`."""
    import torch

    parts = []
    with torch.no_grad():
        for i in range(0, len(boards), 256):
            pixels = to_tensor(boards[i : i + 256], noise).to(vae.device)
            z = vae.encode(pixels).latent_dist.mean
            parts.append((z - vae.config.shift_factor) * vae.config.scaling_factor)
    return torch.cat(parts)


def _velocity_loss(
    pipeline: StableDiffusion3Img2ImgPipeline, pool: _Pool, at: int, batch: int, sigma: float
) -> torch.Tensor:
    """Return the squared error of the predicted velocity for one batch of a pool.

    Args:
        pipeline: The generator.
        pool: The encoded pairs.
        at: The first pair of the batch.
        batch: The number of pairs.
        sigma: The noise level at which the pipeline starts.
    """
    import torch

    source = pool.sources[at : at + batch]  # (B, 8, 12, 12)
    target = pool.targets[at : at + batch]
    start = (1 - sigma) * source + sigma * torch.randn_like(source)
    velocity = (start - target) / sigma
    # Half of the steps train at `sigma` itself, where the outcome is decided.
    t = torch.where(torch.rand(batch) < 0.5, torch.ones(batch), torch.rand(batch)).to(source.device) * sigma
    x = target + t.view(-1, 1, 1, 1) * velocity
    embeds, _, pooled, _ = pipeline.encode_prompt(
        pool.queries[at : at + batch],
        None,
        None,
        device=source.device,
        do_classifier_free_guidance=False,
        max_sequence_length=1,
    )
    guess = pipeline.transformer(
        hidden_states=x, timestep=t * 1000, encoder_hidden_states=embeds, pooled_projections=pooled
    ).sample
    loss: torch.Tensor = ((guess - velocity) ** 2).mean()
    return loss


def train_generator(
    vae: AutoencoderKL,
    steps: int = 3500,
    batch: int = 48,
    seed: int = 0,
    progress: Progress | None = None,
) -> StableDiffusion3Img2ImgPipeline:
    """Train the transformer and the text towers as a world model.

    Args:
        vae: The trained VAE, on the device that trains the rest; its weights do not change.
        steps: The number of steps.
        batch: The number of edits in a step.
        seed: The seed of weights and data.
        progress: Called every 100 steps with a name, the step, the number of steps and the loss.

    Returns:
        The pipeline. Its weights are an average over the last steps.
    """
    import torch

    torch.manual_seed(seed)
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    pipeline = build_generator(vae, clip_tokenizer(edit_texts())).to(vae.device)
    trainable = torch.nn.ModuleList([pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2])
    optimiser = torch.optim.AdamW(trainable.parameters(), 1e-3, weight_decay=0.0)
    average = [p.detach().clone() for p in trainable.parameters()]
    sigma = start_sigma(pipeline)
    trainable.train()
    for step in range(steps):
        if step % (4 * POOL_STEPS) == 0:
            pool = _draw_pool(vae, min(POOL_STEPS, steps) * batch, rng, noise)
        loss: Any = _velocity_loss(pipeline, pool, step % POOL_STEPS * batch, batch, sigma)
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, steps, 1e-3)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(trainable.parameters()), 1 - min(0.995, step / (step + 10)))
        if progress and (step % 100 == 0 or step == steps - 1):
            progress("generator", step, steps, loss.item())
    with torch.no_grad():
        for p, mean in zip(trainable.parameters(), average, strict=True):
            p.copy_(mean)
    trainable.eval()
    return pipeline


def score_edit(source: Board, edit: Edit, pixels: Pixels) -> tuple[bool, bool]:
    """Return whether a picture satisfies its query, and whether everything else is unchanged.

    The query is satisfied if the low side is marked, the shape to be taken away is missing, and the others
    are in the cells that the world's physics gives. Everything else is unchanged if the shapes kept their
    colours and nothing was added.

    Args:
        source: The board before the edit.
        edit: The edit of the query.
        pixels: The generated picture, `(size, size, 3)` uint8.
    """
    expected, found = edit.apply(source), read_board(pixels)
    satisfied = found.tipped == expected.tipped and _places(found) == _places(expected)
    return satisfied, _looks(found) == _looks(expected)


def _places(board: Board) -> dict[str, Cell]:
    return {p.shape: p.cell for p in board.pieces}


def _looks(board: Board) -> set[tuple[str, str, bool]]:
    return {(p.shape, p.colour, p.lit) for p in board.pieces}


def generate(
    pipeline: StableDiffusion3Img2ImgPipeline, sources: Sequence[Board], queries: Sequence[str], seed: int = 0
) -> list[Pixels]:
    """Edit boards with the stock pipeline.

    Args:
        pipeline: The generator.
        sources: The boards.
        queries: The query of each board.
        seed: The seed of the noise.

    Returns:
        The pictures, each `(48, 48, 3)` uint8.
    """
    import torch
    from PIL import Image

    pipeline.set_progress_bar_config(disable=True)
    images: Any = pipeline(
        prompt=list(queries),
        image=[Image.fromarray(render(b, IMAGE)) for b in sources],
        strength=STRENGTH,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        height=IMAGE,
        width=IMAGE,
        max_sequence_length=1,
        generator=torch.Generator().manual_seed(seed),
    ).images
    return [np.asarray(i) for i in images]


def evaluate(
    pipeline: StableDiffusion3Img2ImgPipeline, n: int = 256, seed: int = 10_000, held_out: bool = False
) -> dict[str, float]:
    """Score generated pictures of new boards.

    Args:
        pipeline: The generator.
        n: The number of pictures.
        seed: The seed of boards and edits.
        held_out: Whether the boards show held-out pairs.

    Returns:
        The shares of pictures that satisfy their query, that kept the rest unchanged, and that did both.
    """
    rng = random.Random(seed)
    sources = [draw_source(rng, held_out) for _ in range(n)]
    edits = [draw_edit(rng, board) for board in sources]
    pictures = generate(pipeline, sources, [query for _, query in edits])
    scores = [
        score_edit(source, edit, pixels)
        for source, (edit, _), pixels in zip(sources, edits, pictures, strict=True)
    ]
    return {
        "satisfied": sum(satisfied for satisfied, _ in scores) / n,
        "kept": sum(kept for _, kept in scores) / n,
        "both": sum(satisfied and kept for satisfied, kept in scores) / n,
    }


def learn(
    folder: Path,
    vae_steps: int = 1200,
    steps: int = 3500,
    part: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Train the VAE and the pipeline, and save them.

    Args:
        folder: The folder of the weights.
        vae_steps: The number of steps of the VAE.
        steps: The number of steps of the transformer and the text towers.
        part: One in this many of the boards of a batch, and of the pictures that are scored, is used.
        seed: The seed of weights and data.
        progress: Called with the steps of both parts.
        device: The device that trains them.

    Returns:
        The scores of the pipeline on new boards.
    """
    vae = train_vae(vae_steps, 32 // part, seed, progress, device)
    pipeline = train_generator(vae, steps, 48 // part, seed, progress)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return evaluate(pipeline, 256 // part)
