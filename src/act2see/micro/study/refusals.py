"""Measure which videos micro refuses: `python -m act2see.micro.study.refusals [VIDEO ...]`.

Pictures that are not boards (`negatives.py`) and given videos should be refused, and recordings of boards
accepted. Each is a video, and goes the way of a question's video: framing, choice of frames, guard. Every
second picture fills its frame, and the others are recorded as boards are (`recordings.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from act2see.graphs.config import Config, load_config
from act2see.graphs.initial_frames import choose_frames
from act2see.graphs.parts import build_guard, build_resources
from act2see.micro.questions import items
from act2see.micro.recordings import Recording, draw_recording, record_picture, write_frames
from act2see.micro.study.changed import recording_of, write_items
from act2see.micro.study.evaluate import Rate, Report
from act2see.micro.study.negatives import KINDS, draw_negative

_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one video."""

    name: str
    refused: bool


class Referee:
    """Decides as a question does, without asking it.

    Args:
        cache: The folder of the cache.
    """

    def __init__(self, cache: Path) -> None:
        self.config: Config = load_config("micro", cache=str(cache))
        self.resources = build_resources(self.config)
        guard = build_guard(self.config)
        assert guard is not None
        self.guard = guard

    async def refuses(self, video: str) -> bool:
        """Return whether micro refuses a video. Raises `VideoError` if it cannot be read."""
        library = self.resources.finder.library
        frames = library.pictures(video, choose_frames(library, self.config.view, video))
        shown = [self.resources.store.get(frame.digest) for frame in frames]
        return await self.guard.refuses(shown) is not None


def write_negative(kind: str, seed: int, path: Path) -> Path:
    """Write a picture that is not a board as a video of two seconds; return its path."""
    rng = random.Random(f"negative {kind} {seed}")
    recording = Recording(width=240, height=240, side=240)
    if seed % 2:
        recording = replace(draw_recording(rng), fps=Fraction(10), noise=0.0)
    frame = record_picture(draw_negative(kind, seed), recording)
    return write_frames([frame] * round(_SECONDS * recording.fps), path, recording)


async def judge_negatives(
    referee: Referee, folder: Path, seeds: Iterable[int], kinds: Iterable[str] = KINDS
) -> list[Verdict]:
    """Return the verdicts about pictures that are not boards, one of each kind for each seed."""
    verdicts = []
    for kind in kinds:
        for seed in seeds:
            path = write_negative(kind, seed, folder / f"{kind}-{seed}.mp4")
            verdicts.append(Verdict(f"{kind} {seed}", await referee.refuses(str(path))))
    return verdicts


async def judge_boards(referee: Referee, folder: Path, n: int) -> list[Verdict]:
    """Return the verdicts about recordings of `n` clips of boards."""
    clips = list(items(n, "test"))
    write_items(clips, folder)
    verdicts = []
    for item in clips:
        refused = await referee.refuses(str(folder / f"{item.seed}.mp4"))
        verdicts.append(Verdict(f"{item.seed}: {recording_of(item)}", refused))
    return verdicts


async def measure(
    n: int, folder: Path, videos: Sequence[str] = (), kinds: Iterable[str] = KINDS
) -> tuple[Report, list[str]]:
    """Return the rates, and the names of the videos that were decided wrongly.

    Args:
        n: The number of clips of boards. Of each kind of other pictures, `n / 50` are drawn, at least two.
        folder: The folder for the videos and the cache.
        videos: Paths of videos that do not show boards.
        kinds: The kinds of other pictures.
    """
    referee = Referee(folder / "cache")
    negatives = await judge_negatives(referee, folder / "negatives", range(max(2, n // 50)), kinds)
    boards = await judge_boards(referee, folder / "recordings", n)
    given = [Verdict(video, await referee.refuses(video)) for video in videos]
    rates = [
        _rate("refused: pictures that are not boards", negatives, 0.98),
        _rate("refused: given videos", given, 1.0),
        _rate("refused: recordings of boards", boards, 0.02, at_most=True),
    ]
    wrong = [v.name for v in (*negatives, *given) if not v.refused] + [v.name for v in boards if v.refused]
    return Report(tuple(rates)), wrong


def _rate(name: str, verdicts: Sequence[Verdict], goal: float, at_most: bool = False) -> Rate:
    return Rate(name, sum(v.refused for v in verdicts), len(verdicts), goal, at_most)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table and what was decided wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", nargs="*", help="videos that do not show boards")
    parser.add_argument("--n", type=int, default=200, help="number of clips of boards")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report, wrong = asyncio.run(measure(chosen.n, Path(folder), chosen.videos))
    print(report.markdown())
    for name in wrong:
        print(f"wrong: {name}")


if __name__ == "__main__":
    main()
