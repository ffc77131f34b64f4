"""A random-weight Qwen3-VL of micro size in an ordinary checkpoint folder, and pictures to show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from act2see.agent.packing import Packer
from act2see.agent.rollout import TextCodec
from act2see.micro.questions import sentences
from act2see.micro.recipe.models import build_vlm, vlm_image_processor
from act2see.micro.recipe.tokenizers import qwen_tokenizer


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    folder = tmp_path_factory.mktemp("vlm")
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(list(sentences())[:600])
    build_vlm(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vlm_image_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def packer(vlm_folder: Path) -> Packer:
    return Packer.from_pretrained(vlm_folder)


@pytest.fixture(scope="session")
def codec(packer: Packer) -> TextCodec:
    return packer.codec
