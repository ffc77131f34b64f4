"""Train the micro frame encoder: BLIP-2's contrastive objective on boards and phrases.

A phrase makes claims about a board (a shape is there, it is red, it blinks, the board is tipped). How well a
board fits is known exactly: the share of the phrase's claims that hold. The loss is a sigmoid on every pair
of a batch towards that share, so that scores are comparable between phrases and a "no match" threshold means
something. A query to imagine from ("the board tipped to the left") prefers calm boards to blinking ones, so
that its anchor is a calm frame.

BLIP-2's first stage also captions, which is its dense supervision. Two linear heads take that part here, one
reading each cell from the vision tower and one each shape from the query tokens; they are thrown away
afterwards.
"""

from __future__ import annotations

import logging
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from act2see.micro.recipe.learn_generator import draw_edit, draw_source, edit_texts, to_tensor
from act2see.micro.recipe.models import build_encoder, encoder_image_processor
from act2see.micro.recipe.tokenizers import bert_tokenizer
from act2see.micro.words import edit_query
from act2see.micro.world import CELLS, COLOURS, GRID, SHAPES, SIDES, Board, Cell, Edit
from act2see.training.sft.loop import Progress

if TYPE_CHECKING:
    import torch

    from act2see.micro.questions import Split

log = logging.getLogger(__name__)
Claim = tuple[str, ...]
"""A kind, and what it is about: ("is", "circle", "red")."""
TEXT_TOKENS = 35
RATE = 1e-3
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


def in_words(cell: Cell) -> str:
    """A cell as people who search name it: `(0, 2)` is "top right"."""
    return f"{ROWS[cell[0]]} {COLUMNS[cell[1]]}"


WHERE_AND_HOW = (*COLOURS, *map(in_words, CELLS), "lit")
CONTENTS = ("", *(f"{lit}{colour} {shape}" for lit in ("", "lit ") for colour in COLOURS for shape in SHAPES))


def holds(claim: Claim, board: Board) -> bool:
    """Whether a claim is true of a board."""
    kind, *rest = claim
    if kind == "blink":
        return board.lit is not None and rest[0] in ("", board.lit.shape)
    if kind == "calm":
        return board.lit is None
    if kind == "tipped":
        return board.tipped == rest[0]
    if kind == "gone":
        return board.find(rest[0]) is None
    if kind == "colour":
        return any(p.colour == rest[0] for p in board.pieces)
    found = board.find(rest[0])
    if found is None:
        return False
    if kind == "is":
        return found.colour == rest[1]
    if kind == "at":
        return in_words(found.cell) == rest[1]
    return kind == "there"


def grade(claims: tuple[Claim, ...], board: Board) -> float:
    """The share of the claims that hold."""
    return sum(holds(c, board) for c in claims) / len(claims)


def draw_phrase(rng: random.Random, board: Board) -> tuple[str, tuple[Claim, ...]]:
    """Draw a phrase that is mostly true of `board`, with its claims."""
    shape = rng.choice(SHAPES) if rng.random() < 0.25 else rng.choice(board.pieces).shape
    lit = board.lit.shape if board.lit and rng.random() < 0.8 else shape
    kind = rng.random()
    if kind < 0.22:
        return f"the {lit} blinks", (("blink", lit),)
    if kind < 0.27:
        return "a shape blinks", (("blink", ""),)
    if kind < 0.42:
        return f"the {shape}", (("there", shape),)
    if kind < 0.62:
        found = board.find(shape)
        colour = found.colour if found and rng.random() < 0.8 else rng.choice(list(COLOURS))
        wordings = (f"the {shape} is {colour}", f"a {colour} {shape}", f"the {colour} {shape}")
        return rng.choice(wordings), (("is", shape, colour),)
    if kind < 0.74:
        found = board.find(shape)
        place = in_words(found.cell if found and rng.random() < 0.8 else rng.choice(CELLS))
        return f"the {shape} at {place}", (("at", shape, place),)
    edit, _ = draw_edit(rng, board)
    if board.tipped and rng.random() < 0.8:
        edit = Edit(board.tipped, edit.without)
    away: tuple[Claim, ...] = (("gone", edit.without),) if edit.without else ()
    if rng.random() < 0.5 and board.lit:
        return edit_query(edit, lit), (("blink", lit), ("blink", lit), ("tipped", edit.side), *away)
    return edit_query(edit), (("calm",), ("calm",), ("tipped", edit.side), *away)


def texts() -> list[str]:
    """The tokenizer's corpus."""
    rng = random.Random(0)
    phrases = [draw_phrase(rng, draw_source(rng))[0] for _ in range(3000)]
    return edit_texts() + phrases + [f"{side} {colour}" for side in SIDES for colour in COLOURS]


def draw_shown(rng: random.Random) -> Board:
    """Draw a board as a frame or an imagined frame may show it."""
    board = draw_source(rng)
    return draw_edit(rng, board)[0].apply(board) if rng.random() < 0.3 else board


def contents(boards: list[Board]) -> torch.Tensor:
    """What the cell of each patch holds, as an index in `CONTENTS`: `(n, 36)`."""
    import torch

    out = torch.zeros(len(boards), GRID, GRID, dtype=torch.long)
    for row, board in zip(out, boards, strict=True):
        for p in board.pieces:
            row[p.cell] = CONTENTS.index(f"{'lit ' if p.lit else ''}{p.colour} {p.shape}")
    return out.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def facts(boards: list[Board]) -> torch.Tensor:
    """For each shape, which of `WHERE_AND_HOW` holds: `(n, 5, 16)`. Nothing holds for a shape that is not on
    the board."""
    import torch

    out = torch.zeros(len(boards), len(SHAPES), len(WHERE_AND_HOW))
    for row, board in zip(out, boards, strict=True):
        for p in board.pieces:
            true = [p.colour, in_words(p.cell)]
            if p.lit:
                true.append("lit")
            for fact in true:
                row[SHAPES.index(p.shape), WHERE_AND_HOW.index(fact)] = 1
    return out


def train_encoder(
    steps: int = 1500, batch: int = 64, seed: int = 0, progress: Progress | None = None
) -> tuple[Any, Any, Any]:
    """Train the encoder; return the model, its tokenizer and its image processor."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

    torch.manual_seed(seed)
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    tokenizer = bert_tokenizer(texts())
    model: Any = build_encoder(len(tokenizer))
    scale = torch.nn.Parameter(torch.tensor(math.log(10.0)))
    bias = torch.nn.Parameter(torch.tensor(-3.0))
    width = model.config.vision_config.hidden_size
    of_cells = torch.nn.Linear(width, len(CONTENTS))
    of_shapes = torch.nn.Linear(model.config.num_query_tokens * width, len(SHAPES) * len(WHERE_AND_HOW))
    optimiser = torch.optim.AdamW(
        [*model.parameters(), *of_cells.parameters(), *of_shapes.parameters(), scale, bias],
        RATE,
        weight_decay=0.01,
    )

    def embed_phrases(phrases: list[str]) -> torch.Tensor:
        """`(phrases, 64)`, L2-normalised."""
        tokens = tokenizer(
            phrases, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
        )
        read = model.qformer(
            query_embeds=model.embeddings(input_ids=tokens["input_ids"]),
            query_length=0,
            attention_mask=tokens["attention_mask"],
        )
        return normalize(model.text_projection(read[0][:, 0]), dim=-1)

    def compare(boards: list[Board], phrases: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score M phrases against N boards.

        Returns:
            The scores `(M, N)`, and the boards by the vision tower `(N, 36, D)` and by the query tokens
            `(N, 8, D)`.
        """
        seen = model.vision_model(pixel_values=to_tensor(boards, noise))[0]
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(len(seen), -1, -1), encoder_hidden_states=seen
        )[0]
        frames = normalize(model.vision_projection(queries), dim=-1)
        similarities = torch.einsum("md,npd->nmp", embed_phrases(phrases), frames)
        return similarities.amax(-1).T, seen[:, 1:], queries

    model.train()
    for step in range(steps):
        boards = [draw_shown(rng) for _ in range(batch)]
        phrases = [draw_phrase(rng, b) for b in boards]
        target = torch.tensor([[grade(c, b) for b in boards] for _, c in phrases])
        score, seen, queries = compare(boards, [t for t, _ in phrases])
        logits = score * scale.exp() + bias
        # Pairs make scores comparable; ranking the frames of a phrase, and the phrases of a frame, teaches
        # much faster.
        by_frame, by_phrase = (12 * target).softmax(1), (12 * target.T).softmax(1)
        over_frames = (by_frame * -logits.log_softmax(1)).sum(1).mean()
        over_phrases = (by_phrase * -logits.T.log_softmax(1)).sum(1).mean()
        ranking = over_frames + over_phrases
        # Four patches of eight pixels make a cell; each of them must tell what its cell holds.
        reading = cross_entropy(of_cells(seen).flatten(0, 1), contents(boards).flatten())
        read = of_shapes(queries.flatten(1)).view(-1, len(WHERE_AND_HOW))
        reading = reading + binary_cross_entropy_with_logits(read, facts(boards).flatten(0, 1)) * 4
        loss: Any = binary_cross_entropy_with_logits(logits, target) + 0.5 * ranking + reading
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-5
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress and (step % 50 == 0 or step == steps - 1):
            progress("encoder", step, steps, loss.item())
    model.eval()
    with torch.inference_mode():
        boards = [draw_shown(rng) for _ in range(256)]
        phrases = [draw_phrase(rng, b) for b in boards]
        grades = torch.tensor([[grade(c, b) for b in boards] for _, c in phrases])
        score, _, _ = compare(boards, [t for t, _ in phrases])
    # One fitting frame in two hundred is refused.
    model.config.act2see_no_match = round(float(score[grades == 1].quantile(0.005)), 4)
    log.info(
        "no match below %.2f; frames that fit nothing score %.2f",
        model.config.act2see_no_match,
        float(score[grades == 0].median()),
    )
    return model, tokenizer, encoder_image_processor()


def evaluate(encoder: Any, n: int = 200, split: Split = "validation") -> dict[str, float]:
    """How often, by tag, the best frame of a clip at 3 fps is one that the chain expects."""
    from act2see.micro.questions import ToolCall, items
    from act2see.micro.world import render

    hits: dict[str, list[bool]] = {"retrieve": [], "generate": []}
    for item in items(n, split):
        times = np.arange(0, item.clip.seconds, 1 / 3)
        boards = [item.clip.at(float(t)) for t in times]
        features = encoder.frames([render(b, 48) for b in boards]).astype(np.float32)
        for call in item.chain:
            if not isinstance(call, ToolCall):
                continue
            scores = (features @ encoder.phrases([call.query])[0]).max(1)
            if call.tag == "retrieve":
                scores[::3] = -1  # the initial frames, which the graph skips
            found = boards[int(scores.argmax())]
            if call.tag == "retrieve":
                hits["retrieve"].append(set(found.pieces) == set(call.expect.pieces))
            else:
                expected = {p.shape for p in call.expect.pieces if p.lit}
                hits["generate"].append(expected <= {p.shape for p in found.pieces if p.lit})
    return {tag: sum(found) / max(1, len(found)) for tag, found in hits.items()}


def learn(folder: Path, steps: int = 1500, seed: int = 0, progress: Progress | None = None) -> None:
    """Train the encoder and save it."""
    model, tokenizer, processor = train_encoder(steps, seed=seed, progress=progress)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
