"""The board world as a source of training questions, with its reference chains instead of human ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from act2see.micro.questions import FAMILIES, Family, make_item
from act2see.micro.world import write_clip
from act2see.training.corpus.sources import Sample

THRESHOLD = 0.9
"""The similarity to the reference chain that a chain of the board world must exceed.

It is above the paper's 0.8 because boards are alike: by MiniLM, even the chain of another board reaches 0.8.
"""


def load_world(
    count: int, folder: Path, seed: int = 0, families: Sequence[Family] = FAMILIES
) -> Iterator[Sample]:
    """Yield `count` training questions of the board world, with their clips written to `folder`.

    Args:
        count: Number of questions.
        folder: Folder of the clips; existing clips are not written again.
        seed: Seed of the questions.
        families: Families of the questions, used in turn.
    """
    for n in range(count):
        item = make_item(families[n % len(families)], seed * 1_000_000 + n // len(families), "train")
        clip = folder / f"{item.seed}.mp4"
        if not clip.exists():
            write_clip(item.clip, clip)
        texts = item.texts()
        texts.append(item.closing().partition("</think>")[0])
        yield Sample(
            id=f"world-{item.seed}",
            source="world",
            video=str(clip),
            question=item.text,
            options=item.options,
            answer=item.given,
            chain=" ".join(text.strip() for text in texts),
            licence="Apache-2.0",
        )
