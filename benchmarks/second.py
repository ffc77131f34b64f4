"""Cost of a second question about an indexed clip: it must open no video and encode no frame.

The second question uses a new `VideoLibrary` and `Finder` on the same cache folder, as another process would,
so all information about the clip comes from the cache. Each question takes the initial frames and one
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
from benchmarks import Goal, at_most, reported, require_weights

NO_REASONER: Any = None  # these questions end before the reasoner


async def ask_one(config: Config, clip: str, query: str) -> tuple[int, int, float]:
    """Return the numbers of opened videos and encoded frames, and the seconds without loading the encoder.

    Raises:
        RuntimeError: If the tool searched nothing.
    """
    resources = build_resources(config)
    resources.finder.encoder.phrases(["a shape"])
    tool = Retrieve("retrieve", Retrieve.Options(), resources)
    started = time.perf_counter()
    _, frames = await initial_frames(Parts(NO_REASONER, {}, resources), config.view, clip)
    result = await tool.call(query, ToolContext(clip, frames))
    seconds = time.perf_counter() - started
    if not result.frames and not result.curve:
        raise RuntimeError(f"nothing was searched: {result.note}")
    return resources.finder.library.opened, resources.finder.encoded, seconds


async def ask_all(folder: Path, questions: int) -> dict[str, Goal]:
    """Ask a first question and this number of later ones; return the figures."""
    config = load_config("micro", cache=str(folder / "cache"), view={"guard": None})
    clip = str(write_clip(make_item("blink", 0, "test").clip, folder / "clip.mp4"))
    opened, encoded, first = await ask_one(config, clip, "a shape blinks")
    later = [await ask_one(config, clip, f"the {shape} blinks") for shape in SHAPES[:questions]]
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
    require_weights("encoder")
    with tempfile.TemporaryDirectory() as folder:
        return {"goals": asyncio.run(ask_all(Path(folder), 2 if quick else len(SHAPES)))}
