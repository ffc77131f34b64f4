"""Sizes and licences of known weights (`catalogue.yaml`), and the memory that weights take once loaded.

The catalogue is for weights that are not downloaded. For the others, the same arithmetic uses the counts in
the headers of their files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "gguf": 1.0}
NF4 = 0.5 + 4 / 64  # four bits, and one float32 scale for 64 values
QUANTISED = ("transformer", "unet")  # the large part of a pipeline, which `quantise` applies to


class Known(BaseModel):
    """Weights of a hub repository."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loads: str
    """Class that loads them."""
    parts: dict[str, int]
    """Number of values in each part. A model without parts has a single one, `model`. Of GGUF files, whose
    values differ in size, the number of bytes."""
    stored: Literal["float32", "float16", "bfloat16", "gguf"]
    """Data type in the files."""
    licence: str
    gated: bool = False
    """Whether the licence must be accepted on the hub first."""
    revision: str | None = None
    """The commit that is downloaded; None for the newest."""

    def disk(self, without: Collection[str] = ()) -> float:
        """Return the number of bytes to download, without the parts of these names."""
        return BYTES[self.stored] * sum(n for part, n in self.parts.items() if part not in without)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that weights take while in use, in bytes."""

    device: float
    """Memory of the device."""
    ram: float = 0.0
    """Memory of the CPU, for parts that are offloaded to it."""


@cache
def catalogue() -> Mapping[str, Known]:
    """Return the known weights by repository name."""
    text = (files("act2see.tools.runtime") / "catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Known]).validate_python(yaml.safe_load(text))


def known_weights(name: str) -> Known | None:
    """Return the entry of weights, whatever revision the name has; None if they are not known.

    The case of a quantisation does not matter: `owner/name:q8_0`.
    """
    name = name.partition("@")[0]
    repository, _, quantisation = name.partition(":")
    return catalogue().get(name) or catalogue().get(f"{repository}:{quantisation.upper()}")


def memory_of(
    parts: Mapping[str, int], itemsize: float, *, quantised: bool = False, offload: str = "none"
) -> Memory:
    """Return the memory that weights take.

    Args:
        parts: The number of values in each part.
        itemsize: The size of a value, in bytes.
        quantised: Whether the large part is in four bits.
        offload: "model" keeps only the part in use on the device, "sequential" only single layers.
    """
    sizes = [n * (NF4 if quantised and part in QUANTISED else itemsize) for part, n in parts.items()]
    match offload:
        case "model":
            return Memory(max(sizes, default=0.0), sum(sizes))
        case "sequential":
            return Memory(0.0, sum(sizes))
        case _:
            return Memory(sum(sizes))
