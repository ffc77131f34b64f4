"""Benchmarks: the cost of act2see in time and memory, compared with its goals.

A module's `run(quick)` measures one thing and returns plain data. Its `goals` map the name of a figure to the
goal, the figure (`highest` for an upper bound, `lowest` for a lower one) and whether the goal is met; a
figure without a goal is only reported. `python -m benchmarks` runs them all.
"""

from __future__ import annotations

import datetime
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

Goal = dict[str, Any]


class Skipped(Exception):
    """Raised by a benchmark that cannot run here; the message says what is missing."""


def at_most(value: float, goal: float) -> Goal:
    """Return a figure whose goal is an upper bound."""
    return {"goal": goal, "highest": round(value, 3), "met": value <= goal}


def at_least(value: float, goal: float) -> Goal:
    """Return a figure whose goal is a lower bound."""
    return {"goal": goal, "lowest": round(value, 3), "met": value >= goal}


def reported(value: float) -> Goal:
    """Return a figure without a goal."""
    return {"goal": None, "highest": round(value, 3), "met": None}


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the warnings of act2see about odd files."""
    logger = logging.getLogger("act2see")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def has_weights(part: str) -> bool:
    """Return whether this installation has the micro weights `vlm`, `encoder` or `generator`."""
    from act2see.errors import WeightsError
    from act2see.tools.runtime.weights import resolve_weights

    try:
        return Path(resolve_weights(f"micro:{part}")).is_dir()
    except WeightsError:
        return False


def require_weights(*parts: str) -> None:
    """Check that micro weights are installed.

    Raises:
        Skipped: If any of them is missing.
    """
    missing = [part for part in parts if not has_weights(part)]
    if missing:
        raise Skipped(
            f"the micro weights {', '.join(missing)} are missing in this installation; "
            "`act2see micro train` makes them"
        )


def _line(file: str, start: str) -> str:
    """Return the value of a line of a file under /proc, or "?" if the system does not have it."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return "?"
    for line in lines:
        if line.startswith(start):
            return line.split(":", 1)[1].strip()
    return "?"


def kib(field: str) -> int:
    """Return the memory of this process in KiB: `VmRSS`, `VmHWM` (peak) or `RssAnon` (without mapped
    files)."""
    return int(_line("/proc/self/status", field).split()[0])


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that the figures were measured with.

    `load` is the average number of running processes before the benchmark. Above 0.5 it distorts times.
    """
    cpu = platform.processor()
    if platform.system() == "Linux":
        cpu = _line("/proc/cpuinfo", "model name")
    memory = _line("/proc/meminfo", "MemTotal").split()[0]
    if memory.isdigit():
        memory = f"{int(memory) / 2**20:.1f} GiB"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": memory,
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "date": datetime.date.today().isoformat(),
    }
