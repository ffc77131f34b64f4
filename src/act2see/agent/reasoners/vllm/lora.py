"""vLLM's options for an adapter: that there will be one, its rank, whether it changes the vision tower.

By default vLLM refuses ranks above 16, and serves an adapter of the vision tower without that part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act2see.errors import WeightsError

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values of vLLM's max_lora_rank
_UNKNOWN_RANK = 64


def lora_options(folders: Sequence[str]) -> dict[str, Any]:
    """Engine arguments for these adapters, by vLLM's names; empty without adapters.

    Args:
        folders: Folders or hub names.

    Raises:
        WeightsError: A folder holds no PEFT adapter.
    """
    if not folders:
        return {}
    rank = max(map(_rank, folders))
    options = {"enable_lora": True, "max_lora_rank": next((n for n in _RANKS if n >= rank), rank)}
    if any(map(_changes_vision, folders)):
        options["enable_tower_connector_lora"] = True
    return options


def _rank(folder: str) -> int:
    file = Path(folder) / "adapter_config.json"
    if not file.is_file():
        if Path(folder).is_dir():
            raise WeightsError(f"{folder} holds no adapter_config.json: it is no PEFT adapter")
        return _UNKNOWN_RANK  # a hub's name: vLLM fetches it
    config = json.loads(file.read_text(encoding="utf-8"))
    ranks = [config.get("r") or _UNKNOWN_RANK, *(config.get("rank_pattern") or {}).values()]
    return max(map(int, ranks))


def _changes_vision(folder: str) -> bool:
    """Whether it has matrices for the vision tower."""
    from safetensors import safe_open

    if not (file := Path(folder) / "adapter_model.safetensors").is_file():
        return False
    with safe_open(file, "np") as tensors:
        return any(".visual." in name for name in tensors.keys())  # noqa: SIM118 - it is no mapping
