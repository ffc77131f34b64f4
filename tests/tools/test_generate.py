"""The `generate` tool with a random-weight Stable Diffusion 3 of micro size: sizes, seeds, provenance, failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from act2see.errors import ToolError, WeightsError
from act2see.tools.base import Resources, ToolContext
from act2see.tools.frames import Generated
from act2see.tools.generate import Generate, target_size

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
@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from([2304, 262_144, 1_048_576]), st.sampled_from([8, 16]))
def test_sizes_are_multiples_near_the_aspect_and_the_pixels(width: int, height: int, pixels: int, multiple: int) -> None:
    w, h = target_size(width, height, pixels, multiple)
    assert w % multiple == h % multiple == 0
    assert min(w, h) >= multiple
    scale = (pixels / (width * height)) ** 0.5
    assert abs(w - max(multiple, width * scale)) <= multiple / 2 + 1e-6
    assert abs(h - max(multiple, height * scale)) <= multiple / 2 + 1e-6


def test_known_sizes() -> None:
    assert target_size(192, 192, 2304, 8) == (48, 48)
    assert target_size(1920, 1080, 1_048_576, 16) == (1360, 768)


async def test_an_imagined_frame_says_where_it_comes_from(resources: Make, generator_folder: Path, clip: str) -> None:
    shared = resources()
    result = await tool(shared, generator_folder).call(QUERY, ToolContext(clip, seed=3))
    [frame] = result.frames
    [best] = shared.finder.find(clip, QUERY).hits
    [anchor] = shared.finder.clips.pictures(clip, [best.frame])
    made = frame.provenance
    assert isinstance(made, Generated)
    assert frame.imagined
    assert (frame.width, frame.height) == (48, 48)
    assert frame.seconds == anchor.seconds
    assert made.anchor == anchor
    assert (made.prompt, made.seed, made.strength, made.model) == (QUERY, 3, 0.5, generator_folder.name)
    assert made.anchor_score == round(best.score, 4)
    pixels = shared.store.get(frame.digest)
    assert made.faithfulness == pytest.approx(shared.finder.encoder.similarity(pixels, QUERY), abs=1e-4)
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
    # One pixel budget, two aspects; the micro pipeline takes no side above 48.
    made = tool(resources(), generator_folder, pixels=48 * 24)
    assert made.imagine(np.zeros((96, 192, 3), np.uint8), QUERY, 0).shape == (24, 48, 3)
    assert made.imagine(np.zeros((192, 96, 3), np.uint8), QUERY, 0).shape == (48, 24, 3)


async def test_a_failure_of_the_pipeline_is_told_to_the_model(resources: Make, generator_folder: Path, clip: str) -> None:
    # At this strength no step is left, which the pipeline refuses.
    failing = tool(resources(), generator_folder, strength=2.0)
    with pytest.raises(ToolError, match="the frame could not be imagined: ") as e:
        await failing.call(QUERY, ToolContext(clip))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("weights", ["./nowhere", "micro:nowhere"])
async def test_missing_weights(resources: Make, clip: str, weights: str) -> None:
    with pytest.raises(WeightsError, match="nowhere"):
        await tool(resources(), Path("unused"), weights=weights).call(QUERY, ToolContext(clip))


async def test_a_folder_that_holds_no_pipeline(resources: Make, clip: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        await tool(resources(), tmp_path / "empty").call(QUERY, ToolContext(clip))


def test_what_it_is(resources: Make) -> None:
    assert Generate("imagine", Generate.Options(), resources()).version == "generate stable-diffusion-3.5-large"
