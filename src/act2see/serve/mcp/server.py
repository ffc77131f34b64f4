"""The MCP server for desktop assistants, over stdin and stdout: ask a video, find frames in it, show a trace.

A result holds the same in three forms: text for the assistant, pictures for its eyes, structured content for
programs. An imagined picture carries its mark in its pixels, and the line before it says that it is imagined.
An error that the user can correct (a wrong name, an empty question) comes back as a tool error in one line;
any other is logged under an id, and the client learns only the id.

A call that its client cancels (`notifications/cancelled`, or the end of stdin) ends: its run is cancelled, an
index that was being built for it alone is dropped, a download is stopped, and no trace is kept.

stdout belongs to the protocol: while the server runs, the `mcp` package sends everything else that is printed
there to stderr.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
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
from act2see.serve.failures import failure_message, log_failure
from act2see.serve.mcp.progress import Narrator, frame_text, progress
from act2see.tools.frames import FrameRef, Record
from act2see.tools.runtime.cancel import cancel_once
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.index import FrameIndex
from act2see.tools.video.folders import Folders
from act2see.tools.video.store import default_cache
from act2see.trace.folder import KeptTraces
from act2see.trace.pictures import encode_picture
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

PICTURES = 16
"""Pictures in one result at most: an assistant's context is not endless."""
MAX_FOUND = 16
"""Frames that one call of find_frames may ask for."""

T = TypeVar("T")
Ctx = Context[Any, Any]
Video = Annotated[
    str,
    Field(
        description="The video: a name that list_videos gives. `name#t=2,8` is the part from second 2 to 8."
    ),
]


class FrameInfo(Record):
    """A frame of a result."""

    how: str
    """`retrieved`, `taken` at a time, `cropped`, `supplied` by a person, `initial`, or `imagined` if it was
    generated."""
    imagined: bool = False
    """Whether it is not a frame of the video: generated, a picture file, or cut from one of these."""
    seconds: float
    """Its time in the video; for an imagined frame, that of the frame it was made from."""
    query: str
    score: float | None = None
    """Its similarity to the query; None if nothing measured it."""


class AskResult(Record):
    answer: str
    choice: str | None = Field(description="The option that the answer means, where options were given.")
    trace: str = Field(description="The trace's id, for show_trace.")
    frames: tuple[FrameInfo, ...]


class FindResult(Record):
    frames: tuple[FrameInfo, ...]
    match: bool = Field(
        description="Whether the best frame is similar enough for the query to be in the video."
    )


class ShowResult(Record):
    trace: str
    question: str
    options: tuple[str, ...]
    text: str = Field(description="All that the model wrote.")
    answer: str | None
    choice: str | None
    frames: tuple[FrameInfo, ...]


class ListResult(Record):
    videos: tuple[str, ...]


def build_server(
    config: Config, folders: Folders, *, parts: Parts | None = None, traces: KeptTraces | None = None
) -> MCPServer[Any]:
    """The server of a configuration. Models are loaded by the first question.

    Args:
        config: The configuration.
        folders: The videos that may be opened.
        parts: Replaces the reasoner or the tools.
        traces: Where traces are kept; by default the cache folder.
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
            "Answers questions about videos by looking at them again, and by imagining frames, while it "
            "reasons. An imagined frame is marked, and is no evidence of what the video shows. "
            f"Models: {config.name}. {config.about}"
        ),
    )
    quiet = ToolAnnotations(read_only_hint=True, open_world_hint=folders.downloads is not None)
    for tool in (tools.ask_video, tools.find_frames, tools.show_trace, tools.list_videos):
        server.tool(annotations=quiet)(tool)
    return server


@dataclass(slots=True)
class _Tools:
    """The tools of the server. Their docstrings are what an assistant reads."""

    graph: Graph
    parts: Parts
    folders: Folders
    traces: KeptTraces

    async def ask_video(
        self,
        ctx: Ctx,
        video: Video,
        question: Annotated[str, Field(description="What you want to know.")],
        options: Annotated[
            list[str] | None, Field(description="The possible answers, if it is a choice among some.")
        ] = None,
    ) -> Annotated[CallToolResult, AskResult]:
        """Ask a question about a video. Returns the answer and the frames that were looked at, or imagined,
        for it."""
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
        query: Annotated[str, Field(description="What the frame shows.")],
        k: Annotated[int, Field(ge=1, le=MAX_FOUND, description="How many frames.")] = 4,
    ) -> Annotated[CallToolResult, FindResult]:
        """Find the frames of a video that fit a text best, with their times and how similar they are."""
        return await _run_tool("find_frames", self._find(ctx, video, query, k))

    async def _find(self, ctx: Ctx, video: str, query: str, k: int) -> CallToolResult:
        if not query.strip():
            raise QuestionError("the query is empty: say what the frame shows")
        async with progress(ctx.report_progress) as say:
            path = await self._path(video)
            index = await self.parts.resources.finder.ready(
                path, lambda done, total: say(f"indexing: {done} of {total} frames")
            )
            frames, needed = await asyncio.to_thread(self._search, index, path, query, k)
        best = max((f.score for f in frames if f.score is not None), default=-1.0)
        text = f"{len(frames)} frames, the best first."
        if best < needed:
            text += (
                " No match: none is similar enough to be what was asked for "
                f"(the closest scores {best:.2f}, {needed:.2f} is needed)."
            )
        result = FindResult(frames=_frame_infos(frames), match=best >= needed)
        pictures = await asyncio.to_thread(self._pictures, frames)
        return _tool_result(result, [TextContent(text=text), *pictures])

    async def show_trace(
        self, id: Annotated[str, Field(description="The id that ask_video returned.")]
    ) -> Annotated[CallToolResult, ShowResult]:
        """Show how an answer came about: the whole chain of thought, with each frame where it was seen."""
        return await _run_tool("show_trace", self._show(id))

    async def _show(self, id: str) -> CallToolResult:
        trace = await asyncio.to_thread(self.traces.get, id)
        if not await asyncio.to_thread(self.folders.resolve, trace.video.path):
            # A server with other folders kept it: to this one it is as unknown as one that does not exist.
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
        """List the videos that may be asked about."""
        return await _run_tool("list_videos", self._list())

    async def _list(self) -> CallToolResult:
        names = await asyncio.to_thread(self.folders.videos)
        lines = list(names) or [f"There is no video in {self.folders}."]
        for name in await asyncio.to_thread(self.folders.misnamed):
            lines.append(f"({name} is left out: its name is not UTF-8; rename it)")
        return _tool_result(ListResult(videos=tuple(names)), [TextContent(text="\n".join(lines))])

    async def _path(self, video: str) -> str:
        """The file of a name; a download of it goes on until the call is cancelled."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self.folders.path, video, stop.is_set)
        finally:
            stop.set()

    def _keep(self, trace: Trace) -> str:
        """Keep a trace and return how to see it. An answer is not lost because its trace cannot be kept."""
        try:
            self.traces.keep(trace)
        except StoreError as e:
            return f"it is not kept, so show_trace cannot show it ({e})"
        return "show_trace shows how it came about"

    def _search(self, index: FrameIndex, path: str, query: str, k: int) -> tuple[list[FrameRef], float]:
        """The frames that fit a query best, and the score below which there is no match."""
        finder = self.parts.resources.finder
        found = finder.search(index, query, k)
        return finder.retrieved(path, query, found), finder.encoder.no_match

    def _chain(self, trace: Trace) -> list[ContentBlock]:
        """Words and pictures in the order in which they came."""
        lines = [f"Question: {trace.question.text}"]
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
        """For each frame a line about it, then its picture; at most `limit` frames."""
        limit = max(0, limit)
        content: list[ContentBlock] = []
        for frame in frames[:limit]:
            content.append(TextContent(text=frame_text(frame)))
            try:
                pixels = self.parts.resources.store(frame)
            except StoreError:
                content.append(TextContent(text="(its picture is no longer in the frame store)"))
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
    """The result of a tool, with lone surrogates replaced: they would end the server."""
    cleaned: list[ContentBlock] = []
    for block in content:
        if isinstance(block, TextContent):
            block = block.model_copy(update={"text": clean_text(block.text)})
        cleaned.append(block)
    return CallToolResult(content=cleaned, structured_content=_json(structured))


def _json(record: Record) -> Any:
    return json.loads(clean_text(json.dumps(record.model_dump(mode="json"), ensure_ascii=False)))


async def _run_tool(tool: str, work: Coroutine[Any, Any, T]) -> T:
    """Run a call, which ends when its client cancels it.

    Raises:
        ToolError: The call failed; its text is what the client may read.
    """
    try:
        return await cancel_once(work)
    except (ToolError, MCPError):
        raise
    except Act2SeeError as e:
        raise ToolError(clean_text(str(e))) from e
    except Exception as e:
        raise ToolError(failure_message(log_failure(f"the tool {tool}", e))) from e
