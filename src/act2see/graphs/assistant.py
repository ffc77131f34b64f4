"""The assistant: a supervisor over three workers, about the videos of a folder.

- the librarian (`find_clips`): which videos show something, by searching the index of each
  (`tools/search/librarian.py`);
- Act2See (`ask_video`): a question about one video, with what the answer rests on (`graphs/compose.py`);
- the transcript (`search_transcript`): what is said and when, from the subtitle files beside a video
  (`tools/video/subtitles.py`).

The supervisor is LangChain's `create_agent`, and the workers are its tools. It is the loop that is wanted
here (a model that calls tools until it answers) and is kept up to date by others: parallel calls, interrupts,
checkpoints and streaming pass through it, and any chat model fits. A supervisor of our own would be this loop
once more.

Without a model's name the supervisor is the preset's own: `micro/supervisor.py`, which works offline by
rules. The supervisor is told names of videos, never opens anything, and can name only videos in the folder:
the tools look each name up there.
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
from act2see.graphs.config import Config, Count, Section, load_config, section
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
_LINES = 8  # of a transcript, a call

PROMPT = """\
You answer questions about a collection of videos with the help of three workers.
- find_clips finds the videos that show something. Give it a short caption of what is to be seen, in the present tense.
- ask_video watches one video and answers a question about it. It looks again at single moments where it must. Ask one thing at a \
time, and name the video as find_clips does.
- search_transcript finds what is said in a video, and when.
Where the question does not name its video, find it first. Where a worker sees nothing, try the next likely video before you give up.
Answer from what the workers say and from nothing else. Name the video and the times that your answer rests on. A frame that is \
called imagined is not in the video: say so where you use it. Where nothing shows it, say that."""


class Assistant(Section):
    """`model` is the supervisor, a LangChain chat model `provider:model`, with its own `options`. Without one
    `supervisor` is used, the dotted path (`module:Class`) of a chat model that needs no arguments.

    `videos` are searched at most, and the supervisor speaks at most `turns` times for one question.
    """

    model: str | None = None
    supervisor: str = "act2see.micro.supervisor:ScriptedSupervisor"
    options: dict[str, Any] = Field(default_factory=dict)
    videos: Count = 200
    turns: Count = 12
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
    """A graph over `messages` that answers questions about the videos in `folder` (one or several), and in
    nothing else.

    `config` and `parts` are those of `create_act2see`; `model` stands for the chat model that
    `settings.model` would name. Raises `ConfigError`.
    """
    try:
        from langchain.agents import create_agent
        from langchain.agents.middleware import ModelCallLimitMiddleware
    except ImportError as e:
        raise ConfigError("the assistant needs LangChain: pip install 'act2see[chat]'") from e
    loaded, chosen = load_config(config), section(Assistant, settings, "assistant")
    parts = parts or cached_parts(loaded)
    folders = Folders([folder] if isinstance(folder, str | os.PathLike) else folder)
    supervisor = model or _supervisor(chosen, loaded.folder)
    tools = [
        librarian(parts.resources.finder, folders, chosen.videos),
        watcher(create_act2see(loaded, parts=parts), folders),
        transcript_reader(folders),
    ]
    return create_agent(
        supervisor,
        tools,
        system_prompt=chosen.prompt,
        middleware=[ModelCallLimitMiddleware(run_limit=chosen.turns, exit_behavior="end")],
        context_schema=AskContext,
        checkpointer=checkpointer,
        name="assistant",
    )


def _supervisor(settings: Assistant, folder: str | None) -> BaseChatModel:
    """The chat model that the settings name. Raises `ConfigError`."""
    if settings.model:
        return chat_model(settings.model, settings.options, "assistant's model")
    module, _, name = settings.supervisor.partition(":")
    try:
        made: BaseChatModel = getattr(import_beside(module, folder), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as e:
        raise ConfigError(
            f"assistant.supervisor: {settings.supervisor} cannot be loaded ({e}): give it as `module:Class` of a LangChain chat model"
        ) from e
    return made


class FindArguments(BaseModel):
    query: str = Field(description="a short caption of what is to be seen")
    count: int = Field(default=3, ge=1, le=20, description="how many videos to name")


def librarian(finder: Finder, folders: Folders, most: int = 200) -> StructuredTool:
    """The tool `find_clips`: text for the supervisor, the videos and their best frames as artifact."""

    def find(query: str, count: int = 3) -> tuple[str, Any]:
        write = _writer()
        found = search_folder(
            finder,
            folders,
            query,
            count=count,
            max_videos=most,
            progress=lambda name, done, of: write({"type": "search", "video": name, "done": done, "of": of}),
        )
        clips = [
            {"video": r.name, "match": r.match, "frames": [[h.seconds, round(h.score, 4)] for h in r.hits]}
            for r in found.ranked
        ]
        return str(found), {"clips": clips, "skipped": [list(s) for s in found.skipped]}

    return _tool(
        find,
        "find_clips",
        "Finds the videos that show what a caption describes, with the times of their best frames.",
        FindArguments,
    )


def watcher(graph: Graph, folders: Folders) -> StructuredTool:
    """The tool `ask_video`: `as_tool` for videos of the folder alone."""
    from langchain_core.tools import ToolException

    tool = as_tool(graph)
    inside, inside_async = tool.func, tool.coroutine
    assert inside
    assert inside_async

    def path(video: str) -> str:
        try:
            return folders.path(video)
        except Act2SeeError as e:
            raise ToolException(str(e)) from e

    async def acall(video: str, question: str, options: Sequence[str] = ()) -> Any:
        return await inside_async(await asyncio.to_thread(path, video), question, options)

    def call(video: str, question: str, options: Sequence[str] = ()) -> Any:
        return inside(path(video), question, options)

    return tool.model_copy(update={"func": call, "coroutine": acall})


class TranscriptArguments(BaseModel):
    query: str = Field(default="", description="words that are said; empty for the beginning")
    video: str = Field(
        default="", description="the video's name; empty to search the subtitles of all videos"
    )


def transcript_reader(folders: Folders, most: int = 200) -> StructuredTool:
    """The tool `search_transcript`: lines with their times; as artifact, a list of video, seconds and
    text."""

    def search(query: str = "", video: str = "") -> tuple[str, Any]:
        read, texts, lines = 0, [], []
        for name in [video] if video else folders.videos(most):
            for file in subtitles_of(folders.path(name)):
                if not folders.find(str(file)):
                    continue  # a link that leads out of the folder, or no regular file
                try:
                    transcript = read_transcript(file)
                except TranscriptError as e:
                    texts.append(str(e))
                    continue
                read += 1
                for line in transcript.search(query, _LINES):
                    texts.append(f"{name}, {line}")
                    lines.append({"video": name, "start": line.start, "stop": line.stop, "text": line.text})
        if not texts:
            of = video or "these videos"
            texts = [f"Nothing like that is said in {of}." if read else f"There are no subtitles of {of}."]
        return "\n".join(texts[: 4 * _LINES]), lines[: 4 * _LINES]

    return _tool(
        search,
        "search_transcript",
        "Finds what is said in a video, with times, from its subtitles.",
        TranscriptArguments,
    )


def traces_of(messages: Sequence[AnyMessage]) -> list[Trace]:
    """The traces of the questions that the supervisor has asked about videos, in order."""
    artifacts = [
        m.artifact for m in messages if isinstance(m, ToolMessage) and m.name == "ask_video" and m.artifact
    ]
    return [Trace.model_validate(a) for a in artifacts]


def _tool(call: Callable[..., T], name: str, description: str, arguments: type[BaseModel]) -> StructuredTool:
    """A tool of a function that waits for files: async by a thread; what is wrong becomes a message to the
    supervisor."""
    from langchain_core.tools import StructuredTool, ToolException

    def said(*args: Any, **kwargs: Any) -> T:
        try:
            return call(*args, **kwargs)
        except Act2SeeError as e:
            raise ToolException(str(e)) from e

    async def asaid(*args: Any, **kwargs: Any) -> T:
        return await asyncio.to_thread(said, *args, **kwargs)

    return StructuredTool.from_function(
        said,
        asaid,
        name=name,
        description=description,
        args_schema=arguments,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _writer() -> Callable[[Any], None]:
    try:
        return get_stream_writer()
    except RuntimeError:  # called by itself, not by a graph
        return lambda _: None
