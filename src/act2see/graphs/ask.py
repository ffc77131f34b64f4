"""The inference graph: view, reason, one node for each tool tag, answer.

    view -> reason -> retrieve -> reason -> generate -> reason -> answer

The node `reason` (`reasoning.py`) lets the model continue its thought to the end of a call or of the answer,
and then goes to the node of the call's tag. A tool's node appends frames or a note to the trace, and goes
back to `reason`. If a person must approve the call, the node `approve` (`approval.py`) runs first.

The state holds everything that a node needs. So an interrupted run resumes at its next node and returns the
same answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy

from act2see.agent.reasoners.base import check_reasoner
from act2see.errors import ConfigError, StoreError, ToolError
from act2see.graphs.approval import ask_person, replacement_note, resolve_decision, review_of
from act2see.graphs.config import Config, load_config
from act2see.graphs.earlier import earlier_turns, following_turns
from act2see.graphs.events import emit
from act2see.graphs.hooks import QuestionGuard
from act2see.graphs.indexing import Indexing
from act2see.graphs.initial_frames import initial_frames
from act2see.graphs.needs import check_ready
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.reasoning import ReasonNode
from act2see.graphs.run_settings import RunSettings
from act2see.graphs.sections import ToolConfig
from act2see.graphs.state import (
    AskContext,
    AskInput,
    AskOutput,
    AskState,
    asked_data,
    run_context,
    trace_of,
    validate_question,
    waiting_call,
)
from act2see.graphs.wiring import both_ways, is_saved, limit_time, make_drawable
from act2see.tools.base import FrameTool, LoadsModels, NeedsIndex, ToolContext, call_seed, checked_result
from act2see.tools.frames import FrameRef, Video
from act2see.tools.runtime.faults import restored, to_user_error
from act2see.tools.runtime.text import clean_text, first_line
from act2see.tools.runtime.weights import read_ahead, wanted_by
from act2see.tools.video.store import Pixels
from act2see.trace.events import AnswerEvent, FramesEvent, ViewEvent
from act2see.trace.record import Answer, Frames, Review

Graph = CompiledStateGraph[AskState, AskContext, AskInput, AskOutput]
Update = dict[str, Any]
BackToReason = Command[Literal["reason"]]


class AskBuilder(StateGraph[AskState, AskContext, AskInput, AskOutput]):
    """The graph before it is compiled. It keeps its parts and its configuration, because forks need them."""

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__(AskState, context_schema=AskContext, input_schema=AskInput, output_schema=AskOutput)
        self.parts = parts
        self.config = config
        self.indexing = Indexing()


def create_act2see(
    config: Config | Mapping[str, Any] | str | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
) -> Graph:
    """Return the compiled graph of a configuration. Graphs of the same configuration share their models.

    Args:
        config: A preset's name, a YAML file, data or a `Config`; by default the preset `micro`.
        checkpointer: Saves runs after each node, under `configurable: {thread_id: ...}`.
        parts: The reasoner and the tools to use; by default those of the configuration.

    Raises:
        ConfigError: The configuration cannot be used.
        WeightsError: The configuration names a weight folder that does not exist.
    """
    settings = load_config(config)
    builder = build_graph(parts or cached_parts(settings), settings)
    return make_drawable(builder.compile(checkpointer=checkpointer, name="act2see"))


def build_graph(parts: Parts, config: Config) -> AskBuilder:
    """Return the graph before it is compiled, for inspection or for use in another graph.

    Args:
        parts: The reasoner, the tools and their resources.
        config: The configuration of the runs.

    Raises:
        ConfigError: The reasoner is not a `Reasoner`.
    """
    check_reasoner(parts.reasoner)
    graph = AskBuilder(parts, config)
    nodes = _Nodes(parts, config, graph.indexing)
    tags = tuple(parts.tools)
    graph.add_node("view", both_ways(nodes.view), destinations=("reason", "answer"))
    graph.add_node(
        "reason",
        both_ways(graph.indexing.stopped_with(ReasonNode(parts, config).reason)),
        destinations=("reason", "answer", "approve", *tags),
    )
    graph.add_node("approve", both_ways(nodes.approve), destinations=("reason", *tags))
    for tag, tool in parts.tools.items():
        retry = RetryPolicy(
            max_attempts=1 + nodes.tool_settings(tag).retries,
            initial_interval=0.1,
            retry_on=_is_transient,
        )
        graph.add_node(
            tag,
            both_ways(graph.indexing.stopped_with(nodes.call_node(tag, tool))),
            destinations=("reason",),
            retry_policy=retry,
            error_handler=both_ways(nodes.error_node(tag)),
        )
    graph.add_node("answer", both_ways(nodes.answer))
    graph.add_edge(START, "view")
    graph.set_finish_point("answer")
    return graph


def _is_transient(error: Exception) -> bool:
    """Whether a retry may succeed after this error."""
    if isinstance(error, TimeoutError) or to_user_error(error) is not None:
        return False
    return isinstance(error, OSError | ToolError)


@dataclass(slots=True)
class _Nodes:
    """All nodes except `reason`."""

    parts: Parts
    config: Config
    indexing: Indexing

    async def view(
        self, state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]
    ) -> Command[Literal["reason", "answer"]]:
        """Check the question and the requirements of the run, and show the initial frames."""
        settings = self._settings(config, runtime)
        question, options = validate_question(state)
        approve = settings.tags_to_approve()
        if approve and not is_saved(config):
            raise ConfigError(
                f"calls of <{approve[0]}> wait for a person, and a run that waits must be saved: compile the "
                "outermost graph with a checkpointer, for example create_act2see(config, "
                "checkpointer=InMemorySaver())"
            )
        await check_ready(self.config, self.parts, tuple(settings.tools))
        started = time.perf_counter()
        video, frames = await initial_frames(self.parts, self.config.view, state["video"])
        seconds = time.perf_counter() - started
        same_video = (state.get("info") or {}).get("digest") == video.digest
        turns = earlier_turns(settings.context.earlier, state.get("turns", ()) if same_video else ())
        earlier = [turn.model_dump() for turn in turns]
        run = _run_id(config, state.get("id"))
        event = ViewEvent(run=run, video=video, frames=frames)
        emit(runtime, event)
        # Models are loaded only after the video could be read. The time does not count as that of `view`.
        # Reading the versions may load the encoder, so it runs in a thread.
        await self.parts.reasoner.prepare()
        versions = await asyncio.to_thread(settings.versions)
        refusal = await self._refusal(question, frames)
        shown = event.model_dump(mode="json")
        update: Update = {
            "id": run,
            "asked": asked_data(question, options, earlier),
            "turns": earlier,  # if this run fails, it leaves the conversation as it was
            "info": shown["video"],
            "initial": shown["frames"],
            # A leading None drops the segments of an earlier question in the thread.
            "segments": [None],
            "loops": [None],
            "node_seconds": {"view": seconds},
            "versions": versions,
            "approve": approve,
            "review": None,
        }
        if refusal:
            answer = Answer(text=f"<answer>{refusal}</answer>", body=refusal, forced=True)
            update["segments"] = [None, answer.model_dump(mode="json")]
        elif settings.budget.calls:
            tools = settings.tools.values()
            await self.indexing.begin(run, tools, video.path)
            await asyncio.to_thread(lambda: read_ahead([w for tool in tools for w in wanted_by(tool)]))
        return Command(update=update, goto="answer" if refusal else "reason")

    async def approve(self, state: AskState, runtime: Runtime[AskContext]) -> Command[Any]:
        """Wait for a person's decision about the last call, and carry it out."""
        trace = trace_of(state)
        resources = self.parts.resources
        # LangGraph runs a node again from its start after an interrupt: up to here, nothing may have an
        # effect. `ask_person` reads the decision's picture file, so it runs in a thread.
        decision, supplied = await asyncio.to_thread(ask_person, trace, resources, self._picture_check())
        started = time.perf_counter()
        frames = await asyncio.to_thread(
            resolve_decision, decision, trace, trace.video.path, resources, supplied
        )
        if frames:
            return _return_frames(frames, trace.id, started, runtime)
        return Command(
            update={"review": review_of(decision).model_dump(mode="json")}, goto=trace.calls[-1].tag
        )

    def call_node(self, tag: str, tool: FrameTool) -> Callable[..., Coroutine[Any, Any, BackToReason]]:
        """Return the node of a tool, which replies to the last call."""
        limits = self.tool_settings(tag)

        async def call(state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]) -> BackToReason:
            trace = trace_of(state)
            asked = waiting_call(trace)
            # Neither loading models nor the index counts as the call's time, or for its limit.
            if isinstance(tool, LoadsModels):
                await asyncio.to_thread(tool.load_models)
            if isinstance(tool, NeedsIndex):
                await self.indexing.wait(tool.index_of, trace.video.path, trace.id, runtime)
            started = time.perf_counter()
            review = _review_in(state)
            query = (review and review.query) or asked.query
            seed = call_seed(self._settings(config, runtime).seed, tag, query, len(trace.calls))
            context = ToolContext(trace.video.path, trace.shown, seed)
            returned = await limit_time(tool.call(query, context), limits.timeout)
            result = checked_result(tag, returned, self.parts.resources.store, limits.max_frames)
            if result.frames:
                await asyncio.to_thread(self._check_video, trace.video)
            notes = [note for note in (replacement_note(review), result.note) if note]
            frames = Frames(
                tag=tag, frames=result.frames, note=" ".join(notes), curve=result.curve, review=review
            )
            return _return_frames(frames, trace.id, started, runtime)

        call.__name__ = tag
        return call

    def error_node(self, tag: str) -> Callable[..., Coroutine[Any, Any, Command[Any]]]:
        """Return the error handler of a tool's node, which tells the model that the tool failed.

        An error that the user must fix ends the run instead.
        """

        async def handle_error(
            state: AskState, error: NodeError, runtime: Runtime[AskContext]
        ) -> Command[Any]:
            cause = restored(error.error)
            if user_error := to_user_error(cause):
                if not _is_live(error.error):
                    # The run was resumed, and by now the user may have repaired it: the call is made again.
                    return Command(goto=tag)
                # A copy: LangGraph takes an error that it has given to this handler for handled, and would go
                # on as if the node had written nothing.
                raise type(user_error)(*user_error.args) from cause
            note = f"The tool failed: {first_line(cause).rstrip('.')}. Go on without it."
            failed = Frames(tag=tag, note=note, review=_review_in(state))
            return _return_frames(failed, state["id"], time.perf_counter(), runtime)

        return handle_error

    async def answer(self, state: AskState, runtime: Runtime[AskContext]) -> Update:
        """Build the trace, and empty `segments`, so that the last checkpoint holds them only once."""
        trace = trace_of(state)
        last = trace.segments[-1] if trace.segments else None
        if not isinstance(last, Answer):
            raise StoreError("the saved state of this run has no answer: ask the question again")
        self.parts.reasoner.forget(trace.id)
        emit(runtime, AnswerEvent(run=trace.id, answer=last.body, forced=last.forced))
        return {
            "answer": last.body,
            "trace": trace.model_dump(mode="json"),
            "segments": [None],
            "turns": [turn.model_dump() for turn in following_turns(trace)],
        }

    def _check_video(self, video: Video) -> None:
        """Raise `VideoError` if the file is no longer that of the run: a call would show another video."""
        self.parts.resources.finder.library.watch(video.path, video.digest)

    def tool_settings(self, tag: str) -> ToolConfig:
        """Return the limits of a tool; the defaults if the configuration does not have the tool."""
        return self.config.tools.get(tag) or ToolConfig(use=tag)

    def _settings(self, config: RunnableConfig, runtime: Runtime[AskContext]) -> RunSettings:
        return RunSettings(self.parts, self.config, run_context(runtime.context, config))

    def _picture_check(self) -> Callable[[Pixels], str | None]:
        """Return a function for another thread: the guard's reason to refuse one picture, or None."""
        loop = asyncio.get_running_loop()  # a guard may belong to it

        def refuses(pixels: Pixels) -> str | None:
            if self.parts.guard is None:
                return None
            return asyncio.run_coroutine_threadsafe(self.parts.guard.refuses([pixels]), loop).result()

        return refuses

    async def _refusal(self, question: str, frames: Sequence[FrameRef]) -> str | None:
        """Return the guard's reason to refuse the video or the question; None if there is no reason."""
        guard = self.parts.guard
        if guard is None:
            return None
        store = self.parts.resources.store
        reason = await guard.refuses([store.get(frame.digest) for frame in frames])
        if reason is None and isinstance(guard, QuestionGuard):
            return guard.refuses_question(question)
        return reason


def _run_id(config: RunnableConfig, previous: str | None) -> str:
    """Return the run's id: the thread's id, with a suffix if the thread has several runs.

    One thread of a parent graph may have several runs, even at the same time. Their suffix is a hash of the
    run's place in the parent. A later question in a thread has a `previous` run, and its suffix is a hash of
    that run's id and of this task. So a resumed run keeps its id.
    """
    configurable = config.get("configurable", {})
    thread = configurable.get("thread_id")
    if not thread:
        return uuid.uuid4().hex[:12]
    run = clean_text(str(thread))
    # LangGraph's name of this task. It differs between two runs that start from the same checkpoint.
    task = str(configurable.get("checkpoint_ns"))
    parent, nested, _ = task.rpartition("|")
    if nested:
        run = f"{run}-{_short_hash(parent)}"
    return f"{run}-{_short_hash(previous + task)}" if previous else run


def _short_hash(text: str) -> str:
    return hashlib.blake2b(clean_text(text).encode(), digest_size=4).hexdigest()


def _is_live(error: BaseException | str) -> bool:
    """Whether an error was raised in this run of the graph: one that a checkpoint kept has no traceback."""
    return isinstance(error, BaseException) and error.__traceback__ is not None


def _review_in(state: AskState) -> Review | None:
    review = state.get("review")
    return Review(**review) if review else None


def _return_frames(frames: Frames, run: str, started: float, runtime: Runtime[AskContext]) -> BackToReason:
    """Append the reply to a call to the trace, and go back to the model."""
    seconds = round(time.perf_counter() - started, 4)
    event = FramesEvent(run=run, frames=frames.model_copy(update={"seconds": seconds}))
    emit(runtime, event)
    segment = event.frames.model_dump(mode="json")
    return Command(
        update={"segments": [segment], "node_seconds": {frames.tag: seconds}, "review": None},
        goto="reason",
    )
