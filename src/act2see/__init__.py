"""Act2See: a vision-language model that looks again at a video, or imagines a frame, while it reasons.

    from act2see import ask, create_act2see

    graph = create_act2see("micro")
    trace = ask(graph, "clip.mp4", "What colour was the triangle when the star blinked?")

This is the public face: README, docs and notebooks import from here alone. A name is imported from its module
when it is first used, so `import act2see` costs nothing and `act2see --help` starts at once.
"""

from __future__ import annotations

# As in `typing`, whose import takes longer than all of this; until `main` runs, Ctrl-C ends in a traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from act2see.agent.parser import StopReason
    from act2see.agent.prompt import Prompt
    from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request, Sampling
    from act2see.errors import (
        Act2SeeError,
        BenchmarkError,
        CalibrationError,
        ConfigError,
        ContextError,
        CorpusError,
        DecisionError,
        QuestionError,
        ReasonerError,
        RefusedError,
        SetupError,
        SourceError,
        StoreError,
        ToolError,
        TraceError,
        TranscriptError,
        UnreachableError,
        VideoError,
        WaitingError,
        WeightsError,
    )
    from act2see.graphs.approval import Decision
    from act2see.graphs.ask import build_graph, create_act2see
    from act2see.graphs.assistant import Assistant, create_assistant, traces_of
    from act2see.graphs.compose import as_node, as_tool, as_worker
    from act2see.graphs.config import Config, load_config
    from act2see.graphs.fork import afork, areplay, fork, replay
    from act2see.graphs.long_video.graph import LongVideo, LongVideoContext, create_long_video
    from act2see.graphs.needs import check_ready
    from act2see.graphs.parts import Parts, build_parts, cached_parts
    from act2see.graphs.run import aask, aresume, ask, resume
    from act2see.graphs.spans import Spans
    from act2see.graphs.state import AskContext
    from act2see.micro.questions import items as board_items, make_item
    from act2see.micro.recipe.corpus import after_view, shuffle_options
    from act2see.micro.source import load_world
    from act2see.micro.study.evaluate import ask_all
    from act2see.micro.teacher import Faults as TeacherFaults, ScriptedTeacher
    from act2see.micro.words import describe as describe_board
    from act2see.micro.world import read_board, write_clip
    from act2see.tools.base import (
        FrameTool,
        Resources,
        ToolContext,
        ToolOptions,
        ToolResult,
        as_langchain_tool,
    )
    from act2see.tools.frames import Cropped, FrameRef, Generated, Initial, Retrieved, Supplied, Taken
    from act2see.tools.video.folders import Folders
    from act2see.tools.video.store import FrameStore
    from act2see.trace.diff import diff_traces
    from act2see.trace.events import (
        AnswerEvent,
        CallEvent,
        FramesEvent,
        IndexEvent,
        TokenEvent,
        ViewEvent,
        read_event,
        trace_events,
    )
    from act2see.trace.explorer import explore
    from act2see.trace.folder import find_video
    from act2see.trace.page import trace_html
    from act2see.trace.record import Answer, Call, Frames, Question, Text, Turn
    from act2see.trace.table import calls_frame, traces_frame
    from act2see.trace.trace import Trace, load_traces
    from act2see.training.corpus.card import CorpusMeta
    from act2see.training.corpus.construct import ConstructLimits, ConstructPlan, construct
    from act2see.training.corpus.dataset import read_corpus, write_corpus
    from act2see.training.corpus.exports import export_corpus, import_corpus
    from act2see.training.corpus.filtering import drop_reason, filter_chains
    from act2see.training.corpus.records import read_chains
    from act2see.training.corpus.similarity import SentenceEncoder
    from act2see.training.sft.finetune import finetune
    from act2see.training.sft.settings import SftSettings

    __version__: str

__all__ = [
    "Act2SeeError",
    "Answer",
    "AnswerEvent",
    "AskContext",
    "Assistant",
    "BenchmarkError",
    "CalibrationError",
    "Call",
    "CallEvent",
    "Config",
    "ConfigError",
    "ConstructLimits",
    "ConstructPlan",
    "ContextError",
    "CorpusError",
    "CorpusMeta",
    "Cropped",
    "Decision",
    "DecisionError",
    "Delta",
    "Done",
    "Folders",
    "FrameRef",
    "FrameStore",
    "FrameTool",
    "Frames",
    "FramesEvent",
    "Generated",
    "IndexEvent",
    "Initial",
    "LongVideo",
    "LongVideoContext",
    "Parts",
    "Prompt",
    "Question",
    "QuestionError",
    "Reasoner",
    "ReasonerError",
    "RefusedError",
    "Request",
    "Resources",
    "Retrieved",
    "Sampling",
    "ScriptedTeacher",
    "SentenceEncoder",
    "SetupError",
    "SftSettings",
    "SourceError",
    "Spans",
    "StopReason",
    "StoreError",
    "Supplied",
    "Taken",
    "TeacherFaults",
    "Text",
    "TokenEvent",
    "ToolContext",
    "ToolError",
    "ToolOptions",
    "ToolResult",
    "Trace",
    "TraceError",
    "TranscriptError",
    "Turn",
    "UnreachableError",
    "VideoError",
    "ViewEvent",
    "WaitingError",
    "WeightsError",
    "__version__",
    "aask",
    "afork",
    "after_view",
    "areplay",
    "aresume",
    "as_langchain_tool",
    "as_node",
    "as_tool",
    "as_worker",
    "ask",
    "ask_all",
    "board_items",
    "build_graph",
    "build_parts",
    "cached_parts",
    "calls_frame",
    "check_ready",
    "construct",
    "create_act2see",
    "create_assistant",
    "create_long_video",
    "describe_board",
    "diff_traces",
    "drop_reason",
    "explore",
    "export_corpus",
    "filter_chains",
    "find_video",
    "finetune",
    "fork",
    "import_corpus",
    "load_config",
    "load_traces",
    "load_world",
    "make_item",
    "read_board",
    "read_chains",
    "read_corpus",
    "read_event",
    "replay",
    "resume",
    "shuffle_options",
    "trace_events",
    "trace_html",
    "traces_frame",
    "traces_of",
    "write_clip",
    "write_corpus",
]

# The module of each name; for a name that is longer than in its module, `module:name`.
_HOMES = {
    # Ask
    "AskContext": "act2see.graphs.state",
    "Config": "act2see.graphs.config",
    "Decision": "act2see.graphs.approval",
    "Parts": "act2see.graphs.parts",
    "Spans": "act2see.graphs.spans",
    "aask": "act2see.graphs.run",
    "afork": "act2see.graphs.fork",
    "areplay": "act2see.graphs.fork",
    "aresume": "act2see.graphs.run",
    "ask": "act2see.graphs.run",
    "build_graph": "act2see.graphs.ask",
    "build_parts": "act2see.graphs.parts",
    "cached_parts": "act2see.graphs.parts",
    "check_ready": "act2see.graphs.needs",
    "create_act2see": "act2see.graphs.ask",
    "fork": "act2see.graphs.fork",
    "load_config": "act2see.graphs.config",
    "replay": "act2see.graphs.fork",
    "resume": "act2see.graphs.run",
    # Compose
    "Assistant": "act2see.graphs.assistant",
    "LongVideo": "act2see.graphs.long_video.graph",
    "LongVideoContext": "act2see.graphs.long_video.graph",
    "as_node": "act2see.graphs.compose",
    "as_tool": "act2see.graphs.compose",
    "as_worker": "act2see.graphs.compose",
    "create_assistant": "act2see.graphs.assistant",
    "create_long_video": "act2see.graphs.long_video.graph",
    "traces_of": "act2see.graphs.assistant",
    # Traces, their events, and how they are shown
    "Answer": "act2see.trace.record",
    "AnswerEvent": "act2see.trace.events",
    "Call": "act2see.trace.record",
    "CallEvent": "act2see.trace.events",
    "Frames": "act2see.trace.record",
    "FramesEvent": "act2see.trace.events",
    "IndexEvent": "act2see.trace.events",
    "Question": "act2see.trace.record",
    "Text": "act2see.trace.record",
    "Turn": "act2see.trace.record",
    "TokenEvent": "act2see.trace.events",
    "Trace": "act2see.trace.trace",
    "ViewEvent": "act2see.trace.events",
    "calls_frame": "act2see.trace.table",
    "diff_traces": "act2see.trace.diff",
    "explore": "act2see.trace.explorer",
    "find_video": "act2see.trace.folder",
    "load_traces": "act2see.trace.trace",
    "read_event": "act2see.trace.events",
    "trace_events": "act2see.trace.events",
    "trace_html": "act2see.trace.page",
    "traces_frame": "act2see.trace.table",
    # Frames, videos and tools
    "Cropped": "act2see.tools.frames",
    "Folders": "act2see.tools.video.folders",
    "FrameRef": "act2see.tools.frames",
    "FrameStore": "act2see.tools.video.store",
    "FrameTool": "act2see.tools.base",
    "Generated": "act2see.tools.frames",
    "Initial": "act2see.tools.frames",
    "Resources": "act2see.tools.base",
    "Retrieved": "act2see.tools.frames",
    "Supplied": "act2see.tools.frames",
    "Taken": "act2see.tools.frames",
    "ToolContext": "act2see.tools.base",
    "ToolOptions": "act2see.tools.base",
    "ToolResult": "act2see.tools.base",
    "as_langchain_tool": "act2see.tools.base",
    # Reasoners
    "Delta": "act2see.agent.reasoners.base",
    "Done": "act2see.agent.reasoners.base",
    "Prompt": "act2see.agent.prompt",
    "Reasoner": "act2see.agent.reasoners.base",
    "Request": "act2see.agent.reasoners.base",
    "Sampling": "act2see.agent.reasoners.base",
    "StopReason": "act2see.agent.parser",
    # Training
    "ConstructLimits": "act2see.training.corpus.construct",
    "ConstructPlan": "act2see.training.corpus.construct",
    "CorpusMeta": "act2see.training.corpus.card",
    "SentenceEncoder": "act2see.training.corpus.similarity",
    "SftSettings": "act2see.training.sft.settings",
    "construct": "act2see.training.corpus.construct",
    "export_corpus": "act2see.training.corpus.exports",
    "drop_reason": "act2see.training.corpus.filtering",
    "filter_chains": "act2see.training.corpus.filtering",
    "finetune": "act2see.training.sft.finetune",
    "import_corpus": "act2see.training.corpus.exports",
    "read_chains": "act2see.training.corpus.records",
    "read_corpus": "act2see.training.corpus.dataset",
    "write_corpus": "act2see.training.corpus.dataset",
    # The board world
    "ScriptedTeacher": "act2see.micro.teacher",
    "TeacherFaults": "act2see.micro.teacher:Faults",
    "after_view": "act2see.micro.recipe.corpus",
    "ask_all": "act2see.micro.study.evaluate",
    "board_items": "act2see.micro.questions:items",
    "describe_board": "act2see.micro.words:describe",
    "load_world": "act2see.micro.source",
    "make_item": "act2see.micro.questions",
    "read_board": "act2see.micro.world",
    "shuffle_options": "act2see.micro.recipe.corpus",
    "write_clip": "act2see.micro.world",
    # Errors
    "Act2SeeError": "act2see.errors",
    "BenchmarkError": "act2see.errors",
    "CalibrationError": "act2see.errors",
    "ConfigError": "act2see.errors",
    "ContextError": "act2see.errors",
    "CorpusError": "act2see.errors",
    "DecisionError": "act2see.errors",
    "QuestionError": "act2see.errors",
    "ReasonerError": "act2see.errors",
    "RefusedError": "act2see.errors",
    "SetupError": "act2see.errors",
    "SourceError": "act2see.errors",
    "StoreError": "act2see.errors",
    "ToolError": "act2see.errors",
    "TraceError": "act2see.errors",
    "TranscriptError": "act2see.errors",
    "UnreachableError": "act2see.errors",
    "VideoError": "act2see.errors",
    "WaitingError": "act2see.errors",
    "WeightsError": "act2see.errors",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        value = getattr(import_module(module), attribute or name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use is an ordinary lookup
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed version; "0+source" if the package runs from a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("act2see")
    except PackageNotFoundError:
        return "0+source"
