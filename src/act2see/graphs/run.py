"""Ask a question, or go on with an interrupted one: the short way through a compiled graph.

`aask` streams the run, hands each event to `on_event` and returns the trace; `aresume` does the same from the last
saved step. `ask` is the sync way in. A notebook's event loop is already running and cannot be waited for, so there
the run gets a thread with a loop of its own.

A graph with a checkpointer saves each step before the next begins: a process that is killed loses one step at most.
A run that comes to a call which a person must approve raises `WaitingError`; `aresume` takes the decision.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from os import PathLike, fspath
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from act2see.agent.trace import Trace
from act2see.errors import DecisionError, StoreError, WaitingError
from act2see.graphs.ask import Graph
from act2see.graphs.events import Event, read_event
from act2see.graphs.state import AskContext, AskInput

OnEvent = Callable[[Event], None]
T = TypeVar("T")


async def aask(
    graph: Graph,
    video: str | PathLike[str],
    question: str,
    options: Sequence[str] = (),
    *,
    context: AskContext | None = None,
    thread_id: str | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """The trace of one question. `thread_id` names the run, for a checkpointer and in the trace; by default a fresh one.

    Raises `QuestionError`, `VideoError` and the other `Act2SeeError`s as the graph does; `WaitingError` where a person must decide.
    """
    given: AskInput = {"video": fspath(video), "question": question, "options": list(options)}
    return await _stream(graph, given, _thread(thread_id or uuid4().hex[:12]), context, on_event)


async def aresume(
    graph: Graph,
    thread_id: str,
    *,
    decision: Mapping[str, Any] | None = None,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """Go on from the last saved step; a finished run gives its trace at once. Raises `StoreError` for an unknown id.

    `decision` is what a person says to the call that the run waits with: the fields of `act2see.graphs.approval.Decision`.
    Raises `DecisionError` where it cannot be used or none is waited for; `WaitingError` at the next call that needs one.
    `context` must be that of the run's beginning: apart from what is to be approved, it is not part of what is saved.
    """
    config = _thread(thread_id)
    saved = await graph.aget_state(config)
    if saved.created_at is None:
        raise StoreError(f"there is no saved run {thread_id!r}: check the id, or ask the question again")
    if decision is not None and not saved.interrupts:
        raise DecisionError(f"the run {thread_id!r} waits for nobody: resume it without a decision")
    if not saved.next:
        return Trace.model_validate(saved.values["trace"])
    return await _stream(graph, Command(resume=dict(decision)) if decision is not None else None, config, context, on_event)


def ask(
    graph: Graph,
    video: str | PathLike[str],
    question: str,
    options: Sequence[str] = (),
    *,
    context: AskContext | None = None,
    thread_id: str | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """`aask` for sync code, in scripts and in notebooks alike. In a running loop, `on_event` is called in another thread."""
    return run_sync(aask(graph, video, question, options, context=context, thread_id=thread_id, on_event=on_event))


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a run, whether or not a loop is running here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return _in_thread(work)


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of another thread. Interrupting the wait, as a notebook's stop button does, stops the run."""
    stop: Future[Callable[[], object]] = Future()

    async def main() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        stop.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await work

    with ThreadPoolExecutor(1, "act2see-ask") as thread:
        done = thread.submit(contextvars.copy_context().run, asyncio.run, main())
        try:
            return done.result()
        except KeyboardInterrupt:
            with suppress(RuntimeError):  # it ended by itself in the meantime
                stop.result()()
            raise


def _thread(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


async def _stream(
    graph: Graph, given: AskInput | Command[Any] | None, config: RunnableConfig, context: AskContext | None, on_event: OnEvent | None
) -> Trace:
    final: Any = None
    waiting: Any = ()
    # LangGraph warns of a durability that nothing can give.
    durability: Any = "sync" if graph.checkpointer else None
    async for part in graph.astream(given, config, context=context, stream_mode=["custom", "values"], version="v2", durability=durability):
        if part["type"] == "values":
            final, waiting = part["data"], part["interrupts"]
        elif part["type"] == "custom" and on_event and (event := read_event(part["data"])):
            on_event(event)
    if waiting:
        asked = waiting[0].value
        how = (
            f"go on with aresume(graph, {asked['run']!r}, decision=...)"
            if graph.checkpointer
            else "and cannot go on without a checkpointer"
        )
        raise WaitingError(f"a person must decide on <{asked['tag']}>{asked['query']}</{asked['tag']}>: {how}")
    return Trace.model_validate(final["trace"])
