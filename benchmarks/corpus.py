"""Memory for building a corpus and for reading it back: 10,000 records must take about as much as 1,000.

Each record has its own three 192 x 192 frames, which are drawn while the corpus is written. Each number of
records is built in a separate process. The figure is the peak memory of that process, less its memory after
all imports and after writing and reading one record.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import Goal, at_most, kib, reported

GOAL_MIB = 256
THOUGHT = (
    "The top left red circle, the middle center lit blue ring and the bottom right green square are in view. "
) * 4
CHILD = """
import json, sys
from benchmarks.corpus import build
print(json.dumps(build(int(sys.argv[1]), sys.argv[2])))
"""


def chains(count: int, store: Any) -> Iterator[Any]:
    """Yield `count` chains of two initial frames and a retrieved one, with as much text as a micro chain."""
    import numpy as np

    from act2see.tools.frames import Retrieved
    from act2see.trace.record import Answer, Call, Frames, Question, Text, Versions, Video
    from act2see.trace.trace import Trace
    from act2see.training.corpus.records import Attempt, Chain
    from act2see.training.corpus.sources import Sample

    for n in range(count):
        cells = np.random.default_rng(n).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
        pixels = cells.repeat(16, 1).repeat(16, 2)  # (3, 192, 192, 3)
        first, second, found = (store.ref(frame, float(i)) for i, frame in enumerate(pixels))
        retrieved = found.model_copy(update={"provenance": Retrieved(query="the blink", score=0.5)})
        trace = Trace(
            id=str(n),
            video=Video(
                path=f"{n}.mp4", digest="0" * 32, seconds=8.0, width=192, height=192, frames=96, fps=12.0
            ),
            question=Question(text="Which shape blinks?", options=("ring", "cross", "square")),
            initial=(first, second),
            segments=(
                Text(text=THOUGHT),
                Call(text="<retrieve>the blink</retrieve>", tag="retrieve", query="the blink"),
                Frames(tag="retrieve", frames=(retrieved,)),
                Text(text=f"{THOUGHT}</think>\n"),
                Answer(text="<answer>A</answer>", body="A"),
            ),
            versions=Versions(tools={"retrieve": "1"}),
        )
        sample = Sample(
            id=str(n),
            source="benchmark",
            video=f"{n}.mp4",
            question="Which shape blinks?",
            options=("ring", "cross", "square"),
            answer="ring",
            chain=THOUGHT,
            licence="CC0-1.0",
        )
        yield Chain(
            sample=sample,
            trace=trace,
            attempts=(Attempt(outcome="right", answer="A"),),
            similarity=0.9,
            teacher="benchmark",
        )


def build(count: int, place: str) -> dict[str, float]:
    """Write a corpus in the folder `place` and read it into an empty store.

    Returns:
        The peak MiB above the baseline after each of the two, and the seconds of writing.
    """
    from act2see.tools.video.store import FrameStore
    from act2see.training.corpus.dataset import read_corpus, write_corpus

    folder = Path(place)

    def write(records: int, name: str) -> None:
        store = FrameStore(folder / f"{name}-frames")
        write_corpus(chains(records, store), store, folder / name)

    def read(name: str) -> int:
        return sum(1 for _ in read_corpus(folder / name, FrameStore(folder / f"{name}-read")))

    def above() -> float:
        # getrusage would give a wrong peak: a child process starts with its parent's.
        return (kib("VmHWM") - baseline) / 1024

    write(1, "first")
    read("first")
    baseline, started = kib("VmRSS"), time.perf_counter()
    write(count, "corpus")
    written, seconds = above(), time.perf_counter() - started
    assert read("corpus") == count
    on_disk = sum(p.stat().st_size for p in (folder / "corpus").rglob("*") if p.is_file())
    return {
        "write": written,
        "read": above(),
        "seconds": seconds,
        "baseline": baseline / 1024,
        "corpus": on_disk / 2**20,
    }


def build_in_child(count: int) -> dict[str, float]:
    """Run `build` in a new process.

    Raises:
        RuntimeError: If the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-c", CHILD, str(count), folder],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
        )
        if run.returncode:
            raise RuntimeError(run.stderr)
        measured: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
        return measured


def run(quick: bool = False) -> dict[str, Any]:
    """Build 1,000 and 10,000 records (quick: 100 and 1,000)."""
    most = 1_000 if quick else 10_000
    few, many = build_in_child(most // 10), build_in_child(most)
    goals: dict[str, Goal] = {
        f"MiB above the baseline to write {most:,} records of 3 frames": at_most(many["write"], GOAL_MIB),
        f"times what {most // 10:,} records take": at_most(many["write"] / few["write"], 2.0),
        "MiB above the baseline at the most, reading it back": at_most(many["read"], GOAL_MIB),
        "MiB of the corpus": reported(many["corpus"]),
        "MiB of its pixels": reported(most * 3 * 192 * 192 * 3 / 2**20),
        "records a second, written": reported(most / many["seconds"]),
    }
    return {"few": few, "many": many, "goals": goals}
