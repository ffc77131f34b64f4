"""The settings of a fine-tuning run. The defaults are the paper's: Qwen3-VL-8B-Thinking, LoRA, learning rate
2.5e-6, batch 1, one epoch (on 8 GPUs).

Settings that the paper does not give are our choice: LoRA of rank 16 on every projection of the language
model, cosine decay after 3 % of warm-up, and a frozen vision tower. A run saves its settings and resumes only
with the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from act2see.errors import ConfigError
from act2see.tools.frames import Record
from act2see.tools.runtime.text import explain_problem

Mode = Literal["lora", "full", "qlora"]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RESUMABLE = frozenset({"save_steps", "save_limit", "log_steps", "eval_steps", "report_to", "workers"})
"""Settings that a resumed run may change, since they do not affect the weights."""


class SftSettings(Record):
    """The settings of a fine-tuning run."""

    base: str = "Qwen/Qwen3-VL-8B-Thinking"
    mode: Mode = "lora"
    learning_rate: Annotated[float, Field(gt=0)] = 2.5e-6
    batch: Count = 1
    """Samples per GPU and forward pass."""
    accumulate: Count = 1
    """Forward passes per optimiser step."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    """Number of optimiser steps; overrides `epochs`."""
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """Number of warm-up steps or, below 1, their share of all steps."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.05
    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)] = PROJECTIONS
    freeze_vision: bool = True
    bf16: bool | None = None
    """Whether to compute in bfloat16; None: on GPUs that support it."""
    gradient_checkpointing: bool = True
    max_context: Count = 32_768
    """Maximum length of a trace in tokens, including vision tokens; longer traces are left out."""
    prompt: Literal["paper", "short", "zero-shot"] = "paper"
    """The style of the prompt."""
    loss_on_frames: bool = False
    """Whether text and frames of the graph are also trained on, for the ablation."""
    device: Literal["auto", "cpu"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    """Number of processes that load data."""
    seed: Annotated[int, Field(ge=0)] = 0
    save_steps: Count = 200
    save_limit: Count = 2
    log_steps: Count = 10
    eval_samples: Annotated[int, Field(ge=0)] = 0
    """Minimum number of traces to hold out; their questions are asked during training."""
    eval_steps: Count = 200
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> SftSettings:
        """Read settings from a config file or the command line.

        Raises:
            ConfigError: A key is unknown or its value is invalid.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as e:
            raise ConfigError(explain_problem(e, cls.model_fields)) from e

    def non_defaults(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        fields = type(self).model_fields
        return {key: value for key, value in self.model_dump().items() if value != fields[key].default}

    def cli_options(self) -> list[str]:
        """Return the settings that differ from the defaults as options of `act2see sft`.

        An option with several values is repeated for each value.
        """
        words: list[str] = []
        for key, value in self.non_defaults().items():
            option = key.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
                continue
            values = value if isinstance(value, tuple) else (value,)
            for item in values:
                words += [f"--{option}", str(item)]
        return words

    def first_difference(self, other: SftSettings) -> str | None:
        """Return the first setting that affects the weights and differs in `other`; None if all are equal."""
        for key, value in self.model_dump().items():
            if key not in RESUMABLE and getattr(other, key) != value:
                return key
        return None
