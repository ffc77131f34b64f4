"""A graph for long videos: it splits the video, asks the parts in parallel, and merges their answers.

    split -> part, part, part ... (Send) -> merge

Each part is a run of the graph of `create_act2see`, so its events, interrupts and checkpoints pass through. A
checkpointer saves a finished part when it ends, and an unfinished one after each of its own steps, so a
resumed run never repeats a part. If a part fails (because it is damaged, or the model refuses), it is
reported and the others continue. A problem with the question, the weights or the setup ends the run.

The rule of `merge.py` merges the answers, or a chat model writes one (`chat_merge.py`).

The state holds references and traces, about 15 KB a part: a few megabytes for an hour of video. Memory use
is that of `concurrency` questions. Input and output belong to one run of a thread, as in `graphs/state.py`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal
from weakref import WeakKeyDictionary

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.channels import EphemeralValue
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command, Send
from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import Act2SeeError, ConfigError, ReasonerError, SetupError, ToolError, VideoError
from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_node
from act2see.graphs.config import Config, load_config, load_section
from act2see.graphs.earlier import earlier_turns, next_turns
from act2see.graphs.events import PartEvent, PartFailedEvent, SplitEvent, emit
from act2see.graphs.long_video.chat_merge import merge_by_chat
from act2see.graphs.long_video.merge import PartReport, evidence_of, judge, vote
from act2see.graphs.names import check_chat_name
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.sections import Count, Positive, Section
from act2see.graphs.state import AskContext, AskInput, extend, run_context, settings_in, validate_question
from act2see.graphs.wiring import both_ways, make_drawable
from act2see.tools.frames import FrameRef
from act2see.tools.video.parts import Span, by_scene, by_time, find_cuts, part_path
from act2see.tools.video.window import Window, absolute_path
from act2see.trace.options import choose
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_PART_ERRORS = (VideoError, ToolError, ReasonerError)
"""Errors that end one part and not the run, except for `SetupError`, a kind of `ReasonerError`."""


class LongVideo(Section):
    """The settings for splitting a long video and merging the answers."""

    by: Literal["time", "scene"] = "time"
    """Split into parts of equal length, or at cuts between scenes."""
    seconds: Positive | None = None
    """The length of a part. By default it is three quarters of the time that the initial view covers at its
    frame rate (9 s with the micro preset, 192 s with the paper's)."""
    overlap: Annotated[float, Field(ge=0)] = 1.0
    """The number of seconds that neighbouring parts share. Longer events may be cut."""
    max_parts: Count = Field(2000, validation_alias=AliasChoices("max_parts", "most"))
    """The maximum number of parts of a video. `most` is an older name."""
    concurrency: Count = Field(8, validation_alias=AliasChoices("concurrency", "at_once"))
    """The number of parts that are asked at the same time. `at_once` is an older name."""
    margin: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The score that a part needs to count as found, between "no match" (0) and the best part's score (1);
    see `merge.py`."""
    model: str | None = None
    """The chat model that writes the answer: `provider:model` for LangChain. By default a rule decides."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The settings of `model`."""


@dataclass(frozen=True, slots=True)
class LongVideoContext(AskContext):
    """The settings that one run may change: those for splitting, and those of `AskContext` for each part."""

    by: Literal["time", "scene"] | None = field(default=None, kw_only=True)
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = field(default=None, kw_only=True)
    overlap: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = field(default=None, kw_only=True)


class LongOutput(TypedDict):
    """The result of a run, as JSON data."""

    answer: Annotated[str, EphemeralValue]
    found: Annotated[bool, EphemeralValue]
    """Whether a part found the answer; if not, the answer is a guess, or says that nothing shows it."""
    evidence: Annotated[list[dict[str, Any]], EphemeralValue]
    """The parts that support the answer (`Evidence`), best first."""
    parts: Annotated[list[dict[str, Any]], EphemeralValue]
    """The report on each part (`PartReport`), in order."""
    traces: Annotated[list[dict[str, Any]], EphemeralValue]
    """The traces of the parts that could be asked. Their times are relative to the part, which
    `trace.video.path` names."""


class LongState(AskInput, LongOutput):
    """The state of a run."""

    pieces: list[tuple[float, float, str]]
    """The start and the stop of each part in seconds, and the path to open."""
    answered: Annotated[list[dict[str, Any]], extend]
    """The traces of the parts that have finished."""
    failed: Annotated[list[dict[str, Any]], extend]
    """For each part that failed: its number, the error's message and the error's class."""
    digest: str
    """The digest of the video."""
    turns: list[dict[str, str]]
    """The earlier turns of this question, and after its answer those of the thread's next one about this
    video (`graphs/earlier.py`)."""


class PartState(AskInput):
    """The question to one part."""

    number: int
    """The part's number, from 0."""
    earlier: list[dict[str, str]]
    """The earlier turns."""


LongGraph = CompiledStateGraph[LongState, LongVideoContext, AskInput, LongOutput]


def create_long_video(
    config: Config | Mapping[str, Any] | str | None = None,
    settings: LongVideo | Mapping[str, Any] | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
    model: BaseChatModel | None = None,
) -> LongGraph:
    """Return the compiled graph. It takes `video`, `question` and `options`, and returns `LongOutput`.

    A run raises `QuestionError` or `VideoError`, or `ConfigError` if its context cannot be used.

    Args:
        config: The configuration of the graph for each part, as for `create_act2see`.
        settings: The settings for splitting and merging.
        checkpointer: Saves runs after each node, and parts after each of their own nodes.
        parts: The working parts of that graph, as for `create_act2see`.
        model: The chat model that writes the answer; by default the one that the settings name.

    Raises:
        ConfigError: The configuration or the settings cannot be used.
    """
    act2see_config = load_config(config)
    chosen = load_section(LongVideo, settings, "long video")
    parts = parts or cached_parts(act2see_config)
    if model is None and chosen.model:
        check_chat_name(chosen.model, chosen.options, "long video's model")
        model = chat_model(chosen.model, chosen.options, "long video's model")
    ask_part = as_node(create_act2see(act2see_config, parts=parts), earlier="earlier", answer=None)
    nodes = _Nodes(ask_part, parts, act2see_config, chosen, model)
    graph: StateGraph[LongState, LongVideoContext, AskInput, LongOutput] = StateGraph(
        LongState, context_schema=LongVideoContext, input_schema=AskInput, output_schema=LongOutput
    )
    graph.add_node("split", both_ways(nodes.split), destinations=("part",))
    graph.add_node("part", both_ways(nodes.part, nodes.part_sync), input_schema=PartState)
    graph.add_node("merge", both_ways(nodes.merge))
    graph.add_edge(START, "split")
    graph.add_edge("part", "merge")
    graph.set_finish_point("merge")
    return make_drawable(graph.compile(checkpointer=checkpointer, name="long_video"))


@dataclass(slots=True)
class _Nodes:
    """The nodes of the graph."""

    ask_part: Runnable[Any, dict[str, Any]]
    """The graph for one part."""
    parts: Parts
    config: Config
    settings: LongVideo
    model: BaseChatModel | None
    """The chat model that writes the answer."""
    _semaphores: WeakKeyDictionary[Any, asyncio.Semaphore] = field(default_factory=WeakKeyDictionary)
    """The semaphore of each event loop, with `concurrency` places."""

    async def split(
        self, state: LongState, config: RunnableConfig, runtime: Runtime[LongVideoContext]
    ) -> Command[Any]:
        """Check the question, and send it to each part."""
        question, options = validate_question(state)
        settings = self._run_settings(runtime.context, config)
        given = run_context(
            runtime.context, config
        ).earlier  # all settings are checked before a file is opened
        digest, pieces = await asyncio.to_thread(self._pieces, os.fspath(state["video"]), settings)
        if len(pieces) > settings.max_parts:
            raise ConfigError(
                f"{state['video']} splits into {len(pieces)} parts, and at most {settings.max_parts} are "
                "allowed: raise `seconds` or `max_parts`"
            )
        emit(runtime, SplitEvent(parts=tuple((start, stop) for start, stop, _ in pieces)))
        kept = state.get("turns", ()) if state.get("digest") == digest else ()
        turns = earlier_turns(given, kept)
        earlier = [turn.model_dump() for turn in turns]
        sends = []
        for number, (_, _, path) in enumerate(pieces):
            part: PartState = {
                "video": path,
                "question": question,
                "options": options,
                "number": number,
                "earlier": earlier,
            }
            sends.append(Send("part", part))
        # A leading None drops the parts of an earlier question of the thread.
        update = {"pieces": pieces, "answered": [None], "failed": [None], "digest": digest, "turns": earlier}
        return Command(update=update, goto=sends)

    async def part(self, state: PartState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """Ask one part. An error of this part is reported; one that every part would have is raised."""
        # LangGraph's max_concurrency does not work here: saving a finished part would wait behind all parts
        # that have not started.
        async with self._semaphore():
            try:
                result = await self.ask_part.ainvoke(state)
            except _PART_ERRORS as e:
                return self._report_failure(state, e, runtime)
        return self._report_answer(state, result, runtime)

    def part_sync(self, state: PartState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """`part` in a synchronous run, whose checkpointer may be synchronous too.

        The number of parts asked at the same time is the number of LangGraph's threads.
        """
        try:
            result = self.ask_part.invoke(state)
        except _PART_ERRORS as e:
            return self._report_failure(state, e, runtime)
        return self._report_answer(state, result, runtime)

    def _report_answer(
        self, state: PartState, result: Mapping[str, Any], runtime: Runtime[LongVideoContext]
    ) -> dict[str, Any]:
        trace = Trace.model_validate(result["trace"])
        emit(runtime, PartEvent(part=state["number"], run=trace.id, answer=trace.answer))
        return {"answered": [result["trace"]]}

    def _report_failure(
        self, state: PartState, error: Act2SeeError, runtime: Runtime[LongVideoContext]
    ) -> dict[str, Any]:
        if isinstance(error, SetupError):
            raise error
        emit(runtime, PartFailedEvent(part=state["number"], error=str(error)))
        return {"failed": [{"part": state["number"], "error": str(error), "kind": type(error).__name__}]}

    async def merge(self, state: LongState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """Merge the answers of all parts."""
        spans = [Span(start, stop) for start, stop, _ in state["pieces"]]
        paths = [path for _, _, path in state["pieces"]]
        failed = {failure["part"]: failure["error"] for failure in state["failed"]}
        numbers = {path: number for number, path in enumerate(paths)}
        traces: dict[int, Trace] = {}
        for data in state["answered"]:
            trace = Trace.model_validate(data)
            traces[numbers[trace.video.path]] = trace
        if not traces:
            raise _all_failed(Window.parse(paths[0]).path, state["failed"])
        reports, best = await asyncio.to_thread(self._judge, spans, traces, failed, paths)
        answer, found, relied = vote(reports, traces)
        if self.model:
            answer, relied = await merge_by_chat(self.model, reports, traces, best, (answer, relied))
            found = found and bool(relied)
        question = next(iter(traces.values())).question
        told = choose(answer, question.options) or answer
        turns = next_turns(question.earlier, question.text, told)
        evidence = [evidence_of(reports[n], traces[n], best.get(n)) for n in relied] if found else []
        return {
            "answer": answer,
            "found": found,
            "evidence": [part.model_dump(mode="json") for part in evidence],
            "parts": [report.model_dump(mode="json") for report in reports],
            "traces": state["answered"],
            "turns": [turn.model_dump() for turn in turns],
            "answered": [None],  # empty this key, so that the checkpoint holds the traces only once
        }

    def _pieces(self, video: str, settings: LongVideo) -> tuple[str, list[tuple[float, float, str]]]:
        """Split the video; return its digest, and the start, the stop and the path of each part."""
        library = self.parts.resources.finder.library
        info = library.probe(video).info
        length = info.seconds
        view = self.config.view
        seconds = settings.seconds or 0.75 * view.max_frames / view.fps
        if settings.by == "time":
            spans = by_time(length, seconds, settings.overlap)
        else:
            spans = by_scene(find_cuts(library, video), length, seconds, settings.overlap)
        whole = absolute_path(video)
        return info.digest, [(span.start, span.stop, part_path(whole, span, length)) for span in spans]

    def _judge(
        self,
        spans: Sequence[Span],
        traces: Mapping[int, Trace],
        failed: Mapping[int, str],
        paths: Sequence[str],
    ) -> tuple[list[PartReport], dict[int, FrameRef]]:
        store, finder = self.parts.resources.store, self.parts.resources.finder
        return judge(
            spans,
            traces,
            failed,
            paths,
            similarity=lambda frame, query: finder.similarities([store.get(frame.digest)], query)[0],
            no_match=finder.no_match,
            margin=self.settings.margin,
        )

    def _run_settings(self, context: Any, config: RunnableConfig) -> LongVideo:
        """Return the settings with the changes of this run's context."""
        given = {
            **settings_in(config.get("configurable"), LongVideoContext),
            **settings_in(context, LongVideoContext),
        }
        own = {f.name for f in fields(LongVideoContext)} - {f.name for f in fields(AskContext)}
        changed = {name: value for name, value in given.items() if name in own}
        return load_section(LongVideo, self.settings.model_dump() | changed, "long video")

    def _semaphore(self) -> asyncio.Semaphore:
        """Return the semaphore of this event loop, which all runs of this graph in the loop share."""
        new = asyncio.Semaphore(self.settings.concurrency)
        return self._semaphores.setdefault(asyncio.get_running_loop(), new)


def _all_failed(video: str, failures: Sequence[Mapping[str, Any]]) -> Act2SeeError:
    """Return the error for a video of which no part could be asked."""
    kinds = {failure["kind"] for failure in failures}
    error = VideoError if kinds == {"VideoError"} else ReasonerError
    first = min(failures, key=lambda failure: failure["part"])
    return error(f"none of the {len(failures)} parts of {video} could be asked; the first: {first['error']}")
