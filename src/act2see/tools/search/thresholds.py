"""Calibrated thresholds: one file for each encoder, in the folder `calibrations` of the cache.

`act2see calibrate` writes a file (`calibration.py` computes its contents), and a `Finder` reads the file of
its encoder. The file is read at every search, so that a running server uses a new threshold at once. A
damaged file is an error: another threshold would silently show other frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, ValidationError

from act2see.errors import StoreError
from act2see.tools.frames import Record
from act2see.tools.runtime.files import read_file, write_text
from act2see.tools.runtime.text import first_problem

NO_THRESHOLD = -1.0
"""The lowest cosine: the threshold of weights for which none is known, so that each frame is a match."""
_LARGEST = 1 << 20  # bytes of a file


class Calibration(Record):
    """The threshold of an encoder, and the evidence for it. Rates are shares from 0 to 1."""

    model_config = ConfigDict(allow_inf_nan=False)

    schema_version: Literal[1] = 1
    encoder: str
    """Id of the encoder."""
    weights: str
    """Name of the encoder's weights in the configuration."""
    threshold: float
    """A frame with a lower score does not match."""
    rate: float
    """The false-alarm rate that was asked for: the share of queries about other videos that find a frame."""
    false_alarms: float
    """The false-alarm rate of the threshold on the queries of the calibration."""
    interval: tuple[float, float]
    """The 95 % interval of `false_alarms`."""
    queries: int
    """Number of queries that are about another of the videos, or about none of them."""
    videos: int
    """Number of videos that were searched."""
    fps: float
    """Indexed frames per second of the videos."""
    seconds: float
    """Median duration of the videos."""
    found: float | None = None
    """The share of the videos' own queries that find a frame; None without such queries."""
    found_interval: tuple[float, float] | None = None
    """The 95 % interval of `found`."""
    own_queries: int = 0
    """Number of the videos' own queries."""
    created: str
    """Time of the calibration, in ISO format with its time zone."""

    @property
    def separates(self) -> bool:
        """Whether more of the videos' own queries find a frame than may do so in other videos.

        True if there are no own queries, so that nothing is known.
        """
        return self.found is None or self.found > self.rate

    def __str__(self) -> str:
        """Return the threshold and its origin: `0.31 (calibrated: 5% false alarms, 24 queries, 5 videos)`."""
        rate = f"{100 * self.rate:g}%"
        return (
            f"{self.threshold:g} (calibrated: {rate} false alarms, {self.queries} queries, "
            f"{self.videos} videos)"
        )


def calibration_file(cache: Path, encoder: str) -> Path:
    """Return the path of an encoder's file, which need not exist.

    Args:
        cache: The folder of the cache.
        encoder: The id of the encoder.
    """
    return cache / "calibrations" / f"{encoder}.json"


def save_calibration(cache: Path, calibration: Calibration) -> Path:
    """Write the calibration of an encoder, and return the path of its file. An earlier one is replaced.

    Args:
        cache: The folder of the cache.
        calibration: The calibration.

    Raises:
        StoreError: The file cannot be written.
    """
    path = calibration_file(cache, calibration.encoder)
    write_text(path, calibration.model_dump_json(indent=1) + "\n")
    return path


def load_calibration(cache: Path, encoder: str) -> Calibration | None:
    """Read the calibration of an encoder; None if it has none.

    Args:
        cache: The folder of the cache.
        encoder: The id of the encoder.

    Raises:
        StoreError: The file is damaged, or a newer version of act2see wrote it.
    """
    return _read(calibration_file(cache, encoder))


def calibrations_of(cache: Path, weights: str) -> Iterator[Calibration]:
    """Yield the calibrations of all encoders with these weights. Their ids differ by the data type.

    Args:
        cache: The folder of the cache.
        weights: The name of the weights in the configuration.

    Raises:
        StoreError: A file is damaged, or a newer version of act2see wrote it.
    """
    for path in sorted((cache / "calibrations").glob("*.json")):
        found = _read(path)
        if found and found.weights == weights:
            yield found


def _read(path: Path) -> Calibration | None:
    try:
        return Calibration.model_validate_json(read_file(path, _LARGEST))
    except FileNotFoundError:
        return None
    except ValidationError as e:
        field, problem = first_problem(e)
        why = f"{field}: {problem}" if field else problem
    except (OSError, ValueError) as e:
        why = str(getattr(e, "strerror", None) or e)
    raise StoreError(
        f"the calibration {path} cannot be read ({why}): delete it, or run `act2see calibrate` again"
    )
