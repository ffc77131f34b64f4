"""Act2See: a vision-language model that looks again at a video, or imagines a frame, while it reasons.

    from act2see import create_act2see, load_config

    graph = create_act2see(load_config("micro"))
    result = graph.invoke({"video": "clip.mp4", "question": "What colour was the triangle when the star blinked?"})

The names below are imported from their modules when they are first used, so `import act2see` costs nothing and
`act2see --help` starts at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from act2see.agent.trace import Question, Trace, load_traces
    from act2see.errors import Act2SeeError
    from act2see.graphs.ask import build_graph, create_act2see
    from act2see.graphs.config import Config, load_config
    from act2see.graphs.run import aask, aresume, ask
    from act2see.tools.base import FrameTool
    from act2see.tools.frames import FrameRef
    from act2see.tools.store import FrameStore

    __version__: str

__all__ = [
    "Act2SeeError",
    "Config",
    "FrameRef",
    "FrameStore",
    "FrameTool",
    "Question",
    "Trace",
    "__version__",
    "aask",
    "aresume",
    "ask",
    "build_graph",
    "create_act2see",
    "load_config",
    "load_traces",
]

_HOMES = {
    "Act2SeeError": "act2see.errors",
    "Config": "act2see.graphs.config",
    "FrameRef": "act2see.tools.frames",
    "FrameStore": "act2see.tools.store",
    "FrameTool": "act2see.tools.base",
    "Question": "act2see.agent.trace",
    "Trace": "act2see.agent.trace",
    "aask": "act2see.graphs.run",
    "aresume": "act2see.graphs.run",
    "ask": "act2see.graphs.run",
    "build_graph": "act2see.graphs.ask",
    "create_act2see": "act2see.graphs.ask",
    "load_config": "act2see.graphs.config",
    "load_traces": "act2see.agent.trace",
}


def __getattr__(name: str) -> object:
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
