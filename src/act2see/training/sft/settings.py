"""The settings of a fine-tuning run, with the paper's as defaults: Qwen3-VL-8B-Thinking, LoRA, 2.5e-6, batch
1, one epoch.

What the paper leaves open is chosen here: LoRA of rank 16 on every projection of the language model, cosine
decay after 3 % of warm-up, the vision tower frozen. A run writes its settings down and resumes with no
others.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from act2see.errors import ConfigError
from act2see.tools.frames import Record

Mode = Literal["lora", "full", "qlora"]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# What may differ between a run's beginning and its resumption: how it is watched and saved, not what is
# learnt.
WATCHING = frozenset({"save_steps", "save_limit", "log_steps", "eval_steps", "report_to", "workers"})


class SftSettings(Record):
    """How to fine-tune. Batches are per GPU; `warmup` counts steps, or is a share of all where it is below
    one.

    `max_context` is in tokens, vision tokens included: what is longer is left out. `loss_on_frames` also
    learns what the graph supplies, for the ablation.
    """

    base: str = "Qwen/Qwen3-VL-8B-Thinking"
    mode: Mode = "lora"
    learning_rate: Annotated[float, Field(gt=0)] = 2.5e-6
    batch: Count = 1
    accumulate: Count = 1
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    warmup: Annotated[float, Field(ge=0)] = 0.03
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.05
    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)] = PROJECTIONS
    freeze_vision: bool = True
    bf16: bool | None = None  # None: on GPUs that have it
    gradient_checkpointing: bool = True
    max_context: Count = 32_768
    prompt: Literal["paper", "short"] = "paper"
    loss_on_frames: bool = False
    device: Literal["auto", "cpu"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    save_steps: Count = 200
    save_limit: Count = 2
    log_steps: Count = 10
    eval_samples: Annotated[int, Field(ge=0)] = 0
    eval_steps: Count = 200
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> SftSettings:
        """From a config file or command line. Raises `ConfigError` with the key that is wrong, in a line."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as e:
            first = e.errors()[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] != "extra_forbidden":
                raise ConfigError(f"{key}: {first['msg']} (got {first['input']!r})") from e
            near = get_close_matches(key, cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
            raise ConfigError(f"there is no setting {key!r}; {hint}") from e

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults."""
        return {k: v for k, v in self.model_dump().items() if v != type(self).model_fields[k].default}

    def arguments(self) -> list[str]:
        """The same as options of `act2see sft`; what is a list is given once for each of its values."""
        words: list[str] = []
        for key, value in self.changed().items():
            option = key.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [
                    w
                    for v in (value if isinstance(value, tuple) else (value,))
                    for w in (f"--{option}", str(v))
                ]
        return words

    def differs(self, other: SftSettings) -> str | None:
        """The first setting that decides what is learnt and is another one there."""
        return next(
            (k for k, v in self.model_dump().items() if k not in WATCHING and getattr(other, k) != v), None
        )
