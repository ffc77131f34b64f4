"""python -m benchmarks.gpu [--seconds 480] [--tiny] [NAME ...]: run the GPU benchmarks in the order of their
worth, within a time limit.

Each benchmark runs in a process of its own, so that it starts with an empty GPU, and its JSON is written as
soon as it ends: a limit that is met loses only the benchmark that was running. A benchmark is skipped if a
package is missing, if the GPU is too small, or if no time is left; `summary.json` says why, and `NAME.log`
holds the error output of one that failed. Results go to `benchmarks/results/gpu/`, those of `--tiny` to a
temporary folder.

All benchmarks need torch, transformers >= 5.17, numpy and act2see's core packages (langgraph, langchain-core,
pydantic, av, faiss-cpu, fsspec and their requirements); `PLAN` names the further packages of each.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks import machine
from benchmarks.__main__ import RESULTS, rows

LEAST_SECONDS = 30
"""A benchmark is not started with less time than this: loading torch and the model takes most of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark and what it needs."""

    name: str
    memory: int
    """GPU memory in GB."""
    packages: tuple[str, ...] = ()
    """Packages that it imports, besides those of all benchmarks."""


# The most worth first: figures with a goal that no other machine can give, then those that are only reported.
PLAN = (
    Plan("encoder_g", 24),
    Plan("extra_look", 40, ("trl", "peft", "datasets")),
    Plan("trace_8b", 80, ("diffusers", "trl", "peft", "datasets")),
    Plan("generator_35", 48, ("diffusers",)),
    Plan("sft_8b", 40, ("trl", "peft", "datasets")),
)


def find_obstacle(plan: Plan, tiny: bool, seconds_left: float) -> str | None:
    """Return why a benchmark cannot run here and now, or None if it can.

    Args:
        plan: The benchmark.
        tiny: Whether it runs at micro's size on the CPU.
        seconds_left: The time until the limit.
    """
    missing = [package for package in plan.packages if importlib.util.find_spec(package) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if seconds_left < LEAST_SECONDS:
        return f"{max(0, seconds_left):.0f} s are left, too few to start"
    if tiny:
        return None
    import torch

    if not torch.cuda.is_available():
        return "no CUDA GPU is available; --tiny runs a small version on a CPU"
    memory = torch.cuda.get_device_properties(0).total_memory / 1e9
    if memory < plan.memory:
        return f"needs a GPU with {plan.memory} GB; this one has {memory:.0f} GB"
    return None


def run_benchmark(name: str, tiny: bool, seconds: float, log: Path) -> dict[str, Any]:
    """Run one benchmark in a process of its own and return its figures.

    Args:
        name: The name of the benchmark's module.
        tiny: Whether it runs at micro's size on the CPU.
        seconds: Its time limit. The process and its children are killed when it ends.
        log: The file for its error output, written if it fails.

    Raises:
        TimeoutError: The benchmark did not end in time.
        RuntimeError: The benchmark failed; the message is the last line of its error output.
    """
    log.unlink(missing_ok=True)  # of an earlier run
    command = [sys.executable, "-m", f"benchmarks.gpu.{name}", *(["--tiny"] if tiny else [])]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException as e:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(e, subprocess.TimeoutExpired):
                raise TimeoutError(f"stopped after {seconds:.0f} s, when the time was up") from e
            raise
    if process.returncode:
        log.write_text(errors, encoding="utf-8")
        lines = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise RuntimeError(lines[-1])
    # Libraries print, too; the report begins at the first line that is a single brace.
    report: dict[str, Any] = json.loads(output[output.index("{\n") :])
    return report


def run_all(plans: Sequence[Plan], tiny: bool, seconds: float, folder: Path, console: Console) -> list[Any]:
    """Run benchmarks until the time is up; write each result, and a summary after each.

    Args:
        plans: The benchmarks in their order.
        tiny: Whether they run at micro's size on the CPU.
        seconds: The time limit for all of them.
        folder: The folder of the results.
        console: Where progress is printed.

    Returns:
        The summary: one entry for each benchmark, with its state, seconds, reason and figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    summary: list[dict[str, Any]] = []
    for plan in plans:
        started = time.monotonic()
        entry: dict[str, Any] = {"benchmark": plan.name}
        obstacle = find_obstacle(plan, tiny, end - started)
        if obstacle:
            entry |= {"state": "skipped", "reason": obstacle}
        else:
            try:
                result = run_benchmark(plan.name, tiny, end - started, folder / f"{plan.name}.log")
                write_json(folder / f"{plan.name}.json", result)
                entry |= {"state": "done", "goals": result.get("goals", {})}
            except TimeoutError as e:
                entry |= {"state": "stopped", "reason": str(e)}
            except (RuntimeError, ValueError) as e:
                entry |= {"state": "failed", "reason": str(e)}
        entry["seconds"] = round(time.monotonic() - started, 1)
        reason = f": {entry['reason']}" if "reason" in entry else ""
        console.print(f"{plan.name}: {entry['state']} in {entry['seconds']} s{escape(reason)}")
        summary.append(entry)
        write_json(folder / "summary.json", {"machine": machine(), "tiny": tiny, "benchmarks": summary})
    return summary


def write_json(path: Path, data: Any) -> None:
    """Write data as indented JSON."""
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw_table(summary: Sequence[dict[str, Any]]) -> Table:
    """Return the goals of the benchmarks that ended, and the reasons of the others."""
    table = Table("benchmark", "what", "goal", "measured", "")
    for entry in summary:
        if entry["state"] != "done":
            table.add_row(entry["benchmark"], f"[yellow]{entry['state']}:[/] {escape(entry['reason'])}")
        for row in rows({"goals": entry.get("goals", {})}):
            table.add_row(entry["benchmark"], *row)
    return table


def read_limit(text: str) -> float:
    """Return a time limit in seconds from the command line.

    Raises:
        argparse.ArgumentTypeError: It is not a finite number above 0.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def main() -> int:
    known = [plan.name for plan in PLAN]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Run the GPU benchmarks within a time limit."
    )
    parser.add_argument(
        "--seconds", type=read_limit, default=480.0, help="the time limit for all (default 480)"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="use micro's size on the CPU, to check the scripts"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="the folder of the results")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"benchmarks to run (default: {', '.join(known)})"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r} (known: {', '.join(known)})")
    folder = given.to
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="act2see-gpu-")) if given.tiny else RESULTS / "gpu"
    plans = [plan for plan in PLAN if not given.names or plan.name in given.names]
    console = Console(highlight=False)
    summary = run_all(plans, given.tiny, given.seconds, folder, console)
    console.print(draw_table(summary))
    console.print(f"results: {escape(str(folder))}", soft_wrap=True)
    return int(any(entry["state"] == "failed" for entry in summary))


if __name__ == "__main__":
    sys.exit(main())
