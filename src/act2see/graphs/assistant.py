"""The assistant: a supervisor over three workers, about the videos of a folder.

- the librarian (`find_clips`): which videos show something, by searching the index of each
  (`tools/search/librarian.py`);
- Act2See (`ask_video`): a question about one video, answered with its evidence (`graphs/compose.py`);
- the transcript (`search_transcript`): what is said and when, from the subtitle files beside a video
  (`tools/video/subtitles.py`).

The supervisor is LangChain's `create_agent`, and the workers are its tools. That is the loop which is needed
here (a model that calls tools until it answers), maintained by others: parallel calls, interrupts,
checkpoints and streaming pass through it, and any chat model fits.

Without a model's name the supervisor is `micro/supervisor.py`, which works offline by rules. The supervisor
knows videos by their names, and can open only those of the folder: the tools look each name up there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.messages import AnyMessage, ToolMessage
from langgraph.config import get_stream_writer
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, Field

from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import Act2SeeError, ConfigError, TranscriptError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.compose import as_tool
from act2see.graphs.config import Config, Count, Section, load_config, load_section
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.state import AskContext
from act2see.tools.runtime.local_modules import import_beside
from act2see.tools.search.finder import Finder
from act2see.tools.search.librarian import search_folder
from act2see.tools.video.folders import Folders
from act2see.tools.video.subtitles import read_transcript, subtitles_of
from act2see.trace.trace import Trace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import StructuredTool

T = TypeVar("T")
_MAX_LINES = 8  # of one transcript in a reply
_MAX_REPLY = 4 * _MAX_LINES  # lines of a reply
_MAX_VIDEOS = 200

PROMPT = """\
You answer questions about a collection of videos with the help of three workers.
- find_clips finds the videos that show something. Give it a short caption of what is to be seen, in the \
present tense.
- ask_video watches one video and answers a question about it. It looks again at single moments where it \
must. Ask one thing at a time, and name the video as find_clips does.
- search_transcript finds what is said in a video, and when.
Where the question does not name its video, find it first. Where a worker sees nothing, try the next likely \
video before you give up.
Answer from what the workers say and from nothing else. Name the video and the times that your answer rests \
on. A frame that is called imagined is not in the video: say so where you use it. Where nothing shows it, \
say that."""


class Assistant(Section):
    """The settings of an assistant."""

    model: str | None = None
    """The supervisor: a LangChain chat model, `provider:model`."""
    supervisor: str = "act2see.micro.supervisor:ScriptedSupervisor"
    """The supervisor if no `model` is named: the dotted path (`module:Class`) of a chat model without
    arguments."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The settings of `model`."""
    videos: Count = _MAX_VIDEOS
    """Videos that are searched, at most."""
    turns: Count = 12
    """Messages of the supervisor for one question, at most."""
    prompt: str = PROMPT


def create_assistant(
    config: Config | Mapping[str, Any] | str | None = None,
    folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = ".",
    settings: Assistant | Mapping[str, Any] | None = None,
    *,
    checkpointer: Any = None,
    parts: Parts | None = None,
    model: BaseChatModel | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """A graph over `messages` that answers questions about the videos of a folder.

    Args:
        config: The configuration, as `create_act2see` takes it.
        folder: The folder, or several. No file outside is opened.
        settings: The settings of the assistant.
        checkpointer: Saves the conversation.
        parts: The parts of Act2See's graph, as `create_act2see` takes them.
        model: The supervisor, in place of the one that the settings name.

    Raises:
        ConfigError: The configuration or the settings cannot be used, or LangChain is not installed.
    """
    try:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware
    except ImportError as e:
        raise ConfigError("the assistant needs LangChain: pip install 'act2see[chat]'") from e
    act2see_config, chosen = load_config(config), load_section(Assistant, settings, "assistant")
    parts = parts or cached_parts(act2see_config)
    folders = Folders([folder] if isinstance(folder, str | os.PathLike) else folder)
    tools = [
        librarian(parts.resources.finder, folders, chosen.videos),
        watcher(create_act2see(act2see_config, parts=parts), folders),
        transcript_reader(folders),
    ]
    return create_agent(
        model or _supervisor(chosen, act2see_config.folder),
        tools,
        system_prompt=chosen.prompt,
        middleware=[ModelCallLimitMiddleware(run_limit=chosen.turns, exit_behavior="end")],
        context_schema=AskContext,
        checkpointer=checkpointer,
        name="assistant",
    )


def _supervisor(settings: Assistant, folder: str | None) -> BaseChatModel:
    """The chat model that the settings name; its module is looked for in `folder` first."""
    if settings.model:
        return chat_model(settings.model, settings.options, "assistant's model")
    module, _, name = settings.supervisor.partition(":")
    try:
        made: BaseChatModel = getattr(import_beside(module, folder), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as e:
        raise ConfigError(
            f"assistant.supervisor: {settings.supervisor} cannot be loaded ({e}): give it as `module:Class` "
            "of a LangChain chat model"
        ) from e
    return made


class FindArguments(BaseModel):
    """The arguments of `find_clips`, as the supervisor is told them."""

    query: str = Field(description="a short caption of what is to be seen")
    count: int = Field(default=3, ge=1, le=20, description="how many videos to name")


def librarian(finder: Finder, folders: Folders, max_videos: int = _MAX_VIDEOS) -> StructuredTool:
    """The tool `find_clips`: text for the supervisor; as artifact, the videos and their best frames."""

    def find(query: str, count: int = 3) -> tuple[str, Any]:
        write = _stream_writer()

        def report(name: str, done: int, total: int) -> None:
            write({"type": "search", "video": name, "done": done, "of": total})

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


def watcher(graph: Graph, folders: Folders) -> StructuredTool:
    """The tool `ask_video`: `as_tool`, for the videos of the folder."""
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
    """The arguments of `search_transcript`, as the supervisor is told them."""

    query: str = Field(default="", description="words that are said; empty for the beginning")
    video: str = Field(
        default="", description="the video's name; empty to search the subtitles of all videos"
    )


def transcript_reader(folders: Folders, max_videos: int = _MAX_VIDEOS) -> StructuredTool:
    """The tool `search_transcript`: lines with their times; as artifact, a list of video, seconds and
    text."""

    def search(query: str = "", video: str = "") -> tuple[str, Any]:
        has_subtitles = False
        texts: list[str] = []
        found: list[dict[str, Any]] = []
        for name in [video] if video else folders.videos(max_videos):
            for file in subtitles_of(folders.path(name)):
                if not folders.find(str(file)):
                    continue  # a link that leads out of the folder, or no regular file
                try:
                    transcript = read_transcript(file)
                except TranscriptError as e:
                    texts.append(str(e))
                    continue
                has_subtitles = True
                for line in transcript.search(query, _MAX_LINES):
                    texts.append(f"{name}, {line}")
                    found.append({"video": name, "start": line.start, "stop": line.stop, "text": line.text})
        if not texts:
            where = video or "these videos"
            nothing = f"Nothing like that is said in {where}."
            texts = [nothing if has_subtitles else f"There are no subtitles of {where}."]
        return "\n".join(texts[:_MAX_REPLY]), found[:_MAX_REPLY]

    return _tool(
        search,
        "search_transcript",
        "Finds what is said in a video, with times, from its subtitles.",
        TranscriptArguments,
    )


def traces_of(messages: Sequence[AnyMessage]) -> list[Trace]:
    """The traces of the questions that the supervisor has asked about videos, in order."""
    traces = []
    for message in messages:
        if isinstance(message, ToolMessage) and message.name == "ask_video" and message.artifact:
            traces.append(Trace.model_validate(message.artifact))
    return traces


def _tool(call: Callable[..., T], name: str, description: str, arguments: type[BaseModel]) -> StructuredTool:
    """A tool of a function that reads files: asynchronously, it runs in a thread. An `Act2SeeError` becomes a
    message to the supervisor."""
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
    except RuntimeError:  # called by itself, not by a graph
        return lambda _: None
