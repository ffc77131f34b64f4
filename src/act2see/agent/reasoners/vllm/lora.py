"""vLLM's options for adapters: enable them, allow their rank, and apply them to the vision tower.

By default vLLM refuses ranks above 16, and ignores the part of an adapter that changes the vision tower.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from act2see.errors import WeightsError

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # values of vLLM's max_lora_rank
_UNKNOWN_RANK = 64  # assumed if the rank cannot be read


def lora_options(folders: Sequence[str]) -> dict[str, Any]:
    """Return the engine arguments for these adapters, by vLLM's names; empty without adapters.

    Args:
        folders: The adapters' folders or hub names.

    Raises:
        WeightsError: A folder does not hold a PEFT adapter.
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
            raise WeightsError(
                f"{folder} holds no adapter_config.json, so it is not a PEFT adapter: name another folder"
            )
        return _UNKNOWN_RANK  # a hub name, whose files vLLM fetches later
    config = json.loads(file.read_text(encoding="utf-8"))
    ranks = [config.get("r") or _UNKNOWN_RANK, *(config.get("rank_pattern") or {}).values()]
    return max(map(int, ranks))


def _changes_vision(folder: str) -> bool:
    """Return whether an adapter has matrices for the vision tower; False if its file cannot be found."""
    from safetensors import safe_open

    file = Path(folder) / "adapter_model.safetensors"
    if not file.is_file():
        return False
    with safe_open(file, "np") as tensors:
        return any(".visual." in name for name in tensors.keys())  # noqa: SIM118 - not a mapping
