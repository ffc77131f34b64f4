"""A trace to explore: a real clip with its real index and frames, and written text in place of a model's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from act2see.graphs.config import load_config
from act2see.graphs.parts import build_resources
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.base import Resources, ToolContext
from act2see.tools.frames import FrameRef, Generated
from act2see.tools.retrieve import Retrieve
from act2see.trace.record import Answer, Call, Frames, Question, Text, Video
from act2see.trace.trace import Trace


@dataclass
class Seen:
    """A trace with the index and the frames of its clip."""

    trace: Trace
    resources: Resources

    def pixels(self, ref: FrameRef) -> Any:
        return self.resources.store.get(ref.digest)


def seen_in(folder: Path) -> Seen:
    """Build a trace of a board clip: a frame that micro's index found, and one imagined from it."""
    item = make_item("blink", 0, "test")
    clip = str(write_clip(item.clip, folder / "blink.mp4"))
    resources = build_resources(load_config("micro", cache=str(folder / "cache")))
    library = resources.finder.library
    initial = tuple(library.pictures(clip, library.probe(clip).every(1.0)))
    retrieve = Retrieve("retrieve", Retrieve.Options(), resources)
    found = asyncio.run(retrieve.call("the triangle blinks", ToolContext(clip, initial)))
    [frame] = found.frames
    inverted = 255 - resources.store.get(frame.digest)
    made = Generated(
        prompt="tipped", anchor=frame, seed=3, strength=0.3, model="micro", faithfulness=0.4, anchor_score=0.2
    )
    info = library.probe(clip).info
    trace = Trace(
        id="run",
        video=Video(
            path=clip,
            digest=info.digest,
            seconds=info.seconds,
            width=192,
            height=192,
            frames=info.frames,
            fps=info.fps,
        ),
        question=Question(text=item.text, options=item.options),
        initial=initial,
        segments=(
            Text(text="Nothing blinks in view. "),
            Call(
                text="<retrieve>the triangle blinks</retrieve>", tag="retrieve", query="the triangle blinks"
            ),
            Frames(tag="retrieve", frames=found.frames, curve=found.curve, seconds=0.2),
            Call(text="<generate>tipped</generate>", tag="generate", query="tipped"),
            Frames(
                tag="generate",
                frames=(resources.store.ref(inverted, frame.seconds, made),),
                curve=found.curve,
            ),
            Call(text="<zoom>x</zoom>", tag="zoom", query="x", outcome="unknown"),
            Frames(tag="zoom", note="There is no such tool."),
            Answer(text="<answer>B</answer>", body="B"),
        ),
    )
    return Seen(trace, resources)
