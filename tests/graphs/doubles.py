"""Test doubles with the real protocols: a reasoner that follows a script, and a tool with given frames."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.config import Config, load_config
from act2see.graphs.parts import Parts
from act2see.micro.world import Board, Clip, Piece, write_clip
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.frames import Retrieved
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore

BOARD = Board(
    (Piece("circle", "red", (0, 0)), Piece("square", "blue", (1, 1)), Piece("ring", "green", (2, 2)))
)


class Scripted(Reasoner):
    """Writes the next line of its script at each visit, in pieces of one to three characters.

    The next line depends only on the rollout (the number of replies in it), so that a new process that
    resumes a run continues with the right line.
    """

    name = "scripted"

    def __init__(self, *lines: str, ends: str = "eos") -> None:
        self.lines, self.ends = lines, ends
        self.rollouts: list[str] = []
        self.visits = 0

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        text = str(request.rollout)
        self.rollouts.append(text)
        self.visits += 1
        turn = text.split("<think>\n", 1)[1]
        at = turn.count("</frame>") + len(re.findall(r"\n<answer>$", turn))
        line = self.lines[min(at, len(self.lines) - 1)]
        for n, i in enumerate(range(0, len(line), 3)):
            if n >= request.max_tokens:
                yield Done(StopReason.LENGTH, decoded=n)
                return
            piece = line[i : i + 3]
            yield Delta(piece)
            if request.until(piece):
                yield Done(StopReason.UNTIL, decoded=n + 1)
                return
        yield Done(StopReason(self.ends), decoded=len(line) // 3 + 1)


class Shows:
    """A tool that returns the clip's frame at a time, or does what `fails` says."""

    version = "shows 1"
    usage = "a frame"

    def __init__(
        self, tag: str, resources: Resources, frame: int = 4, fails: Exception | None = None
    ) -> None:
        self.tag, self.resources, self.frame, self.fails = tag, resources, frame, fails
        self.queries: list[str] = []

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        self.queries.append(query)
        if self.fails:
            raise self.fails
        ref = self.resources.finder.library.pictures(context.video, [self.frame])[0]
        return ToolResult((ref.model_copy(update={"provenance": Retrieved(query=query, score=0.9)}),))


class NoEncoder:
    """An encoder for tests that encode nothing."""

    id, size, no_match = "none", 48, 0.0

    def frames(self, pixels: object) -> object:
        raise AssertionError("nothing is encoded here")

    phrases = frames


def clip_in(folder: Path, seconds: int = 3) -> str:
    return str(write_clip(Clip(12 * seconds, ((0, BOARD),)), folder / "clip.mp4"))


def parts_in(folder: Path, reasoner: object, **fails: Exception) -> tuple[Config, Parts]:
    config = load_config("micro", cache=str(folder / "cache"), view={"guard": None})
    store = FrameStore(str(folder / "frames"))
    resources = Resources(
        store, Finder(VideoLibrary(folder / "cache", store, 192), NoEncoder(), folder / "cache")
    )  # type: ignore[arg-type]
    tools = {tag: Shows(tag, resources, fails=fails.get(tag)) for tag in ("retrieve", "generate")}
    return config, Parts(reasoner, tools, resources)  # type: ignore[arg-type]


class Slow:
    """An encoder that starts a batch only when the test allows it, and records the batch sizes."""

    id, size, no_match = "slow", 48, 0.0

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.batches: list[int] = []
        self.let_all = False

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        if not self.let_all:
            assert self.permits.acquire(timeout=30)
        self.batches.append(len(pixels))
        mean = np.stack([p.reshape(-1, 3).mean(0) for p in pixels])[:, None] + 1.0
        unit: NDArray[np.float16] = (mean / np.linalg.norm(mean, axis=-1, keepdims=True)).astype(np.float16)
        return unit

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(texts), 3), 3**-0.5, np.float32)


async def reached(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
