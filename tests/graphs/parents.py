"""Parent graphs and checkpointers for tests of composition, and a process that is killed during a run.

    python -m tests.graphs.parents FOLDER DURABILITY DIE

asks a question, saves the run in the folder's SQLite file, and prints the interrupts that wait for a person,
or kills itself after DIE nodes of any graph.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from act2see.graphs.ask import create_act2see
from tests.graphs.doubles import Scripted, clip_in, parts_in

LINES = (
    "I look. <retrieve>the circle</retrieve>",
    "And <generate>the circle in blue</generate>",
    "So it is red.</think>\n<answer>B</answer>",
)
DURABILITIES = ("sync", "async", "exit")


class Agent(GenericFakeChatModel):
    """A chat model with a script. It accepts tools and ignores them."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


class Shared(TypedDict, total=False):
    """The state of a parent with the graph's keys and some other keys."""

    video: str
    question: str
    options: list[str]
    answer: str
    trace: dict[str, Any]
    segments: str  # the graph has a private key of the same name
    said: str


def child_in(folder: Path, *lines: str, approve: bool = False, **fails: Exception) -> Any:
    """The graph with a scripted model; with `approve`, each `generate` waits for a person."""
    config, parts = parts_in(folder, Scripted(*(lines or LINES)), **fails)
    tools = dict(config.tools) | {
        "generate": config.tools["generate"].model_copy(update={"approve": approve})
    }
    return create_act2see(config.model_copy(update={"tools": tools}), parts=parts)


def parent_of(child: Any, saver: Any = None, schema: Any = Shared) -> Any:
    """prepare -> see (the graph) -> report."""
    parent = StateGraph(schema)
    parent.add_node("prepare", lambda state: {})
    parent.add_node("see", child)
    parent.add_node("report", lambda state: {"said": f"It said {state['answer']}."})
    parent.add_edge(START, "prepare")
    parent.add_edge("prepare", "see")
    parent.add_edge("see", "report")
    return parent.compile(checkpointer=saver)


@asynccontextmanager
async def saver_in(folder: Path, kind: str) -> AsyncIterator[Any]:
    if kind == "memory":
        yield InMemorySaver()
    else:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "runs.sqlite")) as saver:
            yield saver


def asked(folder: Path) -> Any:
    return {
        "video": clip_in(folder),
        "question": "Which colour?",
        "options": ["blue", "red"],
        "segments": "mine",
    }


def thread(id: str = "t") -> Any:
    return {"configurable": {"thread_id": id}}


def seen(trace: Any) -> list[Any]:
    """The text and the frames of a trace, without times and reviews."""
    return [s.get("text") or [f["digest"] for f in s["frames"]] for s in trace["segments"]]


async def process(folder: Path, durability: Any, die: int) -> None:
    async with saver_in(folder, "sqlite") as saver:
        parent = parent_of(child_in(folder, approve=True), saver)
        nodes = 0
        async for _ in parent.astream(
            asked(folder), thread(), stream_mode="updates", subgraphs=True, durability=durability
        ):
            nodes += 1
            if nodes == die:
                os.kill(os.getpid(), signal.SIGKILL)
        (waiting,) = (await parent.aget_state(thread())).interrupts
        print(waiting.value["query"])


if __name__ == "__main__":
    asyncio.run(process(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
