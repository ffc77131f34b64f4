"""The settings of a fine-tuning run. The defaults are the paper's: Qwen3-VL-8B-Thinking, LoRA, 2.5e-6, batch
1, one epoch (on 8 GPUs).

What the paper leaves open is chosen here: LoRA of rank 16 on every projection of the language model, cosine
decay after 3 % of warm-up, a frozen vision tower. A run writes its settings down, and resumes only with the
same.
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
"""Settings that a resumed run may change: they do not decide what is learnt."""


class SftSettings(Record):
    """How to fine-tune."""

    base: str = "Qwen/Qwen3-VL-8B-Thinking"
    mode: Mode = "lora"
    learning_rate: Annotated[float, Field(gt=0)] = 2.5e-6
    batch: Count = 1
    """Samples per GPU in one forward pass."""
    accumulate: Count = 1
    """Forward passes of one optimiser step."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    max_steps: Count | None = None
    """Instead of `epochs`."""
    warmup: Annotated[float, Field(ge=0)] = 0.03
    """A number of steps or, below one, a share of all steps."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.05
    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)] = PROJECTIONS
    freeze_vision: bool = True
    bf16: bool | None = None
    """None: on GPUs that have it."""
    gradient_checkpointing: bool = True
    max_context: Count = 32_768
    """In tokens, vision tokens included; longer traces are left out."""
    prompt: Literal["paper", "short"] = "paper"
    loss_on_frames: bool = False
    """Also learn what the graph supplies, for the ablation."""
    device: Literal["auto", "cpu"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that load data."""
    seed: Annotated[int, Field(ge=0)] = 0
    save_steps: Count = 200
    save_limit: Count = 2
    log_steps: Count = 10
    eval_samples: Annotated[int, Field(ge=0)] = 0
    """Traces to hold out, whose questions are asked during training."""
    eval_steps: Count = 200
    report_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none"

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> SftSettings:
        """Read settings from a config file or the command line.

        Raises:
            ConfigError: One line that names the wrong key.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as e:
            raise ConfigError(explain_problem(e, cls.model_fields)) from e

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults."""
        return {k: v for k, v in self.model_dump().items() if v != type(self).model_fields[k].default}

    def arguments(self) -> list[str]:
        """The changed settings as options of `act2see sft`; a list's option is given once for each value."""
        words: list[str] = []
        for key, value in self.changed().items():
            option = key.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
                continue
            for one in value if isinstance(value, tuple) else (value,):
                words += [f"--{option}", str(one)]
        return words

    def differs(self, other: SftSettings) -> str | None:
        """The first setting that decides what is learnt and that `other` has otherwise; None if all agree."""
        for key, value in self.model_dump().items():
            if key not in RESUMABLE and getattr(other, key) != value:
                return key
        return None
