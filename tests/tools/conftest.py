"""Tiny models of random weights in ordinary folders, and a board clip to search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from act2see.micro.questions import make_item
from act2see.micro.recipe.learn_generator import edit_texts
from act2see.micro.recipe.models import build_encoder, build_generator, build_vae, encoder_image_processor
from act2see.micro.recipe.tokenizers import bert_tokenizer, clip_tokenizer
from act2see.micro.world import write_clip
from act2see.tools.base import Resources
from act2see.tools.search.blip2 import Blip2Encoder
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Blip2Encoder:
    import torch

    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    tokenizer = bert_tokenizer(edit_texts())
    build_encoder(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoder_image_processor().save_pretrained(folder)
    return Blip2Encoder(folder)


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("generator")
    torch.manual_seed(0)
    build_generator(build_vae(), clip_tokenizer(edit_texts())).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six seconds of the board world: 18 frames at 3 fps."""
    return str(
        write_clip(make_item("blink", 0, seconds=6).clip, tmp_path_factory.mktemp("clip") / "clip.mp4", 96)
    )


@pytest.fixture
def resources(tmp_path: Path, encoder: Blip2Encoder) -> Callable[..., Resources]:
    """Return a function that opens the same cache again, with an empty memory."""

    def make(keep_frames: bool = True, fps: float = 3.0, cache: Path | None = None) -> Resources:
        cache = cache or tmp_path / "cache"
        store = FrameStore(tmp_path / "frames")
        return Resources(store, Finder(VideoLibrary(cache, store, 96), encoder, cache, fps, 8, keep_frames))

    return make
