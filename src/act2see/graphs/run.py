"""Ask a question, or resume an interrupted run.

`aask` streams the run of a compiled graph, passes each event to `on_event` and returns the trace. `aresume`
does the same from the last saved step. `ask` and `resume` are their synchronous forms.

A graph with a checkpointer saves each step before the next one starts, so a process that is killed loses at
most one step. A run that needs a person's decision raises `WaitingError`; `aresume` takes the decision.
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
        graph: A graph of `create_act2see`.
        video: The path of the video; `clip.mp4#t=10,20` is its part from 10 to 20 seconds.
        question: The question.
        options: The answers to choose from.
        context: The run's settings.
        thread_id: The name of the run in the checkpointer and in the trace; by default a new one. A second
            question in the same thread is a new run, whose id starts with the thread's. If it is about the
            same video, the model also reads the questions and answers before it (`AskContext.earlier`).
        on_event: Receives each event of the run.

    Returns:
        The trace of the run.

    Raises:
        QuestionError: The question or its options are invalid.
        VideoError: The video cannot be read.
        ConfigError: The graph or a setting of the run cannot be used.
        ReasonerError: The model cannot continue.
        WaitingError: A person must decide.
    """
    if not hasattr(graph, "astream"):
        raise ConfigError(f"{graph!r:.80} is not a graph: make one with act2see.create_act2see(...)")
    # A text is a sequence of letters. It is passed on as it is, so that it is refused.
    listed: Any = options if isinstance(options, str) else list(options)
    asked: AskInput = {"video": fspath(video), "question": question, "options": listed}
    return await cancel_once(_stream(graph, asked, thread_id or uuid4().hex[:12], context, on_event))


async def aresume(
    graph: Graph,
    thread_id: str,
    *,
    decision: Any = None,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """Resume a run from its last saved step. For a finished run, return its trace.

    Args:
        graph: A graph with a checkpointer.
        thread_id: The name of the run.
        decision: The answer that the run waits for: the fields of `Decision` for a call that must be
            approved, or the value that an interrupting tool expects.
        context: The run's settings. Repeat the original ones: only the tags to approve are saved.
        on_event: Receives each further event of the run.

    Returns:
        The trace of the run.

    Raises:
        StoreError: There is no such run.
        DecisionError: The decision cannot be used, or the run is not waiting for one.
        WaitingError: A person must make another decision.
        ConfigError: The graph has no checkpointer.
    """
    if graph.checkpointer in (None, False, True):
        raise ConfigError(
            "a run can only be resumed with a checkpointer: create_act2see(config, checkpointer=...)"
        )
    with _explain_sync_saver(graph):
        saved = await graph.aget_state(_thread_config(thread_id))
    if saved.created_at is None:
        raise StoreError(f"there is no saved run {thread_id!r}: check the id, or ask the question again")
    if decision is not None and not saved.interrupts:
        raise DecisionError(
            f"the run {thread_id!r} is not waiting for a decision: resume it without a decision"
        )
    # `saved.next` cannot tell whether the run has finished: it is also empty between the end of a node and
    # the checkpoint that includes the node's writes. `saved.tasks` still has a task then.
    if not saved.tasks:
        return _read_trace(saved.values, graph)
    command: Command[Any] | None = None
    if decision is not None:
        command = Command(resume=_plain_decision(decision))
    return await cancel_once(_stream(graph, command, thread_id, context, on_event))


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
    """`aask` for synchronous code, notebooks included. `on_event` is called in the caller's thread."""
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
    """`aresume` for synchronous code, notebooks included. `on_event` is called in the caller's thread."""
    if on_event is None:
        return run_sync(aresume(graph, thread_id, decision=decision, context=context))
    return run_sync_with_events(
        lambda report: aresume(graph, thread_id, decision=decision, context=context, on_event=report),
        on_event,
    )


def is_approval(interrupt: Interrupt) -> bool:
    """Whether an interrupt asks for the approval of a call. Other interrupts are raised by tools."""
    request = interrupt.value
    if not isinstance(request, Mapping) or request.get("type") != "approve":
        return False
    return {"tag", "query"} <= request.keys()


def describe_interrupt(interrupt: Interrupt) -> str:
    """Describe in one line what an interrupted run waits for."""
    request = interrupt.value
    if is_approval(interrupt):
        return f"a person must decide on <{request['tag']}>{request['query']}</{request['tag']}>"
    return f"a tool waits for an answer to {_one_line(request)!r}"


def _plain_decision(decision: Any) -> Any:
    """Return the decision as plain data that a checkpointer can save.

    Raises:
        DecisionError: It is empty, or cannot be saved.
    """
    decision = clean_data(dict(decision) if isinstance(decision, Mapping) else decision)
    if decision == {}:  # LangGraph would take this as no decision at all
        raise DecisionError("the decision is empty; give its fields (the run still waits)")
    try:
        JsonPlusSerializer().dumps_typed(decision)
    except Exception as e:  # the exception's type depends on the value
        raise DecisionError(
            f"the decision cannot be saved ({_one_line(e)}); give plain data (the run still waits)"
        ) from e
    return decision


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())[:200]


def _thread_config(thread_id: str) -> RunnableConfig:
    if not isinstance(thread_id, str):
        raise QuestionError(f"thread_id must be a string, not {type(thread_id).__name__}: use str(...)")
    if not thread_id or clean_text(thread_id) != thread_id:
        raise QuestionError(
            "thread_id is empty, or has a NUL or a lone surrogate: choose another, or leave it out"
        )
    return {"configurable": {"thread_id": thread_id}}


async def _stream(
    graph: Graph,
    graph_input: AskInput | Command[Any] | None,
    thread_id: str,
    context: AskContext | None,
    on_event: OnEvent | None,
) -> Trace:
    _require_trace(graph)
    final: Any = None
    interrupts: tuple[Interrupt, ...] = ()
    # Without a checkpointer, LangGraph warns about any durability that is set.
    durability: Any = "sync" if graph.checkpointer else None
    stream = graph.astream(
        graph_input,
        _thread_config(thread_id),
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
        instruction = "the run cannot continue without a checkpointer"
        if graph.checkpointer:
            instruction = f"continue with aresume(graph, {thread_id!r}, decision=...)"
        raise WaitingError(f"{describe_interrupt(interrupts[0])}: {instruction}")
    return _read_trace(final, graph)


def _read_trace(values: Any, graph: Graph) -> Trace:
    _require_trace(graph)
    if "trace" not in values:
        raise WaitingError(
            "the run has paused at a node listed in interrupt_before or interrupt_after: resume it"
        )
    return Trace.model_validate(values["trace"])


def _require_trace(graph: Graph) -> None:
    if "trace" not in graph.output_channels:
        raise ConfigError(
            "this graph returns no trace: aask and aresume need a graph of create_act2see; run others with "
            "ainvoke"
        )


@contextmanager
def _explain_sync_saver(graph: Graph) -> Iterator[None]:
    """Raise `ConfigError` if the checkpointer is synchronous or belongs to another event loop.

    Raises `StoreError` if it cannot save or read.
    """
    try:
        yield
    except NotImplementedError as e:
        if not _is_raised_by_saver(e):
            raise
        raise ConfigError(
            f"{type(graph.checkpointer).__name__} is synchronous: use graph.invoke(...), or an asynchronous "
            "checkpointer (AsyncSqliteSaver, AsyncPostgresSaver)"
        ) from e
    except Exception as e:
        if isinstance(e, Act2SeeError) or not _is_raised_by_saver(e):
            raise
        name = type(graph.checkpointer).__name__
        if isinstance(e, RuntimeError) and "loop" in str(e):
            raise ConfigError(
                f"{name} belongs to the event loop that first used it: create one in each loop, or always "
                "use the same loop (ask and resume share one)"
            ) from e
        if not _is_of_storage(e):
            raise
        raise StoreError(
            f"the run cannot be saved or read by {name} ({_one_line(e)}): repair its storage, and resume the "
            "run; up to its last saved step nothing is lost"
        ) from e


def _is_raised_by_saver(error: Exception) -> bool:
    """Whether a function of the traceback belongs to a checkpointer. No node is called by one."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith("langgraph.checkpoint") for name in modules)


def _is_of_storage(error: Exception) -> bool:
    """Whether an error is one of a disk, a connection or a database; their packages have own classes."""
    return isinstance(error, OSError) or type(error).__module__ != "builtins"
