"""Paths of a configuration, made absolute when it is read: what it means does not change with the working
folder.

A path in a file is relative to the file's folder, so a file means the same from wherever it is used, a server
included; a path in data, or in changes made in code, is relative to the working folder. Paths are `cache`,
`store`, and weights that are a folder: those that begin with `.`, `/` or `~`, and names of folders that are
there. Anything else is a hub's name and stays as it is, and so do URLs and the names of models on a server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

_BY_NAME = frozenset({"chat", "vllm-http"})  # these ask a server for a model of that name


def place_paths(data: Mapping[str, Any], folder: str, reasoner: str) -> dict[str, Any]:
    """The data with absolute paths. `reasoner` is the `reasoner.use` that holds where the data has none."""
    placed = dict(data)
    for key in ("cache", "store"):
        if isinstance(path := placed.get(key), str) and path:
            placed[key] = local_path(path, folder)
    section = placed.get("reasoner")
    if isinstance(section, Mapping) and section.get("use", reasoner) not in _BY_NAME:
        placed["reasoner"] = _place_weights(section, folder)
    if isinstance(section := placed.get("encoder"), Mapping):
        placed["encoder"] = _place_weights(section, folder)
    if isinstance(tools := placed.get("tools"), Mapping):
        placed["tools"] = {tag: _place_options(tool, folder) for tag, tool in tools.items()}
    return placed


def _place_options(tool: Any, folder: str) -> Any:
    options = tool.get("options") if isinstance(tool, Mapping) else None
    return {**tool, "options": _place_weights(options, folder)} if isinstance(options, Mapping) else tool


def _place_weights(section: Mapping[str, Any], folder: str) -> dict[str, Any]:
    placed = dict(section)
    for key in ("weights", "adapter"):
        name = placed.get(key)
        if (
            isinstance(name, str)
            and name
            and "://" not in name
            and (name.startswith((".", "/", "~")) or _is_folder(name, folder))
        ):
            placed[key] = local_path(name, folder)
    return placed


def _is_folder(name: str, folder: str) -> bool:
    return not name.startswith("micro:") and os.path.isdir(os.path.join(folder, name))


def local_path(path: str, folder: str = os.curdir) -> str:
    """An absolute path; a URL as it is, unless it is one of a local file."""
    scheme = "file://" if path.startswith("file://") else ""
    if "://" in path and not scheme:
        return path
    return scheme + os.path.abspath(os.path.join(folder, os.path.expanduser(path.removeprefix(scheme))))
