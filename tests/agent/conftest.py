"""A random-weight Qwen3-VL of micro size in an ordinary checkpoint folder, and pictures to show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from act2see.agent.packing import Packer
from act2see.agent.rollout import TextCodec
from act2see.micro.questions import sentences
from act2see.micro.recipe.learn_vlm import image_processor
from act2see.micro.recipe.models import build_vlm
from act2see.micro.recipe.tokenizers import qwen_tokenizer
from act2see.tools.frames import FrameRef

Pixels = np.ndarray


def picture(digest: str, width: int, height: int) -> Pixels:
    """The picture behind a digest: noise that the digest alone decides."""
    return np.random.default_rng(int(digest[:8], 16)).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(list(sentences())[:600])
    build_vlm(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packer(vlm_folder: Path) -> Packer:
    return Packer.from_pretrained(vlm_folder)


@pytest.fixture(scope="session")
def codec(packer: Packer) -> TextCodec:
    return packer.codec


@pytest.fixture(scope="session")
def source() -> Callable[[FrameRef], Pixels]:
    return lambda ref: picture(ref.digest, ref.width, ref.height)
