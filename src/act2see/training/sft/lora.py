"""Which layers a LoRA adapts, found in the model before anything is trained.

PEFT takes a name that fits nothing without a word as long as another one fits. Here each must be found, or
the error says which there are.
"""

from __future__ import annotations

from typing import Any

from act2see.errors import ConfigError
from act2see.training.sft.settings import SftSettings


def lora_targets(model: Any, settings: SftSettings) -> list[str]:
    """Full names of the linear layers to adapt: the named ones of the language model, and the vision tower's
    unless it is frozen."""
    import torch

    linear = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    language = [name for name in linear if "language_model" in name.split(".")]
    known = sorted({_last(name) for name in language})
    missing = [t for t in settings.lora_targets if t not in known]
    if missing:
        also = "; lm_head cannot be adapted" if "lm_head" in missing else ""
        raise ConfigError(
            f"lora_targets: the language model has no layer {', '.join(missing)} (it has {', '.join(known)}){also}"
        )
    targets = [name for name in language if _last(name) in settings.lora_targets]
    return (
        targets
        if settings.freeze_vision
        else targets + [name for name in linear if "visual" in name.split(".")]
    )


def lora_config(model: Any, settings: SftSettings) -> Any:
    """PEFT's config. Where the vision tower is frozen the targets go by their last names, which other loaders
    read best."""
    from peft import LoraConfig

    targets = lora_targets(model, settings)
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=sorted(set(map(_last, targets))) if settings.freeze_vision else targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.config._name_or_path or None,
    )


def lora_parameters(model: Any, settings: SftSettings) -> int:
    """How many numbers the LoRA learns: rank x (inputs + outputs) of each layer."""
    layers = dict(model.named_modules())
    return sum(
        settings.lora_rank * (layers[t].in_features + layers[t].out_features)
        for t in lora_targets(model, settings)
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
