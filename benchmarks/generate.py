"""Frames for questions that wait, in one pipeline call against one after another: micro's own generator, on
this machine's CPU."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts
from act2see.tools.diffusion import GenerationRequest
from act2see.tools.generate import Generate
from benchmarks import at_most, need, reported

COUNT = 8


def run(quick: bool = False) -> dict[str, Any]:
    """Median of five rounds, the ways in turn (quick: one round)."""
    need("encoder", "generator")
    with tempfile.TemporaryDirectory() as cache:
        tool = build_parts(
            load_config("micro", cache=cache, tools={"generate": {"options": {"batch": COUNT}}})
        ).tools["generate"]
        assert isinstance(tool, Generate)
        source = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        jobs = [
            GenerationRequest(source, f"the board tipped to the {way}", i)
            for i, way in enumerate(("left", "right") * (COUNT // 2))
        ]
        how = tool.diffuser.params(source)

        async def together() -> list[Any]:
            return [
                made[0]
                for made in await asyncio.gather(*(tool.diffuser.queue.submit(how, [j]) for j in jobs))
            ]

        def alone() -> list[Any]:
            return [tool.imagine(j.source, j.prompt, j.seed) for j in jobs]

        alone()
        ratios, most = [], 0
        for _ in range(1 if quick else 5):
            started = time.perf_counter()
            one_by_one = alone()
            middle = time.perf_counter()
            at_once = asyncio.run(together())
            ratios.append((middle - started) / (time.perf_counter() - middle))
            most = max(
                most,
                *(
                    int(np.abs(a.astype(int) - b.astype(int)).max())
                    for a, b in zip(one_by_one, at_once, strict=True)
                ),
            )
    return {
        "goals": {
            f"{COUNT} frames at once: times one after another, median": reported(statistics.median(ratios)),
            "largest difference of a pixel's value, of 255": at_most(most, 1),
        },
        "ratios": [round(r, 3) for r in ratios],
        "batches": tool.diffuser.queue.batches,
    }
