"""The cost of running a benchmark, and what a kill loses: questions that are answered at once.

*Cost* is a whole run of 10,000 questions, from the first to the last written file, divided by their number:
all that is not the model. *Memory* is what the process has more at the end than after the first tenth.

*Kills* are SIGKILLs at random moments of runs in one folder, each continued by the next, until the last run
finishes. Its table and its answers are compared with those of a run that nobody killed, and the questions
that were asked twice are counted. The processes are forks of this one, so that a kill meets the run and not
the imports.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from act2see.evaluation.asking import Question
from act2see.evaluation.benchmarks import Suite
from act2see.evaluation.harness import Evaluation, Options, open_evaluation
from act2see.evaluation.inspecting import run_tasks
from act2see.evaluation.records import RunRecord, read_questions
from act2see.evaluation.samples import Sample
from act2see.graphs.config import load_config
from act2see.tools.frames import Video
from act2see.trace.options import LETTERS
from act2see.trace.record import Answer, Loop, Question as Asked, Text, Usage
from act2see.trace.trace import Trace
from benchmarks import Goal, at_least, at_most, kib, reported

GOAL_SECONDS, GOAL_GROWTH = 0.010, 64.0
ASKED = "asked.txt"


class InstantArm:
    """A way of working that knows every other answer and gives it at once."""

    name = "instant"
    store = None

    def __init__(self, log: Path | None = None, pause: float = 0.0) -> None:
        """Make an arm.

        Args:
            log: A file that gets a line for each question that is asked.
            pause: Seconds that an answer takes.
        """
        self.config = load_config("micro")
        self._log = log
        self._pause = pause

    async def ask(self, question: Question) -> Trace:
        """Answer with the first option."""
        await asyncio.sleep(self._pause)
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{question.name}\n")
        video = Video(path=question.video, digest="0" * 32, seconds=1, width=8, height=8, frames=8, fps=8)
        return Trace(
            id=question.name,
            video=video,
            question=Asked(text=question.text, options=question.options),
            segments=(Text(text="I know."), Answer(text="<answer>A</answer>", body="A")),
            usage=Usage(
                loops=(Loop(prefilled=9, cached=0, decoded=5, seconds=0.01, stop="answer"),),
                node_seconds={"reason": 0.01},
            ),
        )

    async def close(self) -> None:
        """Do nothing."""


def make_suite(count: int) -> Suite:
    """Return questions of which every other has the right answer first."""
    samples = tuple(
        Sample(
            id=f"q{n:05}",
            benchmark="instant",
            video=f"clips/{n}.mp4",
            question=f"What is shown in clip number {n}?",
            options=("a kite", "a drum", "a boat", "a lamp"),
            answer=LETTERS[n % 2],
            groups={"task": ("OCR", "Counting", "Order")[n % 3]},
        )
        for n in range(count)
    )
    return Suite("instant", samples, (), "wrong", (), tuple(sample.id for sample in samples))


def open_instant(
    suite: Suite, folder: Path, log: Path | None = None, pause: float = 0.0, concurrency: int = 32
) -> Evaluation:
    """Open a run of the instant arm."""
    options = Options(concurrency=concurrency, pictures=False)
    return open_evaluation(suite, InstantArm(log, pause), options, folder)


def run_instant(suite: Suite, folder: Path, log: Path | None = None, pause: float = 0.0) -> RunRecord:
    """Run all questions that have no answer yet, and write the table."""
    evaluation = open_instant(suite, folder, log, pause)
    try:
        run_tasks(evaluation)
        return evaluation.finish()
    finally:
        evaluation.folder.close()


def start_instant(suite: Suite, folder: Path, log: Path, pause: float) -> int:
    """Run the questions in a fork of this process, and return its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setpgid(0, 0)
        run_instant(suite, folder, log, pause)
        code = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(code)


def kill(child: int) -> bool:
    """Kill a process, and return whether it had finished by itself.

    Raises:
        RuntimeError: It had failed.
    """
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        if os.waitstatus_to_exitcode(status):
            raise RuntimeError("a run that was continued failed")
        return True
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def comparable(run: RunRecord, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what two runs must have in common: the table, and the answers in their order."""
    fields = {"setting", "totals", "score", "baselines", "missing", "of", "limit"}
    return run.model_dump(include=fields), [record.model_dump() for record in read_questions(folder)]


def measure_kills(folder: Path, questions: int, kills: int) -> tuple[int, int, bool, float]:
    """Kill runs, and return the kills, the questions asked again, whether the result is the same, and the
    seconds of the runs."""
    suite = make_suite(questions)
    wanted = comparable(run_instant(suite, folder / "whole"), folder / "whole")
    run, log = folder / "killed", folder / ASKED
    rng = random.Random(0)
    started, done = time.perf_counter(), 0
    pause = 0.02  # so that all kills fit into the questions
    while done < kills:
        child = start_instant(suite, run, log, pause)
        time.sleep(rng.uniform(0.05, 1.2))
        if kill(child):
            break
        done += 1
    final = comparable(run_instant(suite, run, log), run)
    asked = log.read_text().splitlines()
    return done, len(asked) - len(set(asked)), final == wanted, time.perf_counter() - started


def run(quick: bool) -> dict[str, Any]:
    """Measure the cost of a question, the growth of memory, and what kills lose."""
    count, kills, questions = (1_000, 5, 400) if quick else (10_000, 50, 4_000)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_instant(make_suite(100), folder / "warm")
        suite = make_suite(count)
        evaluation = open_instant(suite, folder / "cost")
        memory: list[int] = []

        def on_answer(done: int, total: int) -> None:
            if done in (total // 10, total):
                memory.append(kib("VmRSS"))

        started, cpu = time.perf_counter(), time.process_time()
        run_tasks(evaluation, on_answer)
        result = evaluation.finish()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        evaluation.folder.close()
        done, again, same, spent = measure_kills(folder, questions, kills)
    growth = (memory[-1] - memory[0]) / 1024
    assert result.score is not None
    goals: dict[str, Goal] = {
        "cost, ms a question": at_most(1000 * seconds / count, 1000 * GOAL_SECONDS),
        "of it on a processor, ms": reported(1000 * cpu / count),
        "memory gained over nine tenths of the questions, MiB": at_most(growth, GOAL_GROWTH),
        "kills": at_least(done, kills),
        "same table and answers as without kills": at_least(float(same), 1.0),
        "questions asked again, a kill": at_most(again / max(1, done), 32.0),
    }
    return {
        "questions": count,
        "answers scored": result.score.accuracy.n,
        "questions of killed runs": questions,
        "seconds of killed runs": round(spent, 1),
        "goals": goals,
    }
