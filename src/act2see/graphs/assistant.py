"""The assistant: a supervisor with three workers that answers questions about the videos of a folder.

- The librarian (`find_clips`) searches the index of every video (`tools/search/librarian.py`).
- Act2See (`ask_video`) answers a question about one video, with its evidence (`graphs/compose.py`).
- The transcript reader (`search_transcript`) searches the subtitle files beside the videos
  (`tools/video/subtitles.py`).

The supervisor is an agent of LangChain's `create_agent`, and the workers are its tools. So parallel calls,
interrupts, checkpoints and streaming work as for any agent, and any chat model can be the supervisor. By
default it is `micro/supervisor.py`, which follows rules and works offline.

The supervisor refers to videos by name. The tools look up each name in the folder, and open nothing else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import AnyMessage, ToolMessage
from langgraph.config import get_config, get_stream_writer
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, Field

from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import Act2SeeError, ConfigError, TranscriptError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.compose import as_tool
from act2see.graphs.config import Config, load_config, load_section
from act2see.graphs.events import SearchEvent
from act2see.graphs.names import check_chat_name
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.sections import Count, Section
from act2see.graphs.state import AskContext, run_context
from act2see.tools.runtime.local_modules import import_beside
from act2see.tools.runtime.outside import one_line, quote_tags
from act2see.tools.search.finder import Finder
from act2see.tools.search.librarian import search_folder
from act2see.tools.video.folders import Folders
from act2see.tools.video.subtitles import read_transcript, subtitles_of
from act2see.tools.video.window import Window
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import StructuredTool

T = TypeVar("T")
_MAX_LINES = 8  # lines of one transcript in a reply
_MAX_REPLY = 4 * _MAX_LINES  # lines in a reply
_MAX_VIDEOS = 200

PROMPT = """\
You answer questions about a collection of videos with the help of three tools.
- find_clips finds the videos that show something. Give it a short caption in the present tense that \
describes what to look for.
- ask_video watches one video and answers a question about it. It looks again at single moments if it needs \
to. Ask one thing at a time, and use the video's name as find_clips returned it.
- search_transcript finds what is said in a video, and when.
If the question does not name a video, find the video first. If a tool finds nothing in a video, try the \
next likely video before you give up.
Base your answer only on what the tools return. Name the video and the times that support your answer. A \
frame that is called imagined is not in the video: say so if you use it. If no video shows the answer, say \
that."""


class Assistant(Section):
    """The settings of an assistant."""

    model: str | None = None
    """The chat model of the supervisor: `provider:model` for LangChain."""
    supervisor: str = "act2see.micro.supervisor:ScriptedSupervisor"
    """The supervisor if `model` is not set: `module:Class` of a chat model that takes no arguments."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The settings of `model`."""
    videos: Count = _MAX_VIDEOS
    """The maximum number of videos to search."""
    turns: Count = 12
    """The maximum number of the supervisor's messages for one question."""
    prompt: str = PROMPT
    """The supervisor's system prompt."""


def create_assistant(
    config: Config | Mapping[str, Any] | str | None = None,
    folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ".",
    settings: Assistant | Mapping[str, Any] | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
    model: BaseChatModel | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Return a graph over `messages` that answers questions about the videos of a folder.

    Args:
        config: The configuration, as for `create_act2see`.
        folder: One folder or several. No file outside them is opened.
        settings: The settings of the assistant.
        checkpointer: Saves the conversation.
        parts: The parts of Act2See's graph, as for `create_act2see`.
        model: The supervisor; by default the one that the settings name.

    Raises:
        ConfigError: The configuration or the settings cannot be used, or LangChain is not installed.
    """
    try:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware, before_agent
    except ImportError as e:
        raise ConfigError("the assistant needs LangChain: pip install 'act2see[chat]'") from e
    act2see_config = load_config(config)
    chosen = load_section(Assistant, settings, "assistant")
    parts = parts or cached_parts(act2see_config)
    folders = Folders([folder] if isinstance(folder, str | os.PathLike) else folder)
    tools = [
        make_librarian(parts.resources.finder, folders, chosen.videos),
        make_watcher(create_act2see(act2see_config, parts=parts), folders),
        make_transcript_reader(folders),
    ]
    middleware: list[Any] = [
        before_agent(name="settings")(_check_settings),
        ModelCallLimitMiddleware(run_limit=chosen.turns, exit_behavior="end"),
    ]
    return create_agent(
        model or _make_supervisor(chosen, act2see_config.folder),
        tools,
        system_prompt=chosen.prompt,
        middleware=middleware,
        context_schema=AskContext,
        checkpointer=checkpointer,
        name="assistant",
    )


def _check_settings(state: Any, runtime: Any) -> None:
    """Check the run's settings before a tool opens a file: not each tool asks Act2See, which checks them.

    Raises:
        ConfigError: A setting is unknown or invalid.
    """
    run_context(runtime.context, get_config())


def _make_supervisor(settings: Assistant, folder: str | None) -> BaseChatModel:
    """Return the chat model that the settings name. Its module is looked for in `folder` first."""
    if settings.model:
        check_chat_name(settings.model, settings.options, "assistant's model")
        return chat_model(settings.model, settings.options, "assistant's model")
    module, _, name = settings.supervisor.partition(":")
    try:
        supervisor: BaseChatModel = getattr(import_beside(module, folder), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as e:
        raise ConfigError(
            f"assistant.supervisor: {settings.supervisor} cannot be loaded ({e}): set it to "
            "`module:Class` of a LangChain chat model"
        ) from e
    return supervisor


class FindArguments(BaseModel):
    """The arguments of `find_clips`, as the supervisor sees them."""

    query: str = Field(description="a short caption that describes what to look for")
    count: int = Field(default=3, ge=1, le=20, description="the number of videos to return")


def make_librarian(finder: Finder, folders: Folders, max_videos: int = _MAX_VIDEOS) -> StructuredTool:
    """Return the tool `find_clips`. It returns text, with the videos and their best frames as artifact."""

    def find(query: str, count: int = 3) -> tuple[str, Any]:
        write = _stream_writer()

        def report(name: str, done: int, total: int) -> None:
            write(SearchEvent(video=name, done=done, of=total).model_dump(mode="json"))

        found = search_folder(finder, folders, query, count=count, max_videos=max_videos, progress=report)
        clips = []
        for video in found.ranked:
            frames = [[hit.seconds, round(hit.score, 4)] for hit in video.hits]
            clips.append({"video": video.name, "match": video.match, "frames": frames})
        return str(found), {"clips": clips, "skipped": [list(skipped) for skipped in found.skipped]}

    return _tool(
        find,
        "find_clips",
        "Finds the videos that show what a caption describes, with the times of their best frames.",
        FindArguments,
    )


def make_watcher(graph: Graph, folders: Folders) -> StructuredTool:
    """Return the tool `ask_video`: the tool of `as_tool`, restricted to the videos of the folders."""
    from langchain_core.tools import ToolException

    tool = as_tool(graph)
    ask, ask_async = tool.func, tool.coroutine
    assert ask
    assert ask_async

    def path_of(video: str) -> str:
        try:
            return folders.path(video)
        except Act2SeeError as e:
            raise ToolException(str(e)) from e

    async def acall(video: str, question: str, options: Sequence[str] = ()) -> Any:
        return await ask_async(await asyncio.to_thread(path_of, video), question, options)

    def call(video: str, question: str, options: Sequence[str] = ()) -> Any:
        return ask(path_of(video), question, options)

    return tool.model_copy(update={"func": call, "coroutine": acall})


class TranscriptArguments(BaseModel):
    """The arguments of `search_transcript`, as the supervisor sees them."""

    query: str = Field(default="", description="words to look for; empty for the beginning of the transcript")
    video: str = Field(
        default="", description="the video's name; empty to search the subtitles of all videos"
    )


def make_transcript_reader(folders: Folders, max_videos: int = _MAX_VIDEOS) -> StructuredTool:
    """Return the tool `search_transcript`.

    It returns lines with their times as text, and a list of the video, the times and the text of each line as
    artifact.
    """

    def search(query: str = "", video: str = "") -> tuple[str, Any]:
        has_subtitles = False
        texts: list[str] = []
        found: list[dict[str, Any]] = []
        for name in [video] if video else folders.videos(max_videos):
            window = Window.resolve(folders.path(name))
            for file in _subtitle_files(folders, window.path):
                try:
                    transcript = read_transcript(file).within(window.start, window.end)
                except TranscriptError as e:
                    texts.append(one_line(str(e)))
                    continue
                has_subtitles = True
                if transcript.doubt:
                    texts.append(one_line(transcript.doubt))
                for line in transcript.search(query, _MAX_LINES):
                    texts.append(f"{one_line(name)}, {quote_tags(str(line))}")
                    found.append({"video": name, "start": line.start, "stop": line.stop, "text": line.text})
        if not texts:
            where = one_line(video) or "these videos"
            nothing = f"Nothing like that is said in {where}."
            texts = [nothing if has_subtitles else f"There are no subtitles of {where}."]
        return "\n".join(texts[:_MAX_REPLY]), found[:_MAX_REPLY]

    return _tool(
        search,
        "search_transcript",
        "Finds what is said in a video, with times, from its subtitles.",
        TranscriptArguments,
    )


def _subtitle_files(folders: Folders, video: str) -> list[Path]:
    """Return the subtitle files of a video, given by its path, without links that lead out of the folders."""
    found = [folders.find(str(file)) for file in subtitles_of(video)]
    return [Path(file.path) for file in found if file and file.whole]


def traces_of(messages: Sequence[AnyMessage]) -> list[Trace]:
    """Return the traces of the supervisor's questions to `ask_video`, in order."""
    traces = []
    for message in messages:
        if isinstance(message, ToolMessage) and message.name == "ask_video" and message.artifact:
            traces.append(Trace.model_validate(message.artifact))
    return traces


def _tool(call: Callable[..., T], name: str, description: str, arguments: type[BaseModel]) -> StructuredTool:
    """Return a tool that calls a function, in a thread if it is awaited, since the function reads files.

    An `Act2SeeError` becomes an error message to the supervisor.
    """
    from langchain_core.tools import StructuredTool, ToolException

    def run(*args: Any, **kwargs: Any) -> T:
        try:
            return call(*args, **kwargs)
        except Act2SeeError as e:
            raise ToolException(str(e)) from e

    async def arun(*args: Any, **kwargs: Any) -> T:
        return await asyncio.to_thread(run, *args, **kwargs)

    return StructuredTool.from_function(
        run,
        arun,
        name=name,
        description=description,
        args_schema=arguments,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _stream_writer() -> Callable[[Any], None]:
    try:
        return get_stream_writer()
    except RuntimeError:  # called directly, not by a graph
        return lambda _: None
