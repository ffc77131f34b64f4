"""The files of weights that a first call will load are read while the model thinks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.graphs.doubles import Scripted, clip_in

from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.graphs.run import aask
from act2see.tools.runtime.weights import Wanted, read_ahead, resolve_weights

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no such advice")
GENERATOR = Path(resolve_weights("micro:generator"))


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes of the files that the system was asked to read."""
    inodes: set[int] = set()

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        inodes.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return inodes


def inodes_of(folder: Path) -> set[int]:
    return {file.stat().st_ino for file in folder.rglob("*.safetensors")}


def test_all_files_of_a_pipeline_are_read_but_those_of_parts_that_are_left_out(advised: set[int]) -> None:
    read_ahead([Wanted("generate", "micro:generator", ("text_encoder_2",))])
    assert advised == inodes_of(GENERATOR) - inodes_of(GENERATOR / "text_encoder_2")


def test_missing_weights_are_left_to_the_call(advised: set[int]) -> None:
    read_ahead([Wanted("generate", "nobody/nothing"), Wanted("generate", "micro:vlm")])
    assert advised == inodes_of(Path(resolve_weights("micro:vlm")))


async def test_a_question_reads_what_its_first_call_would_load(advised: set[int], tmp_path: Path) -> None:
    config = load_config("micro", cache=str(tmp_path), view={"guard": None})
    parts = build_parts(config)
    graph = create_act2see(config, parts=type(parts)(Scripted("B</answer>"), parts.tools, parts.resources))
    await aask(graph, clip_in(tmp_path), "What?", ["blue", "red"])
    assert inodes_of(GENERATOR) <= advised
