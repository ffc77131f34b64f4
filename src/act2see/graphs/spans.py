"""OpenTelemetry spans of runs: one for the run, with a child span for each turn and each call of a tool.

    graph = create_act2see("micro").with_config(callbacks=[Spans()])

LangChain passes the input and the output of every node to this callback handler. So a run has spans no matter
how it is started (`ask`, `ainvoke`, a node of a parent graph, resumed, forked, on a server), and a retried
tool has a span for each attempt. The parent of a run's span is the span that is current when the run starts.

Names follow OpenTelemetry's conventions for generative AI (`gen_ai.*`); names outside them are `act2see.*`.
Without `payloads`, spans hold only lengths, counts, times and scores. They leave out questions, the model's
text, queries and frames, and also error messages, which may quote paths and queries.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from act2see.errors import ConfigError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

Attributes = dict[str, Any]
NodeKind = Literal["view", "reason", "tool", "answer"]


@dataclass(slots=True)
class _RunSpan:
    """The span of a run of the graph."""

    span: Span
    read: int = 0
    """The number of tokens that the model has read."""
    written: int = 0
    """The number of tokens that the model has written."""
    model: str = ""


@dataclass(slots=True)
class _NodeSpan:
    """A node that is running."""

    run: _RunSpan
    kind: NodeKind
    span: Span | None = None
    """The node's span; `view` and `answer` have none."""


@dataclass(slots=True)
class _Started:
    """A chain that has started. Only its first node shows whether it is a run of this graph."""

    at: int
    """The start time, in nanoseconds since the epoch."""
    context: Context
    """The context of the caller's span."""


class Spans(BaseCallbackHandler):
    """Creates the spans. One handler can serve many runs at the same time.

    Args:
        tracer: The tracer; by default the application's.
        payloads: Also record questions, text, queries, frames and error messages.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    run_inline = True
    """Makes LangChain call the handler in the run's own task, where the caller's span is current."""

    def __init__(self, tracer: Tracer | None = None, *, payloads: bool = False) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError as e:
            raise ConfigError("spans need OpenTelemetry: pip install 'act2see[otel]'") from e
        self.payloads = payloads
        self._tracer = tracer or trace.get_tracer("act2see")
        self._current_context = context.get_current
        self._context_of = trace.set_span_in_context
        self._error = trace.StatusCode.ERROR
        self._started: dict[UUID, _Started] = {}
        self._runs: dict[UUID, _RunSpan] = {}
        self._nodes: dict[UUID, _NodeSpan] = {}
        self._lock = Lock()

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> None:
        with self._lock:
            self._started[run_id] = _Started(time.time_ns(), self._current_context())
            name = str((metadata or {}).get("langgraph_node") or "")
            # Chains inside a node have the same metadata, but only the node itself has this name.
            if not name or name != kwargs.get("name"):
                return
            kind = _kind_of(name, inputs)
            if kind and parent_run_id in self._started:
                run = self._runs.get(parent_run_id) or self._start_run(parent_run_id)
                self._nodes[run_id] = _NodeSpan(run, kind, self._start_node(run, kind, name, inputs))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None, error)

    def _start_run(self, graph: UUID) -> _RunSpan:
        started = self._started[graph]
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "act2see",
            "gen_ai.agent.name": "act2see",
        }
        span = self._tracer.start_span(
            "invoke_agent act2see", started.context, attributes=attributes, start_time=started.at
        )
        run = self._runs[graph] = _RunSpan(span)
        return run

    def _start_node(self, run: _RunSpan, kind: NodeKind, name: str, state: Attributes) -> Span | None:
        run.span.set_attributes(self._question_attributes(state))
        run.model = run.model or (state.get("versions") or {}).get("reasoner", "")
        if kind == "reason":
            title, attributes = f"chat {run.model}", self._turn_attributes(run, state)
        elif kind == "tool":
            title, attributes = f"execute_tool {name}", self._call_attributes(name, state)
        else:
            return None
        return self._tracer.start_span(title, self._context_of(run.span), attributes=attributes)

    def _question_attributes(self, state: Attributes) -> Attributes:
        # `view` gets the run's input; the other nodes find it in `asked`.
        asked = state if state.get("question") else state.get("asked") or {}
        question = str(asked.get("question") or "")
        options = asked.get("options") or []
        attributes: Attributes = {
            "act2see.question.length": len(question),
            "act2see.options": len(options),
        }
        if state.get("id"):
            attributes["gen_ai.conversation.id"] = state["id"]
        if self.payloads:
            attributes["act2see.question"] = question
            attributes["act2see.question.options"] = [str(option) for option in options]
            attributes["act2see.video"] = str(
                state.get("video") or (state.get("info") or {}).get("path") or ""
            )
        return attributes

    def _turn_attributes(self, run: _RunSpan, state: Attributes) -> Attributes:
        return {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "act2see",
            "gen_ai.request.model": run.model,
            "gen_ai.request.seed": (state.get("versions") or {}).get("seed", 0),
            "act2see.loop": len(state.get("loops") or ()) + 1,
        }

    def _call_attributes(self, tag: str, state: Attributes) -> Attributes:
        query = state["segments"][-1]["query"]
        number = sum(segment["kind"] == "call" for segment in state["segments"])
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tag,
            "gen_ai.tool.call.id": f"call_{number}",
            "act2see.tag": tag,
            "act2see.query.length": len(query),
        }
        if self.payloads:
            attributes["gen_ai.tool.call.arguments"] = json.dumps({"query": query}, ensure_ascii=False)
        return attributes

    def _end(self, run_id: UUID, outputs: Any, error: BaseException | None = None) -> None:
        with self._lock:
            self._started.pop(run_id, None)
            node = self._nodes.pop(run_id, None)
            run = self._runs.pop(run_id, None)
        if node:
            update = outputs.update if isinstance(outputs, Command) else outputs
            self._add_update(node, update if isinstance(update, dict) else {})
        for span in (node.span if node else None, run.span if run else None):
            if span:
                self._end_span(span, error)

    def _end_span(self, span: Span, error: BaseException | None) -> None:
        if isinstance(error, GraphBubbleUp):  # an interrupt, not a failure: the run is resumed later
            span.set_attribute("act2see.waiting", True)
        elif error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._error, str(error) if self.payloads else None)
        span.end()

    def _add_update(self, node: _NodeSpan, update: Attributes) -> None:
        """Add attributes from a node's output to the span of the node and to the span of the run."""
        segments = [segment for segment in update.get("segments") or () if segment]
        if node.kind == "view" and "info" in update:
            node.run.span.set_attributes(
                {
                    "act2see.frames.initial": len(update["initial"]),
                    "act2see.video.seconds": update["info"]["seconds"],
                    "act2see.seconds.view": update["node_seconds"]["view"],
                }
            )
        elif node.kind == "reason" and node.span and update.get("loops"):
            self._add_turn(node.run, node.span, update["loops"][-1], segments)
        elif node.kind == "tool" and node.span and segments:
            node.span.set_attributes(self._frames_attributes(segments[-1]))
        elif node.kind == "answer" and "trace" in update:
            self._add_answer(node.run, update)

    def _add_turn(self, run: _RunSpan, span: Span, loop: Attributes, segments: Sequence[Attributes]) -> None:
        read = loop["prefilled"] + loop["cached"]
        run.read += read
        written = loop["decoded"] + loop.get("thinking", 0)  # providers charge both as output
        run.written += written
        span.set_attributes(
            {
                "gen_ai.usage.input_tokens": read,
                "gen_ai.usage.cache_read.input_tokens": loop["cached"],
                "gen_ai.usage.output_tokens": written,
                "gen_ai.response.finish_reasons": [loop["stop"]],
                "act2see.seconds": loop["seconds"],
            }
        )
        run.span.set_attributes(
            {"gen_ai.usage.input_tokens": run.read, "gen_ai.usage.output_tokens": run.written}
        )
        for segment in segments:
            if segment["kind"] == "call":
                span.set_attribute("act2see.call.outcome", segment["outcome"])
        if self.payloads:
            written = "".join(segment["text"] for segment in segments if "text" in segment)
            span.set_attribute("act2see.text", written)

    def _frames_attributes(self, segment: Attributes) -> Attributes:
        frames = [FrameRef.model_validate(frame) for frame in segment["frames"]]
        attributes: Attributes = {
            "act2see.frames": len(frames),
            "act2see.seconds": segment["seconds"],
            "act2see.noted": bool(segment["note"]),
            "act2see.imagined": sum(frame.imagined for frame in frames),
        }
        scores = [frame.similarity for frame in frames if frame.similarity is not None]
        if scores:
            attributes["act2see.score"] = max(scores)
        if self.payloads:
            attributes["act2see.frames.digests"] = [frame.digest for frame in frames]
            attributes["act2see.frames.seconds"] = [frame.seconds for frame in frames]
            attributes["act2see.note"] = segment["note"]
        return attributes

    def _add_answer(self, run: _RunSpan, update: Attributes) -> None:
        trace = update["trace"]
        run.span.set_attributes(
            {
                "act2see.calls": sum(segment["kind"] == "call" for segment in trace["segments"]),
                "act2see.forced": bool(trace["segments"][-1].get("forced")),
                "gen_ai.request.model": run.model,
                "act2see.config": trace["versions"]["config"],
            }
        )
        if self.payloads:
            run.span.set_attribute("act2see.answer", update["answer"])


def _kind_of(node: str, state: Any) -> NodeKind | None:
    """Return the kind of a node, judged by its name and its input; None for a node of another graph."""
    if not isinstance(state, dict):
        return None
    if node == "view" and {"video", "question"} <= state.keys():
        return "view"
    if not {"asked", "segments", "initial", "info"} <= state.keys():
        return None
    if node == "reason":
        return "reason"
    if node == "answer":
        return "answer"
    last = state["segments"][-1] if state["segments"] else {}
    return "tool" if last.get("kind") == "call" and last.get("tag") == node else None
