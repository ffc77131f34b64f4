"""What the graph carries: small, and plain JSON data alone.

Frames are references and segments are dictionaries, so that every checkpoint saver takes them as they are,
under strict msgpack too, and a step stays under 20 KB. The `Trace` is put together from these when it is
wanted.

A thread may be asked again. What came in and what goes out belongs to one run, so input and output are
ephemeral: LangGraph drops them when the next run begins. What a run needs of its input to the end is in
`asked` and `info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NotRequired

from langchain_core.runnables import RunnableConfig
from langgraph.channels import EphemeralValue
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from act2see.errors import ConfigError, StoreError
from act2see.trace.record import Loop, Usage
from act2see.trace.trace import Trace


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

    video: Annotated[str, EphemeralValue]
    question: Annotated[str, EphemeralValue]
    options: NotRequired[Annotated[list[str], EphemeralValue]]


class AskOutput(TypedDict):
    """`answer` is the body of `<answer>`; `trace` is a `Trace` as JSON data."""

    answer: Annotated[str, EphemeralValue]
    trace: Annotated[dict[str, Any], EphemeralValue]


class AskState(AskInput, AskOutput):
    """The run so far. `asked` is the question with its options, as they were checked."""

    id: str
    asked: dict[str, Any]
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
    """What one run may change: LangGraph's `context`, or `configurable: {"act2see": {...}}` with these names.

    `tools` picks among the tags that the config declares; None means all. `approve` adds tags whose calls
    wait for a person to those of the config (`tools.TAG.approve`).
    """

    tools: tuple[str, ...] | None = None
    seed: int | None = None
    max_calls: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    approve: tuple[str, ...] | None = field(default=None, kw_only=True)


_CONTEXT = TypeAdapter(AskContext)


CONTEXT_KEY = "act2see"
"""The one key under which a parent's `configurable`, or its own context, may hold our settings."""


def run_context(context: Any, config: RunnableConfig) -> AskContext:
    """The run's settings, from whichever of the two was given.

    A parent graph has a `configurable` and perhaps a context of its own, with names such as `temperature`
    that mean its own model. They are left alone, but for what stands under `act2see`.

    Raises:
        ConfigError: a setting that does not exist, or of another type.
    """
    given = {**settings_in(config.get("configurable"), AskContext), **settings_in(context, AskContext)}
    try:
        return _CONTEXT.validate_python(given)
    except ValidationError as e:
        key, value = e.errors()[0]["loc"][0], str(e.errors()[0]["input"])[:60]
        raise ConfigError(
            f"the run's setting {key!r} cannot be {value!r}: {e.errors()[0]['msg'].lower()}"
        ) from e


def settings_in(source: Any, kind: type[AskContext]) -> dict[str, Any]:
    """The settings of this kind that a context or a `configurable` holds. Raises `ConfigError` for an unknown
    name."""
    names = [f.name for f in fields(kind)]
    if not isinstance(source, AskContext):
        source = (
            source.get(CONTEXT_KEY) if isinstance(source, Mapping) else getattr(source, CONTEXT_KEY, None)
        )
    if isinstance(source, AskContext):
        held = {f.name: getattr(source, f.name) for f in fields(source)}
        return {name: held[name] for name in names if held.get(name) is not None}
    if source is None:
        return {}
    if not isinstance(source, Mapping):
        raise ConfigError(
            f"the run's settings under {CONTEXT_KEY!r} must be names and values, or an AskContext"
        )
    # One mapping may hold the settings of a graph and of the one inside it, as with long videos.
    kinds: list[type[AskContext]] = [AskContext, *AskContext.__subclasses__()]
    known = {f.name for one in kinds for f in fields(one)}
    if unknown := sorted(set(source) - known, key=str):
        raise ConfigError(f"there is no setting {unknown[0]!r} of a run (known: {', '.join(sorted(known))})")
    return {name: source[name] for name in names if source.get(name) is not None}


def trace_of(state: Any) -> Trace:
    """The trace of a state, finished or not. Raises `StoreError` for a state that another version saved."""
    if "asked" not in state:
        raise StoreError("this run was saved by an earlier version of act2see: ask the question again")
    asked = state["asked"]
    return Trace.model_validate(
        {
            "id": state["id"],
            "video": state["info"],
            "question": {"text": asked["question"], "options": tuple(asked["options"])},
            "initial": state.get("initial", []),
            "segments": state.get("segments", []),
            "usage": Usage(
                loops=tuple(Loop(**loop) for loop in state.get("loops", [])),
                node_seconds=dict(state.get("node_seconds", {})),
            ).model_dump(),
            "versions": state.get("versions", {}),
        }
    )
