"""Overhead per step of running as a part of another graph.

A scripted reasoner makes many calls of a tool that costs nothing, so that only LangGraph is measured. Each
run is streamed as `aask` does (custom events and values) and saved after each step, in memory or in SQLite.
The graph alone is compared with a parent with shared keys, with the adapter `as_node`, and with a tool in a
`ToolNode`. Runs alternate, and the fastest of each way counts; medians of the CPU time are reported too,
since other work on the machine hardly affects them.

Predicted before the first run: 0.3 ms per step for the parent (one more level of namespaces and streams), a
ratio of 1.05; the same for adapter and tool, whose own cost arises once per run. Measured in CPU time: -0.14
to 0.26 ms per step, ratios of 0.97 to 1.08. That is within the noise of a busy machine, and no way costs more
than another.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_node, as_tool
from act2see.graphs.parts import Parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from benchmarks import Goal, at_most, reported
from benchmarks.checkpoint import Caller
from benchmarks.engine import Event, micro_resources

GOAL_MS = 10.0
CALLS = 20


def wrap_in_parent(node: Any, saver: Any) -> Any:
    """Return a compiled parent graph with this single node."""
    from langgraph.graph import START, StateGraph
    from typing_extensions import TypedDict

    class Shared(TypedDict, total=False):
        video: str
        question: str
        answer: str
        trace: dict[str, Any]
        messages: list[Any]

    parent = StateGraph(Shared)
    parent.add_node("see", node)
    parent.add_edge(START, "see")
    return parent.compile(checkpointer=saver)


@asynccontextmanager
async def open_saver(folder: Path, kind: str) -> AsyncIterator[Any]:
    """Yield a checkpointer of this kind, "memory" or "sqlite"."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    if kind == "memory":
        yield InMemorySaver()
    else:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
            yield saver


async def time_run(graph: Any, given: Any, thread: str) -> tuple[float, float]:
    """Return the wall and CPU seconds of one run.

    Raises:
        RuntimeError: If the run does not make the scripted number of calls.
    """
    run: Any = {"configurable": {"thread_id": thread}}
    called = 0
    wall, cpu = time.perf_counter(), time.process_time()
    async for part in graph.astream(
        given, run, stream_mode=["custom", "values"], subgraphs=True, version="v2", durability="sync"
    ):
        called += part["type"] == "custom" and part["data"]["type"] == "call"
    spent = time.perf_counter() - wall, time.process_time() - cpu
    if called != CALLS:
        raise RuntimeError(f"{thread}: {called} calls instead of {CALLS}")
    return spent


async def compare(folder: Path, kind: str, rounds: int) -> tuple[int, dict[str, list[tuple[float, float]]]]:
    """Return the child's number of steps, and the times of each way in each round.

    A first round, which does not count, warms up.
    """
    from langchain_core.messages import AIMessage
    from langgraph.prebuilt import ToolNode

    config, resources = micro_resources(folder)
    budget = config.budget.model_copy(update={"calls": CALLS, "tokens": 10**6})
    config = config.model_copy(update={"budget": budget})
    parts = Parts(Caller(CALLS), {"retrieve": Event(resources, 1.0)}, resources)
    clip = str(write_clip(make_item("blink", 0, "test", seconds=6).clip, folder / "clip.mp4"))
    given: Any = {"video": clip, "question": "Which shape blinks?"}
    call = AIMessage("", tool_calls=[{"name": "ask_video", "id": "1", "args": given}])
    times: dict[str, list[tuple[float, float]]] = {}
    async with open_saver(folder, kind) as saver:
        child = create_act2see(config, parts=parts)
        ways = {
            "alone": (create_act2see(config, parts=parts, checkpointer=saver), given),
            "as it is": (wrap_in_parent(child, saver), given),
            "as_node": (wrap_in_parent(as_node(child, options=None), saver), given),
            "as_tool": (wrap_in_parent(ToolNode([as_tool(child)]), saver), {"messages": [call]}),
        }
        for n in range(rounds + 1):
            for way, (graph, what) in ways.items():
                spent = await time_run(graph, what, f"{way} {n}")
                if n:
                    times.setdefault(way, []).append(spent)
        history = ways["alone"][0].aget_state_history({"configurable": {"thread_id": "alone 1"}})
        states = [state async for state in history]
    return len(states) - 1, times


async def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Measure all ways with checkpoints in memory and in SQLite."""
    goals: dict[str, Goal] = {}
    kept: dict[str, Any] = {}
    for kind in ("memory", "sqlite"):
        (folder / kind).mkdir()
        steps, times = await compare(folder / kind, kind, rounds)
        kept[kind] = times
        fastest = {way: min(wall for wall, _ in spent) for way, spent in times.items()}
        median = {way: statistics.median(cpu for _, cpu in spent) for way, spent in times.items()}
        for way in list(times)[1:]:
            goals[f"{kind}: ms a step more, {way}"] = at_most(
                1000 * (fastest[way] - fastest["alone"]) / steps, GOAL_MS
            )
            goals[f"{kind}: the same, {way}, processor's time"] = reported(
                1000 * (median[way] - median["alone"]) / steps
            )
            goals[f"{kind}: {way}, times alone, processor's time"] = reported(median[way] / median["alone"])
        goals[f"{kind}: ms a step alone, processor's time"] = reported(1000 * median["alone"] / steps)
    return {"steps": steps, "runs": kept, "goals": goals}


def run(quick: bool = False) -> dict[str, Any]:
    """Measure 15 rounds (quick: 5)."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder), 5 if quick else 15))
