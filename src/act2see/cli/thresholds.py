"""The threshold of a configuration in words, for `find`, `doctor` and `calibrate`. It loads no model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from act2see.errors import Act2SeeError

if TYPE_CHECKING:
    from act2see.graphs.config import Config
    from act2see.tools.search.thresholds import Calibration


def configured_threshold(config: Config) -> float | None:
    """Return the option `no_match` of the first tool `retrieve` that sets it; None if none does.

    Raises:
        ConfigError: The options of a tool are invalid.
    """
    from act2see.tools.plugins import chosen_tool

    for tag, settings in config.tools.items():
        if settings.use == "retrieve":
            _, options = chosen_tool(settings.use, tag, settings.options, config.folder)
            no_match: float | None = options.model_dump().get("no_match")
            if no_match is not None:
                return no_match
    return None


def stored_calibration(config: Config) -> Calibration | None:
    """Return the latest calibration of the configuration's encoder weights; None without one.

    Raises:
        StoreError: A calibration cannot be read.
    """
    from act2see.graphs.parts import storage_of
    from act2see.tools.search.thresholds import calibrations_of

    cache, _ = storage_of(config)
    stored = calibrations_of(cache, config.encoder.weights)
    return max(stored, key=lambda calibration: calibration.created, default=None)


def describe_threshold(config: Config, calibration: Calibration | None) -> str:
    """Return the threshold of "no match" and its origin.

    Args:
        config: The configuration.
        calibration: The calibration of its encoder.

    Raises:
        ConfigError: The options of a tool are invalid.
    """
    from act2see.tools.search.blip2 import TFVTG_MASK

    configured = configured_threshold(config)
    if configured is not None:
        return f"{configured:g}, set in the configuration"
    if calibration is not None:
        return str(calibration)
    own = _threshold_of_weights(config.encoder.weights)
    if own is not None:
        return f"{own:g}, of the weights"
    if config.encoder.use == "blip2":
        return f"{TFVTG_MASK:g}, TFVTG's mask, which is not calibrated"
    return "none, so each frame is a match"


def is_uncalibrated(config: Config, calibration: Calibration | None) -> bool:
    """Return whether no threshold is known for the encoder of this configuration.

    Args:
        config: The configuration.
        calibration: The calibration of its encoder.

    Raises:
        ConfigError: The options of a tool are invalid.
    """
    return (
        calibration is None
        and configured_threshold(config) is None
        and _threshold_of_weights(config.encoder.weights) is None
    )


def _threshold_of_weights(name: str) -> float | None:
    """Return the threshold that the config of weights has; None if it has none, or they are missing."""
    from act2see.tools.runtime.weights import find_weights

    try:
        config = json.loads((find_weights(name) / "config.json").read_text(encoding="utf-8"))
        return float(config["act2see_no_match"])
    except (Act2SeeError, OSError, ValueError, KeyError, TypeError):
        return None
