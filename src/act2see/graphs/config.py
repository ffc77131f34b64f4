"""The configuration: one pydantic model, presets, and errors that name the wrong key.

A config file may start from a preset (`preset: micro`) and change single keys. Nested keys are merged, and so
are tools; `tools: {TAG: null}` removes a tool of the preset. If a file names another engine, encoder or tool
(`use`), the weights and options of the old one are dropped, and the other settings are kept. So are the
options of a chat model if a file names one of another provider. The error for an unknown key suggests the
nearest known one. `config_yaml.py` reads files, and `config_data.py` makes paths absolute.

Settings that a single run may change (budget, seed, tools) are in `AskContext`, LangGraph's context.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator

from act2see.agent.grammar import Grammar
from act2see.errors import ConfigError
from act2see.graphs.config_data import find_invalid_values, place_paths
from act2see.graphs.config_yaml import read_yaml
from act2see.graphs.names import explain_key, explain_use
from act2see.graphs.sections import (
    Budget,
    EncoderConfig,
    IndexConfig,
    NeedsConfig,
    ReasonerConfig,
    Section,
    ToolConfig,
    VideoConfig,
    ViewConfig,
)
from act2see.tools.runtime.text import explain_problem, first_error, first_problem, quote_text

PRESETS = ("micro", "paper", "paper-24gb", "laptop", "laptop-transformers", "ollama", "api")
S = TypeVar("S", bound=Section)
_NEW_SAMPLING = ("top_k", "min_p", "repetition_penalty", "presence_penalty")


def _defaults(section: Section, *keys: str) -> set[str]:
    """Return those of the keys that have their default value."""
    fields = type(section).model_fields
    return {key for key in keys if getattr(section, key) == fields[key].default}


class Config(Section):
    """The complete configuration of a graph."""

    name: str = "custom"
    """The name of the preset, or of the configuration."""
    about: str = ""
    """A description in one line."""
    reasoner: ReasonerConfig
    encoder: EncoderConfig
    view: ViewConfig = ViewConfig()
    video: VideoConfig = VideoConfig()
    index: IndexConfig = IndexConfig()
    tools: dict[str, ToolConfig] = Field(default_factory=dict)
    """The tools by tag."""
    budget: Budget = Budget()
    needs: NeedsConfig = NeedsConfig()
    seed: int = 0
    cache: str | None = None
    """The folder of indexes and frames; by default `ACT2SEE_CACHE`, or else the user's cache folder."""
    store: str | None = None
    """The path or URL of the frame store; by default a folder in the cache."""
    folder: str | None = None
    """The folder that is searched first for modules of tools (`use: "depth:Depth"`)."""

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
        """A short hash of all settings that can change an answer."""
        excluded: Any = {
            **dict.fromkeys(("cache", "store", "folder", "name", "about", "needs"), True),
            "index": {"workers"},
        }
        # Hashes from before these keys existed stay the same.
        if self.video.decoder == VideoConfig().decoder:
            excluded["video"] = True
        else:
            excluded["video"] = {"isolate"}  # both give the same pictures
        excluded["reasoner"] = _defaults(self.reasoner, *_NEW_SAMPLING)
        excluded["budget"] = _defaults(self.budget, "malformed", "thinking_tokens")
        data = self.model_dump(exclude=excluded)
        for key, before in (("temperature", 0.0), ("top_p", 1.0)):  # their defaults before they could be None
            if data["reasoner"][key] is None:
                data["reasoner"][key] = before
        return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=6).hexdigest()

    def to_yaml(self, *, ascii: bool = False) -> str:
        """Return the configuration as YAML. `ascii` escapes all other characters."""
        return yaml.safe_dump(self.model_dump(exclude_none=True), sort_keys=False, allow_unicode=not ascii)


def preset_data(name: str) -> dict[str, Any]:
    """Return the data of a preset's YAML file.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no preset {quote_text(name)!r}{hint} (known: {', '.join(PRESETS)})")
    text = (files("act2see.graphs") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def load_config(source: str | Path | Mapping[str, Any] | Config | None = None, **changes: Any) -> Config:
    """Return a validated configuration with absolute paths.

    Args:
        source: A preset's name, a YAML file, data, or None for the preset `micro`. Paths in a file are
            relative to its folder, others to the working folder.
        changes: Top-level keys, merged last: `load_config("micro", budget={"calls": 2})`.

    Raises:
        ConfigError: The file cannot be read, or a key or a value is invalid.
    """
    if isinstance(source, str) and source in PRESETS:
        source = _variant(source, changes)
    data, where, file = _read_source(source)
    base = preset_data(_variant(str(data.pop("preset")), data)) if "preset" in data else {}
    folder = str(file.absolute().parent) if file else os.curdir
    if isinstance(named := data.get("folder"), str):
        data["folder"] = folder = os.path.abspath(os.path.join(folder, os.path.expanduser(named)))
    data = _merge(base, place_paths(data, folder, _engine(base)))
    data = _merge(data, place_paths(changes, os.curdir, _engine(data)))
    if file and data.get("folder") is None and _names_modules(data):
        data["folder"] = folder
    if isinstance(tools := data.get("tools"), Mapping):
        data["tools"] = {tag: tool for tag, tool in tools.items() if tool is not None}
    if problem := next(find_invalid_values(data), None):
        raise ConfigError(f"{where}: {problem}")
    try:
        return Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{where}: {_explain(e)}") from e


def _read_source(
    source: str | Path | Mapping[str, Any] | Config | None,
) -> tuple[dict[str, Any], str, Path | None]:
    """Return the data of a source, its name for messages, and its path if it is a file."""
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


def _variant(preset: str, data: Mapping[str, Any]) -> str:
    """Return the preset that has this preset's model on another engine, if data only changes the engine.

    `preset: laptop` with `reasoner: {use: transformers}` is the preset `laptop-transformers`.
    """
    reasoner = data.get("reasoner")
    if not isinstance(reasoner, Mapping) or "weights" in reasoner:
        return preset
    variant = f"{preset}-{reasoner.get('use')}"
    return variant if variant in PRESETS else preset


def load_section(kind: type[S], source: S | Mapping[str, Any] | None, where: str) -> S:
    """Return the validated settings of another graph, such as that of long videos.

    Args:
        kind: The class of the settings.
        source: The settings, or their data; by default the defaults.
        where: The name of the settings in messages.

    Raises:
        ConfigError: A key or a value is invalid.
    """
    if isinstance(source, kind):
        return source
    try:
        return kind.model_validate(dict(source or {}))
    except ValidationError as e:
        raise ConfigError(f"{where}: {explain_problem(e, list(kind.model_fields))}") from e


_OF_USE = frozenset({"options", "weights", "adapter", "device", "dtype", "context", "continuation"})
"""The keys that belong to one engine, encoder or tool. They are dropped when `use` changes."""


def _merge(base: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return `base` with the keys of `over`; nested mappings are merged too."""
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        key_path = (*path, str(key))
        if not (isinstance(value, Mapping) and isinstance(known, dict)):
            merged[key] = value
            continue
        if _changes_use(key_path, known, value):
            known = {k: v for k, v in known.items() if k not in _OF_USE}
        elif key_path == ("reasoner",) and _changes_provider(known, value):
            known = {k: v for k, v in known.items() if k != "options"}
        merged[key] = _merge(known, value, key_path)
    return merged


def _changes_use(path: tuple[str, ...], known: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether `over` names an engine, encoder or tool other than that of the section."""
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


def _changes_provider(known: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """Whether `over` names a chat model of another provider than that of the section."""
    if known.get("use") != "chat" or "weights" not in over:
        return False
    return str(over["weights"]).partition(":")[0] != str(known.get("weights")).partition(":")[0]


def _engine(data: Mapping[str, Any]) -> str:
    """Return `reasoner.use` of data that may be invalid."""
    reasoner = data.get("reasoner")
    return str(reasoner.get("use", "transformers")) if isinstance(reasoner, Mapping) else "transformers"


def _names_modules(data: Mapping[str, Any]) -> bool:
    """Whether a tool, the guard or the framer comes from a module outside the package."""
    names = []
    if isinstance(tools := data.get("tools"), Mapping):
        names = [tool.get("use") for tool in tools.values() if isinstance(tool, Mapping)]
    if isinstance(view := data.get("view"), Mapping):
        names += [view.get("guard"), view.get("crop")]
    modules = [name for name in names if isinstance(name, str) and ":" in name]
    return any(not module.startswith("act2see.") for module in modules)


def _explain(error: ValidationError) -> str:
    """Return the first problem in one line."""
    first = first_error(error)
    if first["type"] == "missing":
        path = first_problem(error)[0]
        hint = "" if "." in path else "; start from a preset with `preset: micro`"
        return f"the key {path!r} is missing{hint}"
    if first["loc"] == ("reasoner", "use") and (hint := explain_use(str(first["input"]))):
        return f"reasoner.use: there is no {first['input']!r}; {hint}"
    unknown = first["type"] == "extra_forbidden"
    if unknown and first["loc"][:-1] == ("reasoner",) and (hint := explain_key(str(first["loc"][-1]))):
        return f"unknown key 'reasoner.{first['loc'][-1]}'; {hint}"
    known = _keys_of([str(part) for part in first["loc"][:-1]]) if unknown else []
    return explain_problem(error, known)


def _keys_of(section: list[str]) -> list[str]:
    """Return the known keys of a section; an empty path means the whole configuration."""
    if section[:1] == ["tools"]:
        return list(ToolConfig.model_fields)
    if not section:
        return ["preset", *Config.model_fields]
    model: Any = Config.model_fields[section[0]].annotation
    return list(model.model_fields)
