"""The matrix of files: made by PyAV, decoded as a whole by FFmpeg, and read by act2see.

`python -m benchmarks files` makes every file, one after the other; `--quick` a fifth of them. For each kind
it reports how many are read right: the right pictures at the right times, or an error where FFmpeg has no
picture. A time is right within half a frame. Damaged files of which FFmpeg itself gives several results are
neither right nor wrong, and have a row of their own. Seconds and memory are those of reading one file, not of
making it.

decord is measured by the same files, as far as it is chosen for them.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from act2see.errors import Act2SeeError
from act2see.tools.video.reader import open_video
from benchmarks import Goal, at_least, at_most, kib, reported, without_warnings
from benchmarks.files import basics, quirks
from benchmarks.files.cases import Case
from benchmarks.files.oracle import check, find_truth

_SECONDS, _MEGABYTES = 5.0, 100.0
_PART = 5


@dataclass
class Result:
    """What was found about a file."""

    case: Case
    problems: list[str] = field(default_factory=list)
    frames: int = 0
    """Pictures that FFmpeg decodes; 0 if an error is right."""
    single: bool = True
    """Whether FFmpeg gives one truth; a file without it is neither right nor wrong."""
    by_ffmpeg: bool = True
    """Whether the times are FFmpeg's."""
    decord: bool = False
    """Whether decord is chosen for it."""
    seconds: float = 0.0
    """Seconds of the processor for all reading."""
    grown: float = 0.0
    """MB by which reading raised the memory."""


def cases() -> list[Case]:
    """Return the whole matrix."""
    parts = (
        basics.containers(),
        basics.rates(),
        basics.groups(),
        basics.av1(),
        basics.pictures(),
        quirks.times(),
        quirks.clocks(),
        quirks.sounds(),
        quirks.cuts(),
        quirks.damage(),
    )
    return [case for part in parts for case in part]


def fifth(whole: Iterable[Case]) -> list[Case]:
    """Return a fifth of the matrix, drawn by the names of the files, so that it stays the same."""
    return [case for case in whole if zlib.crc32(f"{case.kind} {case.name}".encode()) % _PART == 0]


def measure(case: Case, folder: Path, *, decord: bool) -> Result:
    """Make a file, read it, and delete it."""
    path = case.write(folder)
    try:
        beside = bool(case.film.beside)
        whole = case.kind not in ("cuts", "damage")
        truth = find_truth(path, case.film.turned, case.made, case.delay, beside=beside, whole=whole)
        result = Result(case, frames=len(truth.codes) if truth else 0)
        result.by_ffmpeg = truth is None or truth.by_ffmpeg
        result.single = truth is None or truth.single
        before, begin = _reset_peak(), time.process_time()
        result.problems = check(path, truth, "pyav", upright=case.upright, whole=whole)
        result.seconds = time.process_time() - begin
        result.grown = kib("VmHWM") / 1e3 - before
        if decord:
            with suppress(Act2SeeError):
                result.decord = open_video(path, decoder="decord").decoder == "decord"
        if result.decord:
            found = check(path, truth, "decord", upright=case.upright, whole=whole)
            result.problems += [f"by decord: {problem}" for problem in found]
        return result
    finally:
        path.unlink()


def _try(case: Case, folder: Path, *, decord: bool) -> Result:
    """Measure a file; an error that is not act2see's own is a problem like any other."""
    try:
        return measure(case, folder, decord=decord)
    except Exception as e:
        return Result(case, [f"{type(e).__name__}: {e}"])


def _reset_peak() -> float:
    """Make the present memory the peak, where the system allows it; return it in MB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return kib("VmHWM") / 1e3


def run(quick: bool) -> dict[str, Any]:
    """Measure every file of the matrix; a quick run a fifth of them."""
    whole = cases()
    decord = find_spec("decord") is not None
    with tempfile.TemporaryDirectory() as name, without_warnings():
        folder = Path(name)
        measure(whole[0], folder, decord=decord)  # loads the libraries
        results = [_try(case, folder, decord=decord) for case in (fifth(whole) if quick else whole)]
    goals: dict[str, Goal] = {"files": reported(len(results)) if quick else at_least(len(results), 400)}
    single = [result for result in results if result.single]
    for kind in dict.fromkeys(result.case.kind for result in results):
        found = [result for result in single if result.case.kind == kind]
        right = sum(not result.problems for result in found)
        goals[f"{kind}: files read right"] = at_least(right, len(found))
    goals["files of which FFmpeg gives no single truth"] = reported(len(results) - len(single))
    goals["files without a picture, with an error"] = reported(sum(not result.frames for result in results))
    goals["files whose times FFmpeg does not give"] = reported(sum(not r.by_ffmpeg for r in results))
    if decord:
        chosen = [result for result in single if result.decord]
        goals["decord: files that it is chosen for"] = reported(len(chosen))
        wrong = sum(problem.startswith("by decord") for r in chosen for problem in r.problems)
        goals["decord: of them wrong"] = at_most(wrong, 0)
    goals["seconds to read the slowest file"] = at_most(max(r.seconds for r in results), _SECONDS)
    goals["MB to read the largest"] = at_most(max(r.grown for r in results), _MEGABYTES)
    problems = {f"{r.case.kind} {r.case.name}": r.problems for r in single if r.problems}
    several = [f"{r.case.kind} {r.case.name}" for r in results if not r.single]
    return {"goals": goals, "problems": problems, "no single truth": several}
