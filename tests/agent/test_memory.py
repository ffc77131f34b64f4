"""The reasoner works in smaller parts when memory runs out, and writes the same text.

The test model raises CUDA's out-of-memory error for more than a given number of tokens in one forward.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.reasoners.prefill import find_cut, find_stop
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import Rollout, render
from act2see.errors import ReasonerError
from act2see.tools.frames import FrameRef
from act2see.trace.record import Question
from act2see.trace.trace import Trace

PROMPT = Prompt({"retrieve": "a real frame"}, "short")


class Limited:
    """A model that accepts at most `most` tokens in one forward. `sizes` has the number of tokens of each."""

    def __init__(self, model: Any, most: int) -> None:
        self._model, self.most = model, most
        self.sizes: list[int] = []

    def __call__(self, **given: Any) -> Any:
        import torch

        if (count := given["input_ids"].numel()) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.sizes.append(count)
        return self._model(**given)

    def eval(self) -> Limited:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.fixture(scope="module")
def model(vlm_folder: Path) -> Any:
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(vlm_folder, dtype=torch.float32).eval()


@pytest.fixture
def rollouts(trace: Callable[..., Trace], frame: Callable[..., FrameRef]) -> list[Rollout]:
    asked = [Question(text="What colour does the ring turn" + " when it blinks" * n) for n in range(3)]
    frames = [(frame(10 + n), frame(50 + n, 1.0)) for n in range(3)]
    return [
        render(trace(id=f"run-{n}", question=q, initial=f), PROMPT)
        for n, (q, f) in enumerate(zip(asked, frames, strict=True))
    ]


async def write_all(
    reasoner: TransformersReasoner, rollouts: list[Rollout], tokens: int = 5
) -> list[str | Exception]:
    async def one(rollout: Rollout) -> str:
        parts = []
        async for item in reasoner.stream(Request(rollout, tokens)):
            if isinstance(item, Delta):
                parts.append(item.text)
        return "".join(parts)

    out: list[Any] = await asyncio.gather(*map(one, rollouts), return_exceptions=True)
    return out


@pytest.mark.parametrize(("most", "count"), [(40, 3), (9, 1)])
async def test_prefill_and_decoding_in_parts_write_the_same_text(
    model: Any, packer: Packer, source: Any, rollouts: list[Rollout], most: int, count: int
) -> None:
    rollouts = rollouts[:count]
    reference = await write_all(TransformersReasoner(model, packer, source, rows=4), rollouts)
    # A frame is 9 tokens and is never cut.
    assert {g[1] * g[2] // packer.merge**2 for g in packer.pack(rollouts[0]).grids} == {9}
    small = Limited(model, most)
    reasoner = TransformersReasoner(small, packer, source, rows=4)
    assert await write_all(reasoner, rollouts) == reference
    assert all(isinstance(r, str) and r for r in reference)
    assert max(small.sizes) <= small.most


@pytest.mark.parametrize("chunk", [8, 17])
async def test_a_prompt_is_read_in_chunks_while_others_decode(
    model: Any, packer: Packer, source: Any, rollouts: list[Rollout], chunk: int
) -> None:
    alone: list[Any] = []
    for one in rollouts:
        alone += await write_all(TransformersReasoner(model, packer, source, rows=4), [one], 40)
    watched = Limited(model, 10_000)
    reasoner = TransformersReasoner(watched, packer, source, rows=4, chunk=chunk)
    assert await write_all(reasoner, rollouts, 40) == alone
    # Nobody decodes during the first one's prefill: it is read at once. Between two chunks, others decode.
    reads = [n for n in watched.sizes if n > 3]
    assert reads[0] == len(packer.pack(rollouts[0]).ids) > 3 * chunk
    assert max(reads[1:]) <= max(chunk, 9)  # a frame is 9 tokens
    chunks = [i for i, n in enumerate(watched.sizes) if n > 3][1:5]
    assert all(later - earlier == 2 for earlier, later in pairwise(chunks))


async def test_a_caller_who_leaves_while_its_prompt_is_read_leaves_what_was_read(
    model: Any, packer: Packer, source: Any, rollouts: list[Rollout]
) -> None:
    read, left = threading.Event(), threading.Event()

    class Paused(Limited):
        """A model that waits in the third chunk."""

        def __call__(self, **given: Any) -> Any:
            if given["input_ids"].numel() == 8 and self.sizes.count(8) == 2:
                read.set()
                left.wait(30)
            return super().__call__(**given)

    reasoner = TransformersReasoner(Paused(model, 10_000), packer, source, rows=4, chunk=8)
    first = reasoner.stream(Request(rollouts[0], 200))
    await anext(first)
    second = reasoner.stream(Request(rollouts[1], 5))
    asked = asyncio.ensure_future(anext(second))
    assert await asyncio.to_thread(read.wait, 30)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    left.set()
    await first.aclose()
    again = [item async for item in reasoner.stream(Request(rollouts[1], 5))][-1]
    assert isinstance(again, Done)
    assert again.cached >= 16
    fresh = TransformersReasoner(model, packer, source, rows=4)
    assert await write_all(reasoner, rollouts[1:2]) == await write_all(fresh, rollouts[1:2])


def test_chunks_end_between_frames() -> None:
    spans = [(10, 19), (30, 39)]
    assert find_stop(0, 8, 50, spans) == 8
    assert find_stop(0, 12, 50, spans) == 10
    assert find_stop(10, 4, 50, spans) == 19
    assert find_stop(19, 100, 50, spans) == 50


async def test_decoding_is_split_by_rows(
    model: Any, packer: Packer, source: Any, rollouts: list[Rollout]
) -> None:
    class Narrow(Limited):
        """A model that accepts at most `most` rows in one forward."""

        def __call__(self, **given: Any) -> Any:
            import torch

            if len(given["input_ids"]) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.sizes.append(len(given["input_ids"]))
            return self._model(**given)

    reference = await write_all(TransformersReasoner(model, packer, source, rows=4), rollouts)
    narrow = Narrow(model, 1)
    assert await write_all(TransformersReasoner(narrow, packer, source, rows=4), rollouts) == reference
    assert set(narrow.sizes) == {1}


async def test_rollout_too_large_for_memory_fails_alone(
    model: Any, packer: Packer, source: Any, rollouts: list[Rollout]
) -> None:
    limited = Limited(model, 4)
    reasoner = TransformersReasoner(limited, packer, source, rows=4)
    results = await write_all(reasoner, rollouts[:1])
    assert isinstance(results[0], ReasonerError)
    assert "has too little memory for this rollout, even alone" in str(results[0])
    # The worker still runs, and serves a rollout that fits.
    limited.most = 10_000
    assert isinstance((await write_all(reasoner, rollouts[:1]))[0], str)


def test_prefill_is_cut_between_frames() -> None:
    assert find_cut(0, 10, []) == 5
    assert find_cut(0, 10, [(4, 8)]) == 4
    assert find_cut(0, 10, [(0, 8)]) == 8
    assert find_cut(0, 8, [(0, 8)]) is None
    assert find_cut(3, 4, []) is None
