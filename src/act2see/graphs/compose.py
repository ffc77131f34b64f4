"""Adapters: Act2See as a node of a parent graph, a tool of an agent, or a worker of a supervisor.

A parent whose state has `video`, `question` and `options` takes the compiled graph itself as a node. The
three adapters are for other parents. They run the same graph, also from synchronous graphs: its events and
interrupts pass through the parent, and the parent's checkpointer saves its steps.

An adapter takes any runnable with the same input and an answer: a graph of `create_act2see` or
`create_long_video`, such a graph on a LangGraph server (`RemoteGraph`), and any of these after `with_config`
or `with_retry`.

The tool and the worker reply with the answer and its evidence as text (`evidence.py`), and add the trace as
JSON data, which every checkpointer can save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NotRequired
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config
from langgraph.errors import is_invalid_resume
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.pregel.remote import RemoteException, RemoteGraph
from pydantic import BaseModel, Field

from act2see import errors
from act2see.errors import Act2SeeError, ConfigError, QuestionError, ReasonerError, WaitingError
from act2see.graphs.conversation import WorkerInput, earlier_in, question_in
from act2see.graphs.evidence import result_evidence, result_references
from act2see.graphs.run import describe_interrupt
from act2see.graphs.state import CONTEXT_KEY, AskContext, AskInput, settings_in
from act2see.trace.options import choose
from act2see.trace.record import Turn

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

VideoGraph = Runnable[Any, Any]
"""A graph that takes `video`, `question` and `options`, and returns an `answer`."""
Source = str | Callable[[Any], Any]
"""A key of a parent's state, or a function of that state."""
Result = Mapping[str, Any]

DESCRIPTION = (
    "Answers a question about a video. Watches the video, looks again at single moments, and imagines frames "
    "when that helps. Names the moments that support the answer."
)
_ACCEPTED = (
    "the adapters take a compiled graph of create_act2see or create_long_video, or a RemoteGraph of one"
)


def as_node(
    graph: VideoGraph,
    *,
    video: Source = "video",
    question: Source = "question",
    options: Source | None = "options",
    earlier: Source | None = None,
    answer: str | None = "answer",
    choice: str | None = None,
    trace: str | None = "trace",
    context: AskContext | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """Return the graph as a node of a parent whose state has another schema.

    Args:
        graph: The graph. A graph of long videos returns no trace, so none is written.
        video: The parent's key of the video, or a function of the parent's state.
        question: The same for the question.
        options: The same for the options. The parent may lack the key; None asks without options.
        earlier: The same for the earlier turns of the conversation (`AskContext.earlier`); by default the
            graph is told of none.
        answer: The parent's key for the answer (text), as the model wrote it: with options mostly a letter.
            None does not write it.
        choice: The parent's key for the chosen option (its text); None does not write it. The value is None
            if the answer names none of the options, or several.
        trace: The parent's key for the trace (JSON data); None does not write it.
        context: The run's settings. They do not depend on the parent's own context.

    Raises:
        ConfigError: `graph` cannot answer questions.
        QuestionError: Raised by the run if the parent's state lacks a key.
    """
    _require_answering(graph)

    def question_of(state: Any) -> AskInput:
        listed = _take(state, options, "options", None) if options is not None else None
        return {
            "video": _take(state, video, "video"),
            "question": _take(state, question, "question"),
            "options": listed or [],
        }

    def earlier_of(state: Any) -> Sequence[Any]:
        return (_take(state, earlier, "earlier", None) if earlier is not None else None) or ()

    def update_of(asked: AskInput, result: Result) -> dict[str, Any]:
        update: dict[str, Any] = {}
        if answer is not None:
            update[answer] = result["answer"]
        if choice is not None:
            update[choice] = choose(result["answer"], tuple(asked["options"]))
        if trace is not None and "trace" in result:
            update[trace] = result["trace"]
        return update

    async def anode(state: Any) -> dict[str, Any]:
        asked = question_of(state)
        return update_of(asked, await _ask_async(graph, asked, context, earlier_of(state)))

    def node(state: Any) -> dict[str, Any]:
        asked = question_of(state)
        return update_of(asked, _ask_sync(graph, asked, context, earlier_of(state)))

    return RunnableLambda(node, anode, name=graph.get_name())


class AskArguments(BaseModel):
    """The arguments of the tool, as an agent sees them."""

    video: str = Field(
        description="path of the video file; clip.mp4#t=10,20 is its part from 10 to 20 seconds"
    )
    question: str = Field(description="the question about the video")
    options: list[str] = Field(
        default_factory=list, description="the answers to choose from, if there is a choice"
    )


def as_tool(
    graph: VideoGraph,
    *,
    name: str = "ask_video",
    description: str = DESCRIPTION,
    context: AskContext | None = None,
) -> StructuredTool:
    """Return the graph as a LangChain tool, for `create_agent`, `ToolNode` or direct calls, sync and async.

    The tool's content is the answer with its evidence. Its artifact is the trace as JSON data
    (`Trace.model_validate`), or the whole output of a graph that returns no trace, such as one of long
    videos. A problem with the question, the video or the setup becomes a message of status "error" to the
    agent.

    Args:
        graph: The graph.
        name: The tool's name.
        description: The tool's description, as an agent sees it.
        context: The settings of each run.

    Raises:
        ConfigError: `graph` cannot answer questions.
    """
    from langchain_core.tools import StructuredTool, ToolException

    _require_answering(graph)

    def content_and_artifact(result: Result) -> tuple[str, dict[str, Any]]:
        return result_evidence(result), result.get("trace") or dict(result)

    def tool_error(error: Act2SeeError) -> Exception:
        # LangGraph must see an invalid decision itself: the run keeps waiting for another one.
        return error if is_invalid_resume(error) else ToolException(str(error))

    async def acall(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        asked: AskInput = {"video": video, "question": question, "options": list(options)}
        try:
            return content_and_artifact(await _ask_async(graph, asked, context))
        except Act2SeeError as e:
            raise tool_error(e) from e

    def call(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        asked: AskInput = {"video": video, "question": question, "options": list(options)}
        try:
            return content_and_artifact(_ask_sync(graph, asked, context))
        except Act2SeeError as e:
            raise tool_error(e) from e

    return StructuredTool.from_function(
        call,
        acall,
        name=name,
        description=description,
        args_schema=AskArguments,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


class WorkerState(WorkerInput):
    """The conversation with the worker's reply."""

    trace: NotRequired[dict[str, Any] | None]
    """The `Trace` of the reply as JSON data; None if the graph returns no trace."""


def as_worker(
    graph: VideoGraph, *, name: str = "act2see", context: AskContext | None = None, checkpointer: Any = None
) -> CompiledStateGraph[WorkerState, None, WorkerInput, WorkerState]:
    """Return the graph as a worker over `messages`. It answers the last human message with an `AIMessage`.

    The worker looks for the video in the human messages, newest first, and then in the state's key `video`.
    A message names its video in a content block `{"type": "video", "url": "clip.mp4"}` or in
    `additional_kwargs["video"]`. Options come from `additional_kwargs["options"]` of the last human message,
    or from the state's key `options`. The human messages before it, which are about the same video, are its
    earlier turns (`AskContext.earlier`) with the answers of their replies.

    The reply's `response_metadata["act2see"]` holds references (run, answer, frames), and the state's `trace`
    holds the whole trace. The reply also reports a problem with the question, the video or the setup, and
    names its class in `response_metadata["act2see"]["error"]`.

    Args:
        graph: The graph.
        name: The name of the worker and of its messages.
        context: The settings of each run.
        checkpointer: Saves the worker's runs; not needed within a parent that has one.

    Raises:
        ConfigError: `graph` cannot answer questions.
    """
    _require_answering(graph)

    def reply(result: Result) -> dict[str, Any]:
        metadata = {"act2see": result_references(result)}
        message = AIMessage(result_evidence(result), name=name, response_metadata=metadata)
        return {"messages": [message], "trace": result.get("trace")}

    def reply_error(error: Act2SeeError) -> dict[str, Any]:
        if is_invalid_resume(error):  # LangGraph must see it itself: the run keeps waiting
            raise error
        metadata = {"act2see": {"error": type(error).__name__}}
        message = AIMessage(f"I cannot answer: {error}", name=name, response_metadata=metadata)
        return {"messages": [message], "trace": None}

    async def anode(state: WorkerState) -> dict[str, Any]:
        try:
            return reply(await _ask_async(graph, question_in(state), context, earlier_in(state)))
        except Act2SeeError as e:
            return reply_error(e)

    def node(state: WorkerState) -> dict[str, Any]:
        try:
            return reply(_ask_sync(graph, question_in(state), context, earlier_in(state)))
        except Act2SeeError as e:
            return reply_error(e)

    worker = StateGraph(WorkerState, input_schema=WorkerInput)
    worker.add_node("reply", RunnableLambda(node, anode, name="reply"))
    worker.add_edge(START, "reply")
    worker.set_finish_point("reply")
    return worker.compile(checkpointer=checkpointer, name=name)


_MISSING: Any = object()


def _take(state: Any, source: Source, argument: str, default: Any = _MISSING) -> Any:
    """Return the value of a parent's key, or of a function of its state."""
    if callable(source):
        return source(state)
    is_mapping = isinstance(state, Mapping)
    value = state.get(source, default) if is_mapping else getattr(state, source, default)
    if value is _MISSING:
        raise QuestionError(
            f"the parent's state has no {source!r}: name the key that holds the {argument} with "
            f"as_node(graph, {argument}=...)"
        )
    return value


async def _ask_async(
    graph: VideoGraph, asked: AskInput, context: AskContext | None, earlier: Sequence[Any] = ()
) -> Result:
    config, settings = _child_settings(graph, context, earlier)
    try:
        return _check_result(await graph.ainvoke(asked, config, **settings))
    except RemoteException as e:
        raise _server_error(e) from e


def _ask_sync(
    graph: VideoGraph, asked: AskInput, context: AskContext | None, earlier: Sequence[Any] = ()
) -> Result:
    config, settings = _child_settings(graph, context, earlier)
    try:
        return _check_result(graph.invoke(asked, config, **settings))
    except RemoteException as e:
        raise _server_error(e) from e


def _check_result(result: Any) -> Result:
    """Return the result of a finished run.

    Raises:
        WaitingError: The run waits for a person.
        ConfigError: The graph does not return an answer.
    """
    if isinstance(result, Mapping) and "answer" in result:
        return result
    if isinstance(result, Mapping) and (interrupts := result.get("__interrupt__")):
        raise WaitingError(
            f"{describe_interrupt(interrupts[0])}: call this from a graph that has a checkpointer and is run "
            "with a thread_id, and resume that graph"
        )
    raise ConfigError(f"the graph ended without an answer: {_ACCEPTED}")


def _require_answering(graph: Any) -> None:
    """Raise `ConfigError` unless the graph takes a question and returns an answer."""
    if not isinstance(graph, Runnable):
        raise ConfigError(
            f"a {type(graph).__name__} cannot answer questions (did you forget to compile it?): {_ACCEPTED}"
        )
    inner = _innermost(graph)
    if not isinstance(inner, Pregel):  # the schema of another runnable is unknown; its result is checked
        return
    inputs = inner.get_input_jsonschema().get("properties", {})
    if not {"video", "question"} <= set(inputs) or "answer" not in inner.output_channels:
        raise ConfigError(
            f"the graph {inner.get_name()!r} must take a `video` and a `question` and return an `answer`: "
            f"{_ACCEPTED}"
        )


def _innermost(graph: Any) -> Any:
    """Return the graph inside the wrappers of `with_config`, `with_retry` and the like."""
    while isinstance(graph, RunnableBindingBase):
        graph = graph.bound
    return graph


def _child_settings(
    graph: VideoGraph, context: AskContext | None, earlier: Sequence[Any]
) -> tuple[RunnableConfig, dict[str, Any]]:
    """Return the configuration and the context that the graph's run does not inherit from the parent's."""
    # LangChain limits a graph that it calls to 25 steps, and a parent's limit counts the parent's steps. Our
    # budget ends a run instead.
    config: RunnableConfig = {"recursion_limit": 10_000}
    inner = _innermost(graph)
    has_saver = isinstance(inner, Pregel) and inner.checkpointer not in (None, False, True)
    inherited = ensure_config().get("configurable", {})
    if has_saver and "thread_id" not in inherited:
        config["configurable"] = {"thread_id": uuid4().hex[:12]}  # called directly, not by a parent graph
    if earlier and (context is not None or isinstance(inner, RemoteGraph)):
        context = context or AskContext()
        if context.earlier is None:
            context = replace(context, earlier=tuple(_turn_data(turn) for turn in earlier))
    elif earlier:  # not as a context, which would replace the parent's
        own = settings_in(inherited, AskContext)
        settings = {CONTEXT_KEY: {"earlier": [_turn_data(turn) for turn in earlier], **own}}
        config["configurable"] = {**inherited, **config.get("configurable", {}), **settings}
    return config, {} if context is None else {"context": context}


def _turn_data(turn: Any) -> Any:
    return (turn.question, turn.answer) if isinstance(turn, Turn) else turn


def _server_error(error: RemoteException) -> Act2SeeError:
    """Return our error for one that a LangGraph server sends as `{"error": class, "message": text}`."""
    sent = error.args[0] if error.args else ""
    if not isinstance(sent, Mapping):
        return ReasonerError(f"the LangGraph server failed: {_one_line(sent)}")
    kind = getattr(errors, str(sent.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, Act2SeeError):
        return kind(str(sent.get("message")))
    return ReasonerError(
        f"the LangGraph server failed: {sent.get('error')}: {_one_line(sent.get('message'))}"
    )


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())[:300]
