"""The board world as a benchmark: questions and clips that nobody has seen, drawn from their numbers.

Needs no download: `act2see eval board` asks the paper's four families in turn, from the test split that no
model was trained on. For each question it is known which calls the answer needs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.samples import Sample
from act2see.micro.questions import Item, items
from act2see.micro.world import write_clip
from act2see.tools.runtime.files import whole_file
from act2see.tools.video.store import default_cache

NAME = "board"
QUESTIONS = 800
"""How many questions a run has without a limit: as many as `act2see micro test` asks."""

_PROBED = 64  # questions that the hash of the board is made of: some of each family and kind


def load_board(count: int = QUESTIONS, clips: Path | None = None) -> Suite:
    """Return questions of the board world. Their clips are written where they are not yet.

    Args:
        count: The number of questions; a larger number begins with the same ones.
        clips: The folder of the clips; by default in the cache.
    """
    folder = clips or default_cache() / "benchmarks" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    samples = tuple(make_sample(item, folder) for item in items(count, "test"))
    ids = tuple(sample.id for sample in samples)
    return Suite(NAME, samples, (), "wrong", (), ids, digest_board())


def digest_board() -> str:
    """Return a hash of what draws the questions and clips: of its first ones, however many are asked."""
    drawn = "\0".join(map(repr, items(_PROBED, "test")))
    return hashlib.blake2b(drawn.encode(), digest_size=8).hexdigest()


def make_sample(item: Item, folder: Path) -> Sample:
    """Return a question as a sample, and write its clip."""
    return Sample(
        id=str(item.seed),
        benchmark=NAME,
        video=str(_write_clip(item, folder)),
        question=item.text,
        options=item.options,
        answer=item.correct,
        groups={
            "family": item.family,
            "kind": item.kind,
            "in view": "yes" if item.in_view else "no",
        },
        needed=item.needed,
    )


def _write_clip(item: Item, folder: Path) -> Path:
    """Return the path of a clip. Its name is that of its content, so an older clip is never taken for it."""
    digest = hashlib.blake2b(repr(item.clip).encode(), digest_size=6).hexdigest()
    path = folder / f"{item.seed}-{digest}.mp4"
    if not path.exists():
        with whole_file(path) as new:
            write_clip(item.clip, new)
    return path
