"""Facts of weights that need not be here (`catalogue.yaml`), and the bytes that weights take once loaded.

For weights that are here, the same arithmetic uses the counts in their files' headers.
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
    """Weights of a hub repository."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loads: str
    """The class that loads them."""
    parts: dict[str, int]
    """The number of values in each part; a model without parts has one, `model`."""
    stored: Literal["float32", "float16", "bfloat16"]
    """Their type in the files."""
    licence: str
    gated: bool = False
    """Whether the licence must be accepted on the hub first."""

    def disk(self, without: Collection[str] = ()) -> float:
        """Bytes to fetch, without the parts of these names."""
        return BYTES[self.stored] * sum(n for part, n in self.parts.items() if part not in without)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that weights take while in use."""

    device: float
    ram: float = 0.0
    """In the CPU's memory, for parts that wait there."""


@cache
def catalogue() -> Mapping[str, Known]:
    """The known weights by repository name."""
    text = (files("act2see.tools.runtime") / "catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Known]).validate_python(yaml.safe_load(text))


def memory_of(
    parts: Mapping[str, int], itemsize: float, *, quantised: bool = False, offload: str = "none"
) -> Memory:
    """The memory that weights take.

    Args:
        parts: The number of values in each part.
        itemsize: Bytes of a value.
        quantised: Whether the large part is in four bits.
        offload: "model" leaves the largest part alone on the device, "sequential" next to nothing.
    """
    sizes = [n * (NF4 if quantised and part in QUANTISED else itemsize) for part, n in parts.items()]
    match offload:
        case "model":
            return Memory(max(sizes, default=0.0), sum(sizes))
        case "sequential":
            return Memory(0.0, sum(sizes))
        case _:
            return Memory(sum(sizes))
