"""The cost of decoding in a child process, as servers do, compared with decoding in this process.

The same work is done both ways by turns, on a film of 720p (H.264, 25 fps, a keyframe every 250 frames), and
the ratio is that of the medians. *Indexing* is `Finder.index` with micro's encoder and an empty cache.
*Frame access* is `VideoLibrary.pictures` of one frame that is in no cache. *Decoding* is reading the frames
of the index without an encoder, which shows the cost where it is largest. The child runs already; its start,
once for a server, is reported.

CPU seconds are those of both processes. Where other programs keep the processors busy, they say more than
the clock does.

Predicted: 1.02 for indexing, since a frame of 192 x 192 is copied twice (0.1 ms) and takes two messages
(0.1 ms), while its decoding takes 20 ms; 1.05 for access.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.tools.base import Resources
from act2see.tools.runtime.sharing import Shared
from act2see.tools.video.isolation.video import shared_decoders
from act2see.tools.video.window import Window
from benchmarks import Goal, at_most, reported, require_weights
from benchmarks.decode import write_clip

GOAL = 1.1
WAYS = ("never", "always")  # `video.isolate`
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its decoding processes."""
    total = time.process_time()
    for pid in shared_decoders().pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def resources_in(folder: Path, way: str, shared: Shared) -> Resources:
    """Return resources with an empty cache, whose videos are decoded in this way."""
    view = {"guard": None, "crop": None}
    config = load_config("micro", cache=str(folder), view=view, video={"isolate": way})
    return build_resources(config, shared)


def measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of some work."""
    cpu, started = cpu_seconds(), time.perf_counter()
    work()
    return time.perf_counter() - started, cpu_seconds() - cpu


def access(resources: Resources, film: str, frames: list[int]) -> None:
    """Take pictures of frames, each by a call of its own."""
    for frame in frames:
        resources.finder.library.pictures(film, [frame])


def decode(resources: Resources, film: str) -> None:
    """Read the frames of an index at the encoder's size."""
    library, side = resources.finder.library, resources.finder.encoder.size
    wanted = library.probe(film).every(resources.finder.fps)
    for _ in library.decode(film, wanted, (side, side)):
        pass


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the medians of five rounds on a film of one minute (quick: three, on 20 seconds)."""
    require_weights("encoder")
    seconds, rounds = (20, 3) if quick else (60, 5)
    shared = Shared()
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = folder / "film.mp4"
        write_clip(film, 1280, 720, seconds)
        path = str(film)
        start, _ = measure(lambda: shared_decoders().facts(Window(path), "pyav"))
        for number in range(-1, rounds):  # the first round loads models and is not counted
            for way in WAYS if number % 2 else WAYS[::-1]:
                resources = resources_in(folder / f"{number}-{way}", way, shared)
                frames = [(number * 37 + i * 101) % (seconds * 25) for i in range(10)]
                works: dict[str, Callable[[], Any]] = {
                    "indexing": partial(resources.finder.index, path),
                    "frame access": partial(access, resources, path, frames),
                    "decoding": partial(decode, resources, path),
                }
                for work, do in works.items():
                    measured = measure(do)
                    if number >= 0:
                        found.setdefault(work, {}).setdefault(way, []).append(measured)
                resources.finder.close()
        memory = [private_mib(pid) for pid in shared_decoders().pids]
        shared_decoders().close()
    goals: dict[str, Goal] = {}
    for work, times in found.items():
        middle = {way: [statistics.median(m[i] for m in times[way]) for i in (0, 1)] for way in WAYS}
        clock, cpu = (middle["always"][i] / middle["never"][i] for i in (0, 1))
        figure = f"{work} in a child, times that in this process"
        goals[figure] = reported(clock) if work == "decoding" else at_most(clock, GOAL)
        goals[f"{work}: the same of CPU seconds"] = reported(cpu)
        goals[f"{work}: CPU seconds in this process"] = reported(middle["never"][1])
    goals["seconds of a child's start and of opening the film"] = reported(start)
    goals["MiB of a child's own memory"] = reported(max(memory))
    return {"rounds": found, "goals": goals}


def private_mib(pid: int) -> float:
    """Return the memory of a process that it shares with no other, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
