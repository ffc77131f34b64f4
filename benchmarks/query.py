"""Latency of a query on the index of an hour of video: 10,800 frames (3 fps) of 32 vectors with 256 values.

The vectors are random, since FAISS compares a query with every row in any case. Several phrasings are then
the worst case: their best rows share no frame, so all rows are searched again. The index is opened and
searched in a separate process, so that the memory of writing it does not count; a memory-mapped file takes no
private memory (`RssAnon`).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.tools.search.index import IndexWriter, read_index
from benchmarks import Goal, at_most, kib, reported

FRAMES, TOKENS, DIM, FPS, BATCH = 10_800, 32, 256, 3, 540
GOAL_MS, GOAL_MIB, GOAL_OPEN = 60, 180, 20
Batch = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float16]]


def random_unit_vectors(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    """Return random vectors of length 1 along the last axis."""
    x = rng.standard_normal(shape, np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x


def batches() -> Iterator[Batch]:
    """Yield frame numbers, seconds and features (B, tokens, dim) of the whole hour."""
    rng = np.random.default_rng(0)
    for first in range(0, FRAMES, BATCH):
        numbers = np.arange(first, first + BATCH)
        yield numbers, numbers / FPS, random_unit_vectors(rng, BATCH, TOKENS, DIM).astype(np.float16)


def measure(folder: Path, times: int) -> dict[str, float]:
    """Open the index and search it `times` times with one phrasing, and fewer times with three.

    Returns:
        Milliseconds and MiB.
    """
    import faiss

    del faiss  # imported here so that opening the index does not include the import
    resident, own = kib("VmRSS"), kib("RssAnon")
    started = time.perf_counter()
    index = read_index(folder, "hour")
    opening = time.perf_counter() - started
    grown, own_grown = kib("VmRSS") - resident, kib("RssAnon") - own
    rng = np.random.default_rng(1)

    def ask(phrasings: int) -> float:
        phrases = random_unit_vectors(rng, phrasings, DIM)
        started = time.perf_counter()
        index.scores(phrases)
        return (time.perf_counter() - started) * 1000

    first = ask(1)
    one = [ask(1) for _ in range(times)]
    three = [ask(3) for _ in range(max(2, times // 4))]
    return {
        "open_ms": opening * 1000,
        "grown": grown / 1024,
        "own": own_grown / 1024,
        "own_after": (kib("RssAnon") - own) / 1024,
        "first": first,
        "one": statistics.median(one),
        "slowest": max(one),
        "three": statistics.median(three),
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of 40 queries (quick: 8)."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "hour"
        started = time.perf_counter()
        writer = IndexWriter()
        for batch in batches():
            writer.add(*batch)
        writer.write(folder, "hour", {})
        writing = time.perf_counter() - started
        mib = sum(f.stat().st_size for f in folder.iterdir()) / 2**20
        command = [sys.executable, "-m", "benchmarks.query", str(folder), str(8 if quick else 40)]
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True
        )
    m: dict[str, float] = json.loads(done.stdout)
    goals: dict[str, Goal] = {
        "milliseconds a query, one hour indexed": at_most(m["one"], GOAL_MS),
        "MiB on disk": at_most(mib, GOAL_MIB),
        "MiB of memory taken by opening it": at_most(m["grown"], GOAL_OPEN),
        "MiB of memory, not of the mapped file, after all queries": reported(m["own_after"]),
        "milliseconds to open it": reported(m["open_ms"]),
        "milliseconds of the first query": reported(m["first"]),
        "milliseconds of the slowest later one": reported(m["slowest"]),
        "milliseconds of three phrasings that agree on nothing": reported(m["three"]),
        "seconds to make the vectors and write the index": reported(writing),
    }
    return {"frames": FRAMES, "tokens": TOKENS, "dim": DIM, "goals": goals}


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
