"""What a token costs the host, beside the model's forward: drawing it, decoding it, parsing its text.

*Growth*: 200 tokens around the 32,000th of a thought, compared with 200 around the 1,000th; each is decoded
with all that came before and given to the parser of the grammar. *Draw*: one draw from 151,936 logits, the
vocabulary of Qwen3-VL, as its checkpoints sample (temperature 0.6, top-p 0.95, top-k 20) and greedily. Here
the logits are on the CPU; on a GPU the same operations run there.

The growth is the median of repeated pairs, the draw the median of its repetitions.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from act2see.agent.grammar import Grammar
from act2see.agent.packing import Packer
from act2see.agent.reasoners.base import Sampling
from act2see.agent.reasoners.sampling import TokenSampler
from act2see.tools.runtime.weights import resolve_weights
from benchmarks import Goal, at_most, reported, require_weights

VOCABULARY = 151_936
THINKING = Sampling(0.6, 0.95, seed=1, top_k=20)
TEXT = "Second 3: northwest circle red, <centre> ring blue. I look closer, at the 4th frame… "
EARLY, LATE, SPAN = 1_000, 32_000, 200


def decode_seconds(packer: Packer, ids: list[int]) -> tuple[float, float]:
    """Seconds of one token around `EARLY` and around `LATE`, decoded and parsed."""
    decode = packer.codec.decoder()
    parser = Grammar(("retrieve", "generate")).parser()
    spent = {EARLY: 0.0, LATE: 0.0}
    for n in range(LATE + SPAN):
        token = ids[n % len(ids)]
        started = time.perf_counter()
        parser.feed(decode(token))
        seconds = time.perf_counter() - started
        for begin in spent:
            if begin <= n < begin + SPAN:
                spent[begin] += seconds
    if parser.stopped:
        raise RuntimeError("the text ended the thought")
    return spent[EARLY] / SPAN, spent[LATE] / SPAN


def draw_seconds(sampling: Sampling, repeats: int) -> float:
    """Seconds of one draw."""
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0)) * 4
    sampler = TokenSampler(sampling, torch.tensor([1, 2, 3]))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        sampler.draw(logits)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def run(quick: bool = False) -> dict[str, Any]:
    """Decode 32,200 tokens nine times (quick: three), draw 300 (quick: 60)."""
    require_weights("vlm")
    packer = Packer.from_pretrained(resolve_weights("micro:vlm"))
    ids = packer.codec.encode(TEXT, "model")
    pairs = [decode_seconds(packer, ids) for _ in range(3 if quick else 9)]
    growth = statistics.median(late / early for early, late in pairs)
    repeats = 60 if quick else 300
    thinking, greedy = draw_seconds(THINKING, repeats), draw_seconds(Sampling(), repeats)
    late = statistics.median(late for _, late in pairs)
    goals: dict[str, Goal] = {
        "the 32,000th token compared with the 1,000th, decoded and parsed": at_most(growth, 1.2),
        "ms of a token: drawn from 151,936 logits, decoded, parsed": at_most(1e3 * (thinking + late), 0.5),
        "ms of a greedy draw": reported(1e3 * greedy),
        "ms of a draw as Qwen3-VL samples": reported(1e3 * thinking),
        "µs to decode and parse the 32,000th token": reported(1e6 * late),
    }
    return {"goals": goals}
