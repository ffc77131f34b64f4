"""The memory of this machine, and the presets that it can run.

`act2see doctor` and messages that recommend another preset use this module. Nothing is loaded or fetched: a
preset states its `needs`, and the catalogue has the sizes of weights that are not downloaded yet.
"""

from __future__ import annotations

import os

from act2see.graphs.config import Config, load_config
from act2see.graphs.needs import configured_weights
from act2see.tools.runtime.catalogue import BYTES, known_weights
from act2see.tools.runtime.weights import Wanted, pick_device, pick_dtype, what_is_missing

GENERAL = ("paper", "paper-24gb", "laptop", "api")
"""The recommended presets for any footage, the largest first."""


def device_memory(device: str) -> tuple[str, float | None]:
    """The name of a device and its memory in bytes; None if there is no such device."""
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


def has_memory(available: float | None, gigabytes: float) -> bool:
    """Whether `available` bytes of memory are enough for a need in gigabytes.

    5 % less is enough too: the driver of a 24 GB card reserves some of its memory.
    """
    return not gigabytes or (available is not None and available >= 0.95e9 * gigabytes)


def needed_ram(config: Config) -> float:
    """Return the memory of the CPU that a configuration declares, in gigabytes, for its data type."""
    needs, reasoner = config.needs, config.reasoner
    if needs.ram_16bit is None or reasoner.use != "transformers":
        return needs.ram
    is_16bit = BYTES.get(pick_dtype(reasoner.dtype, pick_device(reasoner.device))) == 2.0
    return needs.ram_16bit if is_16bit else needs.ram


def recommend_preset() -> str:
    """One or two sentences that recommend a preset for the user's own videos on this machine."""
    fitting = [name for name in GENERAL if _fits(load_config(name))]
    local = [name for name in fitting if name != "api"]
    if local:
        best, *others = local
        also = f" ({' and '.join(others)} would run too)" if others else ""
        first = _first_step(load_config(best))
        return (
            f"For other footage, this machine can run the preset {best}{also}: {first}ask again with the "
            f"preset {best}."
        )
    if fitting:
        return (
            "For other footage, only the preset api runs on this machine: a chat model answers, which needs "
            "a key. `act2see doctor --preset api` lists its requirements."
        )
    needs = load_config("laptop").needs
    return (
        f"This machine is too small for other footage: the preset laptop needs {needs.ram:g} GB of memory "
        f"and {needs.disk:g} GB of disk. `act2see doctor --preset laptop` shows the details."
    )


def _first_step(config: Config) -> str:
    """The command that comes before a question; empty if there is none."""
    if config.reasoner.use == "llama-cpp":  # a server must be installed and started, too
        return f"`act2see doctor --preset {config.name}` lists the steps, then "
    return f"`act2see download --preset {config.name}`, then " if _missing_weights(config) else ""


def _fits(config: Config) -> bool:
    """Whether this machine has the memory for a preset, and the disk space for its missing weights."""
    from act2see.tools.runtime.hub import cache_folder, free_space

    _, gpu = device_memory("cuda")
    _, ram = device_memory("cpu")
    if not has_memory(gpu, config.needs.gpu) or not has_memory(ram, needed_ram(config)):
        return False
    to_fetch = 0.0  # bytes
    for weights in _missing_weights(config):
        if known := known_weights(weights.name):
            to_fetch += known.disk(weights.without)
    return not to_fetch or to_fetch < free_space(cache_folder())


def _missing_weights(config: Config) -> list[Wanted]:
    """The weights of a configuration that are not on this machine, each once."""
    return [weights for weights in dict.fromkeys(configured_weights(config)) if what_is_missing(weights)]
