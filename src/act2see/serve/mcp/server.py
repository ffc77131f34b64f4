"""The MCP server for desktop assistants, over stdin and stdout: ask about a video, find frames, show a trace.

A result has three forms: text and pictures for the assistant, and structured content for programs. An
imagined picture has its mark in its pixels, and the line before it says that it is imagined. An error that
the user can correct (a wrong name, an empty question) is returned as a tool error in one line. Any other
error is logged under an id, and the client receives only the id.

When a client cancels a call (`notifications/cancelled`, or the end of stdin), the run is cancelled, the
download is stopped, and no trace is kept. An index that was being built for this call alone is dropped.

stdout is reserved for the protocol: while the server runs, the `mcp` package redirects other output to
stderr.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent, ToolAnnotations
from pydantic import Field

from act2see.errors import Act2SeeError, QuestionError, StoreError
from act2see.graphs.ask import Graph, create_act2see
from act2see.graphs.config import Config
from act2see.graphs.parts import Parts, cached_parts
from act2see.graphs.run import aask
from act2see.graphs.state import MAX_OPTION, MAX_OPTIONS, MAX_QUESTION
from act2see.serve.failures import failure_message, log_failure
from act2see.serve.mcp.progress import Narrator, frame_text, progress
from act2see.tools.frames import FrameRef, Record
from act2see.tools.runtime.cancel import cancel_once
from act2see.tools.runtime.outside import one_line
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.index import FrameIndex
from act2see.tools.video.folders import Folders
from act2see.tools.video.store import default_cache
from act2see.trace.folder import KeptTraces
from act2see.trace.pictures import encode_picture
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

PICTURES = 16
"""The maximum number of pictures in a result, because an assistant's context is limited."""
MAX_FOUND = 16
"""The maximum number of frames that a call of find_frames may ask for."""

_MAX_ID = 200  # characters of a trace's id
_DOWNLOADS = 4  # at one time; others wait
T = TypeVar("T")
Ctx = Context[Any, Any]
# Without a bound: a name that is too long is none in the folders, and is quoted in part.
Video = Annotated[
    str, Field(description="A video, named as by list_videos. `name#t=2,8` is the part from second 2 to 8.")
]


class FrameInfo(Record):
    """A frame of a result."""

    how: str
    """Origin of the frame: `retrieved`, `taken` at a time, `cropped`, `supplied` by a person, `initial`, or
    `imagined` if it was generated."""
    imagined: bool = False
    """Whether it is not a frame of the video: generated, a picture file, or cut from one of these."""
    seconds: float
    """Time in the video. For an imagined frame, the time of the frame that it was made from."""
    query: str
    score: float | None = None
    """Similarity to the query. None if it was not measured."""


class AskResult(Record):
    answer: str
    choice: str | None = Field(description="The option that was chosen, if options were given.")
    trace: str = Field(description="The id of the trace, for show_trace.")
    frames: tuple[FrameInfo, ...]


class FindResult(Record):
    frames: tuple[FrameInfo, ...]
    match: bool = Field(
        description="Whether the best frame is similar enough to count as a match of the query."
    )


class ShowResult(Record):
    trace: str
    question: str
    options: tuple[str, ...]
    text: str = Field(description="The whole text that the model wrote.")
    answer: str | None
    choice: str | None
    frames: tuple[FrameInfo, ...]


class ListResult(Record):
    videos: tuple[str, ...]


def build_server(
    config: Config, folders: Folders, *, parts: Parts | None = None, traces: KeptTraces | None = None
) -> MCPServer[Any]:
    """Return the MCP server of a configuration. The first question loads its models.

    Args:
        config: The configuration.
        folders: The folders whose videos may be opened.
        parts: The reasoner and the tools. Default: those of the configuration.
        traces: The store of the traces. Default: the folder `traces` in the cache folder.
    """
    from act2see import __version__

    parts = parts or cached_parts(config)
    cache = Path(config.cache).expanduser() if config.cache else default_cache()
    graph = create_act2see(config, parts=parts)
    tools = _Tools(graph, parts, folders, traces or KeptTraces(cache / "traces"))
    server: MCPServer[Any] = MCPServer(
        "act2see",
        version=__version__,
        instructions=(
            "Answers questions about videos. While it reasons, it looks at the video again and imagines "
            "frames. An imagined frame is marked; it is not evidence of what the video shows. "
            f"Models: {config.name}. {config.about}"
        ),
    )
    quiet = ToolAnnotations(read_only_hint=True, open_world_hint=folders.downloads is not None)
    for tool in (tools.ask_video, tools.find_frames, tools.show_trace, tools.list_videos):
        server.tool(annotations=quiet)(tool)
    return server


@dataclass(slots=True)
class _Tools:
    """The tools of the server. An assistant reads their docstrings."""

    graph: Graph
    parts: Parts
    folders: Folders
    traces: KeptTraces
    downloads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="act2see-download")
    )
    """The threads that download videos."""

    async def ask_video(
        self,
        ctx: Ctx,
        video: Video,
        question: Annotated[str, Field(max_length=MAX_QUESTION, description="A question about the video.")],
        options: Annotated[
            list[Annotated[str, Field(max_length=MAX_OPTION)]] | None,
            Field(max_length=MAX_OPTIONS, description="The possible answers of a multiple-choice question."),
        ] = None,
    ) -> Annotated[CallToolResult, AskResult]:
        """Ask a question about a video. Returns the answer, and the frames that were retrieved or imagined to
        find it."""
        return await _run_tool("ask_video", self._ask(ctx, video, question, options or ()))

    async def _ask(self, ctx: Ctx, video: str, question: str, options: Sequence[str]) -> CallToolResult:
        async with progress(ctx.report_progress) as say:
            path = await self._path(video)
            say(f"opening {video}")
            trace = await aask(self.graph, path, question, options, on_event=Narrator(say))
            kept = await asyncio.to_thread(self._keep, trace)
        chosen = f" ({trace.choice})" if trace.choice and trace.choice != trace.answer else ""
        text = f"Answer: {trace.answer}{chosen}\nTrace: {trace.id}; {kept}."
        result = AskResult(
            answer=trace.answer or "",
            choice=trace.choice,
            trace=trace.id,
            frames=_frame_infos(trace.returned),
        )
        pictures = await asyncio.to_thread(self._pictures, trace.returned)
        return _tool_result(result, [TextContent(text=text), *pictures])

    async def find_frames(
        self,
        ctx: Ctx,
        video: Video,
        query: Annotated[str, Field(max_length=MAX_QUESTION, description="A description of the frame.")],
        k: Annotated[int, Field(ge=1, le=MAX_FOUND, description="The number of frames.")] = 4,
    ) -> Annotated[CallToolResult, FindResult]:
        """Find the frames of a video that best match a text, with times and scores."""
        return await _run_tool("find_frames", self._find(ctx, video, query, k))

    async def _find(self, ctx: Ctx, video: str, query: str, k: int) -> CallToolResult:
        if not query.strip():
            raise QuestionError("the query is empty: describe the frame")
        async with progress(ctx.report_progress) as say:
            path = await self._path(video)
            index = await self.parts.resources.finder.ready(
                path, lambda done, total: say(f"indexing: {done} of {total} frames")
            )
            frames, needed = await asyncio.to_thread(self._search, index, path, query, k)
        best = max((f.score for f in frames if f.score is not None), default=-1.0)
        text = f"{len(frames)} frames, best first."
        if best < needed:
            text += f" No match: the best score is {best:.2f}, and a match needs {needed:.2f}."
        result = FindResult(frames=_frame_infos(frames), match=best >= needed)
        pictures = await asyncio.to_thread(self._pictures, frames)
        return _tool_result(result, [TextContent(text=text), *pictures])

    async def show_trace(
        self, id: Annotated[str, Field(max_length=_MAX_ID, description="The id that ask_video returned.")]
    ) -> Annotated[CallToolResult, ShowResult]:
        """Show how an answer was found: the whole chain of thought, with each frame at its place in it."""
        return await _run_tool("show_trace", self._show(id))

    async def _show(self, id: str) -> CallToolResult:
        trace = await asyncio.to_thread(self.traces.get, id)
        if not await asyncio.to_thread(self.folders.resolve, trace.video.path):
            # A server with other folders has saved this trace. Do not reveal that it exists.
            raise self.traces.unknown(id)
        content = await asyncio.to_thread(self._chain, trace)
        result = ShowResult(
            trace=trace.id,
            question=trace.question.text,
            options=trace.question.options,
            text=trace.text,
            answer=trace.answer,
            choice=trace.choice,
            frames=_frame_infos(trace.returned),
        )
        return _tool_result(result, content)

    async def list_videos(self) -> Annotated[CallToolResult, ListResult]:
        """List the videos that you can ask about."""
        return await _run_tool("list_videos", self._list())

    async def _list(self) -> CallToolResult:
        names = await asyncio.to_thread(self.folders.videos)
        lines = [one_line(name) for name in names] or [f"There is no video in {self.folders}."]
        for name in await asyncio.to_thread(self.folders.misnamed):
            lines.append(f"({name} is not listed because its name is not UTF-8: rename it)")
        return _tool_result(ListResult(videos=tuple(names)), [TextContent(text="\n".join(lines))])

    async def _path(self, video: str) -> str:
        """Return the path of a video, and download it if needed. Cancelling stops the download.

        Downloads have threads of their own: slow ones must not hold those that everything else runs in.
        """
        stop = threading.Event()
        pool = self.downloads if "://" in video else None
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, self.folders.path, video, stop.is_set)
        finally:
            stop.set()

    def _keep(self, trace: Trace) -> str:
        """Save a trace and return a note about it. The answer is returned even if saving fails."""
        try:
            self.traces.keep(trace)
        except StoreError as e:
            return f"it could not be saved, so show_trace cannot show it ({e})"
        return "show_trace shows how the answer was found"

    def _search(self, index: FrameIndex, path: str, query: str, k: int) -> tuple[list[FrameRef], float]:
        """Return the frames that best match a query, and the lowest score of a match."""
        finder = self.parts.resources.finder
        found = finder.search(index, query, k)
        return finder.retrieved(path, query, found), finder.no_match

    def _chain(self, trace: Trace) -> list[ContentBlock]:
        """Return the texts and pictures of a trace, in the order of the chain of thought."""
        lines = [f"Asked before: {turn.line}" for turn in trace.question.earlier]
        lines.append(f"Question: {trace.question.text}")
        lines += [f"- {option}" for option in trace.question.options]
        times = ", ".join(f"{frame.seconds:.1f}" for frame in trace.initial)
        lines.append(f"In view at the start: frames at {times} s.")
        content: list[ContentBlock] = [TextContent(text="\n".join(lines))]
        shown = 0
        for segment in trace.segments:
            if not isinstance(segment, Frames):
                content.append(TextContent(text=segment.text))
                continue
            if segment.note:
                content.append(TextContent(text=segment.note))
            content += self._pictures(segment.frames, PICTURES - shown)
            shown += len(segment.frames)
        return content

    def _pictures(self, frames: Sequence[FrameRef], limit: int = PICTURES) -> list[ContentBlock]:
        """Return, for each of the first `limit` frames, a line about it and its picture."""
        limit = max(0, limit)
        content: list[ContentBlock] = []
        for frame in frames[:limit]:
            content.append(TextContent(text=frame_text(frame)))
            try:
                pixels = self.parts.resources.store(frame)
            except StoreError:
                content.append(TextContent(text="(its picture was removed from the frame store)"))
                continue
            data, mime_type = encode_picture(frame, pixels)
            content.append(
                ImageContent(
                    data=base64.b64encode(data).decode(),
                    mime_type=mime_type,
                    _meta={"act2see/frame": _json(_frame_info(frame))},
                )
            )
        if len(frames) > limit:
            content.append(TextContent(text=f"({len(frames) - limit} more are not shown)"))
        return content


def _frame_info(frame: FrameRef) -> FrameInfo:
    return FrameInfo(
        how="imagined" if frame.anchor else frame.provenance.kind,
        imagined=frame.imagined,
        seconds=frame.seconds,
        query=frame.query,
        score=frame.similarity,
    )


def _frame_infos(frames: Iterable[FrameRef]) -> tuple[FrameInfo, ...]:
    return tuple(_frame_info(frame) for frame in frames)


def _tool_result(structured: Record, content: list[ContentBlock]) -> CallToolResult:
    """Return the result of a tool. Lone surrogates are replaced, because they would crash the server."""
    cleaned: list[ContentBlock] = []
    for block in content:
        if isinstance(block, TextContent):
            block = block.model_copy(update={"text": clean_text(block.text)})
        cleaned.append(block)
    return CallToolResult(content=cleaned, structured_content=_json(structured))


def _json(record: Record) -> Any:
    """Return a record as JSON data, without lone surrogates."""
    text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False)
    return json.loads(clean_text(text))


async def _run_tool(tool: str, work: Coroutine[Any, Any, T]) -> T:
    """Run a tool call. It stops when the client cancels it.

    Raises:
        ToolError: The call failed. The client may read its message.
    """
    try:
        return await cancel_once(work)
    except (ToolError, MCPError):
        raise
    except Act2SeeError as e:
        raise ToolError(clean_text(str(e))) from e
    except Exception as e:
        raise ToolError(failure_message(log_failure(f"the tool {tool}", e))) from e
