"""What the others wait for while one client's long prompt is read: at once, and in chunks.

Three clients get tokens from micro, and a prompt of 1,800 tokens arrives. Measured is the time between two
tokens of the three while it is read, and the time to its own first token; the same engine with a chunk as
long as the context, and with that of the package. The texts of all must be the same.

    python -m benchmarks chunks
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from act2see.agent.reasoners.base import Delta, Request
from act2see.agent.reasoners.transformers import CHUNK, TransformersReasoner
from act2see.agent.rollout import Rollout, TextPiece
from act2see.tools.runtime.weights import resolve_weights
from benchmarks import Goal, at_most, reported, require_weights

_OTHERS = 3
_PROMPT = 1800


def _rollout(name: str, text: str) -> Rollout:
    pieces = (TextPiece(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", "control"),)
    return Rollout(pieces, name)


async def _measure(reasoner: TransformersReasoner) -> tuple[list[float], float, list[str]]:
    """Return the seconds between tokens of the others, those to the long one's first, and all texts."""
    began, texts = asyncio.Event(), [""] * (_OTHERS + 1)
    until = asyncio.Event()
    gaps: list[float] = []
    asked = [0.0]

    async def other(n: int) -> None:
        last, count, over = time.perf_counter(), 0, False
        stream = reasoner.stream(Request(_rollout(f"{n}", f"What does ring {n} do?"), 400))
        async for item in stream:
            now = time.perf_counter()
            if asked[0] and not over:  # the token after the long prompt's end closes the last gap
                gaps.append(now - max(last, asked[0]))
                over = until.is_set()
            last, count = now, count + 1
            if isinstance(item, Delta) and len(texts[n]) < 100:
                texts[n] += item.text
            if count == 5 and n == 0:
                began.set()
            if until.is_set() and len(texts[n]) >= 60:
                break
        await stream.aclose()

    async def long() -> float:
        await began.wait()
        text = "a ring turns red " * 2000
        ids = reasoner.packer.codec.encode(text, "plain")[:_PROMPT]
        words = reasoner.packer.codec.tokenizer.decode(ids)
        started = asked[0] = time.perf_counter()
        stream = reasoner.stream(Request(_rollout("long", words), 10))
        first = 0.0
        async for item in stream:
            first = first or time.perf_counter() - started
            until.set()
            if isinstance(item, Delta):
                texts[_OTHERS] += item.text
        return first

    result: Any = await asyncio.gather(long(), *(other(n) for n in range(_OTHERS)))
    return gaps, result[0], [text[:60] for text in texts]


def run(quick: bool = False) -> dict[str, Any]:
    """Measure both ways, three times each (quick: once)."""
    require_weights("vlm")
    worst: dict[str, list[float]] = {"at once": [], "in chunks": []}
    first: dict[str, list[float]] = {"at once": [], "in chunks": []}
    texts: dict[str, list[str]] = {}
    for _ in range(1 if quick else 3):
        for name, chunk in (("at once", 1 << 20), ("in chunks", CHUNK)):
            reasoner = TransformersReasoner.from_pretrained(
                resolve_weights("micro:vlm"), _no_frames, chunk=chunk, forbidden=(), rows=8
            )
            reasoner._ends = set()  # the others must go on as long as the prompt is read
            gaps, seconds, texts[name] = asyncio.run(_measure(reasoner))
            reasoner.close()
            worst[name] += gaps
            first[name].append(seconds)
    goals: dict[str, Goal] = {}
    for name, gaps in worst.items():
        ordered = sorted(gaps)
        goals[f"{name}: ms between tokens of the others, p95"] = reported(
            1000 * ordered[int(0.95 * (len(ordered) - 1))]
        )
        goals[f"{name}: ms between tokens of the others, most"] = reported(1000 * ordered[-1])
        goals[f"{name}: ms to the long prompt's first token"] = reported(1000 * min(first[name]))
    goals["longest wait in chunks / at once"] = at_most(max(worst["in chunks"]) / max(worst["at once"]), 0.5)
    goals["texts that differ"] = at_most(int(texts["at once"] != texts["in chunks"]), 0)
    return {"goals": goals, "tokens": _PROMPT, "chunk": CHUNK}


def _no_frames(frame: Any) -> Any:
    raise KeyError(frame)
