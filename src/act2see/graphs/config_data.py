"""The data of a configuration before it is validated: values that cannot be saved, and absolute paths.

A path in a file is relative to the file's folder, so that the file means the same everywhere, also on a
server. A path in data, or in changes made in code, is relative to the working folder. Paths are `cache`,
`store`, and weights that are a folder: names that start with `.`, `/` or `~`, and names of existing folders
(of existing files, for llama.cpp).
Hub names, URLs and the names of models on a server are left unchanged.

Of the schema (`config.py`), this module uses only the names of the keys that hold paths.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

_BY_NAME = frozenset({"chat", "vllm-http", "llama-cpp"})
"""Reasoners whose `weights` are the name of a model on a server."""


def find_invalid_values(data: Any) -> Iterator[str]:
    """Yield the problem of each value that cannot be saved or computed with.

    These are texts with a NUL or a lone surrogate, which YAML's escapes can produce but checkpoints, traces
    and paths cannot hold, integers of more than 64 bits, NaN, and what JSON does not have, such as dates.
    """
    left: list[tuple[str, Any]] = [("", data)]
    seen = set()
    while left:
        path, part = left.pop()
        if problem := _problem_of(part):
            yield f"{path}: {problem}" if path else problem
        if not isinstance(part, Mapping | list | tuple) or id(part) in seen:
            continue  # YAML aliases may repeat a container a million times, or nest it in itself
        seen.add(id(part))
        if isinstance(part, Mapping):
            left += [("", key) for key in part]
            left += [(f"{path}.{key}".lstrip("."), value) for key, value in part.items()]
        else:
            left += [(path, value) for value in part]


def _problem_of(value: Any) -> str:
    """Return the problem of one value; empty if it has none."""
    match value:
        case str() if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            return f"{value!a} holds a NUL or a lone surrogate, which cannot be saved: remove it"
        case int() if not -(2**63) <= value < 2**63:
            return "an integer of more than 64 bits cannot be saved: set a smaller one"
        case float() if math.isnan(value):
            return "nan is not a number: set another value"
        case datetime.date() | datetime.time() | bytes() | bytearray() | set() | frozenset():
            kind = type(value).__name__
            return f"a value of the type {kind} cannot be saved: write text, a number or a list"
    return ""


def place_paths(data: Mapping[str, Any], folder: str, reasoner: str) -> dict[str, Any]:
    """Return the data with absolute paths.

    Args:
        data: The data of a configuration; it may be invalid.
        folder: The folder to which paths are relative.
        reasoner: The value of `reasoner.use` if the data has none.
    """
    placed = dict(data)
    for key in ("cache", "store"):
        path = placed.get(key)
        if isinstance(path, str) and path:
            placed[key] = local_path(path, folder)
    section = placed.get("reasoner")
    if isinstance(section, Mapping):
        use = section.get("use", reasoner)
        if use not in _BY_NAME:
            placed["reasoner"] = _place_weights(section, folder)
        elif use == "llama-cpp":
            placed["reasoner"] = _place_gguf(section, folder)
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


def _place_gguf(section: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return the section of a llama.cpp server with absolute paths of local files."""
    placed = dict(section)
    if _is_gguf_file(placed.get("weights"), folder):
        placed["weights"] = local_path(placed["weights"], folder)
    options = placed.get("options")
    if isinstance(options, Mapping) and _is_gguf_file(options.get("mmproj"), folder):
        placed["options"] = {**options, "mmproj": local_path(options["mmproj"], folder)}
    return placed


def _is_gguf_file(name: Any, folder: str) -> bool:
    """Whether a name means a local file; otherwise it is a repository, or the model's name on the server."""
    if not isinstance(name, str) or not name.lower().endswith(".gguf"):
        return False
    return name.startswith((".", "/", "~")) or os.path.isfile(os.path.join(folder, name))


def _is_folder(name: str, folder: str) -> bool:
    """Whether weights of this name are a folder, which may not exist."""
    if not name or "://" in name:
        return False
    if name.startswith((".", "/", "~")):
        return True
    return not name.startswith("micro:") and os.path.isdir(os.path.join(folder, name))


def local_path(path: str, folder: str = os.curdir) -> str:
    """Return the absolute path. A URL is returned unchanged, except for a `file:` URL."""
    scheme = "file://" if path.startswith("file://") else ""
    if "://" in path and not scheme:
        return path
    return scheme + os.path.abspath(os.path.join(folder, os.path.expanduser(path.removeprefix(scheme))))
