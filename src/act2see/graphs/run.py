"""Ask a question, or resume an interrupted run: the short way through a compiled graph.

`aask` streams the run, hands each event to `on_event` and returns the trace; `aresume` does the same from the
last saved step. `ask` and `resume` are their synchronous forms, for scripts and notebooks alike.

A graph with a checkpointer saves each step before the next begins: a process that is killed loses one step at
most. A run raises `WaitingError` if a person must decide; `aresume` takes the decision.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Command, Interrupt

from act2see.errors import Act2SeeError, ConfigError, DecisionError, QuestionError, StoreError, WaitingError
from act2see.graphs.ask import Graph
from act2see.graphs.state import AskContext, AskInput
from act2see.tools.runtime.background import run_sync, run_sync_with_events
from act2see.tools.runtime.cancel import cancel_once
from act2see.tools.runtime.text import clean_data, clean_text
from act2see.trace.events import Event, read_event
from act2see.trace.trace import Trace

OnEvent = Callable[[Event], None]


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
    """Ask one question.

    Args:
        graph: A graph that `create_act2see` made.
        video: The path of the video; `clip.mp4#t=10,20` is its part from 10 to 20 seconds.
        question: The question.
        options: The answers to choose from.
        context: The run's settings.
        thread_id: The name of the run, for a checkpointer and in the trace; by default a new one. A thread
            that is asked again has a new run, whose id begins with that of the thread.
        on_event: Receives each event of the run.

    Returns:
        The trace of the run.

    Raises:
        QuestionError: The question cannot be asked as it stands.
        VideoError: The video cannot be read.
        ConfigError: The graph, or a setting of the run, cannot be used.
        ReasonerError: The model cannot continue.
        WaitingError: A person must decide.
    """
    given: AskInput = {"video": fspath(video), "question": question, "options": list(options)}
    return await cancel_once(_stream(graph, given, thread_id or uuid4().hex[:12], context, on_event))


async def aresume(
    graph: Graph,
    thread_id: str,
    *,
    decision: Any = None,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """Resume a run from its last saved step; a finished run returns its trace at once.

    Args:
        graph: A graph with a checkpointer.
        thread_id: The name of the run.
        decision: The answer that the run waits for: for a call that must be approved, the fields of
            `Decision`; for a tool that interrupts by itself, whatever that tool expects.
        context: The run's settings, as at its beginning: only its tags to approve are saved.
        on_event: Receives each event of the run from here on.

    Returns:
        The trace of the run.

    Raises:
        StoreError: There is no such run.
        DecisionError: The decision cannot be used, or the run waits for none.
        WaitingError: A person must decide once more.
        ConfigError: The graph saves no runs.
    """
    if graph.checkpointer in (None, False, True):
        raise ConfigError(
            "this graph saves no runs: give it a checkpointer, create_act2see(config, checkpointer=...)"
        )
    with _explain_sync_saver(graph):
        saved = await graph.aget_state(_thread(thread_id))
    if saved.created_at is None:
        raise StoreError(f"there is no saved run {thread_id!r}: check the id, or ask the question again")
    if decision is not None and not saved.interrupts:
        raise DecisionError(f"the run {thread_id!r} waits for nobody: resume it without a decision")
    # `next` lists the nodes that have yet to run. It is also empty between the end of a node and the
    # checkpoint that takes its writes in; then there is still a task, and the run is not over.
    if not saved.tasks:
        return _trace_in(saved.values, graph)
    given: Command[Any] | None = None
    if decision is not None:
        given = Command(resume=_savable(decision))
    return await cancel_once(_stream(graph, given, thread_id, context, on_event))


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
    """`aask` for synchronous code, in scripts and in notebooks alike.

    `on_event` is called in the caller's thread.
    """
    if on_event is None:
        return run_sync(aask(graph, video, question, options, context=context, thread_id=thread_id))
    return run_sync_with_events(
        lambda report: aask(
            graph, video, question, options, context=context, thread_id=thread_id, on_event=report
        ),
        on_event,
    )


def resume(
    graph: Graph,
    thread_id: str,
    *,
    decision: Any = None,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """`aresume` for synchronous code. `on_event` is called in the caller's thread."""
    if on_event is None:
        return run_sync(aresume(graph, thread_id, decision=decision, context=context))
    return run_sync_with_events(
        lambda report: aresume(graph, thread_id, decision=decision, context=context, on_event=report),
        on_event,
    )


def is_approval(interrupt: Interrupt) -> bool:
    """Whether a run waits for the approval of a call, and not for the answer to a tool's own question."""
    request = interrupt.value
    if not isinstance(request, Mapping) or request.get("type") != "approve":
        return False
    return {"tag", "query"} <= request.keys()


def waiting_for(interrupt: Interrupt) -> str:
    """What a run waits for, in one line."""
    request = interrupt.value
    if is_approval(interrupt):
        return f"a person must decide on <{request['tag']}>{request['query']}</{request['tag']}>"
    return f"a tool waits for an answer to {_in_line(request)!r}"


def _savable(decision: Any) -> Any:
    """The decision as plain data that a checkpointer can save.

    Raises:
        DecisionError: It is empty, or cannot be saved.
    """
    decision = clean_data(dict(decision) if isinstance(decision, Mapping) else decision)
    if decision == {}:
        raise DecisionError(
            "an empty decision says nothing, and LangGraph reads it as none: give its fields; the run still "
            "waits"
        )
    try:
        JsonPlusSerializer().dumps_typed(decision)
    except Exception as e:  # each kind of value has its own error
        raise DecisionError(
            f"this decision cannot be saved ({_in_line(e)}): give plain data; the run still waits"
        ) from e
    return decision


def _in_line(value: Any) -> str:
    return " ".join(str(value).split())[:200]


def _thread(thread_id: str) -> RunnableConfig:
    if not isinstance(thread_id, str):
        raise QuestionError(f"a thread_id is text, not {type(thread_id).__name__}: give str(...)")
    if not thread_id or clean_text(thread_id) != thread_id:
        raise QuestionError("a thread_id is text without NUL or lone surrogates: give another, or none")
    return {"configurable": {"thread_id": thread_id}}


async def _stream(
    graph: Graph,
    given: AskInput | Command[Any] | None,
    thread_id: str,
    context: AskContext | None,
    on_event: OnEvent | None,
) -> Trace:
    _require_trace(graph)
    final: Any = None
    interrupts: tuple[Interrupt, ...] = ()
    # Without a checkpointer LangGraph warns that it cannot provide a durability.
    durability: Any = "sync" if graph.checkpointer else None
    stream = graph.astream(
        given,
        _thread(thread_id),
        context=context,
        stream_mode=["custom", "values"],
        version="v2",
        durability=durability,
    )
    with _explain_sync_saver(graph):
        async for part in stream:
            if part["type"] == "values":
                final, interrupts = part["data"], part["interrupts"]
            elif part["type"] == "custom" and on_event and (event := read_event(part["data"])):
                on_event(event)
    if interrupts:
        then = "this cannot go on without a checkpointer"
        if graph.checkpointer:
            then = f"go on with aresume(graph, {thread_id!r}, decision=...)"
        raise WaitingError(f"{waiting_for(interrupts[0])}: {then}")
    return _trace_in(final, graph)


def _trace_in(values: Any, graph: Graph) -> Trace:
    _require_trace(graph)
    if "trace" not in values:
        raise WaitingError(
            "the run has paused at a node that the graph was compiled with (interrupt_before, "
            "interrupt_after): resume it"
        )
    return Trace.model_validate(values["trace"])


def _require_trace(graph: Graph) -> None:
    if "trace" not in graph.output_channels:
        raise ConfigError(
            "this graph gives no trace: aask and aresume take a graph that create_act2see made; use ainvoke "
            "for others"
        )


@contextmanager
def _explain_sync_saver(graph: Graph) -> Iterator[None]:
    """Turn the errors of a checkpointer that is synchronous, or of another loop, into `ConfigError`."""
    try:
        yield
    except NotImplementedError as e:
        if not _is_raised_by_saver(e):
            raise
        raise ConfigError(
            f"{type(graph.checkpointer).__name__} works synchronously: use graph.invoke(...), or give the "
            "graph its asynchronous counterpart (AsyncSqliteSaver, AsyncPostgresSaver)"
        ) from e
    except RuntimeError as e:
        if isinstance(e, Act2SeeError) or "loop" not in str(e) or not _is_raised_by_saver(e):
            raise
        raise ConfigError(
            f"{type(graph.checkpointer).__name__} belongs to the event loop in which it was first used: make "
            "one in each loop, or ask from that one alone (ask and resume share one loop)"
        ) from e


def _is_raised_by_saver(error: Exception) -> bool:
    """Whether one of the four innermost functions is a checkpointer's."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith("langgraph.checkpoint") for name in modules[-4:])
