"""The checkpoints of a run: their size, and resuming after the process was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from act2see.graphs.ask import create_act2see
from act2see.trace.trace import Trace
from tests.graphs.doubles import Scripted, clip_in, parts_in

LOOK = "I look again. <retrieve>the circle blinks</retrieve>"
DONE = "So it is red.</think>\n<answer>B</answer>"


@pytest.mark.parametrize("saver", ["memory", "sqlite"])
async def test_checkpoints_are_small_and_whole(tmp_path: Path, saver: str) -> None:
    config, parts = parts_in(tmp_path, Scripted(LOOK, "<generate>the circle in blue</generate>", DONE))
    given: Any = {"video": clip_in(tmp_path, 12), "question": "What?", "options": ["blue", "red"]}
    run: Any = {"configurable": {"thread_id": "t"}}

    async def check(checkpointer: Any) -> None:
        graph = create_act2see(config, parts=parts, checkpointer=checkpointer)
        result = await graph.ainvoke(given, run)
        states = [s async for s in graph.aget_state_history(run)]
        assert len(states) >= 7
        for s in states:
            assert len(json.dumps(s.values)) < 20_000
        assert states[0].values["trace"] == result["trace"]
        assert Trace.model_validate(states[0].values["trace"]).id == "t"

    if saver == "memory":
        await check(InMemorySaver())
    else:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as checkpointer:
            await check(checkpointer)


KILLED = """
import asyncio, json, os, signal, sys
from pathlib import Path
from benchmarks.interruptions import run_in_child
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from act2see.graphs.ask import create_act2see
from tests.graphs.doubles import Scripted, clip_in, parts_in

lines = (
    "Look. <retrieve>the circle</retrieve>",
    "And <generate>it in blue</generate>",
    "So.</think><answer>B</answer>",
)

async def run(folder, after, given):
    folder.mkdir(exist_ok=True)
    config, parts = parts_in(folder, Scripted(*lines))
    async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
        graph = create_act2see(config, parts=parts, checkpointer=saver)
        run = {"configurable": {"thread_id": "t"}}
        nodes = 0
        async for _ in graph.astream(given, run, stream_mode="updates", durability="sync"):
            nodes += 1
            if nodes == after:
                os.kill(os.getpid(), signal.SIGKILL)
        values = (await graph.aget_state(run)).values
        shown = [s.get("text", s.get("frames")) for s in values["trace"]["segments"]]
        return nodes, [values["answer"], shown]

def fork(name, after, given, dies=False):
    return run_in_child(lambda: asyncio.run(run(root / name, after, given)), dies)

root = Path(sys.argv[1])
given = {"video": clip_in(root), "question": "What?", "options": ["red", "blue"]}
nodes, whole = fork("whole", 99, given)
killed = []
for after in range(1, nodes):
    killed.append([fork(str(after), after, given, dies=True), *fork(str(after), -1, None)])
print(json.dumps([nodes, whole, killed]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each run is a forked process")
def test_kill_9_between_any_two_nodes_then_resume_gives_the_same(tmp_path: Path) -> None:
    """Each half of a run is a process of its own, forked from one that has run nothing."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "LANGGRAPH_STRICT_MSGPACK": "true"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    nodes, whole, killed = json.loads(done.stdout)
    assert nodes >= 7
    assert whole[0] == "B"
    for after, (status, rest, outcome) in enumerate(killed, start=1):
        assert (status, rest, outcome) == (-signal.SIGKILL, nodes - after, whole)
