"""Act2See inside other systems: a node of a parent graph, a tool of an agent, a worker of a supervisor.

A parent whose state has `video`, `question` and `options` takes the compiled graph itself as a node. The
three adapters here are for all others, and run that same graph: its events, interrupts and checkpoints pass
through the graph around it, and it is saved by the parent's checkpointer. Each works in synchronous graphs
too.

The adapters take any runnable with the same input and an answer: the graph of `create_long_video` as well, a
graph on a LangGraph server (`RemoteGraph`), and either of these with a configuration or with retries
(`with_config`, `with_retry`).

The tool and the worker reply with text that holds the evidence (`evidence.py`). The trace goes along as JSON
data, which every checkpointer takes.
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
from langgraph.errors import is_invalid_resume
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.pregel.remote import RemoteException
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from act2see import errors
from act2see.errors import Act2SeeError, ConfigError, QuestionError, ReasonerError, WaitingError
from act2see.graphs.evidence import result_evidence, result_references
from act2see.graphs.run import waiting_for
from act2see.graphs.state import AskContext, AskInput

if TYPE_CHECKING:
    from langchain_core.tools import StructuredTool

Answering = Runnable[Any, Any]
"""A graph that takes `video`, `question` and `options`, and gives an `answer`."""
Source = str | Callable[[Any], Any]
"""A key of a parent's state, or a function of that state."""
Result = Mapping[str, Any]

DESCRIPTION = (
    "Answers a question about a video by watching it, looking again for single moments, and imagining frames "
    "where that helps. Says which moments the answer rests on."
)
_TAKES = "the adapters take a compiled graph of create_act2see or create_long_video, or a RemoteGraph of one"


def as_node(
    graph: Answering,
    *,
    video: Source = "video",
    question: Source = "question",
    options: Source | None = "options",
    answer: str | None = "answer",
    trace: str | None = "trace",
    context: AskContext | None = None,
) -> Runnable[Any, dict[str, Any]]:
    """The graph as a node of a parent whose state has a schema of its own.

    Args:
        graph: The graph. One that gives no trace, as that of long videos, writes none.
        video: The parent's key that holds the video, or a function of its state.
        question: The same for the question.
        options: The same for the options, which a parent need not have; None for a question without any.
        answer: The parent's key for the answer (text); None writes it nowhere.
        trace: The parent's key for the trace (JSON data); None writes it nowhere.
        context: The run's settings, whatever the parent's own context is.

    Raises:
        ConfigError: `graph` is no graph that answers questions.
        QuestionError: In the run, if a key is missing.
    """
    _require_answering(graph)

    def question_of(state: Any) -> AskInput:
        listed = _take(state, options, "options", None) if options is not None else None
        return {
            "video": _take(state, video, "video"),
            "question": _take(state, question, "question"),
            "options": listed or [],
        }

    def update_of(result: Result) -> dict[str, Any]:
        update: dict[str, Any] = {}
        if answer is not None:
            update[answer] = result["answer"]
        if trace is not None and "trace" in result:
            update[trace] = result["trace"]
        return update

    async def anode(state: Any) -> dict[str, Any]:
        return update_of(await _ask_async(graph, question_of(state), context))

    def node(state: Any) -> dict[str, Any]:
        return update_of(_ask_sync(graph, question_of(state), context))

    return RunnableLambda(node, anode, name=graph.get_name())


class AskArguments(BaseModel):
    """The arguments of the tool, as an agent is told them."""

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
    """The graph as a LangChain tool, for `create_agent`, `ToolNode` and by itself, synchronous and not.

    Its content is the answer with its evidence, its artifact the trace as JSON data (`Trace.model_validate`);
    for a graph without a trace, as that of long videos, the artifact is its whole output. A problem with the
    question, the video or the set-up becomes a message of status "error", which the agent reads.

    Args:
        graph: The graph.
        name: The tool's name.
        description: The tool's description, as an agent is told it.
        context: The settings of each run.

    Raises:
        ConfigError: `graph` is no graph that answers questions.
    """
    from langchain_core.tools import StructuredTool, ToolException

    _require_answering(graph)

    def content_and_artifact(result: Result) -> tuple[str, dict[str, Any]]:
        return result_evidence(result), result.get("trace") or dict(result)

    def tool_error(error: Act2SeeError) -> Exception:
        return error if is_invalid_resume(error) else ToolException(str(error))

    async def acall(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        given: AskInput = {"video": video, "question": question, "options": list(options)}
        try:
            return content_and_artifact(await _ask_async(graph, given, context))
        except Act2SeeError as e:
            raise tool_error(e) from e

    def call(video: str, question: str, options: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
        given: AskInput = {"video": video, "question": question, "options": list(options)}
        try:
            return content_and_artifact(_ask_sync(graph, given, context))
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


class WorkerInput(TypedDict):
    """A conversation."""

    messages: Annotated[list[AnyMessage], add_messages]
    video: NotRequired[str]
    """The video, unless a message brings one."""
    options: NotRequired[list[str]]
    """The options, unless a message brings some."""


class WorkerState(WorkerInput):
    """The conversation with the worker's reply."""

    trace: NotRequired[dict[str, Any] | None]
    """The reply's `Trace` as JSON data."""


def as_worker(
    graph: Answering, *, name: str = "act2see", context: AskContext | None = None, checkpointer: Any = None
) -> CompiledStateGraph[WorkerState, None, WorkerInput, WorkerState]:
    """The graph as a worker over `messages`: it answers the last human message with an `AIMessage`.

    The video is the first that is found: a content block `{"type": "video", "url": "clip.mp4"}` or
    `additional_kwargs["video"]` of the last human message, of an earlier one (newest first), the state's key
    `video`. Options come from `additional_kwargs["options"]` of the last human message, or from the state's
    key.

    The reply's `response_metadata["act2see"]` holds references (run, answer, frames), and the state's `trace`
    the whole trace. A problem with the question, the video or the set-up is reported in the reply, with
    `response_metadata["act2see"]["error"]`.

    Args:
        graph: The graph.
        name: The name of the worker and of its messages.
        context: The settings of each run.
        checkpointer: Saves the worker's runs; not needed within a parent that has one.

    Raises:
        ConfigError: `graph` is no graph that answers questions.
    """

    _require_answering(graph)

    def reply(result: Result) -> dict[str, Any]:
        metadata = {"act2see": result_references(result)}
        message = AIMessage(result_evidence(result), name=name, response_metadata=metadata)
        return {"messages": [message], "trace": result.get("trace")}

    def apologise(error: Act2SeeError) -> dict[str, Any]:
        if is_invalid_resume(error):
            raise error
        metadata = {"act2see": {"error": type(error).__name__}}
        message = AIMessage(f"I cannot answer: {error}", name=name, response_metadata=metadata)
        return {"messages": [message], "trace": None}

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
    """The question of a conversation, found as `as_worker` says.

    Raises:
        QuestionError: There is no human message, or no video.
    """
    human = [message for message in reversed(state["messages"]) if isinstance(message, HumanMessage)]
    if not human:
        raise QuestionError("there is no human message to answer")
    video = next(filter(None, map(_video_in, human)), None) or state.get("video")
    if not video:
        raise QuestionError(
            'there is no video in this conversation: add {"type": "video", "url": PATH} to the content of a '
            "human message, or set the state's 'video'"
        )
    options = human[0].additional_kwargs.get("options", state.get("options"))
    return {"video": video, "question": str(human[0].text), "options": options or []}


_MISSING: Any = object()


def _take(state: Any, source: Source, argument: str, default: Any = _MISSING) -> Any:
    """The value of a parent's key, or of a function of its state."""
    if callable(source):
        return source(state)
    is_mapping = isinstance(state, Mapping)
    value = state.get(source, default) if is_mapping else getattr(state, source, default)
    if value is _MISSING:
        raise QuestionError(
            f"the parent's state has no {source!r}: as_node(graph, {argument}=...) names the key that holds "
            f"the {argument}"
        )
    return value


def _video_in(message: HumanMessage) -> str | None:
    """The video that a message brings: a path, from a URL of the scheme `file` too."""
    blocks = message.content if isinstance(message.content, list) else []
    urls = [b["url"] for b in blocks if isinstance(b, dict) and b.get("type") == "video" and b.get("url")]
    found = urls[-1] if urls else message.additional_kwargs.get("video")
    if isinstance(found, str) and found.startswith("file://"):
        parts = urlsplit(found)
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return f"{unquote(parts.path)}{fragment}"
    return found


async def _ask_async(graph: Answering, given: AskInput, context: AskContext | None) -> Result:
    try:
        return _finished(await graph.ainvoke(given, _own_config(graph), **_context(context)))
    except RemoteException as e:
        raise _from_server(e) from e


def _ask_sync(graph: Answering, given: AskInput, context: AskContext | None) -> Result:
    try:
        return _finished(graph.invoke(given, _own_config(graph), **_context(context)))
    except RemoteException as e:
        raise _from_server(e) from e


def _context(context: AskContext | None) -> dict[str, Any]:
    return {"context": context} if context is not None else {}


def _finished(result: Any) -> Result:
    """The result of a run that has ended."""
    if isinstance(result, Mapping) and "answer" in result:
        return result
    if isinstance(result, Mapping) and (interrupts := result.get("__interrupt__")):
        raise WaitingError(
            f"{waiting_for(interrupts[0])}: call this from a graph that has a checkpointer and is run with a "
            "thread_id, and resume that one"
        )
    raise ConfigError(
        "the graph ended without an answer: the adapters take graphs that create_act2see or "
        "create_long_video made"
    )


def _require_answering(graph: Any) -> None:
    """Raise `ConfigError` unless the graph can be asked, before anybody asks it."""
    if not isinstance(graph, Runnable):
        raise ConfigError(f"a {type(graph).__name__} cannot be asked (is it to be compiled first?): {_TAKES}")
    inner = _innermost(graph)
    if not isinstance(inner, Pregel):
        return
    keys, outputs = inner.get_input_jsonschema().get("properties", {}), inner.output_channels
    if not {"video", "question"} <= set(keys) or "answer" not in outputs:
        raise ConfigError(
            f"the graph {inner.get_name()!r} does not take a video and a question and give an answer: "
            f"{_TAKES}"
        )


def _innermost(graph: Any) -> Any:
    """The graph within `with_config`, `with_retry` and the like."""
    while isinstance(graph, RunnableBindingBase):
        graph = graph.bound
    return graph


def _own_config(graph: Answering) -> RunnableConfig:
    """The settings that the graph's run does not take from the one around it."""
    # LangChain allows 25 steps of a graph that it calls. The budget ends a run here, and a parent's limit is
    # for its own steps.
    config: RunnableConfig = {"recursion_limit": 10_000}
    saves = getattr(_innermost(graph), "checkpointer", None) not in (None, False, True)
    if saves and "thread_id" not in ensure_config().get("configurable", {}):
        config["configurable"] = {"thread_id": uuid4().hex[:12]}  # called by hand
    return config


def _from_server(error: RemoteException) -> Act2SeeError:
    """The error of a run on a LangGraph server, which sends `{"error": the error's class, "message":
    ...}`."""
    sent = error.args[0] if error.args else ""
    if not isinstance(sent, Mapping):
        return ReasonerError(f"the LangGraph server failed: {_in_line(sent)}")
    kind = getattr(errors, str(sent.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, Act2SeeError):
        return kind(str(sent.get("message")))
    return ReasonerError(f"the LangGraph server failed: {sent.get('error')}: {_in_line(sent.get('message'))}")


def _in_line(value: Any) -> str:
    return " ".join(str(value).split())[:300]
