"""The benchmarks as tasks of inspect_ai, found through its entry points: `inspect eval act2see/board`.

inspect_ai loads this module when it starts, so it imports nothing heavy. A task asks the graph and keeps its
answers in the folder `out`, as `act2see eval` does; `act2see eval --out` with the same settings writes the
table.

    inspect eval act2see/video-mme --model none -T data=FOLDER -T preset=paper -T limit=100
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai import Task, task

NAMES = (
    "board",
    "video-mme",
    "video-mme-v2",
    "video-espresso",
    "egonormia",
    "vcr-bench",
    "vitib",
    "minerva",
    "causalvqa",
    "own",
)
"""The benchmarks: `board`, and those of `evaluation.benchmarks`."""


def _register(name: str) -> Callable[..., Task]:
    @task(name=name)
    def benchmark(
        data: str | None = None,
        preset: str = "micro",
        way: str | None = None,
        limit: int | None = None,
        out: str | None = None,
        missing: Any = None,
        seed: int = 0,
        shuffle: bool = False,
        judge: str | None = None,
    ) -> Task:
        from act2see.cli.eval import find_suite, make_judge
        from act2see.evaluation.harness import Options, open_evaluation
        from act2see.evaluation.inspecting import make_task
        from act2see.evaluation.peers.arms import make_arm, name_arm
        from act2see.graphs.config import load_config

        named = data if name == "own" and data else name
        found = find_suite(named, None if named == data else data, None, limit)
        config = load_config(preset)
        options = Options(seed=seed, shuffle=shuffle, limit=limit, missing=missing, judge=make_judge(judge))
        folder = Path(out or f"runs/{name}-{name_arm(config, way)}")
        arm = make_arm(config, way, found.suite.benchmark)
        evaluation = open_evaluation(found.suite, arm, options, folder, found.source)
        made: Task = make_task(evaluation)
        return made

    return benchmark


TASKS = {name: _register(name) for name in NAMES}
"""The tasks by name."""
