"""Fuzzing: the tag grammar against a slow reference, and the readers of files against mutated files.

`python -m benchmarks fuzz` runs 100,000 executions of each. `python -m benchmarks.fuzz NAME --executions
10000000 --seed 1` runs one of them for longer. A run is repeated by its seed: execution `i` of seed `s` draws
from its own random numbers, so a failure names all that is needed to see it again.
"""

from __future__ import annotations

import platform
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import at_least, at_most, kib, without_warnings

Check = Callable[[random.Random], str | None]
"""Runs once; returns what went wrong, or None."""
_SHOWN = 5  # failures that are kept
_MEMORY = 1000  # MB that a run may add


@dataclass
class Result:
    """The result of a fuzz loop."""

    executions: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first few, each with its seed."""
    seconds: float = 0.0
    """Seconds of the processor."""
    slowest: float = 0.0
    """Seconds of the processor that the slowest execution took."""
    grown: float = 0.0
    """MB by which the peak of the memory grew."""

    @property
    def rate(self) -> float:
        """Executions a second."""
        return self.executions / max(self.seconds, 1e-9)


def repeat(check: Check, executions: int, seed: int = 0) -> Result:
    """Run a check many times."""
    result = Result()
    before, begin = _peak(), time.process_time()
    last = begin
    for i in range(executions):
        problem = check(random.Random(f"{seed} {i}"))
        now = time.process_time()
        result.slowest = max(result.slowest, now - last)
        last = now
        if problem:
            result.failed += 1
            if len(result.failures) < _SHOWN:
                result.failures.append(f"seed {seed}, execution {i}: {problem}")
    result.executions = executions
    result.seconds = time.process_time() - begin
    result.grown = _peak() - before
    return result


def _peak() -> float:
    """Return the peak of this process's memory, in MB."""
    if platform.system() == "Linux":
        return kib("VmHWM") / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def checks(folder: Path) -> dict[str, Check]:
    """Return every fuzz target by its name.

    Args:
        folder: A folder for the mutated files.
    """
    from benchmarks.fuzz.grammar import compare
    from benchmarks.fuzz.readers import readers

    return {"grammar": compare, **readers(folder)}


def run(quick: bool) -> dict[str, Any]:
    """Fuzz everything, 100,000 times each; a quick run 1,000 times."""
    executions = 1000 if quick else 100_000
    goals: dict[str, Any] = {}
    failures: dict[str, list[str]] = {}
    rates: dict[str, float] = {}
    with TemporaryDirectory() as folder, without_warnings():
        for name, check in checks(Path(folder)).items():
            result = repeat(check, executions)
            goals[f"{name}: executions"] = at_least(result.executions, executions)
            what = "differences from the reference" if name == "grammar" else "errors that are not clean"
            goals[f"{name}: {what}"] = at_most(result.failed, 0)
            goals[f"{name}: MB more at the peak"] = at_most(result.grown, _MEMORY)
            rates[name] = round(result.rate)
            failures[name] = result.failures
    return {"goals": goals, "failures": failures, "executions a second": rates}
