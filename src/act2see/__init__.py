"""Act2See: a vision-language model that looks again at a video, or imagines a frame, while it reasons.

    from act2see import ask, create_act2see

    graph = create_act2see("micro")
    trace = ask(graph, "clip.mp4", "What colour was the triangle when the star blinked?")

The names below are imported from their modules when they are first used, so `import act2see` costs nothing
and `act2see --help` starts at once.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as `typing` has it, which takes longer to import than all of this: Ctrl-C is dealt with once `main` runs

if TYPE_CHECKING:
    from act2see.errors import Act2SeeError
    from act2see.graphs.ask import build_graph, create_act2see
    from act2see.graphs.compose import as_node, as_tool, as_worker
    from act2see.graphs.config import Config, load_config
    from act2see.graphs.fork import afork, areplay, fork, replay
    from act2see.graphs.run import aask, aresume, ask, resume
    from act2see.graphs.state import AskContext
    from act2see.tools.base import FrameTool
    from act2see.tools.frames import FrameRef
    from act2see.tools.video.store import FrameStore
    from act2see.trace.diff import diff_traces
    from act2see.trace.record import Question
    from act2see.trace.trace import Trace, load_traces

    __version__: str

__all__ = [
    "Act2SeeError",
    "AskContext",
    "Config",
    "FrameRef",
    "FrameStore",
    "FrameTool",
    "Question",
    "Trace",
    "__version__",
    "aask",
    "afork",
    "areplay",
    "aresume",
    "as_node",
    "as_tool",
    "as_worker",
    "ask",
    "build_graph",
    "create_act2see",
    "diff_traces",
    "fork",
    "load_config",
    "load_traces",
    "replay",
    "resume",
]

_HOMES = {
    "Act2SeeError": "act2see.errors",
    "AskContext": "act2see.graphs.state",
    "Config": "act2see.graphs.config",
    "FrameRef": "act2see.tools.frames",
    "FrameStore": "act2see.tools.video.store",
    "FrameTool": "act2see.tools.base",
    "Question": "act2see.trace.record",
    "Trace": "act2see.trace.trace",
    "aask": "act2see.graphs.run",
    "afork": "act2see.graphs.fork",
    "areplay": "act2see.graphs.fork",
    "aresume": "act2see.graphs.run",
    "as_node": "act2see.graphs.compose",
    "as_tool": "act2see.graphs.compose",
    "as_worker": "act2see.graphs.compose",
    "ask": "act2see.graphs.run",
    "build_graph": "act2see.graphs.ask",
    "create_act2see": "act2see.graphs.ask",
    "diff_traces": "act2see.trace.diff",
    "fork": "act2see.graphs.fork",
    "load_config": "act2see.graphs.config",
    "load_traces": "act2see.trace.trace",
    "replay": "act2see.graphs.fork",
    "resume": "act2see.graphs.run",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use is an ordinary lookup
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed version; "0+source" where the package runs from a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("act2see")
    except PackageNotFoundError:
        return "0+source"
