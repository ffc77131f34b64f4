"""The spans of real runs, as an exporter receives them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph

from act2see.errors import ConfigError, ToolError, VideoError, WaitingError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.run import aask, aresume, ask
from act2see.graphs.spans import Spans
from act2see.graphs.state import AskContext, AskState
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.base import ToolContext, ToolResult
from act2see.tools.frames import Cropped, Generated
from tests.graphs.doubles import Scripted, Shows, clip_in, parts_in

pytest.importorskip("opentelemetry.sdk", reason="OpenTelemetry's SDK is a test dependency")
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer

LINES = (
    "Look. <retrieve>the circle</retrieve>",
    "And <generate>it in blue</generate>",
    "So.</think><answer>B</answer>",
)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def traced(graph: Graph, tracer: Tracer, **how: Any) -> Graph:
    spans = Spans(tracer, **how)
    spans.raise_error = True  # by default LangChain only logs the errors of a handler
    return graph.with_config(callbacks=[spans])


def begun(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return sorted(exporter.get_finished_spans(), key=lambda s: s.start_time or 0)


def of(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {})[name]


def test_spans_of_a_run_of_micro(tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    item = next(
        i for n in range(20) if (i := make_item("blink", n, "test", seconds=6)).needed == ("retrieve",)
    )
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    graph = traced(create_act2see(load_config("micro")), tracer)
    with tracer.start_as_current_span("caller") as caller:
        trace = ask(graph, clip, item.text, item.options)
    spans = begun(exporter)
    assert [s.name for s in spans] == [
        "caller",
        "invoke_agent act2see",
        "chat vlm",
        "execute_tool retrieve",
        "chat vlm",
    ]
    run, first, tool, second = spans[1:]
    assert run.parent
    assert run.parent.span_id == caller.get_span_context().span_id
    assert {s.parent.span_id for s in (first, tool, second) if s.parent} == {run.context.span_id}
    assert [of(s, "gen_ai.operation.name") for s in (run, first, tool)] == [
        "invoke_agent",
        "chat",
        "execute_tool",
    ]
    for span, loop in zip((first, second), trace.usage.loops, strict=True):
        assert of(span, "gen_ai.usage.input_tokens") == loop.prefilled + loop.cached
        assert of(span, "gen_ai.usage.cache_read.input_tokens") == loop.cached
        assert of(span, "gen_ai.usage.output_tokens") == loop.decoded
        assert of(span, "gen_ai.response.finish_reasons") == (loop.stop,)
    (frames,) = [back for _, back in trace.looks if back]
    score = frames.frames[0].provenance.score  # type: ignore[union-attr]
    assert (of(tool, "act2see.tag"), of(tool, "act2see.frames"), of(tool, "act2see.score")) == (
        "retrieve",
        1,
        score,
    )
    assert of(tool, "act2see.query.length") == len(trace.calls[0].query)
    assert (of(run, "gen_ai.conversation.id"), of(run, "act2see.calls"), of(run, "act2see.forced")) == (
        trace.id,
        1,
        False,
    )
    assert of(run, "gen_ai.usage.output_tokens") == trace.usage.tokens
    told = " ".join(s.to_json() for s in spans)
    secrets = [
        item.text,
        *item.options,
        trace.calls[0].query,
        clip.name,
        str(tmp_path),
        *(f.digest for f in trace.shown),
    ]
    assert not [x for x in [*secrets, *trace.text.split(". ")] if len(x) > 6 and x in told]


async def test_payloads_are_recorded_if_asked_for(
    tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    trace = await aask(
        traced(create_act2see(config, parts=parts), tracer, payloads=True),
        clip_in(tmp_path),
        "What?",
        ["red", "blue"],
    )
    run, loop, tool, *_ = begun(exporter)
    assert (of(run, "act2see.question"), of(run, "act2see.answer"), of(run, "act2see.video")) == (
        "What?",
        "B",
        trace.video.path,
    )
    assert of(loop, "act2see.text") == LINES[0]
    assert json.loads(of(tool, "gen_ai.tool.call.arguments")) == {"query": "the circle"}
    assert of(tool, "act2see.frames.digests") == (trace.shown[-1].digest,)


async def test_a_tool_that_fails_has_a_span_for_each_try(
    tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    config, parts = parts_in(
        tmp_path, Scripted(LINES[0], LINES[2]), retrieve=ToolError("the secret file is gone")
    )
    await aask(traced(create_act2see(config, parts=parts), tracer), clip_in(tmp_path), "What?")
    run, *rest = begun(exporter)
    tries = [s for s in rest if s.name == "execute_tool retrieve"]
    assert len(tries) == 2
    assert {(of(s, "error.type"), s.status.status_code) for s in tries} == {("ToolError", StatusCode.ERROR)}
    assert run.status.status_code is StatusCode.UNSET  # the run continued and answered
    assert "secret" not in " ".join(s.to_json() for s in rest)


async def test_spans_of_a_failed_run(tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = traced(create_act2see(config, parts=parts), tracer)
    with pytest.raises(VideoError):
        await aask(graph, tmp_path / "secret.mp4", "What?")
    (run,) = begun(exporter)
    assert (of(run, "error.type"), run.status.status_code) == ("VideoError", StatusCode.ERROR)
    assert "secret" not in run.to_json()


async def test_waiting_for_a_person_is_not_an_error_span(
    tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = traced(create_act2see(config, parts=parts, checkpointer=InMemorySaver()), tracer)
    with pytest.raises(WaitingError):
        await aask(
            graph, clip_in(tmp_path), "What?", context=AskContext(approve=("generate",)), thread_id="t"
        )
    await aresume(graph, "t", decision={"type": "accept"}, context=AskContext(approve=("generate",)))
    spans = begun(exporter)
    assert [s.name for s in spans if s.name.startswith("execute")] == [
        "execute_tool retrieve",
        "execute_tool generate",
    ]
    runs = [s for s in spans if s.name == "invoke_agent act2see"]
    assert [of(s, "gen_ai.conversation.id") for s in runs] == ["t", "t"]
    assert {s.status.status_code for s in spans} == {StatusCode.UNSET}


async def test_concurrent_and_nested_runs_have_separate_spans(
    tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    inner = create_act2see(config, parts=parts)
    parent: Any = (
        StateGraph(AskState)
        .add_node("look", inner)
        .set_entry_point("look")
        .set_finish_point("look")
        .compile()
    )
    clip = clip_in(tmp_path)
    await traced(parent, tracer).abatch([{"video": clip, "question": f"What {i}?"} for i in range(3)])
    spans = begun(exporter)
    runs = {s.context.span_id: s for s in spans if s.name == "invoke_agent act2see"}
    assert len(runs) == 3
    for id in runs:
        names = [s.name for s in spans if s.parent and s.parent.span_id == id]
        assert names == [
            "chat scripted",
            "execute_tool retrieve",
            "chat scripted",
            "execute_tool generate",
            "chat scripted",
        ]


async def test_node_inputs_and_outputs_are_small_and_hold_no_pixels(tmp_path: Path) -> None:
    """LangSmith receives the inputs and outputs of nodes, if it is enabled."""

    class Sizes(BaseCallbackHandler):
        run_inline, raise_error = True, True
        sizes: list[int] = []  # noqa: RUF012

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            self.sizes.append(len(json.dumps(inputs)))

        def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
            self.sizes.append(len(json.dumps(outputs if isinstance(outputs, dict) else outputs.update)))

    config, parts = parts_in(tmp_path, Scripted(*LINES))
    graph = create_act2see(config, parts=parts).with_config(callbacks=[sizes := Sizes()])
    await aask(graph, clip_in(tmp_path, 12), "What?")
    assert len(sizes.sizes) >= 14
    assert max(sizes.sizes) < 20_000


def test_missing_opentelemetry_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"act2see\[otel\]"):
        Spans()


class CutsOutOfAnImaginedFrame(Shows):
    """A tool that returns a part of a generated frame."""

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        (anchor,) = (await super().call(query, context)).frames
        made = Generated(prompt=query, anchor=anchor, seed=1, strength=0.3, model="m", faithfulness=0.5)
        source = anchor.model_copy(update={"provenance": made})
        cut = Cropped(query=query, source=source, box=(0, 0, 0.5, 0.5))
        return ToolResult((anchor.model_copy(update={"provenance": cut}),))


def test_a_part_of_an_imagined_frame_counts_as_imagined(
    tmp_path: Path, tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    config, parts = parts_in(tmp_path, Scripted(*LINES))
    parts.tools["generate"] = CutsOutOfAnImaginedFrame("generate", parts.resources)  # type: ignore[index]
    ask(traced(create_act2see(config, parts=parts), tracer), clip_in(tmp_path), "What?", ["red", "blue"])
    tools = [span for span in begun(exporter) if "act2see.imagined" in (span.attributes or {})]
    imagined = [(of(span, "act2see.tag"), of(span, "act2see.imagined")) for span in tools]
    assert imagined == [("retrieve", 0), ("generate", 1)]
