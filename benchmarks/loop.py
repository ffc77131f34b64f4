"""What the loop costs: a rollout with one call against the same tokens decoded in one piece.

The first goes through the real graph: two visits to the reasoner, between them a frame from a tool. The
second is one `stream` of the same model: all frames are shown at once, then the very tokens that the first
wrote are decoded. Left out of the first are the seconds of the view and of the tool, which are no overhead.
What remains is LangGraph, events, grammar, rendering and the second prefill. Tokens read again
(`Done.repeated`) are counted beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Done, Request
from act2see.agent.rollout import render
from act2see.graphs.ask import create_act2see
from act2see.graphs.parts import Parts
from act2see.micro.questions import Call, Item, make_item
from act2see.micro.world import FPS, write_clip
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from benchmarks import Goal, at_most, have, reported
from benchmarks.engine import Event, Watched, house, reasoner

GOAL_RATIO = 1.15


async def once(
    graph: Any, engine: Watched, item: Item, clip: Path
) -> tuple[Trace, float, list[Done], list[int]]:
    """One rollout through the graph: its trace, seconds without view and tool, what was read, what was
    written."""
    engine.wrote, engine.dones = [], []
    engine.script = deque() if have("vlm") else deque(engine.chain(item))
    started = time.perf_counter()
    result = await graph.ainvoke({"video": str(clip), "question": item.text, "options": list(item.options)})
    seconds = time.perf_counter() - started
    trace = Trace.model_validate(result["trace"])
    spent = trace.usage.node_seconds
    return trace, seconds - spent["view"] - spent.get("retrieve", 0.0), engine.dones, engine.wrote


async def at_once(engine: Watched, trace: Trace, tokens: list[int], run: str) -> float:
    """The same frames, shown before the thought, and the same tokens in one piece: seconds."""
    shown = trace.model_copy(
        update={"id": run, "segments": tuple(s for s in trace.segments if isinstance(s, Frames))}
    )
    engine.script, engine.wrote = deque(tokens), []
    started = time.perf_counter()
    rollout = render(shown, Prompt({"retrieve": Event.usage}, "short"))
    async for _ in engine.stream(Request(rollout, len(tokens))):
        pass
    engine.forget(run)
    return time.perf_counter() - started


async def compare(folder: Path, quick: bool) -> dict[str, Any]:
    config, resources = house(folder)
    engine = reasoner(resources.store)
    for seed in range(40):
        item = make_item("blink", seed, "test")
        if not any(isinstance(s, Call) for s in item.chain):
            continue
        clip = write_clip(item.clip, folder / f"{seed}.mp4")
        tool = Event(resources, (item.clip.short[0].start + 2) / FPS)
        graph = create_act2see(config, parts=Parts(engine, {"retrieve": tool}, resources))
        trace, *_ = await once(graph, engine, item, clip)
        if len(trace.usage.loops) == 2 and [s.kind for s in trace.segments] == [
            "text",
            "call",
            "frames",
            "text",
            "answer",
        ]:
            break
    else:
        raise RuntimeError("of 40 questions none was answered with exactly one call")
    pairs: list[tuple[float, float]] = []
    again = tokens = 0
    for n in range(5 if quick else 21):
        trace, looped, dones, wrote = await once(graph, engine, item, clip)
        pairs.append((looped, await at_once(engine, trace, wrote, f"piece-{n}")))
        again, tokens = max(again, *(d.repeated for d in dones)), len(wrote)
    looped, piece = (statistics.median(side) for side in zip(*pairs, strict=True))
    goals: dict[str, Goal] = {
        "seconds with one call, times those in one piece": at_most(
            statistics.median(a / b for a, b in pairs), GOAL_RATIO
        ),
        "tokens of the old prefix read again": at_most(again, 0),
        "the same, fastest run of each": reported(min(a for a, _ in pairs) / min(b for _, b in pairs)),
        "seconds with one call": reported(looped),
        "seconds in one piece": reported(piece),
        "tokens written": reported(tokens),
    }
    return {
        "weights": "micro" if have("vlm") else "random, scripted",
        "question": item.text,
        "pairs": pairs,
        "goals": goals,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Median of alternating runs, after one that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(compare(Path(folder), quick))
