"""The configuration: one pydantic model, presets, and errors that name the wrong key.

A config file may start from a preset (`preset: micro`) and change single keys. Nested keys are merged, and so
are tools; `tools: {TAG: null}` leaves a tool of the preset out. Another engine, encoder or tool (`use`)
brings weights and options of its own, and keeps the settings that are the run's. An unknown key is an error
that names the nearest known one. Files are read, and paths made absolute, in `config_data.py`.

Settings that a run may change without a rebuild (budget, seed, which of the declared tools) are in
`AskContext`, LangGraph's own context.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from act2see.agent.grammar import Grammar
from act2see.errors import ConfigError
from act2see.graphs.config_data import place_paths, read_yaml, unfit_texts
from act2see.tools.base import MAX_FRAMES
from act2see.tools.runtime.text import explain_problem, first_problem

PRESETS = ("micro", "paper", "paper-24gb", "laptop", "api")
Device = str
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all settings: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


class ReasonerConfig(Section):
    """The model that reasons."""

    use: Literal["transformers", "chat", "vllm", "vllm-http", "llama-cpp"] = "transformers"
    """transformers: in this process. vllm: an engine in this process. vllm-http: a vLLM server.
    llama-cpp: a `llama-server` of llama.cpp. chat: a LangChain chat model."""
    weights: str
    """A folder, a hub name, or `micro:...` for weights in the package. With `chat` it is `provider:model`,
    with `vllm-http` the model's name on the server, with `llama-cpp` a GGUF file (docs/models.md)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The chat model's own settings, the engine's arguments, or `{url: ...}` of the server
    (docs/models.md)."""
    continuation: bool = False
    """With `chat`: the server continues an unfinished turn, as `act2see serve openai` does
    (docs/models.md)."""
    adapter: str | None = None
    """A LoRA: a folder or a hub name."""
    device: Device = "auto"
    dtype: str = "auto"
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    rows: Count = 16
    """Rollouts that are decoded together, each with a cache of its own."""
    context: Count | None = None
    """Tokens of a rollout, at most; by default as many as the model takes."""
    prompt: Literal["paper", "short"] = "paper"


class EncoderConfig(Section):
    """The model that ranks frames by text."""

    use: Literal["blip2", "transformers", "sentence-transformers"] = "blip2"
    """blip2 is the paper's. The others have one vector for a picture and for a text, as CLIP and SigLIP do;
    `sentence-transformers` is for checkpoints of that library."""
    weights: str
    device: Device = "auto"
    dtype: str = "auto"
    batch: Count = 32
    """Frames in one forward."""


class ViewConfig(Section):
    """The initial frames."""

    fps: Positive = 1.0
    """Frames a second. The paper shows 1."""
    frames: Count | None = None
    """Frames spread evenly over the video, in place of `fps`."""
    max_frames: Count = 64
    max_side: Annotated[int, Field(ge=16)] = 448
    """Pixels of the longer side; holds for retrieved frames as well."""
    guard: str | None = None
    """`module:Class` of a `Guard`, which may refuse a video."""


class VideoConfig(Section):
    """How videos are decoded."""

    decoder: Literal["pyav", "decord"] = "pyav"
    """`decord` needs the extra of that name. PyAV reads the files that decord reads wrong."""


class IndexConfig(Section):
    """The index of a video, in which `retrieve` looks."""

    fps: Positive = 3.0
    """Frames a second. The paper retrieves at 3."""
    keep_frames: bool = False
    """Store the pixels of indexed frames: faster, and larger."""
    workers: Count = 2
    """Videos that are decoded at the same time; others take turns with them."""


class ToolConfig(Section):
    """The tool of a tag."""

    use: str
    """Its name, or `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The tool's own options."""
    timeout: Positive = 300.0
    """Seconds that a call may take."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How often a failed call is tried again."""
    max_frames: Count = MAX_FRAMES
    """Frames that a call may show."""
    approve: bool = False
    """A person is asked before each call."""


class Budget(Section):
    """The limits of a run. The model is made to answer once one of them is reached."""

    calls: Annotated[int, Field(ge=0)] = 4
    """Calls, those that could not be run included."""
    tokens: Count = 4096
    """Tokens that the model may write, without its forced answer."""
    seconds: Positive = 600.0
    """Seconds from the initial frames on."""
    answer_tokens: Count = 64
    """Tokens of an answer that the model is made to give."""
    query: Count = 400
    """Characters of a query."""


class NeedsConfig(Section):
    """Gigabytes (10^9 bytes) that a machine must have, for `act2see doctor`."""

    gpu: Annotated[float, Field(ge=0)] = 0
    """Memory of one GPU."""
    ram: Annotated[float, Field(ge=0)] = 0
    """The CPU's memory."""
    disk: Annotated[float, Field(ge=0)] = 0
    """Room for the weights."""


class Config(Section):
    """Everything that `create_act2see` needs."""

    name: str = "custom"
    about: str = ""
    reasoner: ReasonerConfig
    encoder: EncoderConfig
    view: ViewConfig = ViewConfig()
    video: VideoConfig = VideoConfig()
    index: IndexConfig = IndexConfig()
    tools: dict[str, ToolConfig] = Field(default_factory=dict)
    """The tools by their tags."""
    budget: Budget = Budget()
    needs: NeedsConfig = NeedsConfig()
    seed: int = 0
    cache: str | None = None
    """The folder of indexes and frames; by default `ACT2SEE_CACHE`, or the user's cache folder."""
    store: str | None = None
    """The frame store, a path or a URL; by default a folder of the cache."""
    folder: str | None = None
    """The folder in which modules of tools (`use: "depth:Depth"`) are looked for first."""

    @field_validator("tools")
    @classmethod
    def _check_tags(cls, tools: dict[str, ToolConfig]) -> dict[str, ToolConfig]:
        try:
            Grammar(tuple(tools))
        except ConfigError as e:
            raise ValueError(str(e)) from e
        return tools

    @property
    def hash(self) -> str:
        """A short hash of all that can change an answer."""
        left_out: Any = {
            **dict.fromkeys(("cache", "store", "folder", "name", "about", "needs"), True),
            "index": {"workers"},
        }
        if self.video == VideoConfig():
            left_out["video"] = True  # keeps the hashes that were made before this key existed
        data = self.model_dump(exclude=left_out)
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=6).hexdigest()

    def to_yaml(self, *, ascii: bool = False) -> str:
        """A file to start from; `ascii` escapes all other characters."""
        return yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, allow_unicode=not ascii)


def preset_data(name: str) -> dict[str, Any]:
    """A preset's YAML as data.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no preset {name!r}{hint} (known: {', '.join(PRESETS)})")
    text = (files("act2see.graphs") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def load_config(source: str | Path | Mapping[str, Any] | Config | None = None, **changes: Any) -> Config:
    """A configuration, validated, with absolute paths.

    Args:
        source: A preset's name, a YAML file, data, or nothing (the preset `micro`). Relative paths in a file
            are relative to its folder, others to the working folder.
        changes: Top-level keys, merged last: `load_config("micro", budget={"calls": 2})`.

    Raises:
        ConfigError: The file cannot be read, or a key or a value cannot be used.
    """
    data, where, file = _read_source(source)
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
    if unfit := next(unfit_texts(data), None):
        raise ConfigError(
            f"{where}: {unfit!a} holds a NUL or a lone surrogate, which no file could keep: write it as text"
        )
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{where}: {_explain(e)}") from e


def _read_source(
    source: str | Path | Mapping[str, Any] | Config | None,
) -> tuple[dict[str, Any], str, Path | None]:
    """The data of a source, its name for messages, and its file if it is one."""
    if isinstance(source, Config):
        return source.model_dump(), "config", None
    if isinstance(source, Mapping):
        return dict(source), "config", None
    if source is None or source in PRESETS:
        name = str(source or "micro")
        return preset_data(name), f"preset {name}", None
    file = Path(source)
    try:
        return read_yaml(file), str(source), file
    except FileNotFoundError as e:
        near = get_close_matches(str(file), PRESETS, n=1)
        hint = f"; did you mean the preset {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no config file {file}{hint}") from e


def load_section(kind: type[S], given: S | Mapping[str, Any] | None, where: str) -> S:
    """The settings of a graph around this one, from data.

    Args:
        kind: The class of the settings.
        given: The settings, or data for them.
        where: The name of the settings in messages.

    Raises:
        ConfigError: A key or a value cannot be used.
    """
    if isinstance(given, kind):
        return given
    try:
        return kind.model_validate(dict(given or {}))
    except ValidationError as e:
        path, problem = first_problem(e)
        value = str(e.errors()[0]["input"])[:60]
        known = ", ".join(kind.model_fields)
        raise ConfigError(f"{where}: {path}: {problem} (got {value!r}); known keys: {known}") from e


# Keys of the old engine, encoder or tool, and of its weights: another `use` does not take them over.
_OF_USE = frozenset({"options", "weights", "adapter", "device", "dtype", "context", "continuation"})


def _merge(base: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known, here = merged.get(key), (*path, str(key))
        if not (isinstance(value, Mapping) and isinstance(known, dict)):
            merged[key] = value
            continue
        if _changes_use(here, known, value):
            known = {k: v for k, v in known.items() if k not in _OF_USE}
        merged[key] = _merge(known, value, here)
    return merged


def _changes_use(path: tuple[str, ...], known: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether `over` names another engine, encoder or tool than the section has."""
    match path:
        case ("reasoner",):
            default = ReasonerConfig.model_fields["use"].default
        case ("encoder",):
            default = EncoderConfig.model_fields["use"].default
        case ("tools", _):
            default = None
        case _:
            return False
    return "use" in over and over["use"] != known.get("use", default)


def _engine(data: Mapping[str, Any]) -> str:
    """The `reasoner.use` of data that need not be valid."""
    reasoner = data.get("reasoner")
    return str(reasoner.get("use", "transformers")) if isinstance(reasoner, Mapping) else "transformers"


def _names_modules(data: Mapping[str, Any]) -> bool:
    """Whether a tool or the guard is named by a module outside the package."""
    names = []
    if isinstance(tools := data.get("tools"), Mapping):
        names = [tool.get("use") for tool in tools.values() if isinstance(tool, Mapping)]
    if isinstance(view := data.get("view"), Mapping):
        names.append(view.get("guard"))
    return any(isinstance(name, str) and ":" in name and not name.startswith("act2see.") for name in names)


def _explain(error: ValidationError) -> str:
    """The first problem in one line."""
    first = error.errors()[0]
    if first["type"] == "missing":
        return f"the key {first_problem(error)[0]!r} is missing; start from a preset with `preset: micro`"
    unknown = first["type"] == "extra_forbidden"
    known = _keys_of([str(part) for part in first["loc"][:-1]]) if unknown else []
    return explain_problem(error, known)


def _keys_of(section: list[str]) -> list[str]:
    """The known keys of a section; of the whole configuration for no section."""
    if section[:1] == ["tools"]:
        return list(ToolConfig.model_fields)
    model: Any = Config.model_fields[section[0]].annotation if section else Config
    return list(model.model_fields)
