"""Act2See inside other systems: a node of a parent graph, a tool of an agent, a worker of a supervisor.

A parent that has `video`, `question` and `options` in its state takes the compiled graph as a node, as it is.
The three here are for all others, and run that same graph: its events, interrupts and checkpoints pass
through whatever is around it, and it is saved by the parent's checkpointer. Each works in synchronous graphs
too.

They take any runnable that is asked and answers in the same way: the graph of `create_long_video` as well, a
graph on a LangGraph server (`RemoteGraph`), and either of these with a configuration or with retries
(`with_config`, `with_retry`).

What the tool and the worker say is text with its evidence: the frames that came back, when they stand in the
video, and which of them are imagined. The trace goes along as JSON data, which every checkpointer takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.pregel.remote import RemoteException
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from act2see import errors
from act2see.errors import Act2SeeError, ConfigError, QuestionError, ReasonerError, WaitingError
from act2see.graphs.run import waiting_for
from act2see.graphs.state import AskContext, AskInput
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

Answering = Runnable[Any, Any]
"""A graph that takes `video`, `question` and `options`, and gives an `answer`."""
From = str | Callable[[Any], Any]

DESCRIPTION = (
    "Answers a question about a video by watching it, looking again for single moments, and imagining frames where that helps. "
    "Says which moments the answer rests on."
)


def as_node(
    graph: Answering,
    *,
    video: From = "video",
    question: From = "question",
    options: From | None = "options",
    answer: str | None = "answer",
    trace: str | None = "trace",
    context: AskContext | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """The graph as a node of a parent whose state has a schema of its own.

    `video`, `question` and `options` are names of the parent's keys, or functions of its state; a parent need
    not have `options`. The answer (text) and the trace (JSON data) go to the keys named by `answer` and
    `trace`, or nowhere with None. With `context` the run has these settings whatever the parent's own context
    is. A graph that gives no trace, as that of long videos, writes none.

    Raises:
        ConfigError: what was given is no graph that answers questions.
        QuestionError: in the run, where a key is missing.
    """
    _require_answering(graph)

    def given(state: Any) -> AskInput:
        listed = _take(state, options, "options", None) if options is not None else None
        return {
            "video": _take(state, video, "video"),
            "question": _take(state, question, "question"),
            "options": listed or [],
        }

    def update(result: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: result[name]
            for key, name in ((answer, "answer"), (trace, "trace"))
            if key is not None and name in result
        }

    async def anode(state: Any) -> dict[str, Any]:
        return update(await _ask_async(graph, given(state), context))

    def node(state: Any) -> dict[str, Any]:
        return update(_ask_sync(graph, given(state), context))

    return RunnableLambda(node, anode, name=graph.get_name())


class AskArguments(BaseModel):
    """What an agent fills in."""

    video: str = Field(
        description="path of the video file; clip.mp4#t=10,20 is its part from 10 to 20 seconds"
    )
    question: str = Field(description="the question about the video")
    options: list[str] = Field(
        default_factory=list, description="the answers to choose from, if there is a choice"
    )


def as_tool(
    graph: Answering,
    *,
    name: str = "ask_video",
    description: str = DESCRIPTION,
    context: AskContext | None = None,
) -> StructuredTool:
    """The graph as a LangChain tool, for `create_agent`, `ToolNode` and by itself, sync and async.

    Content is `evidence(trace)`, artifact the trace as JSON data (`Trace.model_validate`); for a graph
    without a trace, as that of long videos, the artifact is all that it gives. What is wrong with a question,
    a video or the set-up becomes a message of status "error" that the agent reads.

    Raises:
        ConfigError: what was given is no graph that answers questions.
    """
    from langchain_core.tools import StructuredTool, ToolException

    _require_answering(graph)

    def said(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return _evidence_in(result), result.get("trace") or dict(result)

    async def acall(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        try:
            return said(
                await _ask_async(
                    graph, {"video": video, "question": question, "options": list(options)}, context
                )
            )
        except Act2SeeError as e:
            if _wrong_decision(e):
                raise
            raise ToolException(str(e)) from e

    def call(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        try:
            return said(
                _ask_sync(graph, {"video": video, "question": question, "options": list(options)}, context)
            )
        except Act2SeeError as e:
            if _wrong_decision(e):
                raise
            raise ToolException(str(e)) from e

    return StructuredTool.from_function(
        call,
        acall,
        name=name,
        description=description,
        args_schema=AskArguments,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


class WorkerInput(TypedDict):
    """A conversation; `video` and `options` hold where no message says otherwise."""

    messages: Annotated[list[AnyMessage], add_messages]
    video: NotRequired[str]
    options: NotRequired[list[str]]


class WorkerState(WorkerInput):
    """The conversation with the worker's reply, and the `Trace` of that as JSON data."""

    trace: NotRequired[dict[str, Any] | None]


def as_worker(
    graph: Answering, *, name: str = "act2see", context: AskContext | None = None, checkpointer: Any = None
) -> CompiledStateGraph[WorkerState, None, WorkerInput, WorkerState]:
    """The graph as a worker over `messages`: answers the last human message, and replies as an `AIMessage` of
    this name.

    Where the video comes from, the first that there is: a content block `{"type": "video", "url":
    "clip.mp4"}` or `additional_kwargs["video"]` of the last human message, of an earlier one, newest first;
    the state's key `video`. Options come from `additional_kwargs["options"]` of the last human message, or
    from the state's key.

    The reply's `response_metadata["act2see"]` holds references (run, answer, frames); the state's `trace` the
    whole. What is wrong with a question, a video or the set-up is said in the reply, with
    `response_metadata["act2see"]["error"]`.
    """

    _require_answering(graph)

    def reply(result: Mapping[str, Any]) -> dict[str, Any]:
        metadata = {"act2see": _references_in(result)}
        return {
            "messages": [AIMessage(_evidence_in(result), name=name, response_metadata=metadata)],
            "trace": result.get("trace"),
        }

    def apologise(error: Act2SeeError) -> dict[str, Any]:
        if _wrong_decision(error):
            raise error
        metadata = {"act2see": {"error": type(error).__name__}}
        return {
            "messages": [AIMessage(f"I cannot answer: {error}", name=name, response_metadata=metadata)],
            "trace": None,
        }

    async def anode(state: WorkerState) -> dict[str, Any]:
        try:
            return reply(await _ask_async(graph, question_in(state), context))
        except Act2SeeError as e:
            return apologise(e)

    def node(state: WorkerState) -> dict[str, Any]:
        try:
            return reply(_ask_sync(graph, question_in(state), context))
        except Act2SeeError as e:
            return apologise(e)

    worker = StateGraph(WorkerState, input_schema=WorkerInput)
    worker.add_node("reply", RunnableLambda(node, anode, name="reply"))
    worker.add_edge(START, "reply")
    worker.set_finish_point("reply")
    return worker.compile(checkpointer=checkpointer, name=name)


def question_in(state: WorkerInput) -> AskInput:
    """The question of a conversation, as `as_worker` says. Raises `QuestionError` where there is none, or no
    video."""
    human = [m for m in reversed(state["messages"]) if isinstance(m, HumanMessage)]
    if not human:
        raise QuestionError("there is no human message to answer")
    videos = [v for m in human if (v := _video(m))] or [v for v in [state.get("video")] if v]
    if not videos:
        raise QuestionError(
            'there is no video in this conversation: add {"type": "video", "url": PATH} to a human message\'s content, or set the state\'s '
            "'video'"
        )
    options = human[0].additional_kwargs.get("options", state.get("options"))
    return {"video": videos[0], "question": str(human[0].text), "options": options or []}


def evidence(trace: Trace) -> str:
    """The answer with what it rests on: a line for each frame that came back. Plain text."""
    answer = (trace.answer or "").strip()
    choice = trace.choice
    lines = [f"Answer: {answer or 'none'}" + (f" ({choice})" if choice and choice != answer else "")]
    later = trace.shown[len(trace.initial) :]
    if times := [f.seconds for f in trace.initial]:
        lines.append(f"Seen at the start: {len(times)} frames, {min(times):.1f} s to {max(times):.1f} s.")
    lines += [f"- {f.describe()}" for f in later]
    if any(f.imagined for f in later):
        lines.append("Imagined frames show what might be; they are not in the video.")
    return "\n".join(lines)


def _evidence_in(result: Mapping[str, Any]) -> str:
    """The evidence of a graph's result: of its trace, or of the parts of a long video."""
    if result.get("trace"):
        return evidence(Trace.model_validate(result["trace"]))
    lines = [f"Answer: {str(result['answer']).strip() or 'none'}"]
    if result.get("found") is False:
        lines.append("No part of the video shows it; the answer is a guess.")
    for part in result.get("evidence") or ():
        lines.append(f"- from {part['start']:.1f} s to {part['stop']:.1f} s of the video:")
        lines += [f"  {line}" for line in part["text"].splitlines()]
    return "\n".join(lines)


def _references_in(result: Mapping[str, Any]) -> dict[str, Any]:
    if result.get("trace"):
        return references(Trace.model_validate(result["trace"]))
    frames = [frame for part in result.get("evidence") or () for frame in part["frames"]]
    return {"answer": result["answer"], "found": result.get("found"), "frames": frames}


def references(trace: Trace) -> dict[str, Any]:
    """A trace in a few lines of JSON data: its id, answer and frames, by their digests in the frame store."""
    frames = [
        {"digest": f.digest, "seconds": f.seconds, "imagined": f.imagined}
        for f in trace.shown[len(trace.initial) :]
    ]
    return {
        "run": trace.id,
        "video": trace.video.digest,
        "answer": trace.answer,
        "choice": trace.choice,
        "frames": frames,
    }


def _take(state: Any, source: From, argument: str, default: Any = ...) -> Any:
    """What a parent's state has under a key, or what a function makes of it."""
    if callable(source):
        return source(state)
    value = state.get(source, ...) if isinstance(state, Mapping) else getattr(state, source, ...)
    if value is ... and (value := default) is ...:
        raise QuestionError(
            f"the parent's state has no {source!r}: as_node(graph, {argument}=...) names the key that holds the {argument}"
        )
    return value


def _video(message: HumanMessage) -> str | None:
    """The video that a message brings: a path, from a URL of the scheme `file` too."""
    blocks = message.content if isinstance(message.content, list) else []
    urls = [b["url"] for b in blocks if isinstance(b, dict) and b.get("type") == "video" and b.get("url")]
    found = urls[-1] if urls else message.additional_kwargs.get("video")
    if isinstance(found, str) and found.startswith("file://"):
        parts = urlsplit(found)
        return unquote(parts.path) + (f"#{parts.fragment}" if parts.fragment else "")
    return found


async def _ask_async(graph: Answering, given: AskInput, context: AskContext | None) -> Mapping[str, Any]:
    try:
        return _finished(await graph.ainvoke(given, _own_config(graph), **_context(context)))
    except RemoteException as e:
        raise _from_server(e) from e


def _ask_sync(graph: Answering, given: AskInput, context: AskContext | None) -> Mapping[str, Any]:
    try:
        return _finished(graph.invoke(given, _own_config(graph), **_context(context)))
    except RemoteException as e:
        raise _from_server(e) from e


def _context(context: AskContext | None) -> dict[str, Any]:
    return {"context": context} if context is not None else {}


def _finished(result: Any) -> Mapping[str, Any]:
    """The result of a run that has ended."""
    if isinstance(result, Mapping) and "answer" in result:
        return result
    if isinstance(result, Mapping) and (interrupts := result.get("__interrupt__")):
        raise WaitingError(
            f"{waiting_for(interrupts[0])}: call this from a graph that has a checkpointer and is run with a thread_id, and resume that one"
        )
    raise ConfigError(
        "the graph ended without an answer: the adapters take graphs that create_act2see or create_long_video made"
    )


def _require_answering(graph: Any) -> None:
    """Raise `ConfigError` for what cannot be asked, before anybody asks it."""
    makes = (
        "the adapters take a compiled graph of create_act2see or create_long_video, or a RemoteGraph of one"
    )
    if not isinstance(graph, Runnable):
        raise ConfigError(f"a {type(graph).__name__} cannot be asked (is it to be compiled first?): {makes}")
    inner = _innermost(graph)
    if isinstance(inner, Pregel):
        given, outputs = inner.get_input_jsonschema().get("properties", {}), inner.output_channels
        if not {"video", "question"} <= set(given) or "answer" not in outputs:
            raise ConfigError(
                f"the graph {inner.get_name()!r} does not take a video and a question and give an answer: {makes}"
            )


def _innermost(graph: Any) -> Any:
    """The graph within `with_config`, `with_retry` and the like."""
    while isinstance(graph, RunnableBindingBase):
        graph = graph.bound
    return graph


def _own_config(graph: Answering) -> RunnableConfig:
    """What the graph's run does not take from the one around it."""
    # LangChain allows 25 steps where it calls something; the budget ends a run here, and a parent's limit is
    # for its own steps.
    config: RunnableConfig = {"recursion_limit": 10_000}
    saves = getattr(_innermost(graph), "checkpointer", None) not in (None, False, True)
    if saves and "thread_id" not in ensure_config().get("configurable", {}):
        config["configurable"] = {"thread_id": uuid4().hex[:12]}  # called by hand
    return config


def _from_server(error: RemoteException) -> Act2SeeError:
    """What a LangGraph server says of a run that failed: `{"error": the error's class, "message": ...}`."""
    said = error.args[0] if error.args else ""
    if not isinstance(said, Mapping):
        return ReasonerError(f"the LangGraph server failed: {' '.join(str(said).split())[:300]}")
    kind = getattr(errors, str(said.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, Act2SeeError):
        return kind(str(said.get("message")))
    return ReasonerError(
        f"the LangGraph server failed: {said.get('error')}: {' '.join(str(said.get('message')).split())[:300]}"
    )


def _wrong_decision(error: Exception) -> bool:
    """A person's decision that cannot be used: nothing to tell the model, the run waits for another."""
    from langgraph.errors import is_invalid_resume

    return is_invalid_resume(error)
