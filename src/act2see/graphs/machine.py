"""What this machine has, and which presets it can run: for `act2see doctor`, and for whoever must point to
another preset.

Nothing is loaded or fetched. What a preset wants is in its own `needs`; what would have to be downloaded is
known from the catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from act2see.graphs.config import Config, NeedsConfig, load_config
from act2see.tools.plugins import chosen_tool
from act2see.tools.runtime.catalogue import catalogue
from act2see.tools.runtime.weights import Wanted, what_is_missing

GENERAL = ("paper", "paper-24gb", "laptop", "api")  # the presets for any footage, the largest first


def device_memory(device: str) -> tuple[str, float | None]:
    """A device's name and memory in bytes; None where there is no such device."""
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
    """Whether memory of so many bytes is what is wanted. A card of 24 GB has a little less: its driver keeps
    some."""
    return not gigabytes or (has is not None and has >= 0.95e9 * gigabytes)


def recommended() -> str:
    """In a sentence or two: with which preset a video of one's own can be asked about on this machine, and
    the command."""
    fits = [name for name in GENERAL if _fits(load_config(name))]
    here = [name for name in fits if name != "api"]
    if here:
        best = here[0]
        others = f" ({' and '.join(here[1:])} would run too)" if here[1:] else ""
        fetch = f"`act2see download --preset {best}`, then " if _missing(load_config(best)) else ""
        return f"For other footage this machine can run the preset {best}{others}: {fetch}ask again with the preset {best}."
    if fits:
        return (
            "For other footage this machine can run the preset api alone, in which a chat model answers, for a key: "
            "`act2see doctor --preset api` says what it needs."
        )
    needs = load_config("laptop").needs
    return (
        f"For other footage this machine is too small: the preset laptop takes {needs.ram:g} GB of memory and {needs.disk:g} GB of disk, "
        "`act2see doctor --preset laptop` says more."
    )


def _fits(config: Config) -> bool:
    from act2see.tools.runtime.hub import cache_folder, free_space

    needs: NeedsConfig = config.needs
    if not (enough(device_memory("cuda")[1], needs.gpu) and enough(device_memory("cpu")[1], needs.ram)):
        return False
    fetched = sum(known.disk(w.without) for w in _missing(config) if (known := catalogue().get(w.name)))
    return not fetched or fetched < free_space(cache_folder())


def _missing(config: Config) -> list[Wanted]:
    return [w for w in dict.fromkeys(_wanted(config)) if what_is_missing(w)]


def _wanted(config: Config) -> Iterator[Wanted]:
    """The weights that a configuration names; those of its chat model are elsewhere."""
    if config.reasoner.use == "transformers":
        yield Wanted("reasoner", config.reasoner.weights)
    yield Wanted("encoder", config.encoder.weights)
    for tag, settings in config.tools.items():
        _, options = chosen_tool(settings.use, tag, settings.options)
        if isinstance(name := getattr(options, "weights", None), str):
            yield Wanted(tag, name, () if getattr(options, "text_encoder_3", True) else ("text_encoder_3",))
