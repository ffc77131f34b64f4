"""The long-video graph on an hour of board, compared with six minutes: time must grow with the number of
parts, and memory must not.

Each runs in a separate process with an empty cache, on a clip with one blink of half a second. Time is CPU
time, so that other work on the machine does not count; memory is the peak of the process, models included.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from act2see.micro.draws import draw_board
from act2see.micro.world import COLOURS, FPS, HELD_OUT, Clip, Piece, Short, write_clip
from benchmarks import at_least, at_most, reported, require_weights

GOAL_MEMORY, GOAL_TIME = 1.25, 1.25
CHILD = """
import asyncio, json, resource, sys, time
from act2see import load_config
from act2see.graphs.long_video.graph import create_long_video
graph = create_long_video(load_config("micro", budget={"seconds": 3600.0}))
given = {"video": sys.argv[1], "question": sys.argv[2]}
wall, cpu = time.perf_counter(), time.process_time()
result = asyncio.run(graph.ainvoke(given))
print(json.dumps({
    "answer": result["answer"],
    "evidence": [(e["part"], e["frames"]) for e in result["evidence"]],
    "parts": len(result["parts"]),
    "seconds": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def draw_clip(seconds: int) -> Clip:
    """Return a clip of four shapes: one moves every 17 s, another blinks once between two whole seconds."""
    rng = random.Random(5)
    first = draw_board(rng)
    blinking, hopping = first.pieces[1], first.pieces[2].shape
    colour = next(c for c in COLOURS if c != blinking.colour and (blinking.shape, c) not in HELD_OUT)
    slow = [(0, first)]
    for second in range(13, seconds, 17):
        slow.append((second * FPS, slow[-1][1].change(hopping, cell=rng.choice(slow[-1][1].free))))
    start = FPS * int(0.61 * seconds) + 4
    blink = Short("blink", Piece(blinking.shape, colour, (0, 0), True), start, start + 6)
    return Clip(seconds * FPS, tuple(slow), (blink,))


def ask_in_child(seconds: int, folder: Path) -> dict[str, Any]:
    """Ask about a clip of this length in a new process; return the figures.

    Raises:
        RuntimeError: If the process fails.
    """
    clip = draw_clip(seconds)
    (blink,) = clip.short
    file = write_clip(clip, folder / f"{seconds}.mp4")
    question = f"What colour does the {blink.piece.shape} turn when it blinks?"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(file), question],
        capture_output=True,
        text=True,
        env={**os.environ, "ACT2SEE_CACHE": str(folder / f"cache-{seconds}")},
        check=False,
    )
    if child.returncode:
        raise RuntimeError(f"the question failed: {child.stderr.strip().splitlines()[-1:]}")
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    times = [f["seconds"] for _, frames in result["evidence"] for f in frames]
    found = any(blink.start <= t * FPS + 0.1 < blink.stop for t in times)
    right = result["answer"] == blink.piece.colour and found
    return {**result, "right": right, "minutes": seconds / 60}


def run(quick: bool = False) -> dict[str, Any]:
    """Measure an hour and six minutes (quick: five minutes and one)."""
    require_weights("vlm", "encoder", "generator")
    with tempfile.TemporaryDirectory() as folder:
        short, long = (ask_in_child(s, Path(folder)) for s in ((60, 300) if quick else (360, 3600)))
    one_more = (long["cpu"] - short["cpu"]) / (long["parts"] - short["parts"])
    growth = long["cpu"] / long["parts"] / (short["cpu"] / short["parts"])
    minutes = f"{long['minutes']:g} minutes"
    return {
        "runs": [short, long],
        "goals": {
            f"memory of {minutes}, times that of {short['minutes']:g}": at_most(
                long["mib"] / short["mib"], GOAL_MEMORY
            ),
            f"CPU time a part of {minutes}, times that of {short['minutes']:g}": at_most(growth, GOAL_TIME),
            "right answers with the right frame": at_least(short["right"] + long["right"], 2),
            f"CPU seconds of {minutes}": reported(long["cpu"]),
            "CPU seconds of one more part": reported(one_more),
            f"seconds of {minutes}": reported(long["seconds"]),
            f"MiB of {minutes}": reported(long["mib"]),
        },
    }
