"""What is known of weights that are not here yet (`catalogue.yaml`), and how many bytes weights take once
they are loaded.

For weights that are here the same arithmetic uses the counts in their files' headers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
NF4 = 0.5 + 4 / 64  # four bits, and one float32 scale for 64 values
QUANTISED = ("transformer", "unet")  # the large part of a pipeline: what `quantise` is about


class Known(BaseModel):
    """Weights of a hub repository. `parts` is the number of values in each; a model without parts has one,
    `model`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loads: str
    parts: dict[str, int]
    stored: Literal["float32", "float16", "bfloat16"]
    licence: str
    gated: bool = False

    def disk(self, without: Collection[str] = ()) -> float:
        """Bytes to fetch."""
        return BYTES[self.stored] * sum(n for part, n in self.parts.items() if part not in without)


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes while in use: on the device, and in the CPU's memory for what waits there."""

    device: float
    ram: float = 0.0


@cache
def catalogue() -> Mapping[str, Known]:
    """By repository name."""
    text = (files("act2see.tools.runtime") / "catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Known]).validate_python(yaml.safe_load(text))


def taken(
    parts: Mapping[str, int], itemsize: float, *, quantised: bool = False, offload: str = "none"
) -> Taken:
    """What the weights of these parts take. Offloaded by model, the largest alone is on the device; in
    sequence, next to nothing."""
    sizes = [n * (NF4 if quantised and part in QUANTISED else itemsize) for part, n in parts.items()]
    if offload == "model":
        return Taken(max(sizes, default=0.0), sum(sizes))
    return Taken(0.0, sum(sizes)) if offload == "sequential" else Taken(sum(sizes))
