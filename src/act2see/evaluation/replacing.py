"""Ways of working that return something else than the frames that a call asked for.

Does a model use what it sees? Its calls are run as ever, and each returned frame is replaced: by noise, by a
random frame of the same video, by a frame of another one, by the query's text. The model reads the same marks
and the same times as without the change, so that only the picture differs. A person who reads the trace is
told: the frame says that the diagnosis supplied it, and which picture it is.

What is drawn depends on the seed of the call alone, so a run that was killed continues as it would have gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from act2see.errors import ToolError, VideoError
from act2see.evaluation.asking import GraphArm
from act2see.tools.base import FrameTool, LoadsModels, NeedsIndex, Resources, ToolContext, ToolResult
from act2see.tools.frames import FrameRef, Generated, Supplied
from act2see.tools.runtime.weights import Wanted, wanted_by
from act2see.tools.search.finder import Finder
from act2see.tools.search.ranking import SAME_FRAME
from act2see.tools.video.window import Window

ChangeName = Literal["tools-off", "random", "noise", "text", "other", "anchor"]
_TRIES = 3  # other videos that are opened, if the first cannot be read


@dataclass(frozen=True, slots=True)
class Change:
    """What a call returns instead of its frames."""

    name: ChangeName
    words: str
    """In words for people."""
    concerns: Literal["all", "frames", "imagined"] = "frames"
    """The questions that can come out differently: all, those with a returned frame, or with an imagined
    one."""


CHANGES: tuple[Change, ...] = (
    Change("tools-off", "no tools", "all"),
    Change("random", "a random frame of the same video"),
    Change("noise", "noise"),
    Change("text", "the query's text alone"),
    Change("other", "a frame of another video"),
    Change("anchor", "for an imagined frame, the real one that it was made from", "imagined"),
)


def make_changed_arm(arm: GraphArm, change: Change, videos: Sequence[str]) -> GraphArm:
    """Return the same way of working with a changed return. It uses the models of the first.

    Args:
        arm: The way of working.
        change: What is returned.
        videos: The videos of the benchmark, of which others are drawn.
    """
    name, parts = f"{arm.name}, {change.name}", arm.parts
    if change.name == "tools-off":
        return GraphArm(arm.config, name, replace(arm.context, tools=()), parts)
    tools = {tag: replace_frames(tool, change, parts.resources, videos) for tag, tool in parts.tools.items()}
    return GraphArm(arm.config, name, arm.context, replace(parts, tools=tools))


def replace_frames(
    tool: FrameTool, change: Change, resources: Resources, videos: Sequence[str] = ()
) -> FrameTool:
    """Return a tool that finds what another finds, and returns something else."""
    kind = _IndexedReplacedTool if isinstance(tool, NeedsIndex) else _ReplacedTool
    return kind(tool, change, resources, videos)


class _ReplacedTool:
    """A tool whose frames are replaced."""

    def __init__(self, tool: FrameTool, change: Change, resources: Resources, videos: Sequence[str]) -> None:
        self.tag = tool.tag
        self.usage = tool.usage
        self._tool = tool
        self._change = change
        self._resources = resources
        self._videos = tuple(dict.fromkeys(videos))

    @property
    def version(self) -> str:
        return f"{self._tool.version}; diagnosis: returns {self._change.words}"

    def load_models(self) -> None:
        if isinstance(self._tool, LoadsModels):
            self._tool.load_models()

    def wanted(self) -> Iterator[Wanted]:
        yield from wanted_by(self._tool)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        result = await self._tool.call(query, context)
        if not result.frames:
            return result
        if self._change.name == "text":
            note = f"{query}. {result.note}" if result.note else query
            return replace(result, frames=(), note=note)
        frames = await asyncio.to_thread(self._replace_all, query, context, result.frames)
        return replace(result, frames=frames)

    def _replace_all(
        self, query: str, context: ToolContext, frames: Sequence[FrameRef]
    ) -> tuple[FrameRef, ...]:
        rng = random.Random(f"{self._change.name} {context.seed}")
        return tuple(self._replace(query, context, frame, rng) for frame in frames)

    def _replace(self, query: str, context: ToolContext, frame: FrameRef, rng: random.Random) -> FrameRef:
        match self._change.name:
            case "noise":
                drawn = np.random.default_rng(rng.getrandbits(64))
                pixels = drawn.integers(0, 256, (frame.height, frame.width, 3), np.uint8)
                shown, words = self._resources.store.ref(pixels, frame.seconds), "noise"
            case "random":
                shown = self._draw(context.video, rng, frame)
                words = f"the frame at {shown.seconds:.1f} s"
            case "other":
                shown, words = self._draw_other(context.video, rng)
            case _:
                if not isinstance(frame.provenance, Generated):
                    return frame
                shown = frame.provenance.anchor
                words = f"the real frame at {shown.seconds:.1f} s"
        # The time and the mark of the frame stay, since the model reads them: only the picture is another.
        made = Supplied(by="the diagnosis", query=query, file=words if frame.imagined else "")
        if not frame.imagined:
            made = made.model_copy(update={"by": f"the diagnosis ({words})"})
        return shown.model_copy(update={"seconds": frame.seconds, "provenance": made})

    def _draw(self, video: str, rng: random.Random, frame: FrameRef | None = None) -> FrameRef:
        """Return one of the frames that a search of a video looks at, but not this one."""
        finder = self._resources.finder
        clip = finder.library.probe(video)
        numbers = clip.every(finder.fps)
        if frame is not None:
            others = [n for n in numbers if abs(float(clip.seconds[n]) - frame.anchor_seconds) > SAME_FRAME]
            numbers = others or numbers
        [drawn] = finder.library.pictures(video, [rng.choice(numbers)])
        return drawn

    def _draw_other(self, video: str, rng: random.Random) -> tuple[FrameRef, str]:
        own = _file_of(video)
        others = [other for other in self._videos if _file_of(other) != own]
        rng.shuffle(others)
        for other in others[:_TRIES]:
            try:
                frame = self._draw(other, rng)
            except VideoError:
                continue
            return frame, f"{Path(Window.resolve(other).path).name} at {frame.seconds:.1f} s"
        raise ToolError("there is no other video to show a frame of")


class _IndexedReplacedTool(_ReplacedTool):
    """A tool that needs an index, which the graph begins early."""

    @property
    def index_of(self) -> Finder:
        """The finder whose index of the video a call needs."""
        tool: Any = self._tool  # one that `NeedsIndex`
        finder: Finder = tool.index_of
        return finder


def _file_of(video: str) -> Path:
    return Path(Window.resolve(video).path).absolute()
