"""The graphs that `langgraph.json` names, for `langgraph dev` and for a deployed LangGraph server.

Each is a factory, which the server calls whenever it needs the graph, for a run or for a schema. The first
call builds the graph and keeps it. The first question loads its models. The server provides threads,
checkpoints and the store, so these graphs have no checkpointer.

Three environment variables configure them:

- `ACT2SEE_CONFIG`: a preset or a YAML file. Default: `micro`.
- `ACT2SEE_FOLDERS`: the folders, separated as in PATH, in which videos, pictures and subtitles may be opened.
  Default: the server's working directory. The limit is needed because clients name the paths.
- `ACT2SEE_MODEL`: the chat model (`provider:model`) that supervises the assistant and merges the parts of
  long videos. Default: none; both work by rules, offline.
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
    """Return the graph that answers a question about a video."""
    return await asyncio.to_thread(_act2see)


@cache
def _act2see() -> Graph:
    return create_act2see(served_config())


async def long_video() -> LongGraph:
    """Return the graph that asks a question about each part of a long video and merges the answers."""
    return await asyncio.to_thread(_long_video)


@cache
def _long_video() -> LongGraph:
    return create_long_video(served_config(), {"model": _model()})


async def assistant() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return the graph that holds a conversation about the videos in the allowed folders."""
    return await asyncio.to_thread(_assistant)


@cache
def _assistant() -> CompiledStateGraph[Any, Any, Any, Any]:
    return create_assistant(served_config(), _folders(), {"model": _model()})


@cache
def served_config() -> Config:
    """Return the configuration of `ACT2SEE_CONFIG`, with its file access limited to the allowed folders.

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
