"""The data of a configuration before it is validated: read from YAML, with absolute paths, all of it text.

A path in a file is relative to the file's folder, so that a file means the same wherever it is used, a server
included. A path in data, or in changes made in code, is relative to the working folder. Paths are `cache`,
`store`, and weights that are a folder: those that begin with `.`, `/` or `~`, and names of existing folders.
Hub names, URLs and the names of models on a server stay as they are.

This module knows the names of the keys with paths, and nothing else of the schema (`config.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from act2see.errors import ConfigError

# Reasoners that ask a server for a model of that name.
_BY_NAME = frozenset({"chat", "vllm-http", "llama-cpp"})


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: It cannot be read, is not YAML, holds no keys, or has a duplicate key.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"the config file {path} cannot be read: {e}") from e
    except _DuplicateKeyError as e:
        raise ConfigError(f"{path}, line {e.line}: {e}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values (try `act2see config show` for an example)")
    return data


class _DuplicateKeyError(Exception):
    """A mapping has the same key twice."""

    def __init__(self, key: str, line: int, first: int) -> None:
        super().__init__(f"duplicate key {key!r}, first in line {first}; give each a name of its own")
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a duplicate key is an error: PyYAML takes the last one silently."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Before merge keys (`<<`) are resolved: the keys that those bring may be overridden.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _DuplicateKeyError(key.value, line, lines[name])
            lines[name] = line
        return node


def unfit_texts(data: Any) -> Iterator[str]:
    """Keys and values with a NUL or a lone surrogate: YAML's escapes can make them, and neither a checkpoint,
    a trace nor a path can hold them."""
    left, seen = [data], set()
    while left:
        part = left.pop()
        if isinstance(part, str):
            if "\0" in part or any("\ud800" <= c <= "\udfff" for c in part):
                yield part
            continue
        if not isinstance(part, Mapping | list | tuple) or id(part) in seen:
            continue  # an alias may stand for the same thing a million times, or for its own container
        seen.add(id(part))
        if isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        else:
            left += part


def place_paths(data: Mapping[str, Any], folder: str, reasoner: str) -> dict[str, Any]:
    """The data with absolute paths.

    Args:
        data: Data of a configuration, which need not be valid.
        folder: The folder to which relative paths are relative.
        reasoner: The `reasoner.use` to assume if the data has none.
    """
    placed = dict(data)
    for key in ("cache", "store"):
        path = placed.get(key)
        if isinstance(path, str) and path:
            placed[key] = local_path(path, folder)
    section = placed.get("reasoner")
    if isinstance(section, Mapping) and section.get("use", reasoner) not in _BY_NAME:
        placed["reasoner"] = _place_weights(section, folder)
    section = placed.get("encoder")
    if isinstance(section, Mapping):
        placed["encoder"] = _place_weights(section, folder)
    tools = placed.get("tools")
    if isinstance(tools, Mapping):
        placed["tools"] = {tag: _place_options(tool, folder) for tag, tool in tools.items()}
    return placed


def _place_options(tool: Any, folder: str) -> Any:
    options = tool.get("options") if isinstance(tool, Mapping) else None
    if not isinstance(options, Mapping):
        return tool
    return {**tool, "options": _place_weights(options, folder)}


def _place_weights(section: Mapping[str, Any], folder: str) -> dict[str, Any]:
    placed = dict(section)
    for key in ("weights", "adapter"):
        name = placed.get(key)
        if isinstance(name, str) and _is_folder(name, folder):
            placed[key] = local_path(name, folder)
    return placed


def _is_folder(name: str, folder: str) -> bool:
    """Whether weights of this name are a folder, to be there or not."""
    if not name or "://" in name:
        return False
    if name.startswith((".", "/", "~")):
        return True
    return not name.startswith("micro:") and os.path.isdir(os.path.join(folder, name))


def local_path(path: str, folder: str = os.curdir) -> str:
    """An absolute path. A URL stays as it is, unless it is one of a local file."""
    scheme = "file://" if path.startswith("file://") else ""
    if "://" in path and not scheme:
        return path
    return scheme + os.path.abspath(os.path.join(folder, os.path.expanduser(path.removeprefix(scheme))))
