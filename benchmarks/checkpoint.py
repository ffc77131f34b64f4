"""Size of a checkpointed step, for a 192-pixel board clip and for one of 1920 x 1080.

The state holds references to frames, never pixels, so the resolution must not matter. Each run makes as many
calls as the budget allows, each returning a frame and a curve of 128 values. A step is measured as
`InMemorySaver` serialises it (msgpack, with metadata) and as JSON; the larger size counts. A step grows with
the number of initial frames, so the paper preset's 256 are measured too.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.graphs.ask import create_act2see
from act2see.graphs.parts import Parts
from act2see.micro.questions import make_item
from act2see.micro.world import Clip, render, write_clip
from act2see.trace.trace import Trace
from benchmarks import Goal, at_most, reported
from benchmarks.engine import Event, micro_resources

GOAL_BYTES = 20_000
THOUGHT = (
    "The top left red circle, the middle center lit blue ring and the bottom right green square are in view. "
) * 4


class Caller(Reasoner):
    """A reasoner that writes as much text as a micro chain and a call, `calls` times, and then answers."""

    name = "caller"

    def __init__(self, calls: int) -> None:
        self.calls = calls

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        seen = len(re.findall("</frame>", str(request.rollout)))
        text = THOUGHT
        if seen < self.calls:
            text += f"<retrieve>what happens next, look number {seen}</retrieve>"
        else:
            text += "</think>\n<answer>B</answer>"
        request.until(text)
        yield Delta(text)
        yield Done(StopReason.UNTIL, prefilled=200, cached=100, decoded=120)


def write_large(clip: Clip, path: Path, seconds: int) -> Path:
    """Write 1920 x 1080 H.264 with a frame per second: the board, repeated, between bars."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for second in range(seconds):
            pixels = np.full((1080, 1920, 3), second % 256, np.uint8)
            pixels[:, 420:1500] = render(clip.board(second * 12 % clip.frames), 1080)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


async def measure_steps(clip: Path, folder: Path, **view: Any) -> list[int]:
    """Return the bytes of each saved step of a run.

    Raises:
        RuntimeError: If a call returned no frame.
    """
    from langgraph.checkpoint.memory import InMemorySaver

    config, resources = micro_resources(folder, **view)
    parts = Parts(Caller(config.budget.calls), {"retrieve": Event(resources, 1.0)}, resources)
    saver = InMemorySaver()
    graph = create_act2see(config, parts=parts, checkpointer=saver)
    thread: Any = {"configurable": {"thread_id": "run"}}
    given: Any = {
        "video": str(clip),
        "question": "Which shape blinks?",
        "options": ["ring", "cross", "square"],
    }
    result = await graph.ainvoke(given, thread)
    looks = Trace.model_validate(result["trace"]).looks
    if not all(returned and returned.frames for _, returned in looks):
        raise RuntimeError("a call returned no frame")
    out = []
    for saved in saver.list(thread):
        packed = sum(len(saver.serde.dumps_typed(part)[1]) for part in (saved.checkpoint, saved.metadata))
        text = json.dumps(saved.checkpoint["channel_values"], ensure_ascii=False)
        out.append(max(packed, len(text.encode())))
    return out


async def measure(folder: Path, frames: int) -> dict[str, Any]:
    """Measure three runs, the last with this number of initial frames."""
    clip = make_item("blink", 0, "test", seconds=12).clip
    small = await measure_steps(write_clip(clip, folder / "small.mp4"), folder / "a")
    large = await measure_steps(write_large(clip, folder / "large.mp4", 12), folder / "b", max_side=448)
    long_clip = write_large(clip, folder / "long.mp4", frames)
    long = await measure_steps(long_clip, folder / "c", max_side=448, max_frames=frames)
    goals: dict[str, Goal] = {
        "bytes of the largest step, 192 x 192, 12 s": at_most(max(small), GOAL_BYTES),
        "bytes of the largest step, 1920 x 1080, 12 s": at_most(max(large), GOAL_BYTES),
        f"bytes of the largest step, 1920 x 1080, {frames} initial frames": reported(max(long)),
    }
    return {
        "steps": {"192 x 192": small[::-1], "1920 x 1080": large[::-1], f"{frames} frames": long[::-1]},
        "goals": goals,
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Measure three runs, the last with 256 initial frames (quick: 64)."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder), 64 if quick else 256))
