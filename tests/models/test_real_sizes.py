"""The paper's three models at their real sizes, without weights: built on the meta device from the published
configs.

`published/` holds the known facts of the published files, with their source. For Qwen3-VL-8B these are the
names and shapes of all tensors. For Stable Diffusion 3.5 Large it is the size of each file: a safetensors
file is a header of names, shapes and offsets followed by the numbers, so the files of our model's state dict
must have the same size to the byte. For BLIP-2 no index file was available: its names and shapes are those of
LAVIS's own modules, renamed to transformers' names (`benchmarks/parity/lavis.py` renames them and compares
with LAVIS itself), and its parameter count is compared with the hub's rounded one.

Our loaders get the real config, and a model on the meta device instead of one read from disk.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForImageTextRetrieval,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from act2see.agent.packing import Packer
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.tools.runtime.weights import resolve_weights
from act2see.training.sft.settings import PROJECTIONS, SftSettings
from act2see.training.sft.trainer import lora_config, lora_parameters, lora_targets

PUBLISHED = Path(__file__).parent / "published"


def published(name: str) -> dict[str, Any]:
    return dict(json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8")))


def numbers(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def one_by_one(tensors: Mapping[str, list[int]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Expand ranges: `layers.0-35.norm` is 36 tensors, `layers.0-10/2.norm` is every second of eleven."""
    for name, shape in tensors.items():
        if found := re.search(r"\.(\d+)-(\d+)(?:/(\d))?\.", name):
            for n in range(int(found[1]), int(found[2]) + 1, int(found[3] or 1)):
                yield name.replace(found[0], f".{n}."), tuple(shape)
        else:
            yield name, tuple(shape)


def file_sizes(state: Mapping[str, torch.Tensor], dtype: str, shard: str) -> list[int]:
    """Return the bytes of the safetensors files of these tensors in 16 bits, with headers, split into shards
    as `save_pretrained` does."""
    from huggingface_hub import split_torch_state_dict_into_shards

    half = {name: torch.empty(t.shape, dtype=torch.float16, device="meta") for name, t in state.items()}
    sizes = []
    for names in split_torch_state_dict_into_shards(half, max_shard_size=shard).filename_to_tensors.values():
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in sorted(names):
            start, end = end, end + 2 * half[name].numel()
            header[name] = {"dtype": dtype, "shape": list(half[name].shape), "data_offsets": [start, end]}
        text = len(json.dumps(header, separators=(",", ":")))
        sizes.append(8 + math.ceil(text / 8) * 8 + end)
    return sizes


@pytest.fixture(scope="module")
def qwen() -> Qwen3VLForConditionalGeneration:
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**published("qwen3_vl_8b")["config"])).eval()


@pytest.fixture(scope="module")
def blip2() -> Blip2ForImageTextRetrieval:
    with torch.device("meta"):
        return Blip2ForImageTextRetrieval(Blip2Config(**published("blip2_itm_vit_g")["config"])).eval()


def sd35_part(name: str) -> Any:
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    config = published("sd35_large")["parts"][name]["config"]
    with torch.device("meta"):
        if name == "transformer":
            return SD3Transformer2DModel(**config)
        if name == "vae":
            return AutoencoderKL(**config)
        if name == "text_encoder_3":
            return T5EncoderModel(T5Config(**config))
        return CLIPTextModelWithProjection(CLIPTextConfig(**config))


def test_qwen_has_the_published_tensors(qwen: Qwen3VLForConditionalGeneration) -> None:
    known = published("qwen3_vl_8b")
    assert numbers(qwen) == known["numbers"]
    ours = {name: tuple(t.shape) for name, t in qwen.state_dict().items()}
    assert ours == dict(one_by_one(known["tensors"]))
    assert len(ours) == 750


def test_gpu_benchmarks_have_the_published_sizes() -> None:
    from benchmarks.gpu.common import TEXT_8B, VISION_8B

    config = Qwen3VLConfig(**published("qwen3_vl_8b")["config"])
    for part, given in ((config.text_config, TEXT_8B), (config.vision_config, VISION_8B)):
        assert {key: getattr(part, key) for key in given} == given


def test_lora_targets_every_projection_of_every_layer(qwen: Qwen3VLForConditionalGeneration) -> None:
    """Parameters: 16 x (inputs + outputs) of q, k, v, o, gate, up and down, in 36 layers."""
    layer = (4096 + 4096) + 2 * (4096 + 1024) + (4096 + 4096) + 3 * (4096 + 12288)
    settings = SftSettings()
    targets = lora_targets(qwen, settings)
    for n in range(36):
        here = [t for t in targets if f".layers.{n}." in t]
        assert sorted(t.rpartition(".")[2] for t in here) == sorted(PROJECTIONS)
    assert len(targets) == 36 * len(PROJECTIONS)
    assert lora_parameters(qwen, settings) == 16 * 36 * layer == 43_646_976


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_trains_the_counted_parameters(qwen: Qwen3VLForConditionalGeneration) -> None:
    from peft import get_peft_model

    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(qwen.config)
    settings = SftSettings()
    adapted = get_peft_model(model, lora_config(model, settings))
    trained = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    assert sum(trained.values()) == lora_parameters(qwen, settings)
    assert not [name for name in trained if "visual" in name]


def test_the_reasoner_loads_qwen(
    qwen: Qwen3VLForConditionalGeneration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer and the preprocessor are micro's, which does not affect the model's size."""
    for file in Path(resolve_weights("micro:base")).glob("*.json"):
        shutil.copy(file, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(published("qwen3_vl_8b")["config"]))
    asked: dict[str, Any] = {}

    def on_meta(weights: Any, **given: Any) -> Any:
        asked.update(given)
        return qwen

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "from_pretrained", on_meta)
    engine = TransformersReasoner.from_pretrained(
        tmp_path, lambda ref: None, device="meta", dtype="bfloat16", rows=2
    )  # type: ignore[arg-type, return-value]
    assert asked["dtype"] == torch.bfloat16
    assert engine.context == 262_144
    assert engine.packer.image_token_id == 151_655
    assert engine.cache_shape == (36, 2, 8, 512, 128)


def test_the_paper_presets_frames_and_thought_fit_the_context() -> None:
    """448 pixels, patch 16, merge 2: 14 x 14 tokens per frame; 256 frames and the thought fit the context."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from act2see.graphs.config import load_config

    packer = Packer.from_pretrained(resolve_weights("micro:base"))
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=16_777_216
    )
    paper = load_config("paper")
    _, rows, columns = Packer(packer.codec.tokenizer, processor, 151_655).grid(
        paper.view.max_side, paper.view.max_side
    )
    assert rows * columns // 4 == 14 * 14
    shown = paper.view.max_frames + paper.budget.calls * max(t.max_frames for t in paper.tools.values())
    assert shown * (14 * 14 + 16) + paper.budget.tokens < 262_144


def test_blip2_has_the_tensors_of_lavis(blip2: Blip2ForImageTextRetrieval) -> None:
    """Also counted by hand: 39 blocks of EVA-ViT-g; 12 layers of BERT, each with a feed-forward for queries,
    six with cross-attention."""
    known = published("blip2_itm_vit_g")
    ours = {name: tuple(t.shape) for name, t in blip2.state_dict().items()}
    assert ours == dict(one_by_one(known["tensors"]))
    assert numbers(blip2) / 1e9 == pytest.approx(known["billions"], abs=0.005)
    norm, w, v = 2 * 768, 768, 1408
    block = (3 * v * v + 3 * v) + (v * v + v) + (2 * v * 6144 + 6144 + v) + 2 * 2 * v
    vision = 39 * block + (v * 3 * 14 * 14 + v) + v + 257 * v + 2 * v
    attention, forward = 4 * (w * w + w) + norm, (2 * w * 3072 + 3072 + w) + norm
    cross = 2 * (w * w + w) + 2 * (v * w + w) + norm
    qformer = 12 * (attention + 2 * forward) + 6 * cross + norm
    assert numbers(blip2.vision_model) == vision == 985_952_256
    assert numbers(blip2.qformer) == qformer
    assert numbers(blip2) == vision + qformer + (30_523 + 512) * w + 32 * w + 2 * (w * 256 + 256) + 2 * w + 2


def test_the_encoder_loads_blip2(
    blip2: Blip2ForImageTextRetrieval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from act2see.tools.search import blip2 as encoder

    for file in Path(resolve_weights("micro:encoder")).glob("*.json"):
        shutil.copy(file, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(published("blip2_itm_vit_g")["config"]))
    monkeypatch.setattr(Blip2ForImageTextRetrieval, "from_pretrained", lambda weights, **given: blip2)
    monkeypatch.setattr(encoder, "fingerprint", lambda *models: "none")  # meta tensors hold no numbers
    made = encoder.Blip2Encoder(tmp_path, device="meta", dtype="float16")
    assert (made.size, made.tokens, made.dim, made.no_match) == (224, 32, 256, 0.2)


@pytest.mark.parametrize("name", ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"])
def test_sd35_has_the_published_files(name: str) -> None:
    known = published("sd35_large")["parts"][name]
    state = sd35_part(name).state_dict()
    state.pop("encoder.embed_tokens.weight", None)  # T5's, tied to `shared` and written once
    assert file_sizes(state, known["dtype"], known["shard"]) == known["bytes"]


def test_sd35_has_the_published_counts() -> None:
    """8.06 billion in the transformer; the encoders and the VAE as counted by other loaders."""
    counts = {name: numbers(sd35_part(name)) for name in published("sd35_large")["parts"]}
    assert counts == {
        "transformer": 8_056_627_520,
        "vae": 83_819_683,
        "text_encoder": 123_650_304,
        "text_encoder_2": 694_659_840,
        "text_encoder_3": 4_762_310_656,
    }


def test_the_diffuser_takes_sd35() -> None:
    from benchmarks.gpu.common import weightless
    from diffusers import (
        AutoPipelineForImage2Image,
        FlowMatchEulerDiscreteScheduler,
        StableDiffusion3Img2ImgPipeline,
        StableDiffusion3Pipeline,
    )

    from act2see.tools.diffusion import Diffuser
    from act2see.tools.generate import Generate

    parts = {name: sd35_part(name) for name in published("sd35_large")["parts"]}
    tokenizers = {"tokenizer": None, "tokenizer_2": None, "tokenizer_3": None}
    pipeline = AutoPipelineForImage2Image.from_pipe(
        StableDiffusion3Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts, **tokenizers)
    )
    assert isinstance(pipeline, StableDiffusion3Img2ImgPipeline)
    source = torch.zeros(720, 1280, 3, dtype=torch.uint8).numpy()
    with weightless(generator=pipeline):
        assert Diffuser(Generate.Options()).params(source).size == (1360, 768)
