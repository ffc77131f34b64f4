"""Interrupt `act2see ask` at places of its output, and resume it with `act2see ask --resume`.

`benchmarks.interruptions` runs this with the other interruptions.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ASK = [sys.executable, "-m", "act2see", "ask"]


@dataclass(frozen=True, slots=True)
class _Command:
    """A question on the command line."""

    asking: Sequence[str]
    """The words of the command."""
    cache: Path
    """The folder of the cache, with the saved runs."""
    environment: dict[str, str]
    answer: str
    """The line with the answer of an uninterrupted run."""

    def saved_threads(self) -> set[str]:
        """Return the ids of the saved threads."""
        runs = self.cache / "runs.sqlite"
        if not runs.exists():
            return set()
        with sqlite3.connect(runs) as connection:
            rows = connection.execute("select distinct thread_id from checkpoints")
            return {row[0] for row in rows}


def try_command_line(
    video: Path, question: str, options: Sequence[str], cache: Path, points: int
) -> dict[str, Any]:
    """Interrupt the command at `points` places of its output, by each signal, and resume it.

    Args:
        video: The video.
        question: The question.
        options: The options of the question.
        cache: The folder of the cache.
        points: The number of places.

    Returns:
        The number of interruptions tried, and a line for each failure.

    Raises:
        RuntimeError: If the uninterrupted run gives no answer.
    """
    asking = [*ASK, str(video), question]
    for option in options:
        asking += ["--option", option]
    environment = {**os.environ, "ACT2SEE_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    whole = subprocess.run(asking, env=environment, capture_output=True, check=True, text=True).stdout
    answer = _answer_line(whole)
    if not answer:
        raise RuntimeError(f"the uninterrupted run has no answer: {whole[-300:]!r}")
    command = _Command(asking, cache, environment, answer)
    tried = 0
    failed = []
    for n in range(points):
        for by in ("SIGINT", "SIGKILL"):
            tried += 1
            at = len(whole.encode()) * n // points
            if problem := _interrupt_and_resume(command, at, by):
                failed.append(f"command line, {by} after {n} of {points} of the output: {problem}")
    return {"tried": tried, "failed": failed}


def _interrupt_and_resume(command: _Command, at: int, by: str) -> str:
    """Send the signal `by` after `at` bytes of output; return the problem, or an empty text."""
    before = command.saved_threads()
    pipe = subprocess.PIPE
    with subprocess.Popen(command.asking, env=command.environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read = 0
        while read <= at and (piece := process.stdout.read1(64)):  # type: ignore[attr-defined]
            read += len(piece)
        process.send_signal(getattr(signal, by))
        rest = process.stdout.read().decode()
        stderr = process.stderr.read().decode()
    new = command.saved_threads() - before
    if not new:
        # An interruption before the first checkpoint leaves nothing to resume.
        if process.returncode in (130, -signal.SIGKILL):
            return ""
        return f"nothing was saved; stderr: {stderr[-300:]!r}"
    if process.returncode == 0:
        if _answer_line(rest) == command.answer:
            return ""
        return "it finished before the signal, with another answer"
    return _resume(command, new.pop())


def _resume(command: _Command, thread: str) -> str:
    """Resume a thread; return the problem, or an empty text."""
    resuming = [*ASK, "--resume", thread]
    resumed = subprocess.run(resuming, env=command.environment, capture_output=True, text=True, check=False)
    if resumed.returncode != 0:
        return f"exit code {resumed.returncode}: {resumed.stderr[-300:]}"
    answer = _answer_line(resumed.stdout)
    if answer == command.answer:
        return ""
    return f"another answer: {answer!r}, not {command.answer!r}"


def _answer_line(output: str) -> str:
    """Return the line with the answer, or an empty text."""
    return next((line for line in reversed(output.splitlines()) if line.startswith("Answer:")), "")
