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
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from act2see.graphs.ask import create_act2see
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from tests.graphs.doubles import Scripted, clip_in, parts_in

folder, after = Path(sys.argv[1]), int(sys.argv[2])
lines = (
    "Look. <retrieve>the circle</retrieve>",
    "And <generate>it in blue</generate>",
    "So.</think><answer>B</answer>",
)
config, parts = parts_in(folder, Scripted(*lines))

async def main():
    async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
        graph = create_act2see(config, parts=parts, checkpointer=saver)
        run = {"configurable": {"thread_id": "t"}}
        given = None
        if after >= 0:
            given = {"video": clip_in(folder), "question": "What?", "options": ["red", "blue"]}
        nodes = 0
        async for _ in graph.astream(given, run, stream_mode="updates", durability="sync"):
            nodes += 1
            if nodes == after:
                os.kill(os.getpid(), signal.SIGKILL)
        values = (await graph.aget_state(run)).values
        shown = [s.get("text", s.get("frames")) for s in values["trace"]["segments"]]
        print(json.dumps([values["answer"], shown]))

asyncio.run(main())
"""


def test_kill_9_between_any_two_nodes_then_resume_gives_the_same(tmp_path: Path) -> None:
    def start(folder: Path, after: int) -> subprocess.CompletedProcess[str]:
        folder.mkdir(exist_ok=True)
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "LANGGRAPH_STRICT_MSGPACK": "true"}
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), str(after)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    whole = start(tmp_path / "whole", 99)
    assert whole.returncode == 0, whole.stderr
    for after in (1, 3, 5):
        folder = tmp_path / f"killed-{after}"
        assert start(folder, after).returncode == -signal.SIGKILL
        resumed = start(folder, -1)
        assert resumed.returncode == 0, resumed.stderr
        assert resumed.stdout == whole.stdout
