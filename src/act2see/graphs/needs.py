"""Which weights a configuration needs, whether they are here, and how much memory they take: for `doctor` and
`download`.

Nothing is loaded and nothing is fetched: the headers of safetensors files say how many parameters there are,
and the catalogue does for weights that are not here yet.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import act2see.tools.runtime.weights
from act2see.errors import ConfigError, WeightsError
from act2see.graphs.config import Config
from act2see.tools.plugins import chosen_tool
from act2see.tools.runtime.catalogue import BYTES, Known, catalogue, memory_of
from act2see.tools.runtime.weights import find_weights, is_of_hub, pick_device, weight_files

SHIPPED = Path(act2see.tools.runtime.weights.__file__).parents[2] / "micro" / "weights"


@dataclass(frozen=True, slots=True)
class Needed:
    """One set of weights. `folder` is None where they are missing; bytes of memory and disk are None where
    they are unknown.

    `memory` is on the device, `ram` what waits in the CPU's memory, `disk` what would have to be fetched.
    `without` are parts that are not loaded.
    """

    part: str
    name: str
    device: str
    folder: Path | None
    memory: float | None
    estimated: bool = False
    problem: str = ""
    ram: float = 0.0
    disk: float | None = 0.0
    known: Known | None = None
    without: tuple[str, ...] = ()

    @property
    def of_hub(self) -> bool:
        """Whether a hub may have them."""
        return is_of_hub(self.name)


def needed_weights(config: Config) -> list[Needed]:
    """What the reasoner, the encoder and the tools load."""
    r, e = config.reasoner, config.encoder
    found = [_needed("reasoner", r.weights, r.device, r.dtype)] if r.use == "transformers" else []
    found.append(_needed("encoder", e.weights, e.device, e.dtype))
    if r.adapter:
        found.append(_needed("adapter", r.adapter, r.device, r.dtype))
    for tag, settings in config.tools.items():
        try:
            _, options = chosen_tool(settings.use, tag, settings.options, config.folder)
        except ConfigError as e:  # named among the others, so that these are seen too
            found.append(Needed(tag, settings.use, pick_device(r.device), None, None, problem=str(e)))
            continue
        if isinstance(name := getattr(options, "weights", None), str):
            found.append(
                _needed(
                    tag, name, getattr(options, "device", "auto"), getattr(options, "dtype", "auto"), options
                )
            )
    return found


def _needed(part: str, name: str, device: str, dtype: str, options: Any = None) -> Needed:
    device = pick_device(device)
    itemsize = BYTES.get(dtype, 2 if device == "cuda" else 4)
    without = () if getattr(options, "text_encoder_3", True) else ("text_encoder_3",)
    known = catalogue().get(name)
    folder, problem = None, ""
    try:
        folder = find_weights(name)
        parts = {p: sum(map(_parameters, files)) for p, files in weight_files(folder, without)}
    except (WeightsError, OSError, ValueError) as e:
        problem = str(e)
        parts = {p: n for p, n in known.parts.items() if p not in without} if known else {}
        if not parts:
            return Needed(
                part, name, device, None, None, True, problem, disk=None, known=known, without=without
            )
    # On a CPU nothing is offloaded: it is there already.
    offload = getattr(options, "offload", "none") if device != "cpu" else "none"
    use = memory_of(
        parts, itemsize, quantised=getattr(options, "quantise", "none") != "none", offload=offload
    )
    disk = known.disk(without) if problem and known else 0.0
    return Needed(
        part,
        name,
        device,
        None if problem else folder,
        use.device,
        bool(problem),
        problem,
        use.ram,
        disk,
        known,
        without,
    )


def _parameters(file: Path) -> int:
    """Parameters of a safetensors file, from its header."""
    with file.open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
