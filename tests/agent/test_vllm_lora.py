"""vLLM's options for adapters, in process and as a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from act2see.agent.reasoners.vllm.lora import lora_options
from act2see.cli.serve_vllm import serve_arguments
from act2see.errors import WeightsError
from act2see.graphs.config import load_config

LANGUAGE = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
VISION = "base_model.model.model.visual.blocks.0.attn.qkv.lora_A.weight"


def adapter(folder: Path, *layers: str, **config: Any) -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: np.zeros((1, 1), np.float32) for name in layers}, folder / "adapter_model.safetensors")
    return str(folder)


def test_max_lora_rank_is_rounded_up(tmp_path: Path) -> None:
    small, patterned = (
        adapter(tmp_path / "a", LANGUAGE, r=4),
        adapter(tmp_path / "b", LANGUAGE, r=4, rank_pattern={"q_proj": 33}),
    )
    assert lora_options([]) == {}
    assert lora_options([small]) == {"enable_lora": True, "max_lora_rank": 8}
    assert lora_options([small, patterned]) == {"enable_lora": True, "max_lora_rank": 64}
    assert lora_options(["owner/adapter"]) == {"enable_lora": True, "max_lora_rank": 64}


def test_vision_adapter_enables_tower_connector_lora(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "seeing", LANGUAGE, VISION, r=8)
    assert lora_options([folder])["enable_tower_connector_lora"] is True
    config = load_config({"preset": "micro", "reasoner": {"adapter": folder}})
    command = serve_arguments(config, Path("t.jinja"), tmp_path / "cache")
    at = command.index("--enable-lora")
    assert command[at : at + 5] == [
        "--enable-lora",
        "--max-lora-rank",
        "8",
        "--enable-tower-connector-lora",
        "--lora-modules",
    ]
    plain = serve_arguments(load_config("micro"), Path("t.jinja"), tmp_path / "cache")
    assert not any("lora" in word for word in plain)


def test_folder_without_adapter_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no adapter_config\.json, so it is not a PEFT adapter"):
        lora_options([str(tmp_path)])
