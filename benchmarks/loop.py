"""Overhead of the loop: a rollout with one call, compared with the same tokens decoded in one piece.

The first uses the real graph: two visits to the reasoner with a frame from a tool between them. The second is
one `stream` of the same model: all frames are shown at once, then the tokens that the first wrote are
decoded. The seconds of the initial frames and of the tool are not overhead and are subtracted from the first.
The overhead consists of LangGraph, events, grammar, rendering and the second prefill. Tokens that are read
again (`Done.repeated`) are counted too.
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
from act2see.micro.questions import Item, ToolCall, make_item
from act2see.micro.world import FPS, write_clip
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from benchmarks import Goal, at_most, has_weights, reported
from benchmarks.engine import Event, Watched, build_engine, micro_resources

GOAL_RATIO = 1.15
KINDS = ["text", "call", "frames", "text", "answer"]


async def run_graph(
    graph: Any, engine: Watched, item: Item, clip: Path
) -> tuple[Trace, float, list[Done], list[int]]:
    """Run one rollout through the graph.

    Args:
        graph: The graph.
        engine: Its reasoner.
        item: The question.
        clip: The clip.

    Returns:
        The trace, the seconds without initial frames and tool, each visit's `Done`, and the tokens written.

    Raises:
        RuntimeError: If a call returned no frame.
    """
    engine.wrote, engine.dones = [], []
    engine.script = deque() if has_weights("vlm") else deque(engine.chain(item))
    started = time.perf_counter()
    result = await graph.ainvoke({"video": str(clip), "question": item.text, "options": list(item.options)})
    seconds = time.perf_counter() - started
    trace = Trace.model_validate(result["trace"])
    if not all(returned and returned.frames for _, returned in trace.looks):
        raise RuntimeError("a call returned no frame")
    spent = trace.usage.node_seconds
    return trace, seconds - spent["view"] - spent.get("retrieve", 0.0), engine.dones, engine.wrote


async def decode_in_one_piece(engine: Watched, trace: Trace, tokens: list[int], run: str) -> float:
    """Show the same frames before the thought and decode the same tokens in one piece; return the seconds.

    Args:
        engine: The reasoner.
        trace: The trace with the frames.
        tokens: The tokens to decode.
        run: The id of the new session.
    """
    frames = tuple(s for s in trace.segments if isinstance(s, Frames))
    shown = trace.model_copy(update={"id": run, "segments": frames})
    engine.script, engine.wrote = deque(tokens), []
    started = time.perf_counter()
    rollout = render(shown, Prompt({"retrieve": Event.usage}, "short"))
    async for _ in engine.stream(Request(rollout, len(tokens))):
        pass
    engine.forget(run)
    return time.perf_counter() - started


async def compare(folder: Path, quick: bool) -> dict[str, Any]:
    """Find a question that is answered with one call, and measure both ways in alternation.

    Raises:
        RuntimeError: If no question is answered with exactly one call.
    """
    config, resources = micro_resources(folder)
    engine = build_engine(resources.store)
    for seed in range(40):
        item = make_item("blink", seed, "test")
        if not any(isinstance(s, ToolCall) for s in item.chain):
            continue
        clip = write_clip(item.clip, folder / f"{seed}.mp4")
        tool = Event(resources, (item.clip.short[0].start + 2) / FPS)
        graph = create_act2see(config, parts=Parts(engine, {"retrieve": tool}, resources))
        trace, *_ = await run_graph(graph, engine, item, clip)
        if len(trace.usage.loops) == 2 and [s.kind for s in trace.segments] == KINDS:
            break
    else:
        raise RuntimeError("none of 40 questions was answered with exactly one call")
    pairs: list[tuple[float, float]] = []  # seconds with one call, seconds in one piece
    repeated = tokens = 0
    for n in range(5 if quick else 21):
        trace, looped, dones, wrote = await run_graph(graph, engine, item, clip)
        pairs.append((looped, await decode_in_one_piece(engine, trace, wrote, f"piece-{n}")))
        repeated = max(repeated, *(d.repeated for d in dones))
        tokens = len(wrote)
    ratio = statistics.median(a / b for a, b in pairs)
    fastest = min(a for a, _ in pairs) / min(b for _, b in pairs)
    goals: dict[str, Goal] = {
        "seconds with one call, times those in one piece": at_most(ratio, GOAL_RATIO),
        "tokens of the old prefix read again": at_most(repeated, 0),
        "the same, fastest run of each": reported(fastest),
        "seconds with one call": reported(statistics.median(a for a, _ in pairs)),
        "seconds in one piece": reported(statistics.median(b for _, b in pairs)),
        "tokens written": reported(tokens),
    }
    return {
        "weights": "micro" if has_weights("vlm") else "random, scripted",
        "question": item.text,
        "pairs": pairs,
        "goals": goals,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Measure the median of 21 alternating runs (quick: 5), after one that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(compare(Path(folder), quick))
