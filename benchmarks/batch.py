"""What asking at once brings: sixteen questions by `graph.abatch` against one after another.

All on clips of their own, a quarter of each family. Both ways begin with models loaded and an empty cache, so
that each opens, indexes and imagines for itself; what is saved is decoding, where one forward serves every
rollout under way. Decoding forwards are counted; an answer that changes with the batch is counted too.
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
from benchmarks import Goal, at_least, need, reported

GOAL_RATIO, QUESTIONS = 1.5, 16


@dataclass(frozen=True, slots=True)
class Way:
    """How it went: seconds and decoding forwards of all questions, and their answers."""

    seconds: float
    forwards: int
    answers: list[str]


async def ask(asked: list[Item], folder: Path, cache: Path, together: bool) -> Way:
    """Ask all of them; a question of each family, on other clips, loads the models first."""
    config = load_config("micro", cache=str(cache), view={"guard": None})
    parts = build_parts(config)
    graph = create_act2see(config, parts=parts)

    def given(item: Item) -> Any:
        clip = folder / f"{item.seed}.mp4"
        if not clip.exists():
            write_clip(item.clip, clip)
        return {"video": str(clip), "question": item.text, "options": list(item.options)}

    for item in items(len(FAMILIES), "validation"):
        await graph.ainvoke(given(item))
    inputs = [given(item) for item in asked]
    assert isinstance(parts.reasoner, LazyReasoner)
    engine: Any = parts.reasoner.reasoner()
    before, started = engine.forwards, time.perf_counter()
    results = await graph.abatch(inputs) if together else [await graph.ainvoke(i) for i in inputs]
    return Way(time.perf_counter() - started, engine.forwards - before, [r["answer"] for r in results])


def run(quick: bool = False) -> dict[str, Any]:
    """Median of three rounds, the ways in turn (quick: one round)."""
    need("vlm", "encoder", "generator")
    asked = list(items(QUESTIONS, "test"))
    rounds: list[tuple[Way, Way]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(1 if quick else 3):
            alone = asyncio.run(ask(asked, folder, folder / f"alone-{n}", together=False))
            rounds.append((alone, asyncio.run(ask(asked, folder, folder / f"together-{n}", together=True))))
    alone, together = rounds[0]
    goals: dict[str, Goal] = {
        "questions a second at once, times one by one": at_least(
            statistics.median(a.seconds / b.seconds for a, b in rounds), GOAL_RATIO
        ),
        "seconds one by one": reported(statistics.median(a.seconds for a, _ in rounds)),
        "seconds at once": reported(statistics.median(b.seconds for _, b in rounds)),
        "decoding forwards one by one": reported(alone.forwards),
        "decoding forwards at once": reported(together.forwards),
        "answers that differ": reported(
            sum(a != b for a, b in zip(alone.answers, together.answers, strict=True))
        ),
    }
    return {"questions": len(asked), "goals": goals}
