"""The inference graph: view, reason, one node for each tool tag, answer.

    view -> reason -> retrieve -> reason -> generate -> reason -> answer

The reasoning node renders the trace, lets the model continue it up to the end of a call or of the answer, and
routes by the tag. A malformed call goes back to the model as a note. When a budget is spent the thought is
closed and the answer opened for the model (`</think><answer>`): it answers, it is never cut off. Where the
run or the config says so, a call waits in the node `approve` for a person (`graphs/approval.py`).

Everything that a node needs to go on is in the state, so a run that was interrupted anywhere resumes at the
next node and gives the same answer. Nodes are asynchronous. Called synchronously (`graph.invoke`, `stream`,
`batch`), each runs on the process's background loop while its thread waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.errors import NodeError
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, RetryPolicy

from act2see.agent.grammar import Grammar, Parser, StopReason, feedback
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Request, Sampling, check_reasoner
from act2see.agent.rollout import render
from act2see.errors import ConfigError, ToolError
from act2see.graphs.approval import ask_person, instead, replaced, review_of
from act2see.graphs.config import Budget, Config, load_config
from act2see.graphs.drawing import drawn
from act2see.graphs.nodes import both_ways, in_time, is_saved
from act2see.graphs.parts import Guard, Parts, build_parts, cached_parts, loaded
from act2see.graphs.question import checked
from act2see.graphs.ready import check_ready
from act2see.graphs.state import AskContext, AskInput, AskOutput, AskState, run_context, trace_of
from act2see.graphs.view import initial_view
from act2see.tools.base import MAX_FRAMES, FrameTool, ToolContext, call_seed, checked_result
from act2see.tools.runtime.faults import restored, to_user_error
from act2see.tools.runtime.text import clean_text, first_line
from act2see.trace.record import Answer, Call, Frames, Loop, Review, Text
from act2see.trace.trace import Trace

Graph = CompiledStateGraph[AskState, AskContext, AskInput, AskOutput]
Update = dict[str, Any]
DEFAULT_TIMEOUT = 300.0  # seconds that a tool's call may last where the config does not say


def create_act2see(
    config: Config | Mapping[str, Any] | str | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
) -> Graph:
    """The compiled graph of a configuration (default: the `micro` preset).

    Graphs of one configuration share their models. `parts` replaces the reasoner, the tools or both by your
    own objects. With a `checkpointer`, runs are saved after each node under `configurable: {thread_id: ...}`.
    """
    loaded = load_config(config)
    parts = parts or cached_parts(loaded)
    return drawn(build_graph(parts, loaded).compile(checkpointer=checkpointer, name="act2see"))


def build_graph(parts: Parts, config: Config) -> StateGraph[AskState, AskContext, AskInput, AskOutput]:
    """The graph, not yet compiled: for composing and for looking at."""
    check_reasoner(parts.reasoner)
    nodes = _Nodes(parts, config)
    graph: StateGraph[AskState, AskContext, AskInput, AskOutput] = StateGraph(
        AskState, context_schema=AskContext, input_schema=AskInput, output_schema=AskOutput
    )
    tags = tuple(parts.tools)
    graph.add_node("view", both_ways(nodes.view), destinations=("reason", "answer"))
    graph.add_node("reason", both_ways(nodes.reason), destinations=("reason", "answer", "approve", *tags))
    graph.add_node("approve", both_ways(nodes.approve), destinations=("reason", *tags))
    for tag, tool in parts.tools.items():
        settings = config.tools.get(tag)
        graph.add_node(
            tag,
            both_ways(nodes.tool(tag, tool)),
            destinations=("reason",),
            retry_policy=RetryPolicy(
                max_attempts=1 + (settings.retries if settings else 1),
                initial_interval=0.1,
                retry_on=_transient,
            ),
            error_handler=both_ways(nodes.failed(tag)),
        )
    graph.add_node("answer", both_ways(nodes.answer))
    graph.add_edge(START, "view")
    graph.set_finish_point("answer")
    return graph


def _transient(error: Exception) -> bool:
    """Whether another try may help."""
    return (
        isinstance(error, OSError | ToolError)
        and not isinstance(error, TimeoutError)
        and to_user_error(error) is None
    )


@dataclass(slots=True)
class _Nodes:
    parts: Parts
    config: Config

    async def view(
        self, state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]
    ) -> Command[Literal["reason", "answer"]]:
        """Look at the question and at the initial frames."""
        context = self._context(config, runtime)
        question, options = checked(state)
        approve = self.approved(context)
        if approve and not is_saved(config):
            raise ConfigError(
                f"calls of <{approve[0]}> wait for a person, and a run that waits must be saved: compile the outermost graph with a "
                "checkpointer, such as create_act2see(config, checkpointer=InMemorySaver())"
            )
        await check_ready(self.config, self.parts, tuple(self._tools(context)))
        started = time.perf_counter()
        clip, frames = await initial_view(self.parts, self.config.view, state["video"])
        seconds = time.perf_counter() - started
        id = _run_id(config, state.get("id"))
        runtime.stream_writer(
            {
                "type": "view",
                "run": id,
                "video": clip.model_dump(mode="json"),
                "frames": [f.model_dump(mode="json") for f in frames],
            }
        )
        # Models are loaded when the video is known to be one, and that is no part of looking at it. The
        # encoder tells its version: not in the loop, which others use too.
        await loaded(self.parts.reasoner)
        versions = await asyncio.to_thread(self.versions, context)
        refused = await self._guarded(frames)
        update: Update = {
            "id": id,
            "asked": {"question": question, "options": options},
            "info": clip.model_dump(mode="json"),
            "initial": [f.model_dump(mode="json") for f in frames],
            # A thread that is asked again starts afresh: what is there is an earlier question's.
            "versions": versions,
            "segments": [None],
            "loops": [None],
            "approve": approve,
            "review": None,
        }
        if refused:
            update["segments"] = [
                None,
                Answer(text=f"<answer>{refused}</answer>", body=refused, forced=True).model_dump(mode="json"),
            ]
        update["node_seconds"] = {"view": seconds}
        return Command(update=update, goto="answer" if refused else "reason")

    async def reason(
        self, state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]
    ) -> Command[str]:
        """Continue the thought to its next call, or to the answer."""
        started = time.perf_counter()
        context = self._context(config, runtime)
        trace, tools = trace_of(state), self._tools(context)
        budget = self._budget(context)
        left = budget.tokens - trace.usage.tokens
        opened = (
            bool(trace.segments) and isinstance(last := trace.segments[-1], Text) and last.author == "graph"
        )
        pushed = _push(trace) if not opened and (self._spent(trace, budget) or _ended(trace)) else None
        answering = opened or pushed is not None
        if pushed:
            trace = trace.model_copy(update={"segments": (*trace.segments, pushed)})
            runtime.stream_writer({"type": "token", "run": trace.id, "text": pushed.text, "author": "graph"})
        earlier = [(c.tag, c.query) for c in trace.calls if c.outcome == "ok"]
        parser = Grammar(tuple(tools), budget.query).parser(answering=answering, earlier=earlier)
        rollout = render(
            trace, Prompt({tag: t.usage for tag, t in tools.items()}, self.config.reasoner.prompt)
        )
        loop = await self._continue(
            rollout, parser, trace, context, runtime, budget.answer_tokens if answering else max(1, left)
        )
        new: list[Any] = [pushed] if pushed else []
        new += parser.segments
        if answering and not (new and isinstance(new[-1], Answer)):
            # It was made to answer and said nothing: that is the answer.
            new.append(Answer(text="</answer>", body="", forced=True))
        elif not new:
            new.append(_push(trace))  # it ended its turn without a word
        goto: str = "answer" if isinstance(new[-1], Answer) else "reason"
        if isinstance(call := new[-1], Call):
            runtime.stream_writer({"type": "call", "run": trace.id, "call": call.model_dump(mode="json")})
            if len(trace.calls) >= budget.calls:
                # One call too many: it is told nothing more and answers from what it has seen.
                new[-1] = call.model_copy(update={"outcome": "over_budget"})
                new.append(_push(trace))
                runtime.stream_writer(
                    {"type": "token", "run": trace.id, "text": new[-1].text, "author": "graph"}
                )
            elif call.outcome == "ok":
                goto = "approve" if call.tag in (state.get("approve") or ()) else call.tag
            else:
                note = Frames(tag=call.tag, note=feedback(call, tuple(tools)))
                new.append(note)
                runtime.stream_writer(
                    {"type": "frames", "run": trace.id, "frames": note.model_dump(mode="json")}
                )
        return Command(
            update={
                "segments": [s.model_dump(mode="json") for s in new],
                "loops": [loop.model_dump()],
                "node_seconds": {"reason": time.perf_counter() - started},
            },
            goto=goto,
        )

    async def _continue(
        self,
        rollout: Any,
        parser: Parser,
        trace: Trace,
        context: AskContext,
        runtime: Runtime[AskContext],
        max_tokens: int,
    ) -> Loop:
        started = time.perf_counter()
        settings = self.config.reasoner
        sampling = Sampling(
            settings.temperature if context.temperature is None else context.temperature,
            settings.top_p,
            call_seed(self._seed(context), "reason", "", len(trace.segments)),
        )
        done = Done(StopReason.EOS)
        stops = Grammar(tuple(self._tools(context))).stops
        request = Request(rollout, max_tokens, parser.feed, stops, sampling)
        async for item in self.parts.reasoner.stream(request):
            if isinstance(item, Delta):
                runtime.stream_writer(
                    {"type": "token", "run": trace.id, "text": item.text, "author": "model"}
                )
            else:
                done = item
        if parser.stopped is None:
            parser.finish(StopReason.LENGTH if done.stop == StopReason.LENGTH else StopReason.EOS)
        seconds = round(time.perf_counter() - started, 4)
        return Loop(
            prefilled=done.prefilled,
            cached=done.cached,
            decoded=done.decoded,
            seconds=seconds,
            stop=str(parser.stopped or done.stop),
        )

    async def approve(self, state: AskState, runtime: Runtime[AskContext]) -> Command[Any]:
        """Wait for a person's decision about the last call, and carry it out."""
        trace = trace_of(state)
        # In a thread, since it reads the picture of a decision. This line and those before it run twice.
        decision, supplied = await asyncio.to_thread(ask_person, trace, self.parts.resources)
        started = time.perf_counter()
        tag = trace.calls[-1].tag
        if frames := await asyncio.to_thread(
            instead, decision, trace, trace.video.path, self.parts.resources, supplied
        ):
            return _returned(frames, trace.id, started, runtime)
        return Command(update={"review": review_of(decision).model_dump(mode="json")}, goto=tag)

    def tool(
        self, tag: str, tool: FrameTool
    ) -> Callable[..., Coroutine[Any, Any, Command[Literal["reason"]]]]:
        settings = self.config.tools.get(tag)
        seconds = settings.timeout if settings else DEFAULT_TIMEOUT

        async def call(
            state: AskState, config: RunnableConfig, runtime: Runtime[AskContext]
        ) -> Command[Literal["reason"]]:
            if load := getattr(tool, "load_models", None):
                await asyncio.to_thread(load)
            started = time.perf_counter()
            trace = trace_of(state)
            review = _review(state)
            query = (review and review.query) or trace.calls[-1].query
            seed = call_seed(self._seed(self._context(config, runtime)), tag, query, len(trace.calls))
            returned = await in_time(
                tool.call(query, ToolContext(trace.video.path, trace.shown, seed)), seconds
            )
            result = checked_result(
                tag, returned, self.parts.resources.store, settings.max_frames if settings else MAX_FRAMES
            )
            note = " ".join(n for n in (replaced(review), result.note) if n)
            frames = Frames(tag=tag, frames=result.frames, note=note, curve=result.curve, review=review)
            return _returned(frames, trace.id, started, runtime)

        call.__name__ = tag
        return call

    def failed(self, tag: str) -> Callable[..., Coroutine[Any, Any, Command[Literal["reason"]]]]:
        async def hand_over(
            state: AskState, error: NodeError, runtime: Runtime[AskContext]
        ) -> Command[Literal["reason"]]:
            """What a tool could not do is told to the model, which goes on; what the user must mend is
            raised."""
            cause = restored(error.error)
            if theirs := to_user_error(cause):
                raise theirs from cause
            note = Frames(
                tag=tag,
                note=f"The tool failed: {first_line(cause).rstrip('.')}. Go on without it.",
                review=_review(state),
            )
            return _returned(note, state["id"], time.perf_counter(), runtime)

        return hand_over

    async def answer(self, state: AskState, runtime: Runtime[AskContext]) -> Update:
        """Put the trace together."""
        trace = trace_of(state)
        last = trace.segments[-1]
        assert isinstance(last, Answer)
        self.parts.reasoner.forget(trace.id)
        runtime.stream_writer({"type": "answer", "run": trace.id, "answer": last.body, "forced": last.forced})
        return {"answer": last.body, "trace": trace.model_dump(mode="json")}

    def _context(self, config: RunnableConfig, runtime: Runtime[AskContext]) -> AskContext:
        return run_context(runtime.context, config)

    def _tools(self, context: AskContext) -> dict[str, FrameTool]:
        if context.tools is None:
            return dict(self.parts.tools)
        for tag in context.tools:
            if tag not in self.parts.tools:
                raise ConfigError(
                    f"this run asks for the tool {tag!r}, and the config declares {', '.join(self.parts.tools) or 'none'}"
                )
        return {tag: self.parts.tools[tag] for tag in self.parts.tools if tag in context.tools}

    def approved(self, context: AskContext) -> list[str]:
        """The tags whose calls wait for a person: kept in the state, since they hold for a resumed run
        too."""
        for tag in context.approve or ():
            if tag not in self.parts.tools:
                raise ConfigError(
                    f"this run would approve <{tag}>, and the config declares {', '.join(self.parts.tools) or 'no tools'}"
                )
        always = {tag for tag, settings in self.config.tools.items() if settings.approve}
        return [tag for tag in self.parts.tools if tag in always or tag in (context.approve or ())]

    def _seed(self, context: AskContext) -> int:
        return self.config.seed if context.seed is None else context.seed

    def _budget(self, context: AskContext) -> Budget:
        given = {"calls": context.max_calls, "tokens": context.max_tokens, "seconds": context.max_seconds}
        return self.config.budget.model_copy(update={k: v for k, v in given.items() if v is not None})

    def _spent(self, trace: Trace, budget: Budget) -> bool:
        """Whether it must answer now. A run without calls left still thinks on about its last frame, without
        tools."""
        seconds = sum(s for node, s in trace.usage.node_seconds.items() if node != "view")
        return trace.usage.tokens >= budget.tokens or seconds >= budget.seconds

    def versions(self, context: AskContext) -> Update:
        """What answers in this run, for its trace; may load the encoder."""
        from importlib.metadata import version

        tools = {tag: t.version for tag, t in self._tools(context).items()}
        return {
            "act2see": version("act2see"),
            "reasoner": self.parts.reasoner.name,
            "tools": tools,
            "config": self.config.hash,
            "seed": self._seed(context),
        }

    async def _guarded(self, frames: Any) -> str | None:
        guard: Guard | None = self.parts.guard
        return (
            await guard.refuses([self.parts.resources.store.get(f.digest) for f in frames]) if guard else None
        )


def _run_id(config: RunnableConfig, previous: str | None) -> str:
    """The run's own id: that of its thread, and for what is not the thread's only run a suffix.

    In a parent graph one thread may have several runs, at once too: the suffix is of the place within it. A
    thread that is asked again has a `previous` run, from whose id the suffix is made, so that a resumed run
    has the id that it began with.
    """
    configurable = config.get("configurable", {})
    thread = configurable.get("thread_id")
    if not thread:
        return uuid.uuid4().hex[:12]
    id = clean_text(str(thread))
    parent, nested, _ = str(configurable.get("checkpoint_ns") or "").rpartition("|")
    if nested:
        id = f"{id}-{_short_hash(parent)}"
    # A thread may go back to an earlier checkpoint and be asked from there: LangGraph's name of this very
    # task tells the two apart.
    return f"{id}-{_short_hash(previous + str(configurable.get('checkpoint_ns')))}" if previous else id


def _short_hash(text: str) -> str:
    return hashlib.blake2b(clean_text(text).encode(), digest_size=4).hexdigest()


def _review(state: AskState) -> Review | None:
    return Review(**review) if (review := state.get("review")) else None


def _returned(
    frames: Frames, run: str, started: float, runtime: Runtime[AskContext]
) -> Command[Literal["reason"]]:
    seconds = round(time.perf_counter() - started, 4)
    segment = frames.model_copy(update={"seconds": seconds}).model_dump(mode="json")
    runtime.stream_writer({"type": "frames", "run": run, "frames": segment})
    return Command(
        update={"segments": [segment], "node_seconds": {frames.tag: seconds}, "review": None}, goto="reason"
    )


def _ended(trace: Trace) -> bool:
    """The model ended its turn, or ran out of tokens, without a call or an answer."""
    return bool(trace.segments) and isinstance(trace.segments[-1], Text)


def _push(trace: Trace) -> Text:
    """What makes the model answer: the thought is closed if it is open, the answer opened."""
    written = trace.text
    open_thought = (
        written.rfind("</think>") <= written.rfind("<think>")
        if "<think>" in written
        else "</think>" not in written
    )
    return Text(text="</think>\n<answer>" if open_thought else "\n<answer>", author="graph")


__all__ = ["AskContext", "Graph", "Parts", "build_graph", "build_parts", "create_act2see", "trace_of"]
