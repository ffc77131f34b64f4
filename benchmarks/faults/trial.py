"""One fault: it is injected into a run, mended, and then nothing may be lost.

A trial is three runs. The first has the fault. It must end in the right answer, in an answer that says that a
tool failed, or in one of act2see's errors. Then the fault is mended, and the same run is resumed with the
same objects; if nothing was saved, the question is asked again. At last new objects, which share only the
cache on disk, answer it once more. These two must give the right answer, so no fault may leave anything wrong
behind. After SIGKILL this is done in another process.
"""

from __future__ import annotations

import asyncio
import shutil
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from act2see.tools.video.reader import _probe
from benchmarks.faults.scene import (
    OPTIONS,
    QUESTION,
    UNSURE,
    Looking,
    ReasonerOf,
    Truth,
    explain,
    make_parts,
)
from benchmarks.interruptions import THREAD, Saver, open_saver, run_in_child

THREAD_ID: str = THREAD["configurable"]["thread_id"]
ENDS = ("right answer", "said so", "named error", "killed", "not reached")
"""How a run with a fault may end."""


@dataclass
class Place:
    """The folder of one trial."""

    folder: Path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def video(self) -> Path:
        return self.folder / "clip.mp4"


@dataclass
class Reached:
    """Whether a fault was reached."""

    times: int = 0

    def __call__(self) -> None:
        self.times += 1


Injection = Callable[[Place, Reached], AbstractContextManager[Any]]
"""Injects a fault as long as the context is open; calls its second argument when the fault takes place."""


@dataclass(frozen=True)
class Fault:
    """A fault to inject."""

    boundary: str
    kind: str
    at: str
    """Where and when."""
    inject: Injection
    warm: bool = False
    """Whether the cache has what an earlier run left."""
    dies: bool = False
    """Whether the process may be killed by it."""
    reasoner: ReasonerOf = Looking
    healed: ReasonerOf | None = None
    """The reasoner of the last run; by default the same one."""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What must run as long as the trial, such as a server."""
    saver: Saver = "sqlite"
    wraps_saver: Callable[[Any, Reached], Any] | None = field(default=None, compare=False)
    """Puts the fault into the checkpointer."""

    def __str__(self) -> str:
        return f"{self.boundary}, {self.kind}, {self.at}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended."""

    how: str
    """One of `ENDS`."""
    problem: str = ""
    """What is wrong; empty if nothing is."""
    error: str = ""
    """The error of the run with the fault."""


def try_fault(fault: Fault, folder: Path, template: Path, truth: Truth) -> Ended:
    """Run one trial.

    Args:
        fault: The fault.
        folder: A folder for it, which must not exist. It is deleted.
        template: A folder with the clip and, in `cache`, what an undisturbed run left.
        truth: What is right.
    """
    place = Place(folder)
    folder.mkdir(parents=True)
    try:
        shutil.copy2(template / "clip.mp4", place.video)
        if fault.warm:
            shutil.copytree(template / "cache", place.cache)
        first = run_in_child(lambda: _disturb_and_mend(fault, place, truth))
        if isinstance(first, str):
            if not (fault.dies and first.endswith(" -9")):
                return Ended("", f"with the fault: {first}")
            first = ["killed", "", ""]
        how, problem, error = first
        if how == "killed":
            problem = run_in_child(lambda: _resume_anew(fault, place, truth))
            problem = f"afterwards, in another process: {problem}" if problem else ""
        return Ended(how, problem, error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _disturb_and_mend(fault: Fault, place: Place, truth: Truth) -> list[str]:
    with fault.around():
        return asyncio.run(_disturb_and_mend_async(fault, place, truth))


async def _disturb_and_mend_async(fault: Fault, place: Place, truth: Truth) -> list[str]:
    from act2see import aask, create_act2see

    reached = Reached()
    config, parts = make_parts(place.cache, fault.reasoner)
    async with open_saver(fault.saver, place.folder) as saver:
        given = fault.wraps_saver(saver, reached) if fault.wraps_saver else saver
        graph = create_act2see(config, parts=parts, checkpointer=given)
        error = problem = ""
        try:
            with fault.inject(place, reached):
                trace = await aask(graph, place.video, QUESTION, OPTIONS, thread_id=THREAD_ID)
        except Exception as e:
            how, error = "named error", f"{type(e).__name__}: {e}"
            if problem := explain(e):
                problem = f"with the fault: {problem} at {_places(e)}"
        else:
            how = "said so" if trace.answer == UNSURE else "right answer"
            if problem := truth.problem(trace, same=False):
                problem = f"with the fault: {problem}"
        if not reached.times:
            how = "not reached"
        if not problem:
            graph = create_act2see(config, parts=parts, checkpointer=saver)
            said = how in ("said so", "right answer", "not reached")
            await _lift_limits(saver)
            problem = await _resume(graph, fault, place, truth, finished=said)
            problem = f"resumed: {problem} (after {error or how})" if problem else ""
        return [how, problem, error]


async def _resume(graph: Any, fault: Fault, place: Place, truth: Truth, *, finished: bool) -> str:
    """Resume a run, or ask again if nothing was saved; then ask by new objects. Return what is wrong."""
    from act2see import aask, aresume, create_act2see
    from act2see.errors import Act2SeeError, StoreError, VideoError

    try:
        try:
            trace = await aresume(graph, THREAD_ID)
        except StoreError as e:
            if "no saved run" not in str(e) or finished:
                raise
            trace = await aask(graph, place.video, QUESTION, OPTIONS, thread_id=THREAD_ID)
        except VideoError as e:
            if "changed" not in str(e):  # since the run began, which had another video then
                raise
            trace = None
        # The model may have been told of the fault before it was mended.
        if trace and (problem := truth.problem(trace, same=False)):
            return problem
        _probe.cache_clear()
        config, parts = make_parts(place.cache, fault.healed or fault.reasoner)
        trace = await aask(create_act2see(config, parts=parts), place.video, QUESTION, OPTIONS)
    except Act2SeeError as e:
        return f"{type(e).__name__}: {e}"
    except Exception as e:
        return f"{explain(e)} at {_places(e)}"
    return truth.problem(trace, same=True)


def _resume_anew(fault: Fault, place: Place, truth: Truth) -> str:
    async def resume() -> str:
        from act2see import create_act2see

        config, parts = make_parts(place.cache, fault.healed or fault.reasoner)
        async with open_saver(fault.saver, place.folder) as saver:
            graph = create_act2see(config, parts=parts, checkpointer=saver)
            return await _resume(graph, fault, place, truth, finished=False)

    return asyncio.run(resume())


async def _lift_limits(saver: Any) -> None:
    """Let a database that was full grow again."""
    if hasattr(saver, "conn"):
        # Until its row is read, a statement holds a lock that nothing else in this process may wait for.
        async with saver.conn.execute("PRAGMA max_page_count=1073741823") as rows:
            await rows.fetchall()


def _places(error: BaseException) -> str:
    """Return the innermost places of an error's traceback in act2see, for the one who mends it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "act2see" in f.filename]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-3:]))


def nothing(place: Place, reached: Reached) -> AbstractContextManager[Any]:
    """Inject nothing: the fault is in the reasoner or the saver, which tell when it takes place."""
    return nullcontext()
