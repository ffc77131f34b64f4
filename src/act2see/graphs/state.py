"""The graph's input, state, output and run settings, which hold only plain JSON data.

Frames are references and segments are dictionaries, so that every checkpointer can save them, even under
strict msgpack, and a step stays under 20 KB. `trace_of` builds the trace of a state, and `state_of` the state
of a trace.

A thread may be asked several questions. Input and output belong to one run, so they are ephemeral: LangGraph
drops them when the next run starts. The parts of the input that a run needs until its end are copied to
`asked` and `info`.
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
from act2see.graphs.earlier import MAX_TURNS
from act2see.tools.runtime.text import clean_text, first_line, first_problem, quote_text
from act2see.trace.record import Call, Loop, Turn, Usage
from act2see.trace.trace import Trace

STATE_VERSION = 1
"""Version of what a checkpoint holds. act2see 0.1.0 wrote version 1 without naming it. Raise it when a key
changes its meaning, and read the earlier versions in `trace_of`."""
MAX_QUESTION = 8_000  # characters
MAX_OPTIONS = 26  # each option has a letter
MAX_OPTION = 2_000  # characters


def extend(old: list[Any], new: list[Any]) -> list[Any]:
    """Append `new`. A leading None drops `old`, because a second question of the thread starts empty.

    Raises:
        StoreError: `new` is not a list. Clients of a server may send updates of a thread's state.
    """
    if not isinstance(new, list):
        raise StoreError(f"an update of the state must be a list here and is of type {type(new).__name__}")
    return new[1:] if new and new[0] is None else old + new


def add_seconds(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    """Add up the seconds by node. `view` starts a run, so its seconds replace all earlier ones.

    Raises:
        StoreError: `new` holds something else than seconds.
    """
    if not isinstance(new, dict) or not all(isinstance(value, int | float) for value in new.values()):
        raise StoreError("an update of node_seconds must hold the seconds of nodes, by name")
    if "view" in new:
        return new
    return {node: round(old.get(node, 0.0) + new.get(node, 0.0), 4) for node in {**old, **new}}


class AskInput(TypedDict):
    """The input of a run."""

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
    """The state of a run."""

    id: str
    """The run's id, which is also the id of its trace."""
    asked: dict[str, Any]
    """What `asked_data` returns: the validated question, its options and the earlier turns."""
    turns: list[dict[str, str]]
    """The earlier turns of the thread's next question about this video."""
    info: dict[str, Any]
    """The `Video` as JSON data."""
    initial: list[dict[str, Any]]
    """The initial frames."""
    segments: Annotated[list[dict[str, Any]], extend]
    """The chain of thought, as in `Trace.segments`."""
    loops: Annotated[list[dict[str, Any]], extend]
    """One `Loop` for each visit to the node `reason`."""
    node_seconds: Annotated[dict[str, float], add_seconds]
    """The seconds spent in each node."""
    versions: dict[str, Any]
    """The versions and settings of the run, as in `Trace.versions`."""
    approve: list[str]
    """The tags whose calls wait for a person."""
    review: dict[str, Any] | None
    """The person's decision about the call that runs next."""


@dataclass(frozen=True, slots=True)
class AskContext:
    """The settings that one run may change. None keeps the value of the configuration.

    Pass them as LangGraph's `context`, or under the same names as `configurable: {"act2see": {...}}`.
    """

    tools: tuple[str, ...] | None = None
    """The tags that the run may call, from those of the configuration."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_calls: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None  # at 1e39 the model's numbers overflow
    approve: tuple[str, ...] | None = field(default=None, kw_only=True)
    """The tags whose calls wait for a person, in addition to those of the configuration
    (`tools.TAG.approve`)."""
    earlier: Annotated[tuple[Turn | tuple[str, str], ...], Field(max_length=MAX_TURNS)] | None = field(
        default=None, kw_only=True
    )
    """Questions that were asked before, each with its answer, the oldest first. None takes those of the
    thread, and `()` starts afresh."""


_CONTEXT = TypeAdapter(AskContext)

CONTEXT_KEY = "act2see"
"""The key of our settings in the `configurable` of a run, or in the context of a parent graph."""


def run_context(context: Any, config: RunnableConfig) -> AskContext:
    """Return the run's settings, from its context or else from its `configurable`.

    The `configurable` and the context of a parent graph may have names such as `temperature` for the parent's
    own model. So only their key `act2see` is read.

    Args:
        context: The context of the run.
        config: The LangGraph configuration of the run.

    Raises:
        ConfigError: A setting is unknown or invalid.
    """
    settings = {**settings_in(config.get("configurable"), AskContext), **settings_in(context, AskContext)}
    checked: AskContext = _validate(settings, _CONTEXT)
    return checked


def check_settings(settings: Any, kind: type[AskContext]) -> None:
    """Check settings as a client sends them, before a run begins.

    Args:
        settings: The context of a run, or what its `configurable` holds under `CONTEXT_KEY`.
        kind: The class whose fields are the settings.

    Raises:
        ConfigError: A setting is unknown or invalid.
    """
    _validate(settings_in({CONTEXT_KEY: settings}, kind), TypeAdapter(kind))


def _validate(settings: dict[str, Any], schema: TypeAdapter[Any]) -> Any:
    try:
        return schema.validate_python(settings)
    except ValidationError as e:
        path, problem = first_problem(e)
        name = path.partition(".")[0]
        value = quote_text(str(settings.get(name)), 60)
        raise ConfigError(f"the run's setting {name!r} cannot be {value!r}: {problem.lower()}") from e


def settings_in(source: Any, kind: type[AskContext]) -> dict[str, Any]:
    """Return the settings that a context or a `configurable` sets, by name.

    Args:
        source: The context or the `configurable`.
        kind: The class whose fields are the settings.

    Raises:
        ConfigError: A name is unknown.
    """
    if isinstance(source, AskContext):
        settings: Any = source
    elif isinstance(source, Mapping):
        settings = source.get(CONTEXT_KEY)
    else:
        settings = getattr(source, CONTEXT_KEY, None)  # a parent's context may be an object of any class
    if settings is None:
        return {}
    if isinstance(settings, AskContext):
        values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    elif isinstance(settings, Mapping):
        _check_names(settings)
        values = dict(settings)
    else:
        raise ConfigError(f"the run's settings under {CONTEXT_KEY!r} must be a mapping or an AskContext")
    names = [f.name for f in fields(kind)]
    return {name: values[name] for name in names if values.get(name) is not None}


def _check_names(settings: Mapping[str, Any]) -> None:
    # One mapping holds the settings of a long video and of its parts, so the names of all classes are known.
    kinds: list[type[AskContext]] = [AskContext, *AskContext.__subclasses__()]
    known = {f.name for kind in kinds for f in fields(kind)}
    if unknown := sorted(set(settings) - known, key=str):
        names = ", ".join(sorted(known))
        raise ConfigError(f"a run has no setting {quote_text(str(unknown[0]))!r} (known: {names})")


def validate_question(state: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the question and its options, stripped, without characters that a trace cannot hold.

    A parent graph that shares keys with this graph may keep anything under them. So the types are checked
    here, and an error names the key and the adapter for parents with another schema.

    Raises:
        QuestionError: The video, the question or the options have a wrong type; the question or an option is
            empty or too long; there are too many options, or an option is repeated.
    """
    text = state.get("question") or ""
    listed = state.get("options") or []
    if not isinstance(state.get("video"), str | PathLike):
        raise _type_error("video", "the path of a file", state.get("video"))
    if not isinstance(text, str):
        raise _type_error("question", "text", text)
    if not isinstance(listed, list | tuple):
        raise _type_error("options", "a list of texts", listed)
    for option in listed:
        if isinstance(option, Mapping | list | tuple):
            raise _type_error("options", "a list of texts", option)
    question = clean_text(text).strip()
    if not question:
        raise QuestionError("the question is empty: ask something about the video")
    if len(question) > MAX_QUESTION:
        raise QuestionError(
            f"the question has {len(question)} characters; at most {MAX_QUESTION} are allowed: shorten it"
        )
    return question, _validate_options([clean_text(str(option)).strip() for option in listed])


def _validate_options(options: list[str]) -> list[str]:
    if len(options) > MAX_OPTIONS:
        raise QuestionError(f"there are {len(options)} options; at most {MAX_OPTIONS} are allowed")
    seen: set[str] = set()
    for option in options:
        if not option:
            raise QuestionError("an option is empty: fill it in, or leave it out")
        if len(option) > MAX_OPTION:
            raise QuestionError(
                f"an option has {len(option)} characters; at most {MAX_OPTION} are allowed: shorten it"
            )
        if option.casefold() in seen:
            raise QuestionError(f"the option {option!r} is given twice: leave one out")
        seen.add(option.casefold())
    return options


def _type_error(key: str, expected: str, value: Any) -> QuestionError:
    found = "missing" if value is None else f"of type {type(value).__name__}"
    return QuestionError(
        f"{key!r} must be {expected} and is {found}; if a parent graph keeps something else there, "
        f"use act2see.as_node(graph, {key}=...) as its node"
    )


def trace_of(state: Any) -> Trace:
    """Return the trace of a state. The run may be unfinished.

    Raises:
        StoreError: Another version of act2see saved the state, or a client of a server has damaged it.
    """
    if "asked" not in state:
        raise StoreError("an earlier version of act2see saved this run: ask the question again")
    try:
        return _trace_of(state)
    except ValidationError as e:
        path, problem = first_problem(e)
        raise StoreError(
            f"the saved state of this run is damaged ({path}: {problem}): ask the question again"
        ) from e
    except (KeyError, TypeError, ValueError) as e:
        raise StoreError(
            f"the saved state of this run is damaged ({first_line(e)}): ask the question again"
        ) from e


def _trace_of(state: Any) -> Trace:
    asked = state["asked"]
    version = asked.get("version", 1)
    if version != STATE_VERSION:
        raise StoreError(
            f"this run was saved with version {quote_text(repr(version))}, and this act2see reads version "
            f"{STATE_VERSION}: resume it with the act2see that saved it, or ask the question again"
        )
    usage = Usage(
        loops=tuple(Loop(**loop) for loop in state.get("loops", [])),
        node_seconds=dict(state.get("node_seconds", {})),
    )
    return Trace.model_validate(
        {
            "id": state["id"],
            "video": state["info"],
            "question": {
                "text": asked["question"],
                "options": tuple(asked["options"]),
                "earlier": tuple(asked.get("earlier", ())),  # older versions saved none
            },
            "initial": state.get("initial", []),
            "segments": state.get("segments", []),
            "usage": usage.model_dump(),
            "versions": state.get("versions", {}),
        }
    )


def waiting_call(trace: Trace) -> Call:
    """Return the call that a node carries out. Raises `StoreError` if the saved run has none."""
    if not trace.calls:
        raise StoreError("the saved state of this run has no call to carry out: ask the question again")
    return trace.calls[-1]


def asked_data(question: str, options: list[str], earlier: list[dict[str, str]]) -> dict[str, Any]:
    """Return what is saved as `asked`, with the version of the state."""
    return {"version": STATE_VERSION, "question": question, "options": options, "earlier": earlier}


def state_of(trace: Trace) -> dict[str, Any]:
    """Return the update that sets a graph's state to that of a trace, except for `versions`."""
    data = trace.model_dump(mode="json")
    earlier = [turn.model_dump() for turn in trace.question.earlier]
    return {
        "id": trace.id,
        "asked": asked_data(trace.question.text, list(trace.question.options), earlier),
        "turns": earlier,
        "info": data["video"],
        "initial": data["initial"],
        "segments": [None, *data["segments"]],
        "loops": [None, *data["usage"]["loops"]],
        "node_seconds": data["usage"]["node_seconds"],
    }
