"""Train the micro frame encoder: BLIP-2's contrastive objective on boards and phrases.

A phrase makes claims about a board (a shape is there, it is red, it blinks, the board is tipped). The grade
of a board is the share of the claims that are true. The loss is a sigmoid on every pair of a batch towards
its grade, so that scores are comparable between phrases and one "no match" threshold fits all. A query to
imagine from ("the board tipped to the left") prefers boards without a blink, so that its anchor is a calm
frame.

BLIP-2's first stage is also trained to caption, which is its dense supervision. Here two linear heads replace
captioning: one reads each cell from the vision tower, the other each shape from the query tokens. They are
discarded after training.
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
from act2see.micro.wordings import load_wordings
from act2see.micro.words import edit_query
from act2see.micro.world import CELLS, COLOURS, GRID, SHAPES, SIDES, Board, Cell, Edit, cell_name
from act2see.training.sft.loop import Progress

if TYPE_CHECKING:
    import torch

    from act2see.micro.questions import Split

log = logging.getLogger(__name__)
Claim = tuple[str, ...]
"""A kind of claim and its arguments, like `("is", "circle", "red")`."""
Phrase = tuple[str, tuple[Claim, ...]]
"""A text and its claims."""
TEXT_TOKENS = 35
RATE = 1e-3
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")


def search_name(cell: Cell) -> str:
    """Return a cell's name as people use it in a search: "top right" for `(0, 2)`."""
    return f"{ROWS[cell[0]]} {COLUMNS[cell[1]]}"


WHERE_AND_HOW = (*COLOURS, *map(search_name, CELLS), "lit")
"""The facts about a shape: its colour, its cell, and whether it is lit."""
CONTENTS = ("", *(f"{lit}{colour} {shape}" for lit in ("", "lit ") for colour in COLOURS for shape in SHAPES))


def is_true(claim: Claim, board: Board) -> bool:
    """Return whether a claim is true of a board. "never" is true of none."""
    kind, *rest = claim
    if kind == "blink":
        return board.lit is not None and rest[0] in ("", board.lit.shape)
    if kind == "never":
        return False
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
        return search_name(found.cell) == rest[1]
    return kind == "there"


def grade(claims: tuple[Claim, ...], board: Board) -> float:
    """Return the share of the claims that are true of a board."""
    return sum(is_true(c, board) for c in claims) / len(claims)


_IN_PEOPLES_WORDS = 0.45
"""Share of the searches that are put as people type them."""
_NEVER = 0.08
"""Share of the searches for what no board shows."""


def draw_phrase(rng: random.Random, board: Board) -> Phrase:
    """Draw a phrase that is mostly true of `board`: in the world's own words, or in people's."""
    shape = rng.choice(SHAPES) if rng.random() < 0.25 else rng.choice(board.pieces).shape
    lit = board.lit.shape if board.lit and rng.random() < 0.8 else shape
    found = board.find(shape)
    if rng.random() < _NEVER:
        text = load_wordings().decline(rng) if rng.random() < 0.5 else _unknown_thing(rng)
        return text, (("never",),)
    kind = rng.random()
    if kind < 0.22:
        return _word(rng, "find_blink", {"x": lit}, f"the {lit} blinks"), (("blink", lit),)
    if kind < 0.27:
        return "a shape blinks", (("blink", ""),)
    if kind < 0.42:
        return _word(rng, "find_there", {"x": shape}, f"the {shape}"), (("there", shape),)
    if kind < 0.62:
        colour = found.colour if found and rng.random() < 0.8 else rng.choice(list(COLOURS))
        own = rng.choice((f"the {shape} is {colour}", f"a {colour} {shape}", f"the {colour} {shape}"))
        return _word(rng, "find_is", {"x": shape, "colour": colour}, own), (("is", shape, colour),)
    if kind < 0.74:
        cell = found.cell if found and rng.random() < 0.8 else rng.choice(CELLS)
        own = f"the {shape} at {search_name(cell)}"
        text = _word(rng, "find_at", {"x": shape, "place": cell_name(cell)}, own)
        return text, (("at", shape, search_name(cell)),)
    edit, _ = draw_edit(rng, board)
    if board.tipped and rng.random() < 0.8:
        edit = Edit(board.tipped, edit.without)
    away: tuple[Claim, ...] = (("gone", edit.without),) if edit.without else ()
    if rng.random() < 0.5 and board.lit:
        return edit_query(edit, lit), (("blink", lit), ("blink", lit), ("tipped", edit.side), *away)
    calm: tuple[Claim, ...] = (("calm",), ("calm",), ("tipped", edit.side), *away)
    own = edit_query(edit)
    return own if away else _word(rng, "find_tipped", {"side": edit.side}, own), calm


def _unknown_thing(rng: random.Random) -> str:
    """Return a word that means nothing here, as "dog" does, alone or with an article."""
    pairs = [rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    return rng.choice(("a ", "the ", "")) + "".join(pairs) + rng.choice("bdgklmnprstx")


def _word(rng: random.Random, kind: str, slots: dict[str, str], own: str) -> str:
    """Return a search as somebody would type it, or in the world's own words."""
    return load_wordings().search(kind, slots, rng) if rng.random() < _IN_PEOPLES_WORDS else own


def tokenizer_texts() -> list[str]:
    """Return the texts that the tokenizer is trained on."""
    rng = random.Random(0)
    phrases = [draw_phrase(rng, draw_source(rng))[0] for _ in range(3000)]
    return edit_texts() + phrases + [f"{side} {colour}" for side in SIDES for colour in COLOURS]


def draw_seen_board(rng: random.Random) -> Board:
    """Draw a board like those of frames and of imagined frames."""
    board = draw_source(rng)
    return draw_edit(rng, board)[0].apply(board) if rng.random() < 0.3 else board


def cell_contents(boards: list[Board]) -> torch.Tensor:
    """Return the content of each patch's cell as an index in `CONTENTS`: `(n, 36)`."""
    import torch

    out = torch.zeros(len(boards), GRID, GRID, dtype=torch.long)
    for row, board in zip(out, boards, strict=True):
        for p in board.pieces:
            row[p.cell] = CONTENTS.index(f"{'lit ' if p.lit else ''}{p.colour} {p.shape}")
    return out.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)


def shape_facts(boards: list[Board]) -> torch.Tensor:
    """Return 1 for each fact of `WHERE_AND_HOW` that is true of a shape, else 0: `(n, 5, 16)`.

    All are 0 for a shape that is not on the board.
    """
    import torch

    out = torch.zeros(len(boards), len(SHAPES), len(WHERE_AND_HOW))
    for row, board in zip(out, boards, strict=True):
        for p in board.pieces:
            true = [p.colour, search_name(p.cell)]
            if p.lit:
                true.append("lit")
            for fact in true:
                row[SHAPES.index(p.shape), WHERE_AND_HOW.index(fact)] = 1
    return out


class _Objective:
    """The losses of the encoder, with the heads and scalars that are trained only for them."""

    def __init__(self, model: Any, tokenizer: Any, noise: np.random.Generator) -> None:
        import torch

        self.model = model
        self.device = model.device
        self.tokenizer = tokenizer
        self.noise = noise
        width = model.config.vision_config.hidden_size
        all_queries = model.config.num_query_tokens * width
        self.scale = torch.nn.Parameter(torch.tensor(math.log(10.0), device=self.device))
        self.bias = torch.nn.Parameter(torch.tensor(-3.0, device=self.device))
        self.cell_head = torch.nn.Linear(width, len(CONTENTS)).to(self.device)
        self.shape_head = torch.nn.Linear(all_queries, len(SHAPES) * len(WHERE_AND_HOW)).to(self.device)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return all parameters to train, those of the model first."""
        heads = (*self.cell_head.parameters(), *self.shape_head.parameters())
        return [*self.model.parameters(), *heads, self.scale, self.bias]

    def embed_phrases(self, phrases: list[str]) -> torch.Tensor:
        """Return the L2-normalised features of phrases, `(phrases, 64)`."""
        from torch.nn.functional import normalize

        tokens = self.tokenizer(
            phrases, padding="max_length", truncation=True, max_length=TEXT_TOKENS, return_tensors="pt"
        ).to(self.device)
        read = self.model.qformer(
            query_embeds=self.model.embeddings(input_ids=tokens["input_ids"]),
            query_length=0,
            attention_mask=tokens["attention_mask"],
        )
        return normalize(self.model.text_projection(read[0][:, 0]), dim=-1)

    def compare(
        self, boards: list[Board], phrases: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score M phrases against N boards.

        Returns:
            The scores `(M, N)`, and the features of the boards from the vision tower `(N, 36, D)` and from
            the query tokens `(N, 8, D)`.
        """
        import torch
        from torch.nn.functional import normalize

        model = self.model
        seen = model.vision_model(pixel_values=to_tensor(boards, self.noise).to(self.device))[0]
        queries = model.qformer(
            query_embeds=model.query_tokens.expand(len(seen), -1, -1), encoder_hidden_states=seen
        )[0]
        frames = normalize(model.vision_projection(queries), dim=-1)
        similarities = torch.einsum("md,npd->nmp", self.embed_phrases(phrases), frames)
        return similarities.amax(-1).T, seen[:, 1:], queries

    def loss(self, boards: list[Board], phrases: list[Phrase]) -> torch.Tensor:
        """Return the loss of a batch: every pair towards its grade, ranking, and reading."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        target = grades_of(phrases, boards).to(self.device)
        score, seen, queries = self.compare(boards, [text for text, _ in phrases])
        logits = score * self.scale.exp() + self.bias
        ranking = _ranking_loss(logits, target)
        reading = self._reading_loss(boards, seen, queries)
        return binary_cross_entropy_with_logits(logits, target) + 0.5 * ranking + reading

    def _reading_loss(self, boards: list[Board], seen: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Return the loss of the heads. `seen` is `(N, 36, D)`, `queries` is `(N, 8, D)`."""
        from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

        # Four patches of eight pixels make a cell. Each of them must identify the content of its cell.
        cells = self.cell_head(seen).flatten(0, 1)
        by_cell = cross_entropy(cells, cell_contents(boards).flatten().to(self.device))
        shapes = self.shape_head(queries.flatten(1)).view(-1, len(WHERE_AND_HOW))
        facts = shape_facts(boards).flatten(0, 1).to(self.device)
        by_shape = binary_cross_entropy_with_logits(shapes, facts)
        return by_cell + by_shape * 4


def grades_of(phrases: list[Phrase], boards: list[Board]) -> torch.Tensor:
    """Return the grade of each board for each phrase: `(phrases, boards)`."""
    import torch

    rows = []
    for _, claims in phrases:
        rows.append([grade(claims, board) for board in boards])
    return torch.tensor(rows)


def _ranking_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the loss of ranking the frames of each phrase and the phrases of each frame.

    The loss on pairs makes scores comparable between phrases; ranking makes training much faster. Both
    arguments are `(phrases, boards)`.
    """
    by_frame = (12 * target).softmax(1)
    by_phrase = (12 * target.T).softmax(1)
    over_frames = (by_frame * -logits.log_softmax(1)).sum(1).mean()
    over_phrases = (by_phrase * -logits.T.log_softmax(1)).sum(1).mean()
    return over_frames + over_phrases


def train_encoder(
    steps: int = 1500,
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> tuple[Any, Any, Any]:
    """Train the encoder.

    Args:
        steps: The number of steps.
        batch: The number of boards, and of phrases, in a step.
        seed: The seed of weights and data.
        progress: Called every 50 steps with a name, the step, the number of steps and the loss.
        device: The device that trains it.

    Returns:
        The model, its tokenizer and its image processor.
    """
    import torch

    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = bert_tokenizer(tokenizer_texts())
    model: Any = build_encoder(len(tokenizer)).to(device)
    objective = _Objective(model, tokenizer, np.random.default_rng(seed))
    optimiser = torch.optim.AdamW(objective.parameters(), RATE, weight_decay=0.01)
    model.train()
    for step in range(steps):
        boards = [draw_seen_board(rng) for _ in range(batch)]
        phrases = [draw_phrase(rng, board) for board in boards]
        loss: Any = objective.loss(boards, phrases)
        warmup = min(1, (step + 1) / 50)
        for group in optimiser.param_groups:
            group["lr"] = RATE * warmup * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-5
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress and (step % 50 == 0 or step == steps - 1):
            progress("encoder", step, steps, loss.item())
    model.eval()
    _set_no_match(objective, rng)
    return model, tokenizer, encoder_image_processor()


def _set_no_match(objective: _Objective, rng: random.Random) -> None:
    """Set the score below which nothing matches: it refuses one fitting frame in two hundred."""
    import torch

    with torch.inference_mode():
        boards = [draw_seen_board(rng) for _ in range(256)]
        phrases = [draw_phrase(rng, board) for board in boards]
        grades = grades_of(phrases, boards).to(objective.device)
        score, _, _ = objective.compare(boards, [text for text, _ in phrases])
    threshold = round(float(score[grades == 1].quantile(0.005)), 4)
    objective.model.config.act2see_no_match = threshold
    unrelated = float(score[grades == 0].median())
    log.info("no match below %.2f; frames that fit nothing score %.2f", threshold, unrelated)


def evaluate(encoder: Any, n: int = 200, split: Split = "validation") -> dict[str, float]:
    """Return, by tag, the share of queries for which the best frame of a clip at 3 fps is the expected
    one."""
    from act2see.micro.questions import ToolCall, items
    from act2see.micro.world import render

    hits: dict[str, list[bool]] = {"retrieve": [], "generate": []}
    for item in items(n, split):
        times = np.arange(0, item.clip.seconds, 1 / 3)
        boards = [item.clip.at(float(t)) for t in times]
        pixels = [render(board, 48) for board in boards]
        features = encoder.frames(pixels).astype(np.float32)  # (frames, queries, 64)
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


def learn(
    folder: Path,
    steps: int = 1500,
    batch: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "cpu",
) -> None:
    """Train the encoder and save it.

    Args:
        folder: The folder of the weights.
        steps: The number of steps.
        batch: The number of boards, and of phrases, in a step.
        seed: The seed of weights and data.
        progress: Called every 50 steps.
        device: The device that trains it.
    """
    model, tokenizer, processor = train_encoder(steps, batch, seed, progress, device)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
