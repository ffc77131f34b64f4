"""The schema of what clients of the LangGraph server may send along with a run's input.

The server takes `config`, `context` and `checkpoint` from a request, and merges all three into the
`configurable` of the run. LangGraph keeps its own objects there, under names such as `__pregel_runtime`, and
believes whatever it finds. So a request is checked before the server reads it:

- `config` has the fields of a `RunnableConfig` that are plain data, of the right types.
- Names that belong to the server (`__*`, `langgraph_auth_*`) are removed from `configurable` and `context`
  without an error, because a parent graph with a `RemoteGraph` sends those of its own run.
- The settings of our graphs (`context`, and `act2see` in `configurable`) are those of `AskContext` and
  `LongVideoContext`. For a graph of ours an unknown name is an error: the server would ignore it silently.
- `checkpoint` has LangGraph's four keys, and `command` at least one of its values. In a run without a
  thread, a `command` must say where to go: the server would go to None.
- `before`, in a search for states, names a checkpoint. The server does not find it where its clients put it.
- What the server reads without asking whether it was sent (`_NEEDED`) was sent.
- A run is not put off for longer than `MAX_DELAY`, and stops before and after nodes that are named.

The settings of a run are checked again in the graph, since an assistant may have been saved with other ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from act2see.errors import ConfigError
from act2see.graphs.long_video.graph import LongVideoContext
from act2see.graphs.state import CONTEXT_KEY, check_settings
from act2see.tools.runtime.text import first_problem

GRAPHS = frozenset({"act2see", "long_video", "assistant"})
"""The names of our graphs in `langgraph.json`."""
MAX_STEPS = 10_000
"""The largest `recursion_limit` of a run."""
MAX_DELAY = 366 * 24 * 3600
"""The largest `after_seconds` of a run."""
MAX_TAGS = 100
_Nodes = Annotated[list[str], BeforeValidator(lambda sent: [sent] if isinstance(sent, str) else sent)]
_Count = Annotated[int, Field(ge=-(2**31), lt=2**31)]  # other numbers than these are none to the server
_NEEDED = (
    (re.compile(r"/runs/crons$"), "assistant_id", str),
    (re.compile(r"/runs/crons$"), "schedule", str),
    (re.compile(r"/store/items/search$"), "namespace_prefix", list),
)
"""What the server needs on a path, with its type."""
_SERVERS = ("__", "langgraph_auth_")  # the beginnings of the server's names


class _Sent(BaseModel):
    """Base of what a client sends: strict about unknown fields and about types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Configurable(BaseModel):
    """The names in `configurable` that the server reads. A parent graph may send any others."""

    model_config = ConfigDict(extra="allow", strict=True)

    thread_id: Any = None  # of the parent's run: the server replaces it
    checkpoint_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_map: dict[str, str] | None = None


class _Config(_Sent):
    """A run's `config`. `callbacks` are objects, which no client can send."""

    tags: Annotated[list[str], Field(max_length=MAX_TAGS)] | None = None
    metadata: dict[str, Any] | None = None
    run_name: str | None = None
    run_id: Annotated[UUID, Field(strict=False)] | None = None
    recursion_limit: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    max_concurrency: Annotated[int, Field(ge=1)] | None = None
    configurable: _Configurable | None = None


class _Checkpoint(_Sent):
    """The checkpoint from which a run begins."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    checkpoint_map: dict[str, Any] | None = None


def _check_update(sent: Any) -> Any:
    if sent is not None and not isinstance(sent, dict | list):
        raise ValueError("must hold keys and values, or a list of such pairs")
    return sent


def _check_goto(sent: Any) -> Any:
    for one in sent if isinstance(sent, list) else [sent]:
        if isinstance(one, dict) and not isinstance(one.get("input"), dict | None):
            raise ValueError("the input of a node must hold keys and values")
    return sent


class _Command(BaseModel):
    """A run's `command`. Its decision is checked in the graph."""

    model_config = ConfigDict(extra="allow", strict=True)

    update: Annotated[Any, AfterValidator(_check_update)] = None
    goto: Annotated[Any, AfterValidator(_check_goto)] = None


def _check_end(sent: str) -> str:
    datetime.fromisoformat(sent)
    return sent


class _Request(BaseModel):
    """The fields of a request that are checked here. The server checks the others."""

    model_config = ConfigDict(extra="allow", strict=True)

    config: _Config | None = None
    context: dict[str, Any] | None = None
    checkpoint: _Checkpoint | None = None
    checkpoint_id: str | None = None
    command: _Command | None = None
    after_seconds: Annotated[float, Field(ge=0, le=MAX_DELAY)] | None = None
    interrupt_before: _Nodes | None = None
    interrupt_after: _Nodes | None = None
    end_time: Annotated[str, AfterValidator(_check_end)] | None = None
    timezone: Annotated[str, Field(pattern=r"^[\w+/-]{1,64}$")] | None = None
    limit: _Count | None = None
    offset: _Count | None = None


_REQUEST = TypeAdapter(_Request)


def requests_in(sent: Any) -> Iterator[dict[str, Any]]:
    """Yield a request, those of a batch, and the `params` of a JSON-RPC message, which are one, too."""
    for one in sent if isinstance(sent, list) else [sent]:
        if isinstance(one, dict):
            yield one
            if isinstance(params := one.get("params"), dict):
                yield params


def check_needed(request: dict[str, Any], path: str) -> bool:
    """Check that a request has what the server needs on its path, and put `before` where it is read.

    Returns:
        Whether the request was changed.

    Raises:
        ConfigError: A field is missing.
    """
    for where, name, kind in _NEEDED:
        if where.search(path) and not isinstance(request.get(name), kind):
            raise ConfigError(f"{name}: it is missing, or no {'text' if kind is str else 'list'}")
    before = request.get("before")
    if not path.endswith("/history") or not isinstance(before, dict):
        return False
    named = before.get("configurable") or before
    if not isinstance(named, dict) or not isinstance(named.get("checkpoint_id"), str):
        raise ConfigError("before.checkpoint_id: it is missing; name the checkpoint")
    request["before"] = {"configurable": named}
    return True


def check_request(request: dict[str, Any], *, is_new: bool = False) -> bool:
    """Check a request, and remove the server's names from its `configurable` and `context`.

    Args:
        request: The request.
        is_new: Whether its run has no thread, so that no state is there to go on from.

    Returns:
        Whether a name was removed.

    Raises:
        ConfigError: A field has a wrong type or an unknown name; the message says which.
    """
    try:
        _REQUEST.validate_python(request)
    except ValidationError as e:
        path, problem = first_problem(e)
        raise ConfigError(f"{path}: {problem}") from e
    context = request.get("context")
    configurable = (request.get("config") or {}).get("configurable")
    removed = False
    for settings in (configurable or {}, context or {}):
        for name in [name for name in settings if name.startswith(_SERVERS)]:
            del settings[name]
            removed = True
    if configurable and configurable.get(CONTEXT_KEY) is not None:
        check_settings(configurable[CONTEXT_KEY], LongVideoContext)
    if context and _graph_of(request) in GRAPHS:
        check_settings(context, LongVideoContext)
    command = request.get("command")
    if command and "resume" in command and not any(value is not None for value in command.values()):
        raise ConfigError("command.resume: it is empty; give the decision that the run waits for")
    if is_new and command and not request.get("input") and not command.get("goto"):
        raise ConfigError("command.goto: name the node to begin at, or send an input: this run has no thread")
    if command and not request.get("input") and is_empty(command):
        given = "a node in `goto`, values in `update`, or a decision in `resume`"
        raise ConfigError(f"command: it is empty; send {given}")
    return removed


def is_empty(command: Mapping[str, Any]) -> bool:
    """Whether a command goes nowhere, changes nothing and decides nothing."""
    return not command.get("goto") and not command.get("update") and command.get("resume") is None


def _graph_of(request: Mapping[str, Any]) -> Any:
    """Return the graph that a request names: of a run, of a new assistant, or of a call of an MCP tool."""
    named = request.get("assistant_id") or request.get("graph_id") or request.get("name")
    return named if isinstance(named, str) else None
