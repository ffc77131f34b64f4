"""Speed-up of batched generation: several frames in one pipeline call, compared with one after another, with
micro's generator on the CPU."""

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
from benchmarks import at_most, reported, require_weights

COUNT = 8


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of five rounds that alternate the two ways (quick: one round)."""
    require_weights("encoder", "generator")
    with tempfile.TemporaryDirectory() as cache:
        config = load_config("micro", cache=cache, tools={"generate": {"options": {"batch": COUNT}}})
        tool = build_parts(config).tools["generate"]
        assert isinstance(tool, Generate)
        source = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        jobs = []
        for seed, side in enumerate(("left", "right") * (COUNT // 2)):
            jobs.append(GenerationRequest(source, f"the board tipped to the {side}", seed))
        params = tool.diffuser.params(source)

        async def generate_together() -> list[Any]:
            batches = await asyncio.gather(*(tool.diffuser.queue.submit(params, [job]) for job in jobs))
            return [batch[0] for batch in batches]

        def generate_one_by_one() -> list[Any]:
            return [tool.imagine(job.source, job.prompt, job.seed) for job in jobs]

        generate_one_by_one()  # loads the model
        ratios: list[float] = []
        largest = 0  # largest difference between two pixels, of 255
        for _ in range(1 if quick else 5):
            started = time.perf_counter()
            one_by_one = generate_one_by_one()
            middle = time.perf_counter()
            together = asyncio.run(generate_together())
            ratios.append((middle - started) / (time.perf_counter() - middle))
            for a, b in zip(one_by_one, together, strict=True):
                largest = max(largest, int(np.abs(a.astype(int) - b.astype(int)).max()))
    return {
        "goals": {
            f"{COUNT} frames at once: times one after another, median": reported(statistics.median(ratios)),
            "largest difference of a pixel's value, of 255": at_most(largest, 1),
        },
        "ratios": [round(r, 3) for r in ratios],
        "batches": tool.diffuser.queue.batches,
    }
