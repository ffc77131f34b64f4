"""The board world as a source of training questions: its clips, and its reference chains in place of a
person's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from act2see.micro.questions import FAMILIES, Call, Family, make_item
from act2see.micro.world import write_clip
from act2see.training.corpus.sources import Sample

# Similarity to the human chain that a board world chain must exceed. Boards are alike: on MiniLM's scale the
# paper's 0.8 would let another board's chain pass.
THRESHOLD = 0.9


def load_world(
    count: int, folder: Path, seed: int = 0, families: Sequence[Family] = FAMILIES
) -> Iterator[Sample]:
    """`count` training questions of the board world, their clips written to `folder`, their reference chains
    as the human ones."""
    for n in range(count):
        item = make_item(families[n % len(families)], seed * 1_000_000 + n // len(families), "train")
        clip = folder / f"{item.seed}.mp4"
        if not clip.exists():
            write_clip(item.clip, clip)
        said = " ".join(
            s.strip()
            for s in (*item.chain, item.closing().partition("</think>")[0])
            if not isinstance(s, Call)
        )
        yield Sample(
            id=f"world-{item.seed}",
            source="world",
            video=str(clip),
            question=item.text,
            options=item.options,
            answer=item.answer,
            chain=said,
            licence="Apache-2.0",
        )
