"""The graph's input, state, output and run settings: small, and only plain JSON data.

Frames are references and segments are dictionaries, so that every checkpoint saver takes them as they are,
under strict msgpack too, and a step stays under 20 KB. `trace_of` builds the `Trace` of a state, and
`state_of` the state of a trace.

A thread may be asked again. Input and output belong to one run, so both are ephemeral: LangGraph drops them
when the next run begins. What a run needs of its input to the end is in `asked` and `info`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from typing import Annotated, Any, NotRequired

from langchain_core.runnables import RunnableConfig
from langgraph.channels import EphemeralValue
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from act2see.errors import ConfigError, QuestionError, StoreError
from act2see.tools.runtime.text import clean_text, first_problem
from act2see.trace.record import Loop, Usage
from act2see.trace.trace import Trace

MAX_QUESTION = 8_000  # characters
MAX_OPTIONS = 26  # one letter each


def extend(old: list[Any], new: list[Any]) -> list[Any]:
    """Append; a leading None drops what was there, so that a thread can be asked a second question."""
    return new[1:] if new and new[0] is None else old + new


def add_seconds(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """Add up seconds by node. The node `view` begins a run, so its seconds replace all earlier ones."""
    if "view" in new:
        return new
    return {node: round(old.get(node, 0.0) + new.get(node, 0.0), 4) for node in {**old, **new}}


class AskInput(TypedDict):
    """The question: what `as_tool` and other systems fill in."""

    video: Annotated[str, EphemeralValue]
    """The path of the video; `clip.mp4#t=10,20` is its part from 10 to 20 seconds."""
    question: Annotated[str, EphemeralValue]
    options: NotRequired[Annotated[list[str], EphemeralValue]]
    """The answers to choose from."""


class AskOutput(TypedDict):
    """The result of a run."""

    answer: Annotated[str, EphemeralValue]
    """The body of `<answer>`."""
    trace: Annotated[dict[str, Any], EphemeralValue]
    """The `Trace` as JSON data."""


class AskState(AskInput, AskOutput):
    """The run so far."""

    id: str
    """The run's id, which becomes that of its trace."""
    asked: dict[str, Any]
    """The validated question and its options."""
    info: dict[str, Any]
    """The `Video` as JSON data."""
    initial: list[dict[str, Any]]
    """The initial frames."""
    segments: Annotated[list[dict[str, Any]], extend]
    """The chain of thought so far, as in `Trace.segments`."""
    loops: Annotated[list[dict[str, Any]], extend]
    """One `Loop` for each visit to the node `reason`."""
    node_seconds: Annotated[dict[str, float], add_seconds]
    versions: dict[str, Any]
    approve: list[str]
    """Tags whose calls wait for a person."""
    review: dict[str, Any] | None
    """The person's decision about the call that runs next."""


@dataclass(frozen=True, slots=True)
class AskContext:
    """The settings that one run may change: LangGraph's `context`, or `configurable: {"act2see": {...}}` with
    these names.

    None keeps the configuration's value.
    """

    tools: tuple[str, ...] | None = None
    """The tags that the run may call, of those that the config declares."""
    seed: int | None = None
    max_calls: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    approve: tuple[str, ...] | None = field(default=None, kw_only=True)
    """Tags whose calls wait for a person, besides those of the config (`tools.TAG.approve`)."""


_CONTEXT = TypeAdapter(AskContext)

CONTEXT_KEY = "act2see"
"""The one key under which a parent's `configurable`, or its own context, may hold our settings."""


def run_context(context: Any, config: RunnableConfig) -> AskContext:
    """The run's settings, from its context or else from its `configurable`.

    A parent graph has a `configurable` and perhaps a context of its own, with names such as `temperature`
    that mean its own model. Only their key `act2see` is read.

    Raises:
        ConfigError: A setting is unknown, or has another type.
    """
    given = {**settings_in(config.get("configurable"), AskContext), **settings_in(context, AskContext)}
    try:
        return _CONTEXT.validate_python(given)
    except ValidationError as e:
        path, problem = first_problem(e)
        name = path.partition(".")[0]
        value = str(given[name])[:60]
        raise ConfigError(f"the run's setting {name!r} cannot be {value!r}: {problem.lower()}") from e


def settings_in(source: Any, kind: type[AskContext]) -> dict[str, Any]:
    """The settings of this kind that a context or a `configurable` holds.

    Raises:
        ConfigError: A name is unknown.
    """
    if isinstance(source, AskContext):
        held: Any = source
    elif isinstance(source, Mapping):
        held = source.get(CONTEXT_KEY)
    else:
        held = getattr(source, CONTEXT_KEY, None)
    if held is None:
        return {}
    if isinstance(held, AskContext):
        values = {f.name: getattr(held, f.name) for f in fields(held)}
    elif isinstance(held, Mapping):
        _check_names(held)
        values = dict(held)
    else:
        raise ConfigError(
            f"the run's settings under {CONTEXT_KEY!r} must be names and values, or an AskContext"
        )
    names = [f.name for f in fields(kind)]
    return {name: values[name] for name in names if values.get(name) is not None}


def _check_names(settings: Mapping[str, Any]) -> None:
    # One mapping may hold the settings of a graph and of the one inside it, as with long videos.
    kinds: list[type[AskContext]] = [AskContext, *AskContext.__subclasses__()]
    known = {f.name for kind in kinds for f in fields(kind)}
    if unknown := sorted(set(settings) - known, key=str):
        names = ", ".join(sorted(known))
        raise ConfigError(f"there is no setting {unknown[0]!r} of a run (known: {names})")


def validate_question(state: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The question and its options, stripped, and without characters that no trace can hold.

    A parent graph that shares keys hands over whatever it keeps under them. So types are checked here, and an
    error names the key and the adapter for parents that have a schema of their own.

    Raises:
        QuestionError: The video, the question or an option has another type; the question or an option is
            empty or too long; there are too many options, or the same one twice.
    """
    given, listed = state.get("question") or "", state.get("options") or []
    if not isinstance(state.get("video"), str | PathLike):
        raise _type_error("video", "the path of a file", state.get("video"))
    if not isinstance(given, str):
        raise _type_error("question", "text", given)
    if not isinstance(listed, list | tuple):
        raise _type_error("options", "a list of texts", listed)
    question = clean_text(given).strip()
    if not question:
        raise QuestionError("the question is empty: ask something about the video")
    if len(question) > MAX_QUESTION:
        raise QuestionError(
            f"the question has {len(question)} characters; at most {MAX_QUESTION} are allowed: shorten it"
        )
    return question, _validate_options([clean_text(str(option)).strip() for option in listed])


def _validate_options(options: list[str]) -> list[str]:
    if len(options) > MAX_OPTIONS:
        raise QuestionError(
            f"{len(options)} options are given, and at most {MAX_OPTIONS} are allowed: give fewer"
        )
    seen: set[str] = set()
    for option in options:
        if not option:
            raise QuestionError("an option is empty")
        if option.casefold() in seen:
            raise QuestionError(f"the option {option!r} is given twice")
        seen.add(option.casefold())
    return options


def _type_error(key: str, wanted: str, value: Any) -> QuestionError:
    found = "missing" if value is None else f"of type {type(value).__name__}"
    return QuestionError(
        f"{key!r} must be {wanted} and is {found}; if a parent graph keeps something else there, "
        f"use act2see.as_node(graph, {key}=...) as its node"
    )


def trace_of(state: Any) -> Trace:
    """The trace of a state; its run may be unfinished.

    Raises:
        StoreError: Another version saved the state.
    """
    if "asked" not in state:
        raise StoreError("this run was saved by an earlier version of act2see: ask the question again")
    asked = state["asked"]
    usage = Usage(
        loops=tuple(Loop(**loop) for loop in state.get("loops", [])),
        node_seconds=dict(state.get("node_seconds", {})),
    )
    return Trace.model_validate(
        {
            "id": state["id"],
            "video": state["info"],
            "question": {"text": asked["question"], "options": tuple(asked["options"])},
            "initial": state.get("initial", []),
            "segments": state.get("segments", []),
            "usage": usage.model_dump(),
            "versions": state.get("versions", {}),
        }
    )


def state_of(trace: Trace) -> dict[str, Any]:
    """The update that sets a graph's state to that of a trace, but for its versions."""
    data = trace.model_dump(mode="json")
    return {
        "id": trace.id,
        "asked": {"question": trace.question.text, "options": list(trace.question.options)},
        "info": data["video"],
        "initial": data["initial"],
        "segments": [None, *data["segments"]],
        "loops": [None, *data["usage"]["loops"]],
        "node_seconds": data["usage"]["node_seconds"],
    }
