"""The presets: they are valid, their weights are known, and their memory and disk needs match the counts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from act2see.graphs.config import PRESETS, Config, load_config
from act2see.graphs.needs import needed_weights
from act2see.graphs.parts import reasoner_needs
from act2see.tools.plugins import chosen_tool
from act2see.tools.runtime.catalogue import NF4, Known, catalogue, memory_of

LARGE = tuple(p for p in PRESETS if p != "micro")
NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")  # a hub repository, and a quantisation


def names(config: Config) -> list[str]:
    tools = [str(t.options["weights"]) for t in config.tools.values() if "weights" in t.options]
    return [
        *([config.reasoner.weights] if config.reasoner.use in ("transformers", "llama-cpp") else []),
        config.encoder.weights,
        *tools,
    ]


@pytest.mark.parametrize("preset", LARGE)
def test_every_weight_has_a_valid_name_and_is_known(preset: str) -> None:
    config = load_config(preset)
    assert config.name == preset
    assert config.about
    assert len(names(config)) == (2 if preset in ("api", "ollama") else 3)
    for name in names(config):
        assert NAME.fullmatch(name)
        assert catalogue()[name].licence
    for tag, tool in config.tools.items():
        chosen_tool(tool.use, tag, tool.options)  # its options exist
    if preset in ("api", "ollama"):
        assert re.fullmatch(r"\w+:[\w.:-]+", config.reasoner.weights)


@pytest.mark.parametrize("preset", [p for p in LARGE if p != "api"])
def test_the_context_holds_the_largest_run(preset: str) -> None:
    reasoner = load_config(preset).reasoner
    needs = reasoner_needs(load_config(preset))
    frame = (-(-needs.side // 32)) ** 2 + 2  # Qwen3-VL: one token for 32 x 32 pixels, between two marks
    context = reasoner.options["num_ctx"] if preset == "ollama" else reasoner.context
    assert context >= needs.context(frame)


def test_needed_weights_of_a_preset() -> None:
    for name, known in catalogue().items():
        assert NAME.fullmatch(name)
        assert all(n > 0 for n in known.parts.values())
    assert {n for n, k in catalogue().items() if k.gated} == {
        n for n in catalogue() if "stable-diffusion-3.5" in n
    }


@pytest.mark.parametrize("kind", sorted({k.loads for k in catalogue().values()} - {"llama-server"}))
def test_the_class_that_loads_the_weights_exists(kind: str) -> None:
    import diffusers
    import transformers

    assert any(hasattr(library, kind) for library in (transformers, diffusers))


@pytest.mark.parametrize("preset", LARGE)
def test_the_needs_of_a_preset_hold_its_weights(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(preset)
    device = "cuda" if config.needs.gpu else "cpu"
    monkeypatch.setattr("act2see.graphs.needs.pick_device", lambda _: device)
    needed = needed_weights(config)
    memory = sum(n.memory or 0.0 for n in needed) / 1e9
    assert (
        0 < memory < 0.75 * (config.needs.gpu or config.needs.ram)
    )  # the rest is for the cache and activations
    assert sum(n.ram for n in needed) / 1e9 < config.needs.ram
    disk = sum(n.disk or 0.0 for n in needed) / 1e9
    assert 0.85 * config.needs.disk < disk < config.needs.disk


def test_needs_do_not_change_answers() -> None:
    assert load_config("micro", needs={"gpu": 1}).hash == load_config("micro").hash


def test_memory_follows_the_options() -> None:
    parts = {"transformer": 1000, "text_encoder": 300}
    assert memory_of(parts, 2) == memory_of(parts, 2, offload="none")
    assert memory_of(parts, 2).device == 2600
    assert memory_of(parts, 2, quantised=True).device == 1000 * NF4 + 600
    assert (memory_of(parts, 2, offload="model").device, memory_of(parts, 2, offload="model").ram) == (
        2000,
        2600,
    )
    assert (
        memory_of(parts, 2, offload="sequential").device,
        memory_of(parts, 2, offload="sequential").ram,
    ) == (
        0,
        2600,
    )
    known = Known(loads="X", parts=parts, stored="float32", licence="MIT")
    assert (known.disk(), known.disk(("text_encoder",))) == (5200, 4000)


def count(model: Any) -> int:
    """The number of parameters and of values in the buffers that are saved with them."""
    saved = model.state_dict()
    return sum(p.numel() for p in model.parameters()) + sum(
        b.numel() for n, b in model.named_buffers() if n in saved
    )


@pytest.mark.parametrize(
    ("name", "heads", "positions", "dual"), [("large", 38, 192, 0), ("medium", 24, 384, 13)]
)
def test_the_counts_are_those_of_the_classes(name: str, heads: int, positions: int, dual: int) -> None:
    import torch
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        made = SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=heads,
            attention_head_dim=64,
            num_attention_heads=heads,
            joint_attention_dim=4096,
            caption_projection_dim=64 * heads,
            pooled_projection_dim=2048,
            pos_embed_max_size=positions,
            qk_norm="rms_norm",
            dual_attention_layers=tuple(range(dual)),
        )
    assert count(made) == catalogue()[f"stabilityai/stable-diffusion-3.5-{name}"].parts["transformer"]


def test_the_counts_of_the_small_encoder() -> None:
    import torch
    from transformers import SiglipConfig, SiglipModel

    text = dict(
        vocab_size=256000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_size=768,
    )
    vision = dict(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    with torch.device("meta"):
        made = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    assert (
        sum(p.numel() for p in made.parameters())
        == catalogue()["google/siglip2-base-patch16-224"].parts["model"]
    )
