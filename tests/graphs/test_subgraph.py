"""The compiled graph as a node of a parent: events, checkpoints, interrupts and restarts pass through."""

from __future__ import annotations

import json
import operator
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from typing_extensions import TypedDict

from act2see.errors import ConfigError, QuestionError
from act2see.graphs.compose import as_node
from act2see.graphs.state import AskContext
from act2see.trace.events import read_event
from act2see.trace.trace import Trace
from tests.graphs.doubles import clip_in
from tests.graphs.parents import (
    DURABILITIES,
    LINES,
    Shared,
    asked,
    child_in,
    parent_of,
    saver_in,
    seen,
    thread,
)

ROOT = Path(__file__).parents[2]
every_way = pytest.mark.parametrize(
    ("saver", "durability"), [(s, d) for s in ("memory", "sqlite") for d in DURABILITIES]
)


@every_way
async def test_events_reach_the_parent_and_the_child_is_saved_in_its_thread(
    tmp_path: Path, saver: str, durability: Any
) -> None:
    async with saver_in(tmp_path, saver) as checkpointer:
        parent = parent_of(child_in(tmp_path), checkpointer)
        events = []
        async for part in parent.astream(
            asked(tmp_path),
            thread(),
            stream_mode=["custom", "updates"],
            subgraphs=True,
            version="v2",
            durability=durability,
        ):
            if part["type"] == "custom":
                assert part["ns"][0].startswith("see:")
                events.append(read_event(part["data"]))
        state = (await parent.aget_state(thread())).values
        assert (state["said"], state["segments"]) == ("It said B.", "mine")
        trace = Trace.model_validate(state["trace"])
        assert [e.type for e in events if e and e.type != "token"] == [
            "view",
            "call",
            "frames",
            "call",
            "frames",
            "answer",
        ]
        assert "".join(e.text for e in events if e and e.type == "token") == trace.text == "".join(LINES)
        assert {e.run for e in events if e} == {trace.id}
        assert trace.id.startswith("t-")
        for saved in [s async for s in checkpointer.alist(thread())]:
            assert len(json.dumps(saved.checkpoint["channel_values"], default=str)) < 20_000


@every_way
async def test_an_interrupt_reaches_the_parent_and_its_resume_reaches_the_child(
    tmp_path: Path, saver: str, durability: Any
) -> None:
    assert os.environ["LANGGRAPH_STRICT_MSGPACK"] == "true"
    whole = await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path))
    async with saver_in(tmp_path, saver) as checkpointer:
        parent = parent_of(child_in(tmp_path, approve=True), checkpointer)
        result = await parent.ainvoke(asked(tmp_path), thread(), durability=durability)
        (waiting,) = result["__interrupt__"]
        assert (waiting.value["tag"], waiting.value["query"]) == ("generate", "the circle in blue")
        inside = (await parent.aget_state(thread(), subgraphs=True)).tasks[0].state.values
        assert [s["kind"] for s in inside["segments"]] == ["text", "call", "frames", "text", "call"]
        # Another graph of the same configuration continues: the first one holds no state.
        parent = parent_of(child_in(tmp_path, approve=True), checkpointer)
        result = await parent.ainvoke(
            Command(resume={"type": "accept", "by": "Ann"}), thread(), durability=durability
        )
        assert (result["said"], seen(result["trace"])) == (whole["said"], seen(whole["trace"]))
        assert [s["review"] for s in result["trace"]["segments"] if s["kind"] == "frames"] == [
            None,
            {"decision": "accept", "by": "Ann", "query": "", "reason": ""},
        ]


def process(folder: Path, durability: str, die: int = -1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.graphs.parents", str(folder), durability, str(die)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LANGGRAPH_STRICT_MSGPACK": "true"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


async def resumed(folder: Path, durability: Any, *steps: Any) -> Any:
    """Continue in this process a run of another process."""
    async with saver_in(folder, "sqlite") as saver:
        parent = parent_of(child_in(folder, approve=True), saver)
        for step in steps:
            result = await parent.ainvoke(step, thread(), durability=durability)
        return result


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_another_process_resumes_an_interrupted_parent(tmp_path: Path, durability: str) -> None:
    run = process(tmp_path, durability)
    assert (run.returncode, run.stdout.strip()) == (0, "the circle in blue"), run.stderr
    result = await resumed(tmp_path, durability, Command(resume={"type": "accept"}))
    whole = await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path))
    assert (result["said"], seen(result["trace"])) == (whole["said"], seen(whole["trace"]))


async def test_kill_9_inside_the_child_then_the_parent_continues(tmp_path: Path) -> None:
    assert process(tmp_path, "sync", die=3).returncode == -signal.SIGKILL
    result = await resumed(tmp_path, "sync", None, Command(resume={"type": "accept"}))
    whole = await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path))
    assert (result["said"], seen(result["trace"])) == (whole["said"], seen(whole["trace"]))


async def test_concurrent_runs_in_one_thread_have_different_ids(tmp_path: Path) -> None:
    class Many(TypedDict):
        traces: Annotated[list[Any], operator.add]

    child = child_in(tmp_path)
    parent = StateGraph(Many)
    see: Any = as_node(child, answer=None, trace="traces")
    parent.add_node("see", see | (lambda update: {"traces": [update["traces"]]}))
    parent.add_conditional_edges(START, lambda _: [Send("see", asked(tmp_path)) for _ in range(3)], ["see"])
    async with saver_in(tmp_path, "memory") as saver:
        result = await parent.compile(checkpointer=saver).ainvoke({"traces": []}, thread())
    assert len({t["id"] for t in result["traces"]}) == 3


async def test_a_parents_own_context_is_left_alone(tmp_path: Path) -> None:
    @dataclass
    class Theirs:
        user: str
        seed: str = "not a number"

    parent = StateGraph(Shared, context_schema=Theirs)
    parent.add_node("see", child_in(tmp_path))
    parent.add_edge(START, "see")
    result = await parent.compile().ainvoke(asked(tmp_path), context=Theirs("Ann"))
    assert result["trace"]["versions"]["seed"] == 0


THEIRS = {"tools": "search the web", "temperature": 0.7, "max_tokens": 3, "seed": 9, "approve": "all"}


@pytest.mark.parametrize("where", ["context", "configurable"])
async def test_settings_of_the_parent_under_our_names_are_its_own(tmp_path: Path, where: str) -> None:
    given: Any = {"context": THEIRS} if where == "context" else {"config": {"configurable": THEIRS}}
    result = await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path), **given)
    assert result["answer"] == "B"
    assert (result["trace"]["versions"]["seed"], len(result["trace"]["versions"]["tools"])) == (0, 2)
    adapted = await parent_of(as_node(child_in(tmp_path), context=AskContext(seed=5))).ainvoke(
        asked(tmp_path), **given
    )
    assert (adapted["answer"], adapted["trace"]["versions"]["seed"]) == ("B", 5)


@pytest.mark.parametrize("where", ["context", "configurable"])
@pytest.mark.parametrize("settings", [{"seed": 5, "tools": ["retrieve"]}, AskContext(("retrieve",), 5)])
async def test_a_parent_may_hold_our_settings_under_our_name(
    tmp_path: Path, where: str, settings: Any
) -> None:
    theirs = THEIRS | {"act2see": settings}
    given: Any = {"context": theirs} if where == "context" else {"config": {"configurable": theirs}}
    result = await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path), **given)
    assert (result["trace"]["versions"]["seed"], list(result["trace"]["versions"]["tools"])) == (
        5,
        ["retrieve"],
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seeds": 5}, "no setting 'seeds'"),
        ({"seed": "five"}, "'seed' cannot be 'five'"),
        ("seed", "must be a mapping or an AskContext"),
    ],
)
async def test_an_invalid_setting_under_act2see_is_named(tmp_path: Path, settings: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        await parent_of(child_in(tmp_path)).ainvoke(asked(tmp_path), {"configurable": {"act2see": settings}})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("video", {"path": "clip.mp4"}, "'video' must be the path of a file and is of type dict"),
        ("options", "blue or red", "'options' must be a list of texts and is of type str"),
        ("question", ["What?"], "'question' must be text and is of type list"),
        ("video", None, "'video' must be the path of a file and is missing"),
    ],
)
async def test_a_key_of_another_type_is_named_with_the_adapter(
    tmp_path: Path, key: str, value: Any, says: str
) -> None:
    class Theirs(TypedDict, total=False):
        video: Any
        question: Any
        options: Any
        answer: Any
        trace: Any
        said: str

    given = {**asked(tmp_path), key: value}
    with pytest.raises(QuestionError, match=says) as raised:
        await parent_of(child_in(tmp_path), schema=Theirs).ainvoke(given)
    assert f"as_node(graph, {key}=...)" in str(raised.value)
    right: Any = {"video": clip_in(tmp_path), "options": ["blue", "red"], "question": "Which colour?"}
    adapter = as_node(child_in(tmp_path), **{key: lambda state: right[key]})
    assert (await parent_of(adapter, schema=Theirs).ainvoke(given))["said"] == "It said B."


async def test_an_answer_key_with_another_reducer_needs_the_adapter(tmp_path: Path) -> None:
    class Theirs(TypedDict, total=False):
        answer: Annotated[list[str], operator.add]
        verdict: str
        video: str
        question: str

    def one(node: Any) -> Any:
        parent = StateGraph(Theirs)
        parent.add_node("see", node)
        parent.add_edge(START, "see")
        return parent.compile()

    with pytest.raises(TypeError):
        await one(child_in(tmp_path)).ainvoke({**asked(tmp_path), "answer": []})
    result = await one(as_node(child_in(tmp_path), answer="verdict", trace=None)).ainvoke(
        {**asked(tmp_path), "answer": ["mine"]}
    )
    assert (result["answer"], result["verdict"]) == (["mine"], "B")
