"""The configuration: one pydantic model, YAML files, presets, and errors that say which key is wrong.

A config file may start from a preset (`preset: micro`) and change single keys; nested keys are merged, lists
and tools' options replaced key by key; `tools: {TAG: null}` leaves a tool of the preset out. Another engine,
encoder or tool (`use`) brings weights and options of its own, and keeps what is the run's. Relative paths are
made absolute (`graphs/places.py`). An unknown key is an error that names the nearest known one, and so is a
key that stands twice. What a run may change without a rebuild (budget, seed, which of the declared tools) is
`AskContext`, LangGraph's own context.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from act2see.agent.grammar import Grammar
from act2see.errors import ConfigError
from act2see.graphs.places import place_paths
from act2see.tools.base import MAX_FRAMES

PRESETS = ("micro", "paper", "paper-24gb", "laptop", "api")
Device = str
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class ReasonerConfig(Section):
    """Who reasons. `weights` is a folder, a hub name, or `micro:...` for what ships in the package.

    With `use: chat` it is a LangChain chat model, `provider:model`, and `options` are that model's own (its
    temperature ...). `continuation` is for servers that go on with an unfinished turn, as `act2see serve
    openai` does (docs/models.md). With `vllm-http` it is the model's name on a server (`options: {url: ...}`,
    see docs/models.md), with `vllm` an engine in this process, whose arguments `options` are.
    """

    use: Literal["transformers", "chat", "vllm", "vllm-http"] = "transformers"
    weights: str
    options: dict[str, Any] = Field(default_factory=dict)
    continuation: bool = False
    adapter: str | None = None
    device: Device = "auto"
    dtype: str = "auto"
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Count = 16
    context: Count | None = None
    prompt: Literal["paper", "short"] = "paper"


class EncoderConfig(Section):
    """What ranks frames by text: BLIP-2 (`blip2`), or a model with one vector a picture and a text, as CLIP
    and SigLIP are (`transformers`, or `sentence-transformers` for checkpoints of that library)."""

    use: Literal["blip2", "transformers", "sentence-transformers"] = "blip2"
    weights: str
    device: Device = "auto"
    dtype: str = "auto"
    batch: Count = 32


class ViewConfig(Section):
    """The initial frames: `fps`, or `frames` spread evenly; `max_side` also holds for retrieved ones."""

    fps: Positive = 1.0
    frames: Count | None = None
    max_frames: Count = 64
    max_side: Annotated[int, Field(ge=16)] = 448
    guard: str | None = None


class VideoConfig(Section):
    """How videos are decoded. `decord` needs the extra of that name; PyAV reads what decord reads wrong."""

    decoder: Literal["pyav", "decord"] = "pyav"


class IndexConfig(Section):
    """How videos are indexed; `workers` of them are decoded at the same time, the others take turns with
    them."""

    fps: Positive = 3.0
    keep_frames: bool = False
    workers: Count = 2


class ToolConfig(Section):
    """A tag's tool: its name (or dotted path, in a local file) and its options.

    A call may last `timeout` seconds, and show `max_frames` frames.
    """

    use: str
    options: dict[str, Any] = Field(default_factory=dict)
    timeout: Positive = 300.0
    retries: Annotated[int, Field(ge=0)] = 1
    max_frames: Count = MAX_FRAMES
    approve: bool = False


class Budget(Section):
    """When it is spent, the model is made to answer. `seconds` begin after the view; `query` bounds a query's
    characters."""

    calls: Annotated[int, Field(ge=0)] = 4
    tokens: Count = 4096
    seconds: Positive = 600.0
    answer_tokens: Count = 64
    query: Count = 400


class NeedsConfig(Section):
    """What a machine must have, in GB (10^9 bytes), for `act2see doctor`: memory of one GPU, of the CPU, and
    room for the weights."""

    gpu: Annotated[float, Field(ge=0)] = 0
    ram: Annotated[float, Field(ge=0)] = 0
    disk: Annotated[float, Field(ge=0)] = 0


class Config(Section):
    """Everything that `create_act2see` needs. Modules of tools (`use: "depth:Depth"`) are looked for in
    `folder` first."""

    name: str = "custom"
    about: str = ""
    reasoner: ReasonerConfig
    encoder: EncoderConfig
    view: ViewConfig = ViewConfig()
    video: VideoConfig = VideoConfig()
    index: IndexConfig = IndexConfig()
    tools: dict[str, ToolConfig] = Field(default_factory=dict)
    budget: Budget = Budget()
    needs: NeedsConfig = NeedsConfig()
    seed: int = 0
    cache: str | None = None
    store: str | None = None
    folder: str | None = None

    @field_validator("tools")
    @classmethod
    def _tags(cls, tools: dict[str, ToolConfig]) -> dict[str, ToolConfig]:
        try:
            Grammar(tuple(tools))
        except ConfigError as e:
            raise ValueError(str(e)) from e
        return tools

    @property
    def hash(self) -> str:
        """A short hash of all that can change an answer."""
        left_out: Any = {key: True for key in ("cache", "store", "folder", "name", "about", "needs")} | {
            "index": {"workers"}
        }
        if self.video == VideoConfig():
            left_out["video"] = True  # keeps the hashes that were made before this key existed
        data = self.model_dump(exclude=left_out)
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=6).hexdigest()

    def to_yaml(self, *, ascii: bool = False) -> str:
        """As a file to start from; `ascii` escapes what is not."""
        return yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, allow_unicode=not ascii)


def preset_data(name: str) -> dict[str, Any]:
    """A preset's YAML as data."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        raise ConfigError(
            f"there is no preset {name!r}{f'; did you mean {near[0]!r}?' if near else ''} (known: {', '.join(PRESETS)})"
        )
    return dict(
        yaml.safe_load((files("act2see.graphs") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"))
    )


def load_config(source: str | Path | Mapping[str, Any] | Config | None = None, **changes: Any) -> Config:
    """A configuration from a preset's name, a YAML file, data, or nothing (the `micro` preset).

    `changes` are top-level keys merged last: `load_config("micro", budget={"calls": 2})`. Relative paths in a
    file are relative to its folder, others to the working folder.
    """
    file: Path | None = None
    if isinstance(source, Config):
        data: dict[str, Any] = source.model_dump()
        where = "config"
    elif source is None or (isinstance(source, str) and source in PRESETS):
        data, where = preset_data(source or "micro"), f"preset {source or 'micro'}"
    elif isinstance(source, Mapping):
        data, where = dict(source), "config"
    else:
        file = Path(source)
        data, where = _read(file), str(source)
    base = preset_data(str(data.pop("preset"))) if "preset" in data else {}
    folder = str(file.absolute().parent) if file else os.curdir
    if isinstance(named := data.get("folder"), str):
        data["folder"] = folder = os.path.abspath(os.path.join(folder, os.path.expanduser(named)))
    data = _merge(base, place_paths(data, folder, _engine(base)))
    data = _merge(data, place_paths(changes, os.curdir, _engine(data)))
    if file and data.get("folder") is None and _names_modules(data):
        data["folder"] = folder
    if isinstance(tools := data.get("tools"), Mapping):
        data["tools"] = {tag: tool for tag, tool in tools.items() if tool is not None}
    if spoilt := next(_spoilt(data), None):
        raise ConfigError(
            f"{where}: {spoilt!a} holds a zero byte or half a character, which no file could keep: write it as text"
        )
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{where}: {_explain(e)}") from e


def _spoilt(data: Any) -> Iterator[str]:
    """Keys and values that are no text: what YAML's escapes can make, and a checkpoint, a trace or a path
    cannot hold."""
    left, seen = [data], set()
    while left:
        part = left.pop()
        if isinstance(part, str):
            if "\0" in part or any("\ud800" <= c <= "\udfff" for c in part):
                yield part
        elif isinstance(part, Mapping | list | tuple) and id(part) not in seen:
            seen.add(id(part))  # an alias may stand for the same thing a million times, or for what it is in
            left += [*part.keys(), *part.values()] if isinstance(part, Mapping) else part


def section(kind: type[S], given: S | Mapping[str, Any] | None, where: str) -> S:
    """Settings of a graph around this one, from data. Raises `ConfigError`, which names the key and the known
    ones."""
    if isinstance(given, kind):
        return given
    try:
        return kind.model_validate(dict(given or {}))
    except ValidationError as e:
        first = e.errors()[0]
        key, value = ".".join(map(str, first["loc"])), str(first["input"])[:60]
        raise ConfigError(
            f"{where}: {key}: {first['msg']} (got {value!r}); known keys: {', '.join(kind.model_fields)}"
        ) from e


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as e:
        near = get_close_matches(str(path), PRESETS, n=1)
        raise ConfigError(
            f"there is no config file {path}" + (f"; did you mean the preset {near[0]!r}?" if near else "")
        ) from e
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"the config file {path} cannot be read: {e}") from e
    except _TwiceError as e:
        raise ConfigError(f"{path}, line {e.line}: {e}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values (try `act2see config show` for an example)")
    return data


class _TwiceError(Exception):
    """A key that stands twice in one place."""

    def __init__(self, line: int, said: str) -> None:
        super().__init__(said)
        self.line = line


class _Loader(yaml.SafeLoader):
    """YAML as PyYAML's safe loader reads it, but for a key that stands twice: there it would take the last
    without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Before merge keys (`<<`) are resolved: what those bring may be overridden.
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name and name in first:
                line = key.start_mark.line + 1
                raise _TwiceError(
                    line,
                    f"the key {key.value!r} stands twice, first in line {first[name]}; give each a name of its own",
                )
            if name:
                first[name] = key.start_mark.line + 1
        return node


# What another `use` does not take over: options are those of the old engine, encoder or tool, and the rest
# goes with its weights.
_OF_USE = frozenset({"options", "weights", "adapter", "device", "dtype", "context", "continuation"})


def _merge(base: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        known, here = out.get(key), (*path, str(key))
        if not (isinstance(value, Mapping) and isinstance(known, dict)):
            out[key] = value
            continue
        if _is_swap(here, known, value):
            known = {k: v for k, v in known.items() if k not in _OF_USE}
        out[key] = _merge(known, value, here)
    return out


def _is_swap(path: tuple[str, ...], known: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether `over` names another engine, encoder or tool than the section has."""
    kinds: dict[tuple[str, ...], type[Section]] = {("reasoner",): ReasonerConfig, ("encoder",): EncoderConfig}
    if path not in kinds and not (len(path) == 2 and path[0] == "tools"):
        return False
    default = kinds[path].model_fields["use"].default if path in kinds else None
    return "use" in over and over["use"] != known.get("use", default)


def _engine(data: Mapping[str, Any]) -> str:
    """The `reasoner.use` of data that need not be right."""
    section = data.get("reasoner")
    return str(section.get("use", "transformers")) if isinstance(section, Mapping) else "transformers"


def _names_modules(data: Mapping[str, Any]) -> bool:
    """Whether a tool, or the guard, is named by a module that is not one of the package."""
    tools, view = data.get("tools"), data.get("view")
    names = (
        [t.get("use") for t in tools.values() if isinstance(t, Mapping)] if isinstance(tools, Mapping) else []
    )
    names += [view.get("guard")] if isinstance(view, Mapping) else []
    return any(isinstance(n, str) and ":" in n and not n.startswith("act2see.") for n in names)


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, in a line; an unknown key with the nearest known one."""
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        near = get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {'.'.join(path)!r}; {hint}"
    if first["type"] == "missing":
        return f"the key {'.'.join(path)!r} is missing; start from a preset with `preset: micro`"
    return f"{'.'.join(path)}: {first['msg']} (got {first['input']!r})"


def _keys_at(path: list[str]) -> list[str]:
    model: Any = Config
    for part in path:
        if model is ToolConfig or not hasattr(model, "model_fields"):
            break
        field = model.model_fields.get(part)
        model = (
            ToolConfig
            if part not in model.model_fields or part == "tools"
            else getattr(field, "annotation", None)
        )
    return list(model.model_fields) if hasattr(model, "model_fields") else []
