"""OpenTelemetry spans of runs: one for the run, and in it one for each loop of reasoning and each call of a
tool.

    graph = create_act2see("micro").with_config(callbacks=[Spans()])

A callback handler, because LangChain hands it what every node took and returned: so a run has its spans
however it is started (`ask`, `ainvoke`, a node of a parent graph, resumed, forked, on a server), and a
retried tool has one for each try. Spans lie within the span that is current where the run is started.

Names follow OpenTelemetry's conventions for generative AI (`gen_ai.*`) where they have one, else `act2see.*`.
What a person asked, and what was written, shown or found, is left out unless `payloads` is set: spans then
hold lengths, counts, times and scores. Nor are messages of errors recorded then: they quote paths and
queries.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from act2see.errors import ConfigError
from act2see.tools.runtime.forks import Lock

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

Attributes = dict[str, Any]


@dataclass(slots=True)
class _Run:
    """A run of the graph: its span, and what its nodes have used so far."""

    span: Span
    read: int = 0
    written: int = 0
    model: str = ""


@dataclass(slots=True)
class _Node:
    """A node at work. Its span is None where it has none of its own."""

    run: _Run
    kind: str
    span: Span | None = None


@dataclass(slots=True)
class _Started:
    """When and where a chain began: whether it is a run of this graph is known when its first node begins."""

    at: int
    context: Context


class Spans(BaseCallbackHandler):
    """Makes spans with `tracer`, by default the application's own. One handler serves any number of runs at
    once.

    Raises `ConfigError` where OpenTelemetry is not installed.
    """

    run_inline = True  # in the run's own task, so that the span that is current there is seen

    def __init__(self, tracer: Tracer | None = None, *, payloads: bool = False) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError as e:
            raise ConfigError("spans need OpenTelemetry: pip install 'act2see[otel]'") from e
        self.payloads = payloads
        self._tracer = tracer or trace.get_tracer("act2see")
        self._current, self._within, self._error = (
            context.get_current,
            trace.set_span_in_context,
            trace.StatusCode.ERROR,
        )
        self._started: dict[UUID, _Started] = {}
        self._runs: dict[UUID, _Run] = {}
        self._nodes: dict[UUID, _Node] = {}
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
            self._started[run_id] = _Started(time.time_ns(), self._current())
            name = str((metadata or {}).get("langgraph_node") or "")
            # Whatever runs within a node has the node's metadata too; the node itself has its name.
            kind = _kind(name, inputs) if name and name == kwargs.get("name") else None
            if kind and parent_run_id in self._started:
                run = self._runs.get(parent_run_id) or self._begin(parent_run_id)
                self._nodes[run_id] = _Node(run, kind, self._node_span(run, kind, name, inputs))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, outputs)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._end(run_id, None, error)

    def _begin(self, graph: UUID) -> _Run:
        started = self._started[graph]
        given = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": "act2see",
            "gen_ai.agent.name": "act2see",
        }
        span = self._tracer.start_span(
            "invoke_agent act2see", started.context, attributes=given, start_time=started.at
        )
        run = self._runs[graph] = _Run(span)
        return run

    def _node_span(self, run: _Run, kind: str, name: str, state: Attributes) -> Span | None:
        run.span.set_attributes(self._of_question(state))
        versions = state.get("versions") or {}
        run.model = run.model or versions.get("reasoner", "")
        given: Attributes
        if kind == "reason":
            title = f"chat {run.model}"
            given = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "act2see",
                "gen_ai.request.model": run.model,
            }
            given |= {
                "gen_ai.request.seed": versions.get("seed", 0),
                "act2see.loop": len(state.get("loops") or ()) + 1,
            }
        elif kind == "tool":
            title, call = f"execute_tool {name}", state["segments"][-1]
            number = sum(s["kind"] == "call" for s in state["segments"])
            given = {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": name,
                "gen_ai.tool.call.id": f"call_{number}",
            }
            given |= {"act2see.tag": name, "act2see.query.length": len(call["query"])}
            if self.payloads:
                given["gen_ai.tool.call.arguments"] = json.dumps({"query": call["query"]}, ensure_ascii=False)
        else:
            return None
        return self._tracer.start_span(title, self._within(run.span), attributes=given)

    def _of_question(self, state: Attributes) -> Attributes:
        asked = state if state.get("question") else state.get("asked") or {}
        question, options = str(asked.get("question") or ""), asked.get("options") or []
        given: Attributes = {"act2see.question.length": len(question), "act2see.options": len(options)}
        given |= {"gen_ai.conversation.id": state["id"]} if state.get("id") else {}
        if self.payloads:
            given |= {"act2see.question": question, "act2see.question.options": [str(o) for o in options]}
            given["act2see.video"] = str(state.get("video") or (state.get("info") or {}).get("path") or "")
        return given

    def _end(self, run_id: UUID, outputs: Any, error: BaseException | None = None) -> None:
        with self._lock:
            self._started.pop(run_id, None)
            node, run = self._nodes.pop(run_id, None), self._runs.pop(run_id, None)
        if node:
            update = outputs.update if isinstance(outputs, Command) else outputs
            self._of_node(node, update if isinstance(update, dict) else {})
        for span in (node and node.span, run and run.span):
            if not span:
                continue
            if isinstance(
                error, GraphBubbleUp
            ):  # not a failure: a person is asked, and the run is resumed later
                span.set_attribute("act2see.waiting", True)
            elif error is not None:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._error, str(error) if self.payloads else None)
            span.end()

    def _of_node(self, node: _Node, update: Attributes) -> None:
        run, segments = node.run, [s for s in update.get("segments") or () if s]
        if node.kind == "view" and "info" in update:
            info = update["info"]
            run.span.set_attributes(
                {"act2see.frames.initial": len(update["initial"]), "act2see.video.seconds": info["seconds"]}
            )
            run.span.set_attributes({"act2see.seconds.view": update["node_seconds"]["view"]})
        elif node.kind == "reason" and node.span and update.get("loops"):
            loop, written = update["loops"][-1], "".join(s["text"] for s in segments if "text" in s)
            read = loop["prefilled"] + loop["cached"]
            run.read, run.written = run.read + read, run.written + loop["decoded"]
            node.span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": read,
                    "gen_ai.usage.cache_read.input_tokens": loop["cached"],
                    "gen_ai.usage.output_tokens": loop["decoded"],
                    "gen_ai.response.finish_reasons": [loop["stop"]],
                    "act2see.seconds": loop["seconds"],
                }
            )
            run.span.set_attributes(
                {"gen_ai.usage.input_tokens": run.read, "gen_ai.usage.output_tokens": run.written}
            )
            for call in (s for s in segments if s["kind"] == "call"):
                node.span.set_attribute("act2see.call.outcome", call["outcome"])
            if self.payloads:
                node.span.set_attribute("act2see.text", written)
        elif node.kind == "tool" and node.span and segments:
            node.span.set_attributes(self._of_frames(segments[-1]))
        elif node.kind == "answer" and "trace" in update:
            trace = update["trace"]
            calls, answer = [s for s in trace["segments"] if s["kind"] == "call"], trace["segments"][-1]
            run.span.set_attributes(
                {"act2see.calls": len(calls), "act2see.forced": bool(answer.get("forced"))}
            )
            run.span.set_attributes(
                {"gen_ai.request.model": run.model, "act2see.config": trace["versions"]["config"]}
            )
            if self.payloads:
                run.span.set_attribute("act2see.answer", update["answer"])

    def _of_frames(self, segment: Attributes) -> Attributes:
        frames, made = segment["frames"], [f["provenance"] for f in segment["frames"]]
        scores = [s for p in made if (s := p.get("score", p.get("faithfulness"))) is not None]
        given: Attributes = {
            "act2see.frames": len(frames),
            "act2see.seconds": segment["seconds"],
            "act2see.noted": bool(segment["note"]),
        }
        given |= {"act2see.imagined": sum(p["kind"] == "generated" for p in made)}
        given |= {"act2see.score": max(scores)} if scores else {}
        if self.payloads:
            given |= {
                "act2see.frames.digests": [f["digest"] for f in frames],
                "act2see.note": segment["note"],
            }
            given["act2see.frames.seconds"] = [f["seconds"] for f in frames]
        return given


def _kind(node: str, state: Any) -> str | None:
    """Which of this graph's nodes it is, by the state that it is given; None for a node of another graph."""
    if not isinstance(state, dict):
        return None
    if node == "view" and {"video", "question"} <= state.keys():
        return "view"
    if not {"asked", "segments", "initial", "info"} <= state.keys():
        return None
    if node in ("reason", "answer"):
        return node
    last = state["segments"][-1] if state["segments"] else {}
    return "tool" if last.get("kind") == "call" and last.get("tag") == node else None
