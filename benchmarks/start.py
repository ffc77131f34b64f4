"""Start-up time: the help text, the first answer of a process, the next answer.

*Help* is `python -m act2see --help` less the start of a bare interpreter. *Cold* is a process that imports,
loads the micro models, opens a clip that is not indexed, and answers; it is compared with a process that only
imports torch, transformers, diffusers and langgraph. *Warm* is a question about another clip in the same
process. All files have been read once before, so that the disk does not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from act2see.micro.questions import Item, ToolCall, make_item
from act2see.micro.world import write_clip
from benchmarks import Goal, Skipped, at_most, reported, require_weights

GOAL_HELP, GOAL_COLD, GOAL_WARM = 0.5, 1.6, 3.0
IMPORTS = "import torch, transformers, diffusers, langgraph"
CHILD = """
import json, sys, time
from act2see import ask, create_act2see
graph = create_act2see()
for line in sys.stdin:
    given = json.loads(line)
    started = time.perf_counter()
    trace = ask(graph, given["video"], given["question"], given["options"])
    print(json.dumps({"seconds": time.perf_counter() - started, "calls": len(trace.calls)}), flush=True)
"""


def time_python(*arguments: str) -> float:
    """Run Python with these arguments and return the seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def time_help(times: int) -> float:
    """Return the seconds of `--help` less those of a bare interpreter, each the fastest of alternating
    runs."""
    pairs = [(time_python("-m", "act2see", "--help"), time_python("-c", "pass")) for _ in range(times + 1)]
    return min(a for a, _ in pairs) - min(b for _, b in pairs)


def find_questions(count: int) -> list[Item]:
    """Return test questions whose reference chain calls `retrieve`."""
    blinks = (make_item("blink", i, "test") for i in range(100))
    return [item for item in blinks if any(isinstance(s, ToolCall) for s in item.chain)][:count]


def ask_in_child(items: list[Item], folder: Path) -> list[dict[str, float]]:
    """Ask the questions in one new process with an empty cache.

    Returns:
        The seconds and the number of calls of each question. The first includes the start of the process.

    Raises:
        RuntimeError: If a question fails.
    """
    clips = [write_clip(item.clip, folder / "clips" / f"{item.seed}.mp4") for item in items]
    environment = {**os.environ, "ACT2SEE_CACHE": tempfile.mkdtemp(dir=folder)}
    out: list[dict[str, float]] = []
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        with child:
            for item, clip in zip(items, clips, strict=True):
                given = {"video": str(clip), "question": item.text, "options": item.options}
                child.stdin.write(json.dumps(given) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
                if not line:
                    errors.seek(0)
                    raise RuntimeError(f"the question failed: {errors.read().strip().splitlines()[-1:]}")
                answer = json.loads(line)
                if not out:
                    answer["seconds"] = time.perf_counter() - started
                out.append(answer)
            child.stdin.close()
    return out


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the medians of three cold processes (quick: one), each after one that only imports.

    A first process, which does not count, fills the disk cache.
    """
    result: dict[str, Any] = {}
    goals: dict[str, Goal] = {
        "seconds of --help beyond the interpreter": at_most(time_help(3 if quick else 9), GOAL_HELP)
    }
    try:
        require_weights("vlm", "encoder", "generator")
    except Skipped as e:
        return {"goals": goals, "skipped": f"cold and warm questions: {e}"}
    time_python("-c", IMPORTS)
    items = find_questions(3 if quick else 6)
    cold: list[float] = []
    imports: list[float] = []
    warm: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        ask_in_child(items[:1], Path(folder))
        for _ in range(1 if quick else 3):
            imports.append(time_python("-c", IMPORTS))
            first, *later = ask_in_child(items, Path(folder))
            cold.append(first["seconds"])
            warm += [a["seconds"] for a in later]
            result["calls"] = [a["calls"] for a in (first, *later)]
    ratio = statistics.median(c / i for c, i in zip(cold, imports, strict=True))
    goals["seconds of a cold question, times those of the imports"] = at_most(ratio, GOAL_COLD)
    goals["seconds of a warm question"] = at_most(statistics.median(warm), GOAL_WARM)
    goals["seconds of a cold question"] = reported(statistics.median(cold))
    goals["seconds of importing torch, transformers, diffusers, langgraph"] = reported(
        statistics.median(imports)
    )
    return {**result, "goals": goals}
