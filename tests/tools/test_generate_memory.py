"""Memory runs out in `generate`: smaller batches, then smaller frames, then a note to the model; the question
is answered anyway.

The pipeline is micro's. Above a number of pixels it raises CUDA's error for insufficient memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.graphs.doubles import Scripted

from act2see.errors import ToolError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.tools.base import Resources
from act2see.tools.diffusion import Diffuser, GenerationRequest
from act2see.tools.generate import Generate
from act2see.tools.runtime.memory import in_halves, out_of_memory
from act2see.trace.trace import Trace

QUERY = "the board tipped to the left"
SOURCE = np.zeros((48, 48, 3), np.uint8)
FULL = 48 * 48


def limited(diffuser: Diffuser, most: int) -> list[tuple[int, int]]:
    """Let the pipeline run out of memory above `most` pixels.

    Returns:
        A list to which each call adds its number of frames and their width.
    """
    import torch

    pipeline = diffuser.pipeline()
    kind = type(pipeline)
    calls: list[tuple[int, int]] = []

    @functools.wraps(kind.__call__)
    def call(self: Any, **given: Any) -> Any:
        calls.append((len(given["prompt"]), given["width"]))
        if len(given["prompt"]) * given["width"] * given["height"] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore of it.")
        return kind.__call__(self, **given)

    pipeline.__class__ = type(kind.__name__, (kind,), {"__call__": call})
    return calls


@pytest.fixture
def tool(resources: Callable[..., Resources], generator_folder: Path) -> Generate:
    options = {
        "steps": 2,
        "strength": 0.5,
        "guidance": 1.0,
        "pixels": FULL,
        "text_tokens": 1,
        "device": "cpu",
        "dtype": "float32",
    }
    return Generate("generate", Generate.Options(weights=str(generator_folder), **options), resources())


def jobs(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(SOURCE, QUERY, i) for i in range(count)]


def test_the_batch_is_halved(tool: Generate) -> None:
    calls = limited(tool.diffuser, 2 * FULL)
    made = tool.diffuser.make(tool.diffuser.params(SOURCE), jobs(5))
    assert [getattr(m, "shape", m) for m in made] == [(48, 48, 3)] * 5
    assert calls == [(5, 48), (2, 48), (3, 48), (1, 48), (2, 48)]
    alone = tool.diffuser.make(tool.diffuser.params(SOURCE), [jobs(5)[4]])[0]
    assert np.abs(np.asarray(made[4], int) - np.asarray(alone, int)).max() <= 1


def test_without_memory_the_frame_is_made_smaller(tool: Generate) -> None:
    calls = limited(tool.diffuser, FULL // 2)
    [one, two] = tool.diffuser.make(tool.diffuser.params(SOURCE), jobs(2))
    assert [getattr(m, "shape", m) for m in (one, two)] == [(32, 32, 3)] * 2
    assert calls == [(2, 48), (1, 48), (1, 48), (1, 32), (1, 32)]


def test_without_memory_for_the_smallest_frame_the_call_fails(tool: Generate) -> None:
    calls = limited(tool.diffuser, 10)
    with pytest.raises(ToolError, match=r"^not enough memory to imagine a frame, not even one of 16 x 16$"):
        tool.imagine(SOURCE, QUERY, 0)
    assert calls == [(1, 48), (1, 32), (1, 24), (1, 16)]


def test_weights_that_do_not_fit(tool: Generate, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from diffusers import DiffusionPipeline

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionPipeline, "to", full)
        with pytest.raises(
            ToolError, match=r"not enough memory for the generator's weights: .*offload: model"
        ):
            tool.imagine(SOURCE, QUERY, 0)
    # No partly loaded pipeline remains: with enough memory the next call works.
    assert tool.imagine(SOURCE, QUERY, 0).shape == (48, 48, 3)


def test_other_failures_of_a_batch_are_isolated_too() -> None:
    def work(items: Any) -> list[int]:
        if 3 in items:
            raise ValueError("no 3")
        return [i * 2 for i in items]

    assert [m if isinstance(m, int) else str(m) for m in in_halves(work, range(6))] == [
        0,
        2,
        4,
        "no 3",
        8,
        10,
    ]


def test_out_of_memory_errors_are_recognised() -> None:
    import torch

    cpu = (
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8000000000000 bytes."
    )
    full = (
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("MPS backend out of memory (...)"),
        RuntimeError(cpu),
    )
    assert all(map(out_of_memory, full))
    assert not any(map(out_of_memory, (RuntimeError("size mismatch"), ValueError("out of memory"))))


async def test_the_question_still_gets_an_answer(clip: str, tmp_path: Path) -> None:
    options = {"steps": 4, "strength": 0.5}
    config = load_config(
        "micro",
        cache=str(tmp_path / "cache"),
        view={"guard": None},
        tools={"generate": {"options": options, "retries": 0}},
    )
    parts = build_parts(config)
    generate = parts.tools["generate"]
    assert isinstance(generate, Generate)
    limited(generate.diffuser, 10)
    reasoner = Scripted(f"<generate>{QUERY}</generate>", "Then without.</think><answer>B</answer>")
    graph = create_act2see(config, parts=replace(parts, reasoner=reasoner))
    given: Any = {"video": clip, "question": "What?"}
    out = await graph.ainvoke(given)
    assert out["answer"] == "B"
    note = Trace.model_validate(out["trace"]).text
    failure = "not enough memory to imagine a frame, not even one of 16 x 16"
    assert f"The tool failed: {failure}. Go on without it." in note + reasoner.rollouts[-1]
