"""The options of `generate` in a config, with micro's generator: some change the frame, others must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.graphs.doubles import Scripted

from act2see.errors import ConfigError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.tools.base import ToolContext
from act2see.tools.diffusion import Diffuser, GenerationRequest, quantisation
from act2see.tools.frames import Generated
from act2see.tools.generate import Generate

QUERY = "the board tipped to the left"
SOURCE = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
FEW: dict[str, Any] = {"steps": 4, "strength": 0.5}
Make = Callable[..., Generate]


@pytest.fixture
def micro(tmp_path: Path) -> Make:
    """Return the tool of a config, with few steps."""

    def make(**options: Any) -> Generate:
        config = load_config(
            "micro", cache=str(tmp_path / "cache"), tools={"generate": {"options": FEW | options}}
        )
        tool = build_parts(config).tools["generate"]
        assert isinstance(tool, Generate)
        return tool

    return make


def frame(tool: Generate, seed: int = 1) -> np.ndarray:
    return tool.imagine(SOURCE, QUERY, seed)


@pytest.mark.parametrize("changed", [{"steps": 6}, {"strength": 0.75}, {"guidance": 3.0}])
def test_options_that_change_the_frame(micro: Make, changed: dict[str, Any]) -> None:
    base, other = frame(micro()), frame(micro(**changed))
    assert base.shape == other.shape == (48, 48, 3)
    assert not np.array_equal(base, other)


@pytest.mark.parametrize(
    "same", [{"offload": "model"}, {"offload": "sequential"}, {"batch": 1}, {"text_encoder_3": True}]
)
def test_options_that_do_not_change_the_frame(micro: Make, same: dict[str, Any]) -> None:
    # On a CPU nothing is offloaded; these weights have no T5 to leave out.
    assert np.array_equal(frame(micro()), frame(micro(**same)))


def test_a_smaller_frame(micro: Make) -> None:
    assert frame(micro(pixels=576)).shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 1, "strength": 0.5}, "strength: .*1 steps at this strength round down to zero"),
        ({"strength": 2.0}, r"strength: .*less than or equal to 1 \(got 2\.0\)"),
        ({"guidance": -1}, "guidance: .*greater than or equal to 0"),
        ({"best_of": 0}, "best_of: .*greater than or equal to 1"),
        ({"offload": "disk"}, "offload: .*'none', 'model' or 'sequential'"),
        ({"quantise": "int2"}, "quantise: .*'none' or 'nf4'"),
        ({"quantize": "nf4"}, r"unknown key 'quantize'; did you mean 'quantise'\?"),
        ({"quantise": "nf4"}, "`quantise: nf4` needs bitsandbytes: pip install bitsandbytes"),
    ],
)
def test_impossible_options_fail_when_the_graph_is_built(
    micro: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("act2see.tools.diffusion.find_spec", lambda name: None)  # where it is installed, too
    with pytest.raises(ConfigError, match=said):
        micro(**options)


def test_only_the_large_part_is_quantised(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    # Its settings ask for the package's version and no more; quantising itself needs the package and is not
    # tested here.
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.49.0" if name == "bitsandbytes" else version(name)
    )
    config = quantisation("bfloat16", {"transformer": [], "text_encoder_3": []})
    assert list(config.quant_mapping) == ["transformer"]
    assert config.quant_mapping["transformer"].bnb_4bit_quant_type == "nf4"
    assert list(quantisation("float16", {"unet": []}).quant_mapping) == ["unet"]


async def test_best_of_keeps_the_most_faithful_and_all_the_scores(micro: Make, clip: str) -> None:
    tool = micro(best_of=3, batch=2)
    [kept] = (await tool.call(QUERY, ToolContext(clip, seed=5))).frames
    singles = [(await micro().call(QUERY, ToolContext(clip, seed=5 + i))).frames[0] for i in range(3)]
    scores = []
    for single in singles:
        assert isinstance(single.provenance, Generated)
        assert single.provenance.scores == ()
        scores.append(single.provenance.faithfulness)
    made = kept.provenance
    assert isinstance(made, Generated)
    assert made.scores == pytest.approx(scores, abs=2e-3)
    assert made.faithfulness == max(made.scores)
    assert made.seed == 5 + made.scores.index(max(made.scores))
    assert sorted(tool.diffuser.queue.batches) == [1, 2]


async def test_a_shared_call_gives_the_same_frames(micro: Make) -> None:
    tool = micro(batch=8)
    jobs = [
        GenerationRequest(np.roll(SOURCE, i, 0), f"the board tipped to the {way}", i)
        for i, way in enumerate(["left", "right"] * 4)
    ]
    how = tool.diffuser.params(SOURCE)
    alone = [tool.imagine(j.source, j.prompt, j.seed).astype(int) for j in jobs]
    together = [
        f[0].astype(int) for f in await asyncio.gather(*(tool.diffuser.queue.submit(how, [j]) for j in jobs))
    ]
    assert tool.diffuser.queue.batches == [8]
    # The same but for rounding: a larger matrix product adds in another order.
    assert max(np.abs(a - t).max() for a, t in zip(alone, together, strict=True)) <= 1
    assert np.abs(alone[0] - alone[1]).max() > 10


async def test_questions_of_one_graph_share_a_call(clip: str, tmp_path: Path) -> None:
    changes: Any = {"view": {"guard": None}, "tools": {"generate": {"options": FEW}}}
    config = load_config("micro", cache=str(tmp_path / "cache"), **changes)
    parts = build_parts(config)
    tool = parts.tools["generate"]
    assert isinstance(tool, Generate)
    tool.diffuser.queue.gather = 5  # four frames fill a batch, so they do not wait
    reasoner = Scripted(f"<generate>{QUERY}</generate>", "So.</think><answer>B</answer>")
    graph = create_act2see(config, parts=replace(parts, reasoner=reasoner))
    given: Any = [{"video": clip, "question": f"What? {i}"} for i in range(4)]
    results = await graph.abatch(given)
    assert [r["answer"] for r in results] == ["B"] * 4
    assert tool.diffuser.queue.batches == [4]


async def test_a_cancelled_call_ends_the_denoising(micro: Make) -> None:
    tool = micro(steps=1000, strength=1.0)
    how = await asyncio.to_thread(tool.diffuser.params, SOURCE)
    steps = count_steps(tool.diffuser)
    call = asyncio.create_task(tool.diffuser.queue.submit(how, [GenerationRequest(SOURCE, QUERY, 0)]))
    async with asyncio.timeout(60):
        while not steps:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # The pipeline is free at once: the next frame does not wait for a thousand steps.
    at = len(steps)
    few = tool.diffuser.params(SOURCE, tool.options.model_copy(update=FEW))
    await tool.diffuser.queue.submit(few, [GenerationRequest(SOURCE, QUERY, 0)])
    assert len(steps) - at < 100


def count_steps(diffuser: Diffuser) -> list[int]:
    """One entry for each step of the transformer from now on."""
    steps: list[int] = []
    diffuser.pipeline().transformer.register_forward_hook(lambda *_: steps.append(1))
    return steps
