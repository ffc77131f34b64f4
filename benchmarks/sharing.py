"""One process for many questions: the wait of a clip while a film is indexed, and the speed-up of encoding
concurrent queries together.

*Beside a film*: the index of a six-second clip is built alone, and while that of a film of many minutes is
being built. The film's own time is reported for comparison: without taking turns the clip would wait that
long. Models are loaded before.

*At once*: 64 queries on indexed clips from 64 threads, compared with the same queries one after another.
Waiting queries are encoded together.

Predicted: on two cores the clip takes turns with one other build, whose decoding and encoding continue in
parallel, so two to three times alone; the queries gain as much as their text encoder does, twofold.

Measured: 1.23 times alone, while the film takes forty times; the queries are 3.6 times faster.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.search.finder import Finder
from benchmarks import Goal, at_least, at_most, reported, require_weights

GOAL_BESIDE, GOAL_AT_ONCE = 4.0, 1.0
QUERIES, THINGS = 64, ("circle", "square", "ring", "triangle")


def write_video(folder: Path, seed: int, seconds: int) -> str:
    """Write a clip of this length and return its path."""
    return str(write_clip(make_item("blink", seed, seconds=seconds).clip, folder / f"{seed}.mp4", 96))


def make_finder(folder: Path, name: str, warm: str) -> Finder:
    """Return a finder with an empty cache that has indexed one clip, so that its models are loaded."""
    finder = build_resources(load_config("micro", cache=str(folder / name))).finder
    finder.find(warm, "warm")
    return finder


async def index_beside_film(finder: Finder, film: str, clip: str) -> tuple[float, float]:
    """Index the clip while the film is being indexed; return the seconds of both.

    Raises:
        RuntimeError: If the film was indexed first.
    """
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    running = asyncio.Event()

    def on_progress(done: int, total: int) -> None:
        # This is called in a worker thread.
        loop.call_soon_threadsafe(running.set)

    long = asyncio.create_task(finder.ready(film, on_progress))
    await running.wait()
    asked = time.perf_counter()
    await finder.ready(clip)
    waited = time.perf_counter() - asked
    if long.done():
        raise RuntimeError("the film was indexed before the clip; use a longer one")
    await long
    return waited, time.perf_counter() - started


def speed_up_at_once(finder: Finder, clips: list[str]) -> float:
    """Return the seconds of all queries one after another, divided by their seconds at once.

    Raises:
        RuntimeError: If the queries find other frames when they are asked at once.
    """
    asked = [(clips[n % len(clips)], f"the {THINGS[n % 4]} number {n}") for n in range(QUERIES)]
    started = time.perf_counter()
    one_by_one = [finder.find(*a).hits for a in asked]
    middle = time.perf_counter()
    with ThreadPoolExecutor(QUERIES) as pool:
        together = list(pool.map(lambda a: finder.find(*a).hits, asked))
    ratio = (middle - started) / (time.perf_counter() - middle)
    # Scores can differ in the last digits, since a larger matrix product adds in another order.
    if [h[0].frame for h in together] != [h[0].frame for h in one_by_one]:
        raise RuntimeError("queries at once found other frames")
    return ratio


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of five rounds, with a film of ten minutes (quick: one round, two minutes)."""
    require_weights("encoder")
    rounds: list[tuple[float, float, float]] = []
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = write_video(folder, 0, 120 if quick else 600)
        clips = [write_video(folder, n, 6) for n in range(1, 9)]
        for n in range(1 if quick else 5):
            finder = make_finder(folder, f"alone-{n}", clips[1])
            started = time.perf_counter()
            finder.index(clips[0])
            alone = time.perf_counter() - started
            busy = make_finder(folder, f"beside-{n}", clips[1])
            waited, film_seconds = asyncio.run(index_beside_film(busy, film, clips[0]))
            rounds.append((alone, waited, film_seconds))
        for clip in clips:
            finder.index(clip)
        ratios = [speed_up_at_once(finder, clips) for _ in range(1 if quick else 5)]
        together = max(finder.encoder.queue.batches)  # type: ignore[attr-defined]
    goals: dict[str, Goal] = {
        "a clip's index beside a film's, times alone": at_most(
            statistics.median(b / a for a, b, _ in rounds), GOAL_BESIDE
        ),
        "seconds of the clip alone": reported(statistics.median(a for a, _, _ in rounds)),
        "seconds of the clip beside the film": reported(statistics.median(b for _, b, _ in rounds)),
        "seconds of the film": reported(statistics.median(f for _, _, f in rounds)),
        f"{QUERIES} queries at once, times one by one": at_least(statistics.median(ratios), GOAL_AT_ONCE),
        "most phrases encoded together": reported(together),
    }
    return {"rounds": rounds, "ratios": ratios, "goals": goals}
