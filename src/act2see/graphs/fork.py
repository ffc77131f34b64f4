"""Go back in a trace, change something, and see what the model makes of it; or ask the same question again.

A saved trace is enough: the state as it was at a call is put together from it, and the graph goes on from
there. So no checkpoint is needed, and a graph of another configuration may go on. It does need the video and
the frames that were shown, and looks for both before it begins.

Calls are numbered from 1 in the order of `Trace.calls`, those that could not be run included; 0 is the
beginning. Seed and tools are the trace's own unless a context says otherwise. What was kept counts against
the budget as it did then.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from act2see.agent.grammar import Grammar, StopReason, feedback
from act2see.errors import ConfigError, QuestionError, StoreError, VideoError
from act2see.graphs.approval import Decision, instead, picture
from act2see.graphs.ask import Graph
from act2see.graphs.run import OnEvent, aask, aresume
from act2see.graphs.state import AskContext
from act2see.tools.base import Resources
from act2see.tools.runtime.background import run_sync, run_sync_with_events
from act2see.tools.runtime.text import clean_text
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore
from act2see.trace.events import AnswerEvent, CallEvent, Event, FramesEvent, TokenEvent, ViewEvent
from act2see.trace.record import OUTCOMES, Answer, Call, Frames, Origin, Segment, Text, Usage
from act2see.trace.trace import Trace

DROPPED = "There is no such frame; go on without it."


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
    """Go back to call number `at` of a trace and let the model go on from there; returns the whole new trace.

    The call is made again as it was (as a person changed it, where one did), or with another `query`, or of
    another tool (`tag`). Or it is not made, and what comes back is `frame`, a picture file or a time in the
    video (seconds), or nothing (`drop`). `on_event` hears of what was kept, then of what is new. With a
    checkpointer the new run is saved as any other.

    Raises `QuestionError` for a call that is not there or a change that cannot be made, `ConfigError` where
    the graph lacks the tool, `VideoError` where the video is gone or is another, `StoreError` where a frame
    that was shown is gone.
    """
    nodes = _nodes(graph)
    resources: Resources = nodes.parts.resources
    _check(trace, at, query, tag, frame, drop)
    context = _context(trace, context, tag)
    versions, approve = nodes.versions(context), nodes.approved(context)
    await asyncio.to_thread(_same_video, trace, resources.finder.clips)
    if at == 0:
        q = trace.question
        new = await aask(graph, trace.video.path, q.text, q.options, context=context, on_event=on_event)
        return new.model_copy(update={"origin": Origin(trace=trace.id)})
    call, came = trace.looks[at - 1]
    review = (
        came.review if came and came.review and came.review.decision == "replace" and query is None else None
    )
    before = trace.segments[: _place(trace, at)]
    kept = trace.model_copy(update={"id": uuid4().hex[:12], "segments": before})
    again: list[Segment]
    if frame is not None:
        asked = kept.model_copy(update={"segments": (*before, call)})
        again, goto = [call, await asyncio.to_thread(_given, frame, asked, resources)], "reason"
    elif drop:
        again, goto = [call, Frames(tag=call.tag, note=DROPPED)], "reason"
    else:
        call = _made(call, kept, query, tag, Grammar(tuple(versions["tools"]), nodes.config.budget.query))
        again, goto = [call], call.tag
        if call.outcome != "ok":
            again, goto = (
                [call, Frames(tag=call.tag, note=feedback(call, tuple(versions["tools"])))],
                "reason",
            )
    kept = kept.model_copy(update={"segments": (*before, *again), "usage": _spent(trace, at, before)})
    _at_hand(kept, resources.store)
    if graph.checkpointer in (None, False, True):
        if approve:
            raise ConfigError(
                f"calls of <{approve[0]}> wait for a person: give the graph a checkpointer, so that the run can be resumed"
            )
        graph = graph.copy({"checkpointer": InMemorySaver()})
    run: RunnableConfig = {"configurable": {"thread_id": kept.id}}
    state = {
        **_state(kept),
        "versions": versions,
        "approve": approve,
        "review": review and review.model_dump(mode="json"),
    }
    await graph.aupdate_state(run, Command(update=state, goto=goto), as_node="view")
    if on_event:
        for event in trace_events(kept):
            on_event(event)
    new = await aresume(graph, kept.id, context=context, on_event=on_event)
    change: Any = (
        "frame"
        if frame is not None
        else "drop"
        if drop
        else "query"
        if query is not None or tag is not None
        else "none"
    )
    return new.model_copy(update={"origin": Origin(trace=trace.id, at=at, change=change)})


async def areplay(
    graph: Graph, trace: Trace, *, context: AskContext | None = None, on_event: OnEvent | None = None
) -> Trace:
    """Ask a trace's question again, with its seed and its tools; `diff_traces` says whether it came out the
    same."""
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
    """`afork` for synchronous code, in scripts and in notebooks alike. `on_event` is called in the caller's
    thread."""

    def work(report: OnEvent | None) -> Coroutine[Any, Any, Trace]:
        return afork(
            graph, trace, at, query=query, tag=tag, frame=frame, drop=drop, context=context, on_event=report
        )

    return run_sync(work(None)) if on_event is None else run_sync_with_events(work, on_event)


def replay(
    graph: Graph, trace: Trace, *, context: AskContext | None = None, on_event: OnEvent | None = None
) -> Trace:
    """`areplay` for synchronous code, in scripts and in notebooks alike. `on_event` is called in the caller's
    thread."""
    return fork(graph, trace, 0, context=context, on_event=on_event)


def trace_events(trace: Trace) -> Iterator[Event]:
    """The events of a trace as if it were being written; an unfinished one ends without `answer`."""
    yield ViewEvent(run=trace.id, video=trace.video, frames=trace.initial)
    for segment in trace.segments:
        if isinstance(segment, Frames):
            yield FramesEvent(run=trace.id, frames=segment)
            continue
        yield TokenEvent(
            run=trace.id, text=segment.text, author=segment.author if isinstance(segment, Text) else "model"
        )
        if isinstance(segment, Call):
            yield CallEvent(run=trace.id, call=segment)
        elif isinstance(segment, Answer):
            yield AnswerEvent(run=trace.id, answer=segment.body, forced=segment.forced)


def _nodes(graph: Graph) -> Any:
    """What the graph's nodes work with: its parts and its configuration."""
    answer = graph.builder.nodes.get("answer")
    nodes = getattr(getattr(answer.runnable if answer else None, "afunc", None), "__self__", None)
    if not hasattr(nodes, "parts"):
        raise ConfigError("this graph cannot go on with a trace: give one that create_act2see made")
    return nodes


def _check(
    trace: Trace, at: int, query: str | None, tag: str | None, frame: str | Path | float | None, drop: bool
) -> None:
    calls = [f"{n} <{c.tag}> {c.query[:60]}" for n, c in enumerate(trace.calls, start=1)]
    if not 0 <= at <= len(calls):
        has = "; ".join(calls) or "none, so only 0, the beginning, is left"
        raise QuestionError(f"there is no call number {at} in this trace (its calls: {has})")
    changes = (query is not None or tag is not None, frame is not None, drop)
    if sum(changes) > 1:
        raise QuestionError(
            "another query or tool, a frame in its place, and no frame exclude each other: choose one"
        )
    if at == 0 and any(changes):
        raise QuestionError(
            "at the beginning there is no call to change: give the number of one, or ask another question"
        )


def _context(trace: Trace, context: AskContext | None, tag: str | None) -> AskContext:
    """The run's settings; seed and tools are the trace's where nothing else is said."""
    given, versions = context or AskContext(), trace.versions
    if not versions.act2see:  # a trace that does not say what it was made with
        return given
    tools = given.tools if given.tools is not None else tuple(versions.tools)
    if given.tools is None and tag is not None and tag not in tools:
        tools = (*tools, tag)
    return replace(given, seed=versions.seed if given.seed is None else given.seed, tools=tools)


def _same_video(trace: Trace, clips: VideoLibrary) -> None:
    try:
        found = clips.clip(trace.video.path).info.digest
    except VideoError as e:
        raise VideoError(f"the trace's video is needed to go on: {e}") from e
    if found != trace.video.digest:
        raise VideoError(
            f"{trace.video.path} is not the video that this trace is about: put that one there, or ask the question anew"
        )


def _place(trace: Trace, at: int) -> int:
    """The index of the segment of call number `at`."""
    return [i for i, s in enumerate(trace.segments) if isinstance(s, Call)][at - 1]


def _made(call: Call, kept: Trace, query: str | None, tag: str | None, grammar: Grammar) -> Call:
    """The call as it is made now, read by the grammar as if the model had written it."""
    changed = query is not None or tag is not None
    name, asked = tag or call.tag, call.query if query is None else " ".join(clean_text(query).split())
    if name not in grammar.tags and (changed or call.outcome not in ("unknown", "forged")):
        have = ", ".join(grammar.tags) or "no tool"
        raise ConfigError(
            f"the call is of <{name}>, and this run has {have}: choose a configuration or a context with that tool"
        )
    text = call.text
    if changed:
        padded = re.fullmatch(r"<\w+>(\s*).*?(\s*)</\w+>", call.text, re.DOTALL)
        before, after = padded.groups() if padded else ("", "")
        text = f"<{name}>{before}{asked}{after}</{name}>"
    parser = grammar.parser(earlier=[(c.tag, c.query) for c in kept.calls if c.outcome == "ok"])
    parser.feed(text)
    parser.finish(StopReason.EOS)
    read = parser.segments[-1] if parser.segments else None
    if isinstance(read, Call) and read.text == text and (read.outcome == "ok" or not changed):
        return read
    if not changed:
        return call
    why = OUTCOMES[read.outcome] if isinstance(read, Call) else "it is no call"
    raise QuestionError(f"<{name}> cannot be asked for {asked[:60]!r}: {why}")


def _given(frame: str | Path | float, trace: Trace, resources: Resources) -> Frames:
    """What comes back where a person says what: as when a person answers a call, except that the model is not
    told."""
    if isinstance(frame, int | float):
        if not 0 <= frame <= trace.video.seconds:
            raise QuestionError(
                f"the video has no frame at {frame:g} s: it lasts {trace.video.seconds:.1f} s"
            )
        decision = Decision(type="supply", seconds=frame)
    else:
        picture(str(frame)).close()  # says what is wrong with the file, if anything is
        decision = Decision(type="supply", frame=str(frame))
    frames = instead(decision, trace, trace.video.path, resources)
    assert frames is not None
    return frames.model_copy(update={"note": ""})


def _spent(trace: Trace, at: int, before: tuple[Segment, ...]) -> Usage:
    """What was used up to call number `at`: each visit to the reasoning node before an answer ends with one
    call."""
    loops = trace.usage.loops[:at]
    seconds = {
        "view": trace.usage.node_seconds.get("view", 0.0),
        "reason": round(sum(loop.seconds for loop in loops), 4),
    }
    for segment in before:
        if isinstance(segment, Frames) and segment.seconds:
            seconds[segment.tag] = round(seconds.get(segment.tag, 0.0) + segment.seconds, 4)
    return Usage(loops=loops, node_seconds=seconds)


def _at_hand(kept: Trace, store: FrameStore) -> None:
    gone = [f for f in kept.shown if f.digest not in store]
    if gone:
        raise StoreError(
            f"{len(gone)} of the {len(kept.shown)} frames that were shown are not in {store.url} (the first: {gone[0].seconds:.1f} s, "
            f"{gone[0].digest}): give the cache or the store that the trace was made with, or ask the question anew"
        )


def _state(kept: Trace) -> dict[str, Any]:
    """The graph's state as it was when the trace was that long."""
    data = kept.model_dump(mode="json")
    return {
        "id": kept.id,
        "asked": {"question": kept.question.text, "options": list(kept.question.options)},
        "info": data["video"],
        "initial": data["initial"],
        "segments": [None, *data["segments"]],
        "loops": [None, *data["usage"]["loops"]],
        "node_seconds": data["usage"]["node_seconds"],
    }
