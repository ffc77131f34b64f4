"""What this machine has, and which presets it can run: for `act2see doctor`, and for messages that point to
another preset.

Nothing is loaded or fetched. A preset states its needs (`needs`), and the catalogue knows the sizes of what
would have to be downloaded.
"""

from __future__ import annotations

import os

from act2see.graphs.config import Config, load_config
from act2see.graphs.needs import configured_weights
from act2see.tools.runtime.catalogue import catalogue
from act2see.tools.runtime.weights import Wanted, what_is_missing

GENERAL = ("paper", "paper-24gb", "laptop", "api")  # the presets for any footage, the largest first


def device_memory(device: str) -> tuple[str, float | None]:
    """A device's name and its memory in bytes; None if there is no such device."""
    import torch

    if device.startswith("cuda"):
        try:
            properties = torch.cuda.get_device_properties(device)
        except (AssertionError, RuntimeError):
            return "no CUDA device", None
        return str(properties.name), float(properties.total_memory)
    if device == "mps" and not torch.backends.mps.is_available():
        return "no Apple GPU", None
    kind = "Apple GPU" if device == "mps" else f"CPU, {os.cpu_count()} cores"
    return kind, float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def enough(has: float | None, gigabytes: float) -> bool:
    """Whether memory of `has` bytes counts as so many gigabytes.

    A card of 24 GB has a little less, because its driver keeps some.
    """
    return not gigabytes or (has is not None and has >= 0.95e9 * gigabytes)


def recommended() -> str:
    """The preset for a video of one's own on this machine, with the command to use it, in a sentence or
    two."""
    fits = [name for name in GENERAL if _fits(load_config(name))]
    local = [name for name in fits if name != "api"]
    if local:
        best, *others = local
        also = f" ({' and '.join(others)} would run too)" if others else ""
        fetch = f"`act2see download --preset {best}`, then " if _missing(load_config(best)) else ""
        return (
            f"For other footage this machine can run the preset {best}{also}: {fetch}ask again with the "
            f"preset {best}."
        )
    if fits:
        return (
            "For other footage this machine can run the preset api alone, in which a chat model answers, for "
            "a key: `act2see doctor --preset api` says what it needs."
        )
    needs = load_config("laptop").needs
    return (
        f"For other footage this machine is too small: the preset laptop takes {needs.ram:g} GB of memory "
        f"and {needs.disk:g} GB of disk, `act2see doctor --preset laptop` says more."
    )


def _fits(config: Config) -> bool:
    from act2see.tools.runtime.hub import cache_folder, free_space

    needs = config.needs
    if not (enough(device_memory("cuda")[1], needs.gpu) and enough(device_memory("cpu")[1], needs.ram)):
        return False
    to_fetch = 0.0
    for weights in _missing(config):
        if known := catalogue().get(weights.name):
            to_fetch += known.disk(weights.without)
    return not to_fetch or to_fetch < free_space(cache_folder())


def _missing(config: Config) -> list[Wanted]:
    return [weights for weights in dict.fromkeys(configured_weights(config)) if what_is_missing(weights)]
