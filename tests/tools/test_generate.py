"""The `generate` tool with a tiny random-weight Stable Diffusion 3: sizes, seeds, provenance, failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.errors import ToolError, WeightsError
from act2see.micro.recipe.learn_generator import edit_texts
from act2see.micro.recipe.tokenizers import clip_tokenizer
from act2see.tools.base import Resources, ToolContext
from act2see.tools.diffusion import target_size
from act2see.tools.frames import Generated
from act2see.tools.generate import Generate, shrink_to

Make = Callable[..., Resources]
QUERY = "the board tipped to the left"


def tool(resources: Resources, folder: Path, **options: Any) -> Generate:
    small: dict[str, Any] = dict(
        weights=str(folder),
        strength=0.5,
        steps=2,
        guidance=1.0,
        pixels=2304,
        text_tokens=1,
        text_encoder_3=False,
        device="cpu",
        dtype="float32",
    )
    return Generate("generate", Generate.Options(**{**small, **options}), resources)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(16, 4000),
    st.integers(16, 4000),
    st.sampled_from([2304, 262_144, 1_048_576]),
    st.sampled_from([8, 16]),
)
def test_sizes_are_multiples_near_the_aspect_and_the_pixels(
    width: int, height: int, pixels: int, multiple: int
) -> None:
    w, h = target_size(width, height, pixels, multiple)
    assert w % multiple == h % multiple == 0
    assert min(w, h) >= multiple
    scale = (pixels / (width * height)) ** 0.5
    assert abs(w - max(multiple, width * scale)) <= multiple / 2 + 1e-6
    assert abs(h - max(multiple, height * scale)) <= multiple / 2 + 1e-6


def test_known_sizes() -> None:
    assert target_size(192, 192, 2304, 8) == (48, 48)
    assert target_size(1920, 1080, 1_048_576, 16) == (1360, 768)


async def test_an_imagined_frame_says_where_it_comes_from(
    resources: Make, generator_folder: Path, clip: str
) -> None:
    shared = resources()
    result = await tool(shared, generator_folder).call(QUERY, ToolContext(clip, seed=3))
    [frame] = result.frames
    [best] = shared.finder.find(clip, QUERY).hits
    [anchor] = shared.finder.library.pictures(clip, [best.frame])
    made = frame.provenance
    assert isinstance(made, Generated)
    assert frame.imagined
    assert (frame.width, frame.height) == (48, 48)
    assert frame.seconds == anchor.seconds
    assert made.anchor == anchor
    assert (made.prompt, made.seed, made.strength, made.model) == (QUERY, 3, 0.5, generator_folder.name)
    assert made.anchor_score == round(best.score, 4)
    pixels = shared.store.get(frame.digest)
    assert made.faithfulness == pytest.approx(shared.finder.similarities([pixels], QUERY)[0], abs=1e-4)
    assert result.curve is not None


def test_the_seed_decides_the_pixels(resources: Make, generator_folder: Path) -> None:
    made = tool(resources(), generator_folder)
    source = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    one, two, other = (made.imagine(source, QUERY, seed) for seed in (1, 1, 2))
    assert one.dtype == np.uint8
    assert one.shape == (48, 48, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_the_frames_own_aspect_is_kept(resources: Make, generator_folder: Path) -> None:
    # One pixel budget, two aspects.
    made = tool(resources(), generator_folder, pixels=48 * 24)
    assert made.imagine(np.zeros((96, 192, 3), np.uint8), QUERY, 0).shape == (24, 48, 3)
    assert made.imagine(np.zeros((192, 96, 3), np.uint8), QUERY, 0).shape == (48, 24, 3)


async def test_a_failure_of_the_pipeline_is_a_tool_error(
    resources: Make, generator_folder: Path, clip: str
) -> None:
    # The micro pipeline has no positions for so large a frame.
    failing = tool(resources(), generator_folder, pixels=192 * 192)
    with pytest.raises(ToolError, match="the frame could not be imagined: ") as e:
        await failing.call(QUERY, ToolContext(clip))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("weights", ["./nowhere", "micro:nowhere"])
async def test_missing_weights(resources: Make, clip: str, weights: str) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        await tool(resources(), Path("unused"), weights=weights).call(QUERY, ToolContext(clip))


# diffusers passes huggingface_hub an argument that it no longer knows.
@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks` argument is deprecated:UserWarning")
async def test_weights_that_are_not_downloaded(resources: Make, clip: str) -> None:
    with pytest.raises(
        WeightsError, match=r"weights nobody/nothing cannot be loaded: .*; download them: act2see download"
    ) as e:
        await tool(resources(), Path("unused"), weights="nobody/nothing").call(QUERY, ToolContext(clip))
    assert "\n" not in str(e.value)


async def test_a_folder_that_holds_no_pipeline(resources: Make, clip: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        await tool(resources(), tmp_path / "empty").call(QUERY, ToolContext(clip))


@pytest.fixture(scope="module")
def other_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion with a UNet, with random weights, saved as text-to-image like most on the hub."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer(edit_texts())
    tokenizer.pad_token = "<|endoftext|>"
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **blocks)
    folder = tmp_path_factory.mktemp("sd")
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


async def test_any_image_to_image_pipeline_works(resources: Make, other_pipeline: Path, clip: str) -> None:
    shared = resources()
    made = tool(shared, other_pipeline, steps=4, guidance=2.0)
    result = await made.call(QUERY, ToolContext(clip, seed=3))
    [frame] = result.frames
    assert isinstance(frame.provenance, Generated)
    assert (frame.width, frame.height, frame.provenance.model) == (48, 48, other_pipeline.name)
    assert type(made.diffuser.pipeline()).__name__ == "StableDiffusionImg2ImgPipeline"
    # The result resembles the anchor, and the less so the higher the strength.
    source = shared.store.get(frame.provenance.anchor.digest)[::2, ::2]
    weak, strong = (
        tool(shared, other_pipeline, steps=10, strength=s).imagine(source, QUERY, 0).astype(int)
        for s in (0.1, 0.9)
    )
    assert not np.array_equal(weak, strong)
    # Aspect and seed are kept here too.
    assert tool(shared, other_pipeline, pixels=48 * 24).imagine(
        np.zeros((96, 192, 3), np.uint8), QUERY, 0
    ).shape == (24, 48, 3)
    assert np.array_equal(made.imagine(source, QUERY, 1), made.imagine(source, QUERY, 1))


@pytest.fixture(scope="module")
def with_t5(generator_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 3 with its third text encoder, with random weights."""
    import torch
    from diffusers import StableDiffusion3Img2ImgPipeline
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    small = StableDiffusion3Img2ImgPipeline.from_pretrained(
        generator_folder, text_encoder_3=None, tokenizer_3=None
    )
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    text = T5EncoderModel(T5Config(vocab_size=200, d_model=96, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    folder = tmp_path_factory.mktemp("sd3")
    parts = small.components | {
        "text_encoder_3": text,
        "tokenizer_3": T5Tokenizer(vocab=[(p, -1.0) for p in pieces], extra_ids=0),
    }
    StableDiffusion3Img2ImgPipeline(**parts).save_pretrained(folder)
    return folder


def test_t5_is_loaded_or_left_out(resources: Make, with_t5: Path) -> None:
    source = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    frames = {}
    for wanted in (True, False):
        made = tool(resources(), with_t5, text_encoder_3=wanted, text_tokens=16)
        frames[wanted] = made.imagine(source, QUERY, 1)
        pipeline = made.diffuser.pipeline()
        assert (pipeline.text_encoder_3 is not None, pipeline.tokenizer_3 is not None) == (wanted, wanted)
    assert not np.array_equal(frames[True], frames[False])


async def test_weights_that_no_image_to_image_pipeline_takes(
    resources: Make, clip: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "MusicPipeline"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="AutoPipeline can't find a pipeline linked to MusicPipeline"):
        await tool(resources(), tmp_path).call(QUERY, ToolContext(clip))


def test_tag_usage_and_version(resources: Make) -> None:
    assert (
        Generate("imagine", Generate.Options(), resources()).version == "generate stable-diffusion-3.5-large"
    )


async def test_the_anchor_has_the_videos_size_and_the_model_sees_the_size_of_a_frame(
    resources: Make, generator_folder: Path, clip: str
) -> None:
    small = resources()
    small.finder.library.max_side = 24
    made = tool(small, generator_folder)
    found, anchor = made._find_anchor(small.finder.index(clip), QUERY, ToolContext(clip))
    info = small.finder.library.probe(clip).info
    assert max(anchor.width, anchor.height) == 24
    assert made._source(clip, found, anchor).shape == (info.height, info.width, 3)
    [frame] = (await made.call(QUERY, ToolContext(clip))).frames
    assert (frame.width, frame.height) == (24, 24)


def test_a_picture_is_shrunk_in_its_aspect_ratio_and_never_enlarged() -> None:
    wide = np.zeros((768, 1360, 3), np.uint8)
    assert shrink_to(wide, 448, 252).shape == (252, 446, 3)
    assert shrink_to(wide, 2000, 2000) is wide
