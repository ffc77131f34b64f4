"""Forks and replays: continue a trace from one of its calls with a change, or ask its question again.

The state at the call is built from the trace, and the graph continues from there. So a fork needs no
checkpoint, and the graph may have another configuration. It needs the video and the frames that were shown,
and checks that both exist before it starts.

Calls are numbered from 1 in the order of `Trace.calls`, including those that could not be run; 0 is the start
of the run. The seed, the tools and the earlier turns are those of the trace unless the context sets others;
other earlier turns count only from the start, since a kept thought has read those of the trace. The kept part
of the trace counts against the budget as it did originally.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from act2see.agent.grammar import Grammar, feedback
from act2see.agent.parser import StopReason
from act2see.errors import ConfigError, QuestionError, StoreError, VideoError
from act2see.graphs.approval import (
    Decision,
    fit_picture,
    open_picture,
    refused_picture,
    resolve_decision,
)
from act2see.graphs.ask import AskBuilder, Graph
from act2see.graphs.parts import Parts
from act2see.graphs.run import OnEvent, aask, aresume
from act2see.graphs.run_settings import RunSettings
from act2see.graphs.state import AskContext, state_of
from act2see.tools.base import Resources
from act2see.tools.runtime.background import run_sync, run_sync_with_events
from act2see.tools.runtime.text import clean_text
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore
from act2see.trace.events import trace_events
from act2see.trace.record import OUTCOMES, Call, Frames, Origin, Review, Segment, Usage
from act2see.trace.trace import Trace

DROPPED = "There is no such frame; go on without it."  # the model reads this


async def afork(
    graph: Graph,
    trace: Trace,
    at: int,
    *,
    query: str | None = None,
    tag: str | None = None,
    frame: str | Path | float | None = None,
    drop: bool = False,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """Go back to a call of a trace, and let the model continue from there.

    Without a change, the call is repeated as it was, or as a person had changed it. If the graph has a
    checkpointer, it saves the new run like any other.

    Args:
        graph: A graph of `create_act2see`.
        trace: The trace to fork.
        at: The number of the call; 0 asks the question again.
        query: Another query for the call.
        tag: Another tool for the call.
        frame: The frame to show in place of calling the tool: a picture file, or a time in the video
            (seconds).
        drop: Tell the model that there is no such frame.
        context: The run's settings.
        on_event: Receives the events of the kept part, and then those of the new part.

    Returns:
        The new trace, including the kept part.

    Raises:
        QuestionError: There is no such call, or the change cannot be made.
        ConfigError: The graph lacks the tool, or cannot continue a trace.
        VideoError: The video is missing, or is not the one of the trace.
        StoreError: A frame that was shown is not in the store.
    """
    builder = _builder_of(graph)
    resources = builder.parts.resources
    change = _Change(query, tag, frame, drop)
    _check_change(change, trace, at)
    settings = RunSettings(builder.parts, builder.config, _fork_context(trace, context, tag))
    versions = await asyncio.to_thread(settings.versions)
    approve = settings.tags_to_approve()
    await asyncio.to_thread(_check_video, trace, resources.finder.library)
    if at == 0:
        return await _ask_again(graph, trace, settings.context, on_event)
    kept, node = await _restart(trace, at, change, settings)
    _check_frames(kept, resources.store)
    graph = _with_checkpointer(graph, approve)
    review = _kept_review(trace, at, change)
    state = {
        **state_of(kept),
        "versions": versions,
        "approve": approve,
        "review": review.model_dump(mode="json") if review else None,
    }
    run: RunnableConfig = {"configurable": {"thread_id": kept.id}}
    await graph.aupdate_state(run, Command(update=state, goto=node), as_node="view")
    if on_event:
        for event in trace_events(kept):
            on_event(event)
    new = await aresume(graph, kept.id, context=settings.context, on_event=on_event)
    return new.model_copy(update={"origin": Origin(trace=trace.id, at=at, change=change.kind)})


async def areplay(
    graph: Graph, trace: Trace, *, context: AskContext | None = None, on_event: OnEvent | None = None
) -> Trace:
    """Ask the question of a trace again, with its seed and its tools. `diff_traces` compares the two traces.

    Args:
        graph: A graph of `create_act2see`.
        trace: The trace to replay.
        context: The run's settings.
        on_event: Receives each event of the new run.

    Raises:
        ConfigError: The graph lacks a tool of the trace, or is not a graph of `create_act2see`.
        VideoError: The video is missing, or is not the one of the trace.
    """
    return await afork(graph, trace, 0, context=context, on_event=on_event)


def fork(
    graph: Graph,
    trace: Trace,
    at: int,
    *,
    query: str | None = None,
    tag: str | None = None,
    frame: str | Path | float | None = None,
    drop: bool = False,
    context: AskContext | None = None,
    on_event: OnEvent | None = None,
) -> Trace:
    """`afork` for synchronous code, notebooks included. `on_event` is called in the caller's thread."""

    def work(report: OnEvent | None) -> Coroutine[Any, Any, Trace]:
        return afork(
            graph, trace, at, query=query, tag=tag, frame=frame, drop=drop, context=context, on_event=report
        )

    return run_sync(work(None)) if on_event is None else run_sync_with_events(work, on_event)


def replay(
    graph: Graph, trace: Trace, *, context: AskContext | None = None, on_event: OnEvent | None = None
) -> Trace:
    """`areplay` for synchronous code, notebooks included. `on_event` is called in the caller's thread."""
    return fork(graph, trace, 0, context=context, on_event=on_event)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a fork changes at its call; the fields are the arguments of `afork`."""

    query: str | None
    tag: str | None
    frame: str | Path | float | None
    drop: bool

    @property
    def edits_call(self) -> bool:
        return self.query is not None or self.tag is not None

    @property
    def kind(self) -> Literal["none", "query", "frame", "drop"]:
        if self.frame is not None:
            return "frame"
        if self.drop:
            return "drop"
        return "query" if self.edits_call else "none"


def _builder_of(graph: Graph) -> AskBuilder:
    builder = getattr(graph, "builder", None)
    if not isinstance(builder, AskBuilder):
        raise ConfigError("this graph cannot continue a trace: pass one made by create_act2see")
    return builder


async def _ask_again(graph: Graph, trace: Trace, context: AskContext, on_event: OnEvent | None) -> Trace:
    question = trace.question
    new = await aask(
        graph, trace.video.path, question.text, question.options, context=context, on_event=on_event
    )
    return new.model_copy(update={"origin": Origin(trace=trace.id)})


def _with_checkpointer(graph: Graph, approve: Sequence[str]) -> Graph:
    """Return the graph, with a temporary checkpointer if it has none: the fork starts from a saved state.

    Raises:
        ConfigError: The graph has none, and calls of these tags wait for a person.
    """
    if graph.checkpointer not in (None, False, True):
        return graph
    if approve:
        raise ConfigError(
            f"calls of <{approve[0]}> wait for a person: give the graph a checkpointer, so that the run can "
            "be resumed"
        )
    return graph.copy({"checkpointer": InMemorySaver()})


def _check_change(change: _Change, trace: Trace, at: int) -> None:
    """Raise `QuestionError` unless the call exists and at most one thing is changed."""
    calls = [f"{n} <{call.tag}> {call.query[:60]}" for n, call in enumerate(trace.calls, start=1)]
    if not 0 <= at <= len(calls):
        known = "; ".join(calls) or "none, only 0 for the start is possible"
        raise QuestionError(f"there is no call number {at} in this trace (its calls: {known})")
    changes = (change.edits_call, change.frame is not None, change.drop)
    if sum(changes) > 1:
        raise QuestionError(
            "choose one of: another query or tool (query, tag), a frame (frame), no frame (drop)"
        )
    if at == 0 and any(changes):
        raise QuestionError(
            "there is no call to change at 0, the start: give a call's number, or ask another question"
        )


def _fork_context(trace: Trace, context: AskContext | None, tag: str | None) -> AskContext:
    """Return the context, with the earlier turns, the seed and the tools of the trace where it sets none."""
    context = context or AskContext()
    if context.earlier is None:
        turns = tuple((turn.question, turn.answer) for turn in trace.question.earlier)
        context = replace(context, earlier=turns)
    versions = trace.versions
    if not versions.act2see:  # the trace does not record its seed and tools
        return context
    seed = versions.seed if context.seed is None else context.seed
    if context.tools is not None:
        return replace(context, seed=seed)
    tools = tuple(versions.tools)
    if tag is not None and tag not in tools:
        tools = (*tools, tag)
    return replace(context, seed=seed, tools=tools)


def _check_video(trace: Trace, library: VideoLibrary) -> None:
    """Raise `VideoError` unless the trace's video can be read and is unchanged."""
    try:
        digest = library.probe(trace.video.path).info.digest
    except VideoError as e:
        raise VideoError(f"the trace's video is needed to continue: {e}") from e
    if digest != trace.video.digest:
        raise VideoError(
            f"{trace.video.path} is not the video of this trace: restore that video, or ask the question "
            "again"
        )


async def _restart(trace: Trace, at: int, change: _Change, settings: RunSettings) -> tuple[Trace, str]:
    """Return the trace up to call number `at`, with that call changed, and the node to continue with."""
    call = trace.calls[at - 1]
    before = trace.segments[: _index_of_call(trace, at)]
    kept = trace.model_copy(
        update={"id": uuid4().hex[:12], "segments": before, "usage": _usage_before(trace, at, before)}
    )
    tags = tuple(settings.tools)
    if change.frame is not None:
        calling = kept.model_copy(update={"segments": (*before, call)})
        await _check_picture(change.frame, settings.parts)
        reply = await asyncio.to_thread(_supply_frame, change.frame, calling, settings.parts.resources)
    elif change.drop:
        reply = Frames(tag=call.tag, note=DROPPED)
    else:
        call = _reread_call(call, change, kept, Grammar(tags, settings.budget.query))
        if call.outcome == "ok":
            return kept.model_copy(update={"segments": (*before, call)}), call.tag
        reply = Frames(tag=call.tag, note=feedback(call, tags))
    return kept.model_copy(update={"segments": (*before, call, reply)}), "reason"


def _index_of_call(trace: Trace, at: int) -> int:
    """The index of the segment of call number `at`."""
    indices = [i for i, segment in enumerate(trace.segments) if isinstance(segment, Call)]
    return indices[at - 1]


def _kept_review(trace: Trace, at: int, change: _Change) -> Review | None:
    """Return the review in which a person replaced the call's query; None if this change sets a query."""
    _, reply = trace.looks[at - 1]
    review = reply.review if reply else None
    if review and review.decision == "replace" and change.query is None:
        return review
    return None


def _reread_call(call: Call, change: _Change, kept: Trace, grammar: Grammar) -> Call:
    """Return the changed call, parsed by the grammar as if the model had written it.

    Raises:
        ConfigError: The run does not have the call's tool.
        QuestionError: The grammar does not accept the changed call.
    """
    tag = change.tag or call.tag
    query = call.query if change.query is None else " ".join(clean_text(change.query).split())
    if tag not in grammar.tags and (change.edits_call or call.outcome not in ("unknown", "forged")):
        known = ", ".join(grammar.tags) or "no tool"
        raise ConfigError(
            f"the call is of <{tag}>, and this run has {known}: use a configuration or a context with that "
            "tool"
        )
    text = _rewrite_call(call, tag, query) if change.edits_call else call.text
    earlier = [(other.tag, other.query) for other in kept.calls if other.outcome == "ok"]
    parser = grammar.parser(earlier=earlier)
    parser.feed(text)
    parser.finish(StopReason.EOS)
    read = parser.segments[-1] if parser.segments else None
    is_whole = isinstance(read, Call) and read.text == text
    if not change.edits_call:
        return read if isinstance(read, Call) and is_whole else call
    if isinstance(read, Call) and is_whole and read.outcome == "ok":
        return read
    why = OUTCOMES[read.outcome] if isinstance(read, Call) else "it is not a call"
    raise QuestionError(f"<{tag}> cannot be called with {query[:60]!r}: {why}")


def _rewrite_call(call: Call, tag: str, query: str) -> str:
    """Return the text of the changed call. Spaces around the query stay as the model wrote them."""
    padded = re.fullmatch(r"<\w+>(\s*).*?(\s*)</\w+>", call.text, re.DOTALL)
    before, after = padded.groups() if padded else ("", "")
    return f"<{tag}>{before}{query}{after}</{tag}>"


async def _check_picture(frame: str | Path | float, parts: Parts) -> None:
    """Raise `QuestionError` for a picture file that the guard refuses, or `StoreError` if it is none."""
    if isinstance(frame, int | float):
        return
    path = str(frame)
    picture = await asyncio.to_thread(open_picture, path)
    if parts.guard is None:
        return
    if why := await parts.guard.refuses([fit_picture(picture, parts.resources)]):
        raise QuestionError(refused_picture(path, why))


def _supply_frame(frame: str | Path | float, trace: Trace, resources: Resources) -> Frames:
    """Return the reply to a call with the caller's frame. The model does not see who supplied it."""
    if isinstance(frame, int | float):
        if not 0 <= frame <= trace.video.seconds:
            raise QuestionError(
                f"the video has no frame at {frame:g} s: it lasts {trace.video.seconds:.1f} s"
            )
        decision = Decision(type="supply", seconds=frame)
    else:
        decision = Decision(type="supply", frame=str(frame))
    frames = resolve_decision(decision, trace, trace.video.path, resources)
    assert frames is not None
    return frames.model_copy(update={"note": ""})


def _usage_before(trace: Trace, at: int, before: tuple[Segment, ...]) -> Usage:
    """Return the usage up to call number `at`: until the answer, each visit to `reason` ends in one call."""
    loops = trace.usage.loops[:at]
    seconds = {
        "view": trace.usage.node_seconds.get("view", 0.0),
        "reason": round(sum(loop.seconds for loop in loops), 4),
    }
    for segment in before:
        if isinstance(segment, Frames) and segment.seconds:
            seconds[segment.tag] = round(seconds.get(segment.tag, 0.0) + segment.seconds, 4)
    return Usage(loops=loops, node_seconds=seconds)


def _check_frames(kept: Trace, store: FrameStore) -> None:
    """Raise `StoreError` unless every frame that was shown is stored."""
    missing = [frame for frame in kept.shown if frame.digest not in store]
    if missing:
        first = missing[0]
        raise StoreError(
            f"{len(missing)} of the {len(kept.shown)} frames that were shown are not in {store.url} (the "
            f"first: {first.seconds:.1f} s, {first.digest}): configure the cache or the store of the trace, "
            "or ask the question again"
        )
