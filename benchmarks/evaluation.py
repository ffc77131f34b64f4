"""The cost of running a benchmark, and what a kill loses: questions that are answered at once.

*Cost* is a whole run of 10,000 questions, from the first to the last written file, divided by their
number: all that is not the model. The processor's time is what the goal is about: others that use the
machine lengthen the rest. *Memory* is what the process has more at the end than after the first tenth,
and the slope of a line through five points of the second half: buffers and caches are full then.

*Kills* are SIGKILLs at random moments of runs of the same questions in one folder, each continued by the
next, until the last run finishes. Every other kill comes at a random time after the start, which meets
the beginning of a run, too; the others come when a random number of questions was asked, so that they
spread over the whole run. The table and the answers are compared with those of the run that nobody
killed. The processes are forks of this one, so that a kill meets the run and not the imports.
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
from collections import Counter
from pathlib import Path
from statistics import linear_regression
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
LINE = 19  # bytes of a line in it


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


def wait_for_moment(rng: random.Random, number: int, child: int, log: Path, step: float) -> None:
    """Wait for a random moment of a run.

    Args:
        rng: What chooses it.
        number: The number of the kill: even ones are chosen by time.
        child: The process. It is not waited for any longer once it has ended.
        log: The file with a line for each question that is asked.
        step: The mean number of questions between two kills.
    """
    if number % 2 == 0:
        time.sleep(rng.uniform(0.0, 1.0))
        return
    size = log.stat().st_size if log.exists() else 0
    wanted = size + LINE * rng.uniform(0, 4 * step)  # those chosen by time ask few
    while not (log.exists() and log.stat().st_size >= wanted):
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.005)


def measure_kills(suite: Suite, folder: Path, wanted: object, kills: int) -> tuple[int, int, int, bool]:
    """Kill runs, and return the kills, the questions asked again, those that were lost or doubled, and
    whether the table and the answers are as wanted."""
    run, log = folder / "killed", folder / ASKED
    rng = random.Random(0)
    done = ended = 0
    while done < kills:
        child = start_instant(suite, run, log, pause=0.02)
        wait_for_moment(rng, done + ended, child, log, len(suite.samples) / kills)
        if kill(
            child
        ):  # a finished run that is started again writes its files again, and can be killed in it
            ended += 1
        else:
            done += 1
    final = comparable(run_instant(suite, run, log), run)
    asked = log.read_text().splitlines()
    answers = Counter(record["id"] for record in final[1])
    faults = sum(answers[sample.id] != 1 for sample in suite.samples)
    return done, len(asked) - len(set(asked)), faults, final == wanted


def run(quick: bool) -> dict[str, Any]:
    """Measure the cost of a question, the growth of memory, and what kills lose."""
    count, kills = (1_000, 5) if quick else (10_000, 50)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_instant(make_suite(100), folder / "warm")
        suite = make_suite(count)
        evaluation = open_instant(suite, folder / "cost")
        memory: list[int] = []

        def on_answer(done: int, total: int) -> None:
            if done % (total // 10) == 0:
                memory.append(kib("VmRSS"))

        started, cpu = time.perf_counter(), time.process_time()
        run_tasks(evaluation, on_answer)
        result = evaluation.finish()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        evaluation.folder.close()
        started = time.perf_counter()
        done, again, faults, same = measure_kills(suite, folder, comparable(result, folder / "cost"), kills)
        spent = time.perf_counter() - started
    mebibytes = [size / 1024 for size in memory]
    late = mebibytes[len(mebibytes) // 2 :]
    slope = linear_regression(range(len(late)), late).slope / (count / 10_000)
    assert result.score is not None
    goals: dict[str, Goal] = {
        "cost on a processor, ms a question": at_most(1000 * cpu / count, 1000 * GOAL_SECONDS),
        "from start to end, ms a question": reported(1000 * seconds / count),
        "memory gained over nine tenths of the questions, MiB": at_most(
            mebibytes[-1] - mebibytes[0], GOAL_GROWTH
        ),
        "memory gained in the second half, MiB per 1,000 questions": reported(slope),
        "kills": at_least(done, kills),
        "questions lost or doubled": at_most(faults, 0.0),
        "same table and answers as without kills": at_least(float(same), 1.0),
        "questions asked again, a kill": at_most(again / max(1, done), 32.0),
    }
    return {
        "questions": count,
        "answers scored": result.score.accuracy.n,
        "seconds of killed runs": round(spent, 1),
        "goals": goals,
    }
