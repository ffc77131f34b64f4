"""A long video: split it, ask every part at once (so many at a time), and merge what they say.

    split -> part, part, part ... (Send) -> merge

Each part is a run of the graph of `create_act2see` on a part of the file, so its events, interrupts and
checkpoints pass through. With a checkpointer a finished part is saved when it ends, and an unfinished one
after each of its own steps: who resumes asks no part again. One part that fails (a damaged stretch, a model's
refusal) is reported as failed and the others go on; what is wrong with the question, the weights or the
set-up stops the run.

How answers are merged is `graphs/long_video/merge.py`. With a chat model that one writes the answer, from the
parts that the same rule holds to have found something; it must name the parts that it relies on, and these
become the evidence.

State holds references and traces, some 15 KB a part, so an hour is a few megabytes. Memory is that of
`at_once` questions. What came in and what goes out belongs to one run of a thread, as in `graphs/state.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
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
from pydantic import Field
from typing_extensions import TypedDict

from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import Act2SeeError, ConfigError, ReasonerError, SetupError, ToolError, VideoError
from act2see.graphs.ask import create_act2see
from act2see.graphs.compose import as_node
from act2see.graphs.config import Config, Count, Positive, Section, load_config, section
from act2see.graphs.drawing import drawn
from act2see.graphs.long_video.merge import PartReport, evidence_of, judge, vote
from act2see.graphs.nodes import both_ways
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.question import checked
from act2see.graphs.state import AskContext, AskInput, extend, settings_in
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.background import run_in_background
from act2see.tools.video.parts import Span, by_scene, by_time, find_cuts, part_path
from act2see.tools.video.window import Window, absolute_path
from act2see.trace.record import LETTERS, choose
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_OF_ONE_PART = (VideoError, ToolError, ReasonerError)
_MOST_READ = 40  # parts that a chat model is given


class LongVideo(Section):
    """How a long video is split and merged.

    `seconds` of a part: by default three quarters of what the initial view holds at its frame rate (9 s with
    the micro preset, 192 s with the paper's). `overlap` must be longer than the events that no part may cut.
    `margin`: see `graphs/long_video/merge.py`. `model` is a LangChain chat model, `provider:model`, that
    writes the answer; `options` are its own.
    """

    by: Literal["time", "scene"] = "time"
    seconds: Positive | None = None
    overlap: Annotated[float, Field(ge=0)] = 1.0
    most: Count = 2000
    at_once: Count = 8
    margin: Annotated[float, Field(ge=0, le=1)] = 0.5
    model: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LongVideoContext(AskContext):
    """What one run may change: how to split, and for each part what `AskContext` has."""

    by: Literal["time", "scene"] | None = field(default=None, kw_only=True)
    seconds: float | None = field(default=None, kw_only=True)
    overlap: float | None = field(default=None, kw_only=True)


class LongOutput(TypedDict):
    """`found`: whether a part saw it; without, the answer is a guess or says that nothing shows it.

    `evidence` (`Evidence`) are the parts that the answer rests on, best first; `parts` (`PartReport`) all of
    them, in order; `traces` the traces of those that could be asked, with times of the part:
    `trace.video.path` names it. All as JSON data.
    """

    answer: Annotated[str, EphemeralValue]
    found: Annotated[bool, EphemeralValue]
    evidence: Annotated[list[dict[str, Any]], EphemeralValue]
    parts: Annotated[list[dict[str, Any]], EphemeralValue]
    traces: Annotated[list[dict[str, Any]], EphemeralValue]


class LongState(AskInput, LongOutput):
    """`pieces`: start and stop in seconds, and what to open. `answered`: the traces that there are so far."""

    pieces: list[tuple[float, float, str]]
    answered: Annotated[list[dict[str, Any]], extend]
    failed: Annotated[list[dict[str, Any]], extend]


class PartState(AskInput):
    """One part's question; `number` counts from 0."""

    number: int


LongGraph = CompiledStateGraph[LongState, LongVideoContext, AskInput, LongOutput]


def create_long_video(
    config: Config | Mapping[str, Any] | str | None = None,
    settings: LongVideo | Mapping[str, Any] | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
    model: BaseChatModel | None = None,
) -> LongGraph:
    """The compiled graph: `video`, `question`, `options` in, `LongOutput` out.

    `config` and `parts` are those of `create_act2see`; `model` stands for the chat model that
    `settings.model` would name. Raises `ConfigError`, in a run too where its context cannot be used;
    `QuestionError` and `VideoError` in a run.
    """
    loaded = load_config(config)
    chosen = section(LongVideo, settings, "long video")
    parts = parts or cached_parts(loaded)
    model = model or (
        chat_model(chosen.model, chosen.options, "long video's model") if chosen.model else None
    )
    nodes = _Nodes(as_node(create_act2see(loaded, parts=parts), answer=None), parts, loaded, chosen, model)
    graph: StateGraph[LongState, LongVideoContext, AskInput, LongOutput] = StateGraph(
        LongState, context_schema=LongVideoContext, input_schema=AskInput, output_schema=LongOutput
    )
    graph.add_node("split", both_ways(nodes.split), destinations=("part",))
    graph.add_node("part", both_ways(nodes.part, nodes.part_sync), input_schema=PartState)
    graph.add_node("merge", both_ways(nodes.merge))
    graph.add_edge(START, "split")
    graph.add_edge("part", "merge")
    graph.set_finish_point("merge")
    return drawn(graph.compile(checkpointer=checkpointer, name="long_video"))


@dataclass(slots=True)
class _Nodes:
    see: Runnable[Any, dict[str, Any]]
    parts: Parts
    config: Config
    settings: LongVideo
    model: BaseChatModel | None
    _turns: WeakKeyDictionary[Any, asyncio.Semaphore] = field(default_factory=WeakKeyDictionary)

    async def split(
        self, state: LongState, config: RunnableConfig, runtime: Runtime[LongVideoContext]
    ) -> Command[Any]:
        """Check the question, and send each part on its way."""
        question, options = checked(state)
        settings = self._of_run(runtime.context, config)
        pieces = await asyncio.to_thread(self._pieces, os.fspath(state["video"]), settings)
        if len(pieces) > settings.most:
            raise ConfigError(
                f"{state['video']} has {len(pieces)} parts and may have {settings.most}: make them longer (seconds), or allow more (most)"
            )
        runtime.stream_writer({"type": "split", "parts": [[start, stop] for start, stop, _ in pieces]})
        given = {"question": question, "options": options}
        sends = [Send("part", {"video": path, "number": n, **given}) for n, (_, _, path) in enumerate(pieces)]
        # A thread that is asked again starts afresh: a leading None.
        return Command(update={"pieces": pieces, "answered": [None], "failed": [None]}, goto=sends)

    async def part(self, state: PartState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """Ask one part. Its failure is its own; what would fail for every part is raised."""
        # Not LangGraph's max_concurrency: what saves a finished part would then wait behind all parts that
        # have not begun.
        async with self._turn():
            try:
                result = await self.see.ainvoke(state)
            except _OF_ONE_PART as e:
                return self._failed(state, e, runtime)
        return self._answered(state, result, runtime)

    def part_sync(self, state: PartState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """`part` in a synchronous run, whose saver may be synchronous as well. LangGraph's threads bound how
        many go on at once."""
        try:
            result = self.see.invoke(state)
        except _OF_ONE_PART as e:
            return self._failed(state, e, runtime)
        return self._answered(state, result, runtime)

    def _answered(
        self, state: PartState, result: Mapping[str, Any], runtime: Runtime[LongVideoContext]
    ) -> dict[str, Any]:
        trace = result["trace"]
        runtime.stream_writer(
            {
                "type": "part",
                "part": state["number"],
                "run": trace["id"],
                "answer": Trace.model_validate(trace).answer,
            }
        )
        return {"answered": [trace]}

    def _failed(
        self, state: PartState, error: Act2SeeError, runtime: Runtime[LongVideoContext]
    ) -> dict[str, Any]:
        if isinstance(error, SetupError):
            raise error
        runtime.stream_writer({"type": "part", "part": state["number"], "error": str(error)})
        return {"failed": [{"part": state["number"], "error": str(error), "kind": type(error).__name__}]}

    async def merge(self, state: LongState, runtime: Runtime[LongVideoContext]) -> dict[str, Any]:
        """One answer from all."""
        pieces, paths = (
            [Span(start, stop) for start, stop, _ in state["pieces"]],
            [path for _, _, path in state["pieces"]],
        )
        numbers = {path: n for n, path in enumerate(paths)}
        traces = {numbers[t.video.path]: t for t in map(Trace.model_validate, state["answered"])}
        failed = {f["part"]: f["error"] for f in state["failed"]}
        if not traces:
            kind = VideoError if all(f["kind"] == "VideoError" for f in state["failed"]) else ReasonerError
            raise kind(
                f"none of the {len(pieces)} parts of {Window.parse(paths[0]).path} could be asked; the first: {failed[min(failed)]}"
            )
        reports, best = await asyncio.to_thread(self._judge, pieces, traces, failed, paths)
        answer, found, relied = vote(reports, traces)
        if self.model:
            answer, relied = await _written(self.model, reports, traces, best, (answer, relied))
            found = found and bool(relied)
        shown = [evidence_of(reports[n], traces[n], best.get(n)) for n in relied] if found else []
        return {
            "answer": answer,
            "found": found,
            "evidence": [e.model_dump(mode="json") for e in shown],
            "parts": [r.model_dump(mode="json") for r in reports],
            "traces": state["answered"],
            "answered": [None],  # a checkpoint holds them once
        }

    def _pieces(self, video: str, settings: LongVideo) -> list[tuple[float, float, str]]:
        length = self.parts.resources.finder.clips.clip(video).info.seconds
        view = self.config.view
        seconds = settings.seconds or 0.75 * view.max_frames / view.fps
        if settings.by == "time":
            parts = by_time(length, seconds, settings.overlap)
        else:
            parts = by_scene(find_cuts(video, length), length, seconds, settings.overlap)
        return [(p.start, p.stop, part_path(absolute_path(video), p, length)) for p in parts]

    def _judge(
        self,
        pieces: Sequence[Span],
        traces: Mapping[int, Trace],
        failed: Mapping[int, str],
        paths: Sequence[str],
    ) -> tuple[list[PartReport], dict[int, FrameRef]]:
        store, finder = self.parts.resources.store, self.parts.resources.finder
        return judge(
            pieces,
            traces,
            failed,
            paths,
            similarity=lambda frame, query: finder.similarities([store.get(frame.digest)], query)[0],
            no_match=finder.encoder.no_match,
            margin=self.settings.margin,
        )

    def _of_run(self, context: Any, config: RunnableConfig) -> LongVideo:
        """The settings with what this run changes; a parent graph's own context is left alone."""
        given = {
            **settings_in(config.get("configurable"), LongVideoContext),
            **settings_in(context, LongVideoContext),
        }
        ours = {f.name for f in fields(LongVideoContext)} - {f.name for f in fields(AskContext)}
        changed = {name: value for name, value in given.items() if name in ours}
        return section(LongVideo, self.settings.model_dump() | changed, "long video")

    def _turn(self) -> asyncio.Semaphore:
        """For whichever runs this graph has in this loop: a semaphore belongs to one."""
        return self._turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self.settings.at_once))


_ASKED = """\
Parts of one long video were each asked the same question. Below is what those said that seem to have found something, with the \
frames that they rest on; times are those of the whole video. Of {all} parts, {left} are not listed: they saw nothing that fits.

Question: {question}
{options}
{parts}

Answer the question about the whole video from these parts alone. Imagined frames prove nothing. Reply with your answer inside \
<answer></answer>{letter}, and the numbers of the parts that it rests on inside <parts></parts>, for instance <parts>3, 4</parts>."""


async def _written(
    model: BaseChatModel,
    reports: Sequence[PartReport],
    traces: Mapping[int, Trace],
    best: Mapping[int, FrameRef],
    ruled: tuple[str, list[int]],
) -> tuple[str, list[int]]:
    """The chat model's answer and the parts that it names; the rule's (`ruled`) where it says nothing that
    can be used."""
    heard = sorted((r for r in reports if r.verdict == "found"), key=lambda r: -(r.score or 0.0))[:_MOST_READ]
    if not heard:
        return ruled
    question = next(iter(traces.values())).question
    said = _ASKED.format(
        all=len(reports),
        left=len(reports) - len(heard),
        question=question.text,
        options="\n".join(f"{letter}. {o}" for letter, o in zip(LETTERS, question.options, strict=False)),
        parts="\n\n".join(
            _listed(r, traces[r.part], best.get(r.part)) for r in sorted(heard, key=lambda r: r.part)
        ),
        letter=", as the letter of the option alone" if question.options else "",
    )
    try:
        reply = (await run_in_background(model.ainvoke(said))).text
    except Exception as e:  # each provider's package has its own errors
        raise ReasonerError(
            f"the chat model that merges failed: {' '.join(str(e).split())[:300]}; the parts are asked, resume to merge"
        ) from e
    answered = re.search(r"<answer>(.*?)(?:</answer>|\Z)", reply, re.DOTALL)
    answer = (
        answered[1] if answered else re.sub(r"<parts>.*?(</parts>|\Z)", "", reply, flags=re.DOTALL)
    ).strip()
    if not answer or (question.options and choose(answer, question.options) is None):
        return ruled
    named = re.search(r"<parts>(.*?)(?:</parts>|\Z)", reply, re.DOTALL)
    numbers = [int(n) for n in re.findall(r"\d+", named[1])] if named else []
    relied = [n for n in dict.fromkeys(numbers) if any(r.part == n for r in heard)]
    return answer, relied or ruled[1]


def _listed(report: PartReport, trace: Trace, best: FrameRef | None) -> str:
    return f"Part {report.part}, {Span(report.start, report.stop)}\n{evidence_of(report, trace, best).text}"
