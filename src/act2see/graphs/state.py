"""What the graph carries: small, and plain JSON data alone.

Frames are references and segments are dictionaries, so that every checkpoint saver takes them as they are, under
strict msgpack too, and a step stays under 20 KB. The `Trace` is put together from these when it is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, NotRequired

from langchain_core.runnables import RunnableConfig
from typing_extensions import TypedDict

from act2see.agent.trace import Loop, Trace, Usage
from act2see.errors import ConfigError


def extend(old: list[Any], new: list[Any]) -> list[Any]:
    """Append; a leading None starts afresh, so that a thread can be asked a second question."""
    return new[1:] if new and new[0] is None else old + new


def add_seconds(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """Seconds by node, summed; the view begins a run and starts afresh."""
    if "view" in b:
        return b
    return {k: round(a.get(k, 0.0) + b.get(k, 0.0), 4) for k in {**a, **b}}


class AskInput(TypedDict):
    """The question: what `as_tool` and other systems fill in."""

    video: str
    question: str
    options: NotRequired[list[str]]


class AskOutput(TypedDict):
    """`answer` is the body of `<answer>`; `trace` is a `Trace` as JSON data."""

    answer: str
    trace: dict[str, Any]


class AskState(AskInput, AskOutput):
    """The run so far."""

    id: str
    info: dict[str, Any]
    initial: list[dict[str, Any]]
    segments: Annotated[list[dict[str, Any]], extend]
    loops: Annotated[list[dict[str, Any]], extend]
    node_seconds: Annotated[dict[str, float], add_seconds]
    versions: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AskContext:
    """What one run may change: LangGraph's `context`, or the same names under `configurable`.

    `tools` picks among the tags that the config declares; None means all.
    """

    tools: tuple[str, ...] | None = None
    seed: int | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    temperature: float | None = None


def run_context(context: Any, config: RunnableConfig) -> AskContext:
    """The run's settings, from whichever of the two was given; a parent graph's own context type is left alone."""
    names = [f.name for f in fields(AskContext)]
    given: dict[str, Any] = {n: v for n, v in (config.get("configurable") or {}).items() if n in names}
    if isinstance(context, AskContext):
        given |= {n: getattr(context, n) for n in names if getattr(context, n) is not None}
    elif isinstance(context, dict):
        given |= {n: v for n, v in context.items() if n in names and v is not None}
    tools = given.get("tools")
    if isinstance(tools, str):
        raise ConfigError(f"tools must be a list of tags, not the text {tools!r}")
    return AskContext(**{**given, "tools": tuple(tools) if tools is not None else None})


def trace_of(state: Any) -> Trace:
    """The trace of a state, finished or not."""
    return Trace.model_validate(
        {
            "id": state["id"],
            "video": state["info"],
            "question": {"text": state["question"], "options": tuple(state.get("options") or ())},
            "initial": state.get("initial", []),
            "segments": state.get("segments", []),
            "usage": Usage(
                loops=tuple(Loop(**loop) for loop in state.get("loops", [])), node_seconds=dict(state.get("node_seconds", {}))
            ).model_dump(),
            "versions": state.get("versions", {}),
        }
    )
