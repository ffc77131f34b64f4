"""The MCP server for desktop assistants, over stdin and stdout: ask a video, find frames in it, show a trace.

A result says the same three times over, for three readers: text for the assistant, pictures for its eyes,
structured content for programs. A picture that was imagined carries its mark in its pixels and is announced
as imagined in the line before it. What the user can mend (a wrong name, an empty question) comes back as a
tool error in one line; anything else is logged under an id, and the client learns only the id.

A call that its client gives up (`notifications/cancelled`, or the end of stdin) ends: its run is cancelled,
an index that was being built for it alone is dropped, a download is given up, and no trace is kept.

stdout belongs to the protocol: while the server runs, the `mcp` package leads everything else that is printed
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
from act2see.serve.kept import KeptTraces
from act2see.serve.mcp.progress import Narrator, progress
from act2see.serve.pictures import describe, encoded
from act2see.tools.frames import FrameRef, Generated, Record, Retrieved
from act2see.tools.runtime.cancel import cancel_once
from act2see.tools.runtime.text import clean_text
from act2see.tools.search.index import FrameIndex
from act2see.tools.video.folders import Folders
from act2see.tools.video.store import default_cache
from act2see.trace.record import Frames
from act2see.trace.trace import Trace

PICTURES = 16  # in one result: an assistant's context is not endless
MOST = 16

T = TypeVar("T")
Ctx = Context[Any, Any]
Video = Annotated[
    str,
    Field(
        description="The video: a name that list_videos gives. `name#t=2,8` is the part from second 2 to 8."
    ),
]


class Looked(Record):
    """A frame of a result. `how`: retrieved (a real frame) or imagined (no frame of the video, made from the
    one at `seconds`)."""

    how: str
    seconds: float
    query: str
    score: float | None = None


class Answered(Record):
    answer: str
    choice: str | None = Field(description="The option that the answer means, where options were given.")
    trace: str = Field(description="The trace's id, for show_trace.")
    frames: tuple[Looked, ...]


class FoundFrames(Record):
    frames: tuple[Looked, ...]
    match: bool = Field(
        description="Whether the best frame is similar enough for the query to be in the video."
    )


class Shown(Record):
    trace: str
    question: str
    options: tuple[str, ...]
    text: str = Field(description="All that the model wrote.")
    answer: str | None
    choice: str | None
    frames: tuple[Looked, ...]


class Videos(Record):
    videos: tuple[str, ...]


def build_server(
    config: Config, folders: Folders, *, parts: Parts | None = None, traces: KeptTraces | None = None
) -> MCPServer[Any]:
    """The server of a configuration. Models are loaded by the first question.

    `parts` replaces the reasoner or the tools; `traces` is where traces are kept (by default in the cache
    folder).
    """
    from act2see import __version__

    parts = parts or cached_parts(config)
    cache = Path(config.cache).expanduser() if config.cache else default_cache()
    tools = _Tools(
        create_act2see(config, parts=parts), parts, folders, traces or KeptTraces(cache / "traces")
    )
    server: MCPServer[Any] = MCPServer(
        "act2see",
        version=__version__,
        instructions=(
            "Answers questions about videos by looking at them again, and by imagining frames, while it reasons. "
            f"An imagined frame is marked, and is no evidence of what the video shows. Models: {config.name}. {config.about}"
        ),
    )
    quiet = ToolAnnotations(read_only_hint=True, open_world_hint=folders.downloads is not None)
    for tool in (tools.ask_video, tools.find_frames, tools.show_trace, tools.list_videos):
        server.tool(annotations=quiet)(tool)
    return server


@dataclass(slots=True)
class _Tools:
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
    ) -> Annotated[CallToolResult, Answered]:
        """Ask a question about a video. Returns the answer and the frames that were looked at, or imagined,
        for it."""
        return await _ended("ask_video", self._ask(ctx, video, question, options or ()))

    async def _ask(self, ctx: Ctx, video: str, question: str, options: Sequence[str]) -> CallToolResult:
        async with progress(ctx.report_progress) as say:
            path = await self._path(video)
            say(f"opening {video}")
            trace = await aask(self.graph, path, question, options, on_event=Narrator(say))
            kept = await asyncio.to_thread(self._keep, trace)
        chosen = f" ({trace.choice})" if trace.choice and trace.choice != trace.answer else ""
        looked = [f for s in trace.segments if isinstance(s, Frames) for f in s.frames]
        said = f"Answer: {trace.answer}{chosen}\nTrace: {trace.id}; {kept}."
        answered = Answered(
            answer=trace.answer or "", choice=trace.choice, trace=trace.id, frames=_looked(looked)
        )
        return _result(answered, [TextContent(text=said), *await asyncio.to_thread(self._pictures, looked)])

    async def find_frames(
        self,
        ctx: Ctx,
        video: Video,
        query: Annotated[str, Field(description="What the frame shows.")],
        k: Annotated[int, Field(ge=1, le=MOST, description="How many frames.")] = 4,
    ) -> Annotated[CallToolResult, FoundFrames]:
        """Find the frames of a video that fit a text best, with their times and how similar they are."""
        return await _ended("find_frames", self._find(ctx, video, query, k))

    async def _find(self, ctx: Ctx, video: str, query: str, k: int) -> CallToolResult:
        if not query.strip():
            raise QuestionError("the query is empty: say what the frame shows")
        async with progress(ctx.report_progress) as say:
            path = await self._path(video)
            index = await self.parts.resources.finder.ready(
                path, lambda done, total: say(f"indexing: {done} of {total} frames")
            )
            frames, needed = await asyncio.to_thread(self._found, index, path, query, k)
        best = max((f.score for f in frames if f.score is not None), default=-1.0)
        said = f"{len(frames)} frames, the best first."
        if best < needed:
            said += f" No match: none is similar enough to be what was asked for (the closest scores {best:.2f}, {needed:.2f} is needed)."
        found = FoundFrames(frames=_looked(frames), match=best >= needed)
        return _result(found, [TextContent(text=said), *await asyncio.to_thread(self._pictures, frames)])

    async def show_trace(
        self, id: Annotated[str, Field(description="The id that ask_video returned.")]
    ) -> Annotated[CallToolResult, Shown]:
        """Show how an answer came about: the whole chain of thought, with each frame where it was seen."""
        return await _ended("show_trace", self._show(id))

    async def _show(self, id: str) -> CallToolResult:
        trace = await asyncio.to_thread(self.traces.get, id)
        if not await asyncio.to_thread(self.folders.resolved, trace.video.path):
            # Kept by a server with other folders: as unknown here as one that was never made.
            raise self.traces.unknown(id)
        content = await asyncio.to_thread(self._chain, trace)
        looked = [f for s in trace.segments if isinstance(s, Frames) for f in s.frames]
        shown = Shown(
            trace=trace.id,
            question=trace.question.text,
            options=trace.question.options,
            text=trace.text,
            answer=trace.answer,
            choice=trace.choice,
            frames=_looked(looked),
        )
        return _result(shown, content)

    async def list_videos(self) -> Annotated[CallToolResult, Videos]:
        """List the videos that may be asked about."""
        return await _ended("list_videos", self._list())

    async def _list(self) -> CallToolResult:
        names = await asyncio.to_thread(self.folders.videos)
        lines = [*names] or [f"There is no video in {self.folders}."]
        lines += [
            f"({name} is left out: its name is not UTF-8; rename it)"
            for name in await asyncio.to_thread(self.folders.misnamed)
        ]
        return _result(Videos(videos=tuple(names)), [TextContent(text="\n".join(lines))])

    async def _path(self, video: str) -> str:
        """The file that a name means; it may be downloaded, until the call is cancelled."""
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self.folders.path, video, stop.is_set)
        finally:
            stop.set()

    def _keep(self, trace: Trace) -> str:
        """Keep a trace, and say how to see it; an answer is not lost because its trace cannot be kept."""
        try:
            self.traces.keep(trace)
        except StoreError as e:
            return f"it is not kept, so show_trace cannot show it ({e})"
        return "show_trace shows how it came about"

    def _found(self, index: FrameIndex, path: str, query: str, k: int) -> tuple[list[FrameRef], float]:
        finder = self.parts.resources.finder
        found = finder.search(index, query, k)
        return finder.retrieved(path, query, found), finder.encoder.no_match

    def _chain(self, trace: Trace) -> list[ContentBlock]:
        """Words and pictures in the order in which they came."""
        options = "".join(f"\n- {o}" for o in trace.question.options)
        view = f"In view at the start: frames at {', '.join(f'{f.seconds:.1f}' for f in trace.initial)} s."
        content: list[ContentBlock] = [TextContent(text=f"Question: {trace.question.text}{options}\n{view}")]
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

    def _pictures(self, frames: Sequence[FrameRef], most: int = PICTURES) -> list[ContentBlock]:
        """Each frame announced and then shown; `most` of them at most."""
        content: list[ContentBlock] = []
        for frame in frames[: max(0, most)]:
            content.append(TextContent(text=describe(frame)))
            try:
                data, kind = encoded(frame, self.parts.resources.store.get(frame.digest))
            except StoreError:
                content.append(TextContent(text="(its picture is no longer in the frame store)"))
                continue
            content.append(
                ImageContent(
                    data=base64.b64encode(data).decode(),
                    mime_type=kind,
                    _meta={"act2see/frame": _json(_look(frame))},
                )
            )
        if (left := len(frames) - max(0, most)) > 0:
            content.append(TextContent(text=f"({left} more are not shown)"))
        return content


def _look(frame: FrameRef) -> Looked:
    made = frame.provenance
    if isinstance(made, Generated):
        return Looked(how="imagined", seconds=frame.seconds, query=made.prompt, score=made.faithfulness)
    if isinstance(made, Retrieved):
        return Looked(how="retrieved", seconds=frame.seconds, query=made.query, score=made.score)
    return Looked(how=made.kind, seconds=frame.seconds, query="")


def _looked(frames: Iterable[FrameRef]) -> tuple[Looked, ...]:
    return tuple(map(_look, frames))


def _result(structured: Record, content: list[ContentBlock]) -> CallToolResult:
    """What is sent. Half a surrogate pair in it, from a model perhaps, would end the server: it is
    replaced."""
    words = [
        c.model_copy(update={"text": clean_text(c.text)}) if isinstance(c, TextContent) else c
        for c in content
    ]
    return CallToolResult(content=words, structured_content=_json(structured))


def _json(record: Record) -> Any:
    return json.loads(clean_text(json.dumps(record.model_dump(mode="json"), ensure_ascii=False)))


async def _ended(tool: str, work: Coroutine[Any, Any, T]) -> T:
    """The result of a call, which ends when its client cancels it. Raises `ToolError` with what the client
    may read."""
    try:
        return await cancel_once(work)
    except (ToolError, MCPError):
        raise
    except Act2SeeError as e:
        raise ToolError(clean_text(str(e))) from e
    except Exception as e:
        raise ToolError(failure_message(log_failure(f"the tool {tool}", e))) from e
