"""Fault injection: faults at every boundary, after each of which nothing may be lost.

Each fault (`trial.py`) is injected into a run on a small clip (`scene.py`). The run must end in the right
answer, in one that says in the trace that a tool failed, or in a named error. Then the run is resumed without
the fault, and another process asks again with the same cache: both must give the right answer.

    disk          each operation on a file of the cache, with each error it can have; SIGKILL at each
    store         files of the cache that were damaged since
    video         the video changes during the run
    decode        PyAV fails while it opens, demuxes, decodes, seeks or converts
    encode        the encoder fails, or gives vectors that are no numbers
    index         FAISS fails while it adds, writes, reads or searches
    saver         the checkpointer fails, its database is full
    model server  a server refuses, hangs, breaks off, or answers nonsense (llama.cpp and vLLM)
    clock         the clock jumps, stands still or runs backwards
    kill          SIGINT and SIGKILL at each event, for each checkpointer and durability
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rich.table
from rich.console import Console

from act2see.graphs.config import Config
from act2see.graphs.parts import Parts
from benchmarks import at_least, at_most, reported
from benchmarks.faults.clock import clock_faults
from benchmarks.faults.damage import damage_faults, video_faults
from benchmarks.faults.disk import disk_faults, record_steps
from benchmarks.faults.parts import decode_faults, encode_faults, index_faults
from benchmarks.faults.saver import saver_faults
from benchmarks.faults.scene import OPTIONS, QUESTION, Truth, find_truth, make_parts, write_scene
from benchmarks.faults.server import server_faults
from benchmarks.faults.trial import ENDS, Ended, Fault, try_fault
from benchmarks.interruptions import run_in_child, try_all

COUNT, _QUICK = 1000, 100  # faults of a run, and of a quick one, without the kills
_KILLS = (4, 40)  # one in so many events is an interruption
_COLUMNS = {
    **{how: f"{how}s" if how in ("right answer", "named error") else how for how in ENDS},
    "problem": "bad ends",
}
"""How a trial ends, and its heading."""


class Trials:
    """A prepared folder, in which faults are tried.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template"
        self.template.mkdir(parents=True)
        video = write_scene(self.template / "clip.mp4")
        # In children, so that no thread runs in the process that is forked for each fault.
        truth = run_in_child(lambda: _find(video, folder / "truth"))
        if isinstance(truth, str):
            raise RuntimeError(truth)
        for name in (*truth[3], "langgraph.checkpoint.sqlite.aio"):  # once here, and not in each child
            with suppress(ImportError):
                importlib.import_module(name)
        others = {digest: _timed(pictures) for digest, pictures in truth[2].items()}
        self.truth = Truth(truth[0], _timed(truth[1]), others)
        gc.freeze()  # so that children copy less
        cache = self.template / "cache"
        self.cold = self._record(video, cache)
        self.warm = self._record(video, cache)

    def _record(self, video: Path, cache: Path) -> list[tuple[str, str, int]]:
        steps = run_in_child(lambda: record_steps(video, cache))
        if isinstance(steps, str):
            raise RuntimeError(steps)
        return [(kind, name, number) for kind, name, number in steps]

    def faults(self) -> list[Fault]:
        """Return all faults."""
        return [
            *disk_faults(self.cold, self.warm),
            *damage_faults(self.template / "cache"),
            *video_faults(),
            *decode_faults(),
            *encode_faults(),
            *index_faults(),
            *saver_faults(),
            *server_faults(),
            *clock_faults(),
        ]

    def try_all(self, faults: Sequence[Fault]) -> Iterator[tuple[Fault, Ended]]:
        """Try faults one after the other."""
        for number, fault in enumerate(faults):
            yield fault, try_fault(fault, self.folder / f"trial-{number}", self.template, self.truth)


def _find(video: Path, cache: Path) -> list[Any]:
    """Return the truth as plain data, and what was imported to find it."""
    truth = find_truth(video, cache)
    names = sorted(name for name in sys.modules if name not in ("__main__", "__mp_main__"))
    return [truth.outcome, truth.pictures, truth.others, names]


def _timed(pictures: dict[str, str]) -> dict[float, str]:
    return {float(seconds): digest for seconds, digest in pictures.items()}


def draw(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """Return some of the faults, of each boundary and kind in turn."""
    rng = random.Random(seed)
    by_kind: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault((fault.boundary, fault.kind), []).append(fault)
    for group in by_kind.values():
        rng.shuffle(group)
    drawn: list[Fault] = []
    while len(drawn) < min(count, len(faults)):
        kinds = [group for group in by_kind.values() if group]
        rng.shuffle(kinds)
        drawn += [group.pop() for group in kinds[: count - len(drawn)]]
    return drawn


@contextmanager
def fast_folder() -> Iterator[Path]:
    """Yield a temporary folder, in memory if possible: the trials would wait for the disk."""
    memory = "/dev/shm"
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


class Table:
    """Counts how trials ended, by boundary and kind."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Counter[str]] = {}
        self.problems: list[str] = []

    def add(self, fault: Fault, ended: Ended) -> None:
        """Count a trial."""
        how = "problem" if ended.problem else ended.how
        self.rows.setdefault((fault.boundary, fault.kind), Counter())[how] += 1
        if ended.problem:
            self.problems.append(f"{fault}: {ended.problem}")

    @property
    def injected(self) -> int:
        """How many faults took place."""
        return sum(_injected(row) for row in self.rows.values())

    def by_boundary(self) -> dict[str, Counter[str]]:
        """Return the sums of the kinds of each boundary."""
        out: dict[str, Counter[str]] = {}
        for (boundary, _), row in self.rows.items():
            out.setdefault(boundary, Counter()).update(row)
        return out

    def text(self, *, kinds: bool = True) -> rich.table.Table:
        """Return the table for the terminal: a line for each boundary and, with `kinds`, for each kind."""
        table = rich.table.Table("boundary", "kinds", "faults", *_COLUMNS.values(), "resumed to the end")
        for boundary, total in sorted(self.by_boundary().items()):
            rows = {kind: row for (where, kind), row in sorted(self.rows.items()) if where == boundary}
            table.add_row(boundary, str(len(rows)), *_cells(total), style="bold", end_section=not kinds)
            for kind, row in rows.items() if kinds else ():
                table.add_row("", kind, *_cells(row), end_section=kind == [*rows][-1])
        total = sum(self.by_boundary().values(), Counter())
        table.add_row("all", str(len(self.rows)), *_cells(total), style="bold")
        return table

    def data(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return the table as plain data."""
        out: dict[str, dict[str, dict[str, int]]] = {}
        for (boundary, kind), row in sorted(self.rows.items()):
            out.setdefault(boundary, {})[kind] = dict(row)
        return out


def _injected(row: Counter[str]) -> int:
    return sum(count for how, count in row.items() if how != "not reached")


def _cells(row: Counter[str]) -> list[str]:
    """Return a line's figures. Each trial resumes its run, and has a problem unless that ends right."""
    numbers = [_injected(row), *(row[how] for how in _COLUMNS), _injected(row) - row["problem"]]
    return [str(number or "") for number in numbers]


def add_kills(table: Table, trials: Trials, every: int) -> None:
    """Interrupt runs at their events, by SIGINT and SIGKILL, for each checkpointer and durability."""
    config, parts = make_parts(trials.folder / "killed")
    given = {"video": str(trials.template / "clip.mp4"), "question": QUESTION, "options": list(OPTIONS)}
    place = trials.folder / "kills"
    place.mkdir()
    result = try_all(lambda saver: _build(config, parts, saver), given, place, tokens=12, every=every)
    row = table.rows.setdefault(("kill", "SIGINT, SIGKILL"), Counter())
    row["problem"] = len(result["failed"])
    row["killed"] = result["tried"] - row["problem"]
    table.problems += [f"kill: {line}" for line in result["failed"]]


def _build(config: Config, parts: Parts, saver: Any) -> Any:
    from act2see import create_act2see

    return create_act2see(config, parts=parts, checkpointer=saver)


def run(quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Try faults of every boundary and kind."""
    table, console, wanted = Table(), Console(stderr=True, highlight=False), _QUICK if quick else COUNT
    with fast_folder() as folder, silent():
        trials = Trials(folder)
        known = trials.faults()
        # Some are not reached: a run has fewer readings of the clock in a process that has imported all.
        for fault, ended in trials.try_all(draw(known, len(known), seed)):
            table.add(fault, ended)
            if ended.problem:
                console.print(f"{fault}: {ended.problem}", markup=False, soft_wrap=True)
            if table.injected >= wanted:
                break
        add_kills(table, trials, _KILLS[quick])
    console.print(table.text(kinds=not quick))
    return make_result(table, wanted)


def make_result(table: Table, wanted: int) -> dict[str, Any]:
    """Return the figures and goals of a table."""
    lost = len(table.problems)
    goals = {
        "faults injected": at_least(table.injected, wanted),
        "of these, lost something or ended badly": at_most(lost, 0),
        "kinds of faults": reported(len(table.rows)),
    }
    for how in ENDS:
        goals[f"ended: {how}"] = reported(sum(row[how] for row in table.rows.values()))
    return {"goals": goals, "table": table.data(), "problems": table.problems}


@contextmanager
def silent() -> Iterator[None]:
    """Silence the warnings about injected faults."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
