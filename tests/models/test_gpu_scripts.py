"""The GPU benchmarks at micro's size on the CPU: each runs to its end and reports its figures. The times have
no meaning here."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run_tiny(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run_tiny(name, *options)` runs a script with `--tiny` and returns its report."""

    def run(name: str, *options: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name, "--tiny", *options])
        importlib.import_module(f"benchmarks.gpu.{name}").main()
        report = dict(json.loads(capsys.readouterr().out))
        assert report["matrix product, teraflop/s"] > 0
        return report

    return run


def test_trace_8b_runs_a_whole_trace(run_tiny: Run) -> None:
    found = run_tiny("trace_8b")
    assert found["tiny"]
    assert found["weights"] == "random"
    assert set(found["seconds by node"]) == {"view", "reason", "retrieve", "generate"}
    assert found["frames encoded for it"] > 0
    first, second, third = found["loops"]
    assert first["known"] == 0
    # The next loop finds everything read and written in the cache, except the last token written.
    assert second["known"] == first["read"] + first["decoded"] - 1
    assert third["known"] == second["known"] + second["read"] + second["decoded"] - 1
    assert all(0 < loop["share of bandwidth"] < 1 for loop in found["loops"])


@pytest.mark.parametrize("tiny", [True, False])
def test_trace_8b_needs_no_downloaded_weights(tiny: bool, tmp_path: Path) -> None:
    from benchmarks.gpu.common import weightless, write_base
    from benchmarks.gpu.trace_8b import build_config

    from act2see.graphs.needs import missing_weights
    from act2see.graphs.parts import build_parts

    for part in ("vlm", "encoder"):
        write_base(tmp_path / part, tiny=True)
    config = build_config(tmp_path, argparse.Namespace(tiny=tiny, frames=4, words=14))
    with weightless():
        assert missing_weights(build_parts(config)) == []


def test_trace_8b_thinks_without_repeating_itself() -> None:
    from benchmarks.gpu.trace_8b import make_script

    from act2see.agent.repetition import is_loop

    assert not any(is_loop(thought) for thought, _ in make_script(350))


def test_sft_8b_trains_some_steps(run_tiny: Run) -> None:
    pytest.importorskip("trl", reason="needs the train extra")
    found = run_tiny("sft_8b", "--steps", "3", "--words", "20")
    assert found["mode"] == "lora"
    assert len(found["loss"]) == 3
    assert 0 < found["trainable"] < found["tokens a sample"]
    assert 0 < found["LoRA parameters"] < found["parameters"]


def test_extra_look_reads_only_new_tokens(run_tiny: Run) -> None:
    found = run_tiny("extra_look")
    assert found["one frame alone"]["tokens"] == 4
    assert found["loop 2"]["repeated"] == 0
    assert found["loop 2"]["tokens"] + found["context before"] == found["loop 2 without a cache"]["tokens"]
    assert found["goals"]["times one frame's tokens"]["goal"] == 1.5


def test_encoder_g_measures_every_batch(run_tiny: Run) -> None:
    found = run_tiny("encoder_g")
    assert [row["batch"] for row in found["batches"]] == [1, 2, 4]
    assert found["reference"]["batch"] == 4
    assert found["goals"]["share of matrix peak"]["goal"] == 0.5


def test_generator_35_counts_steps_and_operations(run_tiny: Run) -> None:
    found = run_tiny("generator_35")
    assert [row["frames at once"] for row in found["frames"]] == [1, 2]
    assert {row["steps"] for row in found["frames"]} == {6}  # 20 at a strength of 0.3
    assert found["frames"][1]["teraflop a step"] == pytest.approx(
        2 * found["frames"][0]["teraflop a step"], rel=1e-3
    )


def counted(model: Any, *args: Any, **given: Any) -> int:
    """Return the operations that torch counts in a forward pass: matrix products and convolutions, and eager
    attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as mode:
        model(*args, **given)
    return int(mode.get_total_flops())


def test_the_formulas_count_what_torch_counts_at_real_size() -> None:
    """On the meta device torch counts operations without executing them."""
    import torch
    from benchmarks.gpu import encoder_g, generator_35
    from benchmarks.gpu.common import published
    from diffusers import SD3Transformer2DModel
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    with torch.device("meta"):
        blip2 = Blip2ForImageTextRetrieval(Blip2Config(**published("blip2_itm_vit_g")["config"])).eval()
        blip2.set_attn_implementation("eager")
        found = counted(blip2.vision_model, pixel_values=torch.empty(1, 3, 224, 224))
        seen = torch.empty(1, 257, 1408)
        found += counted(blip2.qformer, query_embeds=blip2.query_tokens, encoder_hidden_states=seen)
        assert encoder_g.operations(blip2.config) == pytest.approx(found, rel=0.01)
        transformer = SD3Transformer2DModel(**published("sd35_large")["parts"]["transformer"]["config"])
        found = counted(
            transformer,
            hidden_states=torch.empty(2, 16, 96, 168),
            timestep=torch.ones(2),
            pooled_projections=torch.empty(2, 2048),
            encoder_hidden_states=torch.empty(2, 333, 4096),
        )
    assert generator_35.operations(transformer.config, 1344, 768, 8, 333, 2) == pytest.approx(found, rel=0.01)


def test_without_a_gpu_a_script_exits_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["encoder_g"])
    with pytest.raises(SystemExit, match="needs a CUDA GPU with 24 GB; --tiny runs"):
        importlib.import_module("benchmarks.gpu.encoder_g").main()


def shrunk(name: str) -> dict[str, Any]:
    """Return the published config with few, narrow layers; everything else is as on a GPU."""
    from benchmarks.gpu.common import PUBLISHED

    data: dict[str, Any] = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    if name == "blip2_itm_vit_g":
        data["config"]["vision_config"] |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        }
        data["config"]["qformer_config"] |= {"encoder_hidden_size": 64, "num_hidden_layers": 2}
        data["config"]["text_config"] |= {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "ffn_dim": 16,
        }
        return data
    c = {part: given["config"] for part, given in data["parts"].items()}
    c["transformer"] |= {
        "num_attention_heads": 2,
        "num_layers": 2,
        "caption_projection_dim": 128,
        "joint_attention_dim": 128,
    }
    c["transformer"] |= {"pooled_projection_dim": 128}
    c["vae"] |= {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}
    for clip in ("text_encoder", "text_encoder_2"):
        c[clip] |= {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": 64,
        }
    c["text_encoder_3"] |= {"d_ff": 64, "d_kv": 32, "d_model": 128, "num_heads": 2, "num_layers": 2}
    return data


def test_the_gpu_path_with_shrunk_models_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike `--tiny`, it runs bfloat16, three text encoders and 77 + 256 tokens. Only the device differs."""
    import numpy as np
    import torch
    from benchmarks.gpu import common
    from benchmarks.gpu.generator_35 import Clock

    from act2see.tools.diffusion import Diffuser, GenerationRequest
    from act2see.tools.generate import Generate
    from act2see.tools.search.blip2 import Blip2Encoder

    monkeypatch.setattr(common, "published", shrunk)
    monkeypatch.setattr(common, "device_of", lambda tiny: "cpu")
    pipeline = common.make_generator(tiny=False)
    source = np.full((36, 64, 3), 99, dtype=np.uint8)
    with common.weightless(blip2=common.make_blip2(tmp_path, tiny=False), generator=pipeline):
        diffuser = Diffuser(Generate.Options(pixels=64 * 64, steps=2))
        clock = Clock(pipeline)
        [picture] = diffuser.make(diffuser.params(source), [GenerationRequest(source, "the red circle", 0)])
        encoder = Blip2Encoder(tmp_path, dtype="bfloat16")
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (48, 80, 3)
    assert (clock.batch, clock.text) == (2, 77 + 256)
    assert {part.dtype for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder_3)} == {
        torch.bfloat16
    }
    features = encoder.frames([source])
    assert features.shape == (1, 32, 256)
    assert np.linalg.norm(features.astype(np.float32), axis=-1) == pytest.approx(1, abs=0.02)
    assert encoder.no_match == -1
