"""Benchmarks: what act2see costs, beside the goals that it has set itself.

A module's `run(quick)` measures one thing and returns plain data; its `goals` map what is measured to the
goal, the figure (`highest`, where it must stay below; `lowest`, where it must be reached) and whether it is
met; a figure without a goal is there to be read. `python -m benchmarks` runs them all.
"""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

Goal = dict[str, Any]


class Skipped(Exception):
    """This benchmark cannot run here; the message says what is missing."""


def at_most(value: float, goal: float) -> Goal:
    return {"goal": goal, "highest": round(value, 3), "met": value <= goal}


def at_least(value: float, goal: float) -> Goal:
    return {"goal": goal, "lowest": round(value, 3), "met": value >= goal}


def reported(value: float) -> Goal:
    return {"goal": None, "highest": round(value, 3), "met": None}


def have(part: str) -> bool:
    """Whether the micro weights `vlm`, `encoder` or `generator` are in this installation."""
    from act2see.errors import WeightsError
    from act2see.tools.runtime.weights import resolve_weights

    try:
        return Path(resolve_weights(f"micro:{part}")).is_dir()
    except WeightsError:
        return False


def need(*parts: str) -> None:
    """Raise `Skipped` where micro weights are missing."""
    if missing := [p for p in parts if not have(p)]:
        raise Skipped(
            f"the micro weights {', '.join(missing)} are not in this installation; run `act2see micro train` to make them"
        )


def _line(file: str, start: str) -> str:
    """What a line of a file under /proc says; "?" where there is none, as on other systems than Linux."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return "?"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(start)), "?")


def kib(field: str) -> int:
    """KiB of this process: `VmRSS`, or `RssAnon`, what is not a mapped file."""
    return int(_line("/proc/self/status", field).split()[0])


def machine() -> dict[str, Any]:
    """What the figures were measured on. `load` is the other work, in processes: above 0.5 it falsifies
    times."""
    memory = _line("/proc/meminfo", "MemTotal").split()[0]
    return {
        "cpu": _line("/proc/cpuinfo", "model name") if platform.system() == "Linux" else platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{int(memory) / 2**20:.1f} GiB" if memory.isdigit() else memory,
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "date": datetime.date.today().isoformat(),
    }
