"""Speed-up of asking concurrently: sixteen questions by `graph.abatch`, compared with one after another.

The questions are a quarter of each family, each about a clip of its own. Both ways start with loaded models
and an empty cache, so that each opens, indexes and imagines for itself; concurrency saves decoding, where one
forward pass serves all running rollouts. Decoding passes are counted, and answers that change with the batch.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import LazyReasoner, build_parts
from act2see.micro.questions import FAMILIES, Item, items
from act2see.micro.world import write_clip
from benchmarks import Goal, at_least, reported, require_weights

GOAL_RATIO, QUESTIONS = 1.5, 16


@dataclass(frozen=True, slots=True)
class Way:
    """Seconds and decoding passes of all questions, and their answers."""

    seconds: float
    forwards: int
    answers: list[str]


async def ask(asked: list[Item], folder: Path, cache: Path, together: bool) -> Way:
    """Ask all questions, after one of each family about other clips, which loads the models.

    Args:
        asked: The questions.
        folder: The folder of their clips.
        cache: An empty folder for the cache.
        together: Whether to ask them concurrently.
    """
    config = load_config("micro", cache=str(cache), view={"guard": None})
    parts = build_parts(config)
    graph = create_act2see(config, parts=parts)

    def input_of(item: Item) -> Any:
        clip = folder / f"{item.seed}.mp4"
        if not clip.exists():
            write_clip(item.clip, clip)
        return {"video": str(clip), "question": item.text, "options": list(item.options)}

    for item in items(len(FAMILIES), "validation"):
        await graph.ainvoke(input_of(item))
    inputs = [input_of(item) for item in asked]
    assert isinstance(parts.reasoner, LazyReasoner)
    engine: Any = parts.reasoner.reasoner()
    before, started = engine.forwards, time.perf_counter()
    if together:
        results = await graph.abatch(inputs)
    else:
        results = [await graph.ainvoke(i) for i in inputs]
    seconds = time.perf_counter() - started
    return Way(seconds, engine.forwards - before, [r["answer"] for r in results])


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of three rounds that alternate the two ways (quick: one round)."""
    require_weights("vlm", "encoder", "generator")
    asked = list(items(QUESTIONS, "test"))
    rounds: list[tuple[Way, Way]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(1 if quick else 3):
            alone = asyncio.run(ask(asked, folder, folder / f"alone-{n}", together=False))
            rounds.append((alone, asyncio.run(ask(asked, folder, folder / f"together-{n}", together=True))))
    alone, together = rounds[0]
    speed_up = statistics.median(a.seconds / b.seconds for a, b in rounds)
    different = sum(a != b for a, b in zip(alone.answers, together.answers, strict=True))
    goals: dict[str, Goal] = {
        "questions a second at once, times one by one": at_least(speed_up, GOAL_RATIO),
        "seconds one by one": reported(statistics.median(a.seconds for a, _ in rounds)),
        "seconds at once": reported(statistics.median(b.seconds for _, b in rounds)),
        "decoding forwards one by one": reported(alone.forwards),
        "decoding forwards at once": reported(together.forwards),
        "answers that differ": reported(different),
    }
    return {"questions": len(asked), "goals": goals}
