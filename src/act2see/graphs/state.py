"""What the graph carries: small, and plain JSON data alone.

Frames are references and segments are dictionaries, so that every checkpoint saver takes them as they are, under
strict msgpack too, and a step stays under 20 KB. The `Trace` is put together from these when it is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NotRequired

from langchain_core.runnables import RunnableConfig
from pydantic import TypeAdapter, ValidationError
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
    approve: list[str]
    review: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AskContext:
    """What one run may change: LangGraph's `context`, or the same names under `configurable`.

    `tools` picks among the tags that the config declares; None means all. `approve` adds tags whose calls wait for a person
    to those of the config (`tools.TAG.approve`).
    """

    tools: tuple[str, ...] | None = None
    seed: int | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    temperature: float | None = None
    approve: tuple[str, ...] | None = field(default=None, kw_only=True)


_CONTEXT = TypeAdapter(AskContext)


def run_context(context: Any, config: RunnableConfig) -> AskContext:
    """The run's settings, from whichever of the two was given; a parent graph's own context type is left alone.

    Raises `ConfigError` for a value of another type, as a parent's own key of the same name may have.
    """
    names = [f.name for f in fields(AskContext)]
    given: dict[str, Any] = {n: v for n, v in (config.get("configurable") or {}).items() if n in names}
    if isinstance(context, AskContext):
        given |= {n: getattr(context, n) for n in names if getattr(context, n) is not None}
    elif isinstance(context, dict):
        given |= {n: v for n, v in context.items() if n in names and v is not None}
    try:
        return _CONTEXT.validate_python(given)
    except ValidationError as e:
        key, value = e.errors()[0]["loc"][0], str(e.errors()[0]["input"])[:60]
        raise ConfigError(
            f"the run's setting {key!r} cannot be {value!r}: {e.errors()[0]['msg'].lower()}; if it is a parent graph's own, "
            "give this graph its settings by act2see.as_node(graph, context=AskContext(...))"
        ) from e


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
