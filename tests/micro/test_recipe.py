"""The whole recipe with a few steps of each stage: the graph loads every folder that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3VLForConditionalGeneration

from act2see import ask, create_act2see
from act2see.errors import ConfigError
from act2see.graphs.parts import build_parts
from act2see.micro.questions import make_item
from act2see.micro.recipe import train as recipe
from act2see.micro.recipe.models import widen_ffn
from act2see.micro.study.evaluate import micro_config
from act2see.micro.world import write_clip
from act2see.tools.runtime.weights import resolve_weights


@pytest.mark.timeout(1200)
def test_the_whole_recipe_runs_and_leaves_weights_that_answer(tmp_path: Path) -> None:
    reported: set[str] = set()
    seconds = recipe.train(tmp_path / "weights", quick=True, progress=lambda name, *_: reported.add(name))
    assert set(seconds) == set(recipe.STAGES)
    assert {"eyes", "frames", "short clips", "clips", "recall", "facts", "vlm", "words"} <= reported
    written = json.loads((tmp_path / "weights" / "recipe.json").read_text())
    assert (written["steps"], written["device"]) == (recipe.QUICK, recipe.choose_device("auto"))
    tensors = load_file(tmp_path / "weights" / "vlm" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float16}

    config = micro_config(tmp_path / "weights", tmp_path / "cache")
    item = make_item("observe", 0, "test")
    trace = ask(
        create_act2see(config, parts=build_parts(config)),
        write_clip(item.clip, tmp_path / "clip.mp4"),
        item.text,
        item.options,
    )
    assert trace.text
    assert trace.usage.loops


def test_an_unknown_stage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no stage 'encodr'"):
        recipe.train(tmp_path, stages=("encodr",))
    assert not any(tmp_path.iterdir())


def test_an_unknown_or_missing_device_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        recipe.train(tmp_path, device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        recipe.train(tmp_path, device="cuda")
    assert recipe.choose_device("auto") == "cpu"
    assert not any(tmp_path.iterdir())


def test_wider_layers_compute_the_same() -> None:
    model = Qwen3VLForConditionalGeneration.from_pretrained(
        resolve_weights("micro:base"), dtype=torch.float32
    )
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        widen_ffn(model, 500)
        after = model(input_ids=ids).logits
    assert torch.allclose(before, after, atol=1e-5)
    assert model.config.text_config.intermediate_size == 500
    assert {tuple(layer.mlp.down_proj.weight.shape) for layer in model.model.language_model.layers} == {
        (128, 500)
    }
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    added = model.model.language_model.layers[0].mlp.down_proj.weight.grad[:, 400:]
    assert added.abs().max() > 0
