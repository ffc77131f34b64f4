"""The graphs that `langgraph.json` names, for `langgraph dev` and for a deployed LangGraph server.

They are factories. The server imports this file, and calls a factory whenever it needs the graph, for a run
as for a schema. The first call builds the graph, which is kept; the first question loads its models. Threads,
checkpoints and the store are the server's own, so no graph here brings a checkpointer.

Three environment variables configure them:

- `ACT2SEE_CONFIG`: a preset's name or a YAML file; by default `micro`. - `ACT2SEE_FOLDERS`: the folders
(separated as in PATH) in which videos, pictures and subtitles may be opened; by default the one in which the
server was started. There must be a limit, because clients name the paths. - `ACT2SEE_MODEL`: the chat model
(`provider:model`) that supervises the assistant and merges the parts of long videos; by default both work by
rules, offline.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.assistant import create_assistant
from act2see.graphs.config import Config, load_config
from act2see.graphs.long_video.graph import LongGraph, create_long_video
from act2see.graphs.parts import cached_parts
from act2see.tools.video.folders import FencedLibrary, Folders


async def act2see() -> Graph:
    """One question about one video."""
    return await asyncio.to_thread(_act2see)


@cache
def _act2see() -> Graph:
    return create_act2see(served_config())


async def long_video() -> LongGraph:
    """One question about a long video, asked to each of its parts."""
    return await asyncio.to_thread(_long_video)


@cache
def _long_video() -> LongGraph:
    return create_long_video(served_config(), {"model": _model()})


async def assistant() -> CompiledStateGraph[Any, Any, Any, Any]:
    """A conversation about the videos of the folders."""
    return await asyncio.to_thread(_assistant)


@cache
def _assistant() -> CompiledStateGraph[Any, Any, Any, Any]:
    return create_assistant(served_config(), _folders(), {"model": _model()})


@cache
def served_config() -> Config:
    """The configuration that is served. Its parts open files of the folders only.

    Raises:
        ConfigError: The configuration cannot be read.
    """
    config = load_config(os.environ.get("ACT2SEE_CONFIG") or None)
    finder = cached_parts(config).resources.finder
    finder.library = FencedLibrary(finder.library, Folders(_folders()))
    return config


def _folders() -> list[str]:
    named = [folder for folder in os.environ.get("ACT2SEE_FOLDERS", "").split(os.pathsep) if folder]
    return named or [os.getcwd()]


def _model() -> str | None:
    return os.environ.get("ACT2SEE_MODEL") or None
