"""The training questions of a source, for `act2see corpus build` and `act2see grpo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from act2see.cli.options import Source
from act2see.cli.output import note
from act2see.errors import SourceError

if TYPE_CHECKING:
    from act2see.training.corpus.sources import Sample, Tally


def draw_samples(
    source: Source,
    file: Path | None,
    videos: Path | None,
    count: int | None,
    without_chains: bool,
    seed: int,
    to: Path,
    tally: Tally,
) -> list[Sample]:
    """Return the questions of a source.

    Args:
        source: The source.
        file: The file of the source. The board world has none.
        videos: The folder of the videos. Default: the folder of the file.
        count: The maximum number of questions. Default: all, or 100 of the board world.
        without_chains: Whether to include questions without a human chain.
        seed: The seed of the board world's questions.
        to: The folder of the run. The board world's clips are written to its folder `clips`.
        tally: Counts the samples, and collects the problems of samples that cannot be used.

    Raises:
        SourceError: The file is missing or cannot be read.
    """
    from itertools import islice

    from act2see.training.corpus.sources import LOADERS

    if source is Source.world:
        from act2see.micro.source import load_world

        return list(tally.watch(load_world(count or 100, to / "clips", seed)))
    if file is None:
        raise SourceError(
            f"{source.value} needs a file: act2see corpus build {source.value} FILE --videos DIR"
        )
    loaded = LOADERS[source.value](file, videos or file.parent, without_chains)
    return list(islice(tally.watch(loaded), count))


def report_problems(tally: Tally) -> None:
    """Print the problems of samples that cannot be used to stderr."""
    for problem in tally.problems:
        note(str(problem), "yellow")
