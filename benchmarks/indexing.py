"""The wait for an index: a question whose call needs one, compared with the larger of thinking and indexing.

The model thinks for as long as the film takes to index, which is the worst case: one after the other would
take twice as long. It thinks without using this machine's processors, as a model on a GPU or a server does;
on one busy processor, no order of work would be faster than the sum. The film, its decoding, the encoder and
the tool are real. Models are loaded before, and each round has an empty cache.

Three times are taken in each round: *indexing* alone, *thinking* alone (the same question on the indexed
film), and the question on a film without an index.

Predicted: 1.05. A call starts when both are done; the initial frames come before the index is begun, and the
search after it.

Measured: 1.02, and 0.51 of the sum. While four other processes kept both cores busy, the median was 1.04, and
two of five rounds took 1.4 and 1.5 times as long.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.graphs.run import aask
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.runtime.sharing import Shared
from benchmarks import Goal, at_most, reported, require_weights

GOAL = 1.1
CALL, ANSWER = "<retrieve>the circle blinks</retrieve>", "</think><answer>yes</answer>"


class Elsewhere(Reasoner):
    """Thinks for some seconds without computing, calls a tool, and answers."""

    name = "elsewhere"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        called = "</retrieve>" in str(request.rollout).rpartition("<think>")[2]
        if not called:
            await asyncio.sleep(self.seconds)
        text = ANSWER if called else CALL
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, decoded=1)


def make_parts(cache: Path, shared: Shared) -> Parts:
    """Return parts with this cache, and only the tool `retrieve`."""
    config = load_config("micro", cache=str(cache), view={"guard": None}, tools={"generate": None})
    return build_parts(config, shared)


async def ask(parts: Parts, film: str, thinks: float) -> float:
    """Return the seconds of one question.

    Raises:
        RuntimeError: If the question was not answered with a frame.
    """
    config = load_config("micro", view={"guard": None}, tools={"generate": None})
    graph = create_act2see(config, parts=replace(parts, reasoner=Elsewhere(thinks)))
    started = time.perf_counter()
    trace = await aask(graph, film, "Does the circle blink?")
    seconds = time.perf_counter() - started
    if trace.answer != "yes" or not trace.calls or trace.calls[0].outcome != "ok":
        raise RuntimeError(f"the question was not answered by a call: {trace.text!r}")
    return seconds


def measure_round(folder: Path, film: str, shared: Shared) -> tuple[float, float, float]:
    """Return the seconds of indexing, of thinking, and of a question that needs both."""
    alone = make_parts(folder / "alone", shared)
    started = time.perf_counter()
    alone.resources.finder.index(film)
    indexing = time.perf_counter() - started
    thinking = asyncio.run(ask(alone, film, indexing))
    both = asyncio.run(ask(make_parts(folder / "both", shared), film, indexing))
    return indexing, thinking, both


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of five rounds, with a film of ten minutes (quick: one round, two minutes)."""
    require_weights("encoder")
    with tempfile.TemporaryDirectory() as name:
        folder, shared = Path(name), Shared()
        film = str(
            write_clip(make_item("blink", 0, seconds=120 if quick else 600).clip, folder / "film.mp4", 96)
        )
        warm = str(write_clip(make_item("blink", 1, seconds=6).clip, folder / "warm.mp4", 96))
        asyncio.run(ask(make_parts(folder / "warm", shared), warm, 0.0))
        rounds = [measure_round(folder / str(n), film, shared) for n in range(1 if quick else 5)]
    goals: dict[str, Goal] = {
        "time to an answer, times the larger of thinking and indexing": at_most(
            statistics.median(both / max(indexing, thinking) for indexing, thinking, both in rounds), GOAL
        ),
        "the same, times their sum": reported(
            statistics.median(both / (indexing + thinking) for indexing, thinking, both in rounds)
        ),
        "seconds of indexing": reported(statistics.median(indexing for indexing, _, _ in rounds)),
        "seconds of thinking": reported(statistics.median(thinking for _, thinking, _ in rounds)),
        "seconds to an answer": reported(statistics.median(both for _, _, both in rounds)),
    }
    return {"rounds": rounds, "goals": goals}
