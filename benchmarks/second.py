"""Cost of a second question about an indexed clip: no video opened, no frame encoded.

The second question uses a new `VideoLibrary` and `Finder` on the same cache folder, as another process would,
so everything known about the clip comes from the cache. Each question takes the initial frames and one
retrieval, with the micro encoder.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from act2see.graphs.config import Config, load_config
from act2see.graphs.initial_frames import initial_frames
from act2see.graphs.parts import Parts, build_resources
from act2see.micro.questions import make_item
from act2see.micro.world import SHAPES, write_clip
from act2see.tools.base import ToolContext
from act2see.tools.retrieve import Retrieve
from benchmarks import Goal, at_most, need, reported

NOBODY: Any = None  # a question needs no reasoner here


async def question(config: Config, clip: str, query: str) -> tuple[int, int, float]:
    """Return videos opened, frames encoded and seconds, which do not include loading the encoder."""
    resources = build_resources(config)
    resources.finder.encoder.phrases(["a shape"])
    tool = Retrieve("retrieve", Retrieve.Options(), resources)
    started = time.perf_counter()
    _, frames = await initial_frames(Parts(NOBODY, {}, resources), config.view, clip)
    result = await tool.call(query, ToolContext(clip, frames))
    seconds = time.perf_counter() - started
    if not result.frames and not result.curve:
        raise RuntimeError(f"nothing was searched: {result.note}")
    return resources.finder.library.opened, resources.finder.encoded, seconds


async def ask(folder: Path, questions: int) -> dict[str, Goal]:
    config = load_config("micro", cache=str(folder / "cache"), view={"guard": None})
    clip = str(write_clip(make_item("blink", 0, "test").clip, folder / "clip.mp4"))
    opened, encoded, first = await question(config, clip, "a shape blinks")
    later = [await question(config, clip, f"the {shape} blinks") for shape in SHAPES[:questions]]
    return {
        "videos opened by a second question": at_most(max(o for o, _, _ in later), 0),
        "frames encoded by a second question": at_most(max(e for _, e, _ in later), 0),
        "videos opened by the first": reported(opened),
        "frames encoded by the first": reported(encoded),
        "seconds of the first, view and retrieval": reported(first),
        "seconds of a second one": reported(min(s for _, _, s in later)),
    }


def run(quick: bool = False) -> dict[str, Any]:
    """Ask a first question and five later ones (quick: two)."""
    need("encoder")
    with tempfile.TemporaryDirectory() as folder:
        return {"goals": asyncio.run(ask(Path(folder), 2 if quick else len(SHAPES)))}
