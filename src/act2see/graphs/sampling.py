"""How a configuration's reasoner draws tokens: what the configuration says, else what its checkpoint says.

A checkpoint's `generation_config.json` holds the values that its publisher recommends. As in transformers, it
samples only with `do_sample: true`; otherwise decoding is greedy. All values go to every engine with each
request, and the servers are started without defaults of their own, so nothing is applied twice.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from act2see.agent.reasoners.base import Sampling
from act2see.errors import Act2SeeError
from act2see.graphs.sections import Positive, ReasonerConfig
from act2see.tools.runtime.forks import natively
from act2see.tools.runtime.weights import find_weights

log = logging.getLogger(__name__)
FILE = "generation_config.json"


class CheckpointSampling(BaseModel):
    """The sampling keys of a `generation_config.json`; None for those that it leaves out."""

    model_config = ConfigDict(allow_inf_nan=False)

    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Positive | None = None

    def values(self) -> dict[str, Any]:
        """Return the arguments of `Sampling` that the checkpoint decides."""
        values = self.model_dump(exclude={"do_sample"}, exclude_none=True)
        if self.do_sample:
            return {"temperature": 1.0, **values}  # 1 is transformers' default
        values.pop("temperature", None)
        return values


def resolve_sampling(reasoner: ReasonerConfig, temperature: float | None = None, seed: int = 0) -> Sampling:
    """Return how the tokens of a run are drawn. This may read a file.

    Args:
        reasoner: The section of the configuration.
        temperature: The temperature of a run; None is that of the configuration or the checkpoint.
        seed: The seed of a request.
    """
    said = {name: getattr(reasoner, name) for name in CheckpointSampling.model_fields if name != "do_sample"}
    if temperature is not None:
        said["temperature"] = temperature
    values = {name: value for name, value in said.items() if value is not None}
    if len(values) < len(said):
        values = read_checkpoint(reasoner).values() | values
    return Sampling(seed=seed, presence_penalty=reasoner.presence_penalty, **values)


@natively  # it imports the hub's library
def read_checkpoint(reasoner: ReasonerConfig) -> CheckpointSampling:
    """Return what the checkpoint of a reasoner says; nothing if it is not on this machine."""
    if reasoner.use == "chat":
        return CheckpointSampling()
    try:
        file = find_weights(reasoner.weights) / FILE
    except Act2SeeError:
        return CheckpointSampling()
    return _read(file)


def _read(file: Path) -> CheckpointSampling:
    try:
        return CheckpointSampling.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return CheckpointSampling()
    except (OSError, ValueError, ValidationError) as e:
        log.warning("%s is not used: %s", file, e)
        return CheckpointSampling()
