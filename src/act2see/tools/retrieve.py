"""The `retrieve` tool: the real frames that match a query best.

It ranks frames (optionally segments), skips those that the model has already seen, and answers "No match"
with the best score if no frame is similar enough. The threshold is the option `no_match`, or else the one
that `act2see calibrate` stored for the encoder, or else that of the encoder's weights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import FiniteFloat

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.runtime.weights import Wanted, wanted_by
from act2see.tools.search.finder import Finder
from act2see.tools.search.index import FrameIndex
from act2see.tools.search.ranking import SAME_FRAME


class Retrieve:
    """Finds frames by text."""

    class Options(ToolOptions):
        top_k: int = 1
        """Largest number of frames to show."""
        rank: Literal["frames", "segments"] = "frames"
        """segments: the best frame of each run of matching frames (`tools/search/segments.py`)."""
        skip_shown: bool = True
        """Whether frames that the model has seen are left out."""
        no_match: FiniteFloat | None = None
        """Lowest score of a frame to show. None is the threshold calibrated for the encoder or, without one,
        that of the weights: micro's own, TFVTG's uncalibrated mask for BLIP-2, none for others."""
        usage: str = "a real frame of this video that shows what the query describes"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag = tag
        self.options = options
        self.resources = resources
        self.usage = options.usage

    @property
    def version(self) -> str:
        finder = self.resources.finder
        version = f"retrieve {finder.encoder.id}"
        if self.options.no_match is None and (calibration := finder.calibration):
            version += f", no match below {calibration}"
        return version

    @property
    def index_of(self) -> Finder:
        """The finder whose index of the video a call needs."""
        return self.resources.finder

    def wanted(self) -> Iterator[Wanted]:
        """Yield the weights that a call would load now."""
        return wanted_by(self.resources.finder.encoder)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        index = await self.resources.finder.ready(context.video)
        return await asyncio.to_thread(self._call, index, query, context)

    def _call(self, index: FrameIndex, query: str, context: ToolContext) -> ToolResult:
        finder, o = self.resources.finder, self.options
        threshold = finder.no_match if o.no_match is None else o.no_match
        seen: list[float] = []
        if o.skip_shown:
            # An imagined frame has its anchor's time, but it does not show the real frame of that time.
            seen = [frame.seconds for frame in context.shown if not frame.imagined]
        if _is_all_shown(index, seen):
            return ToolResult(
                note="Every frame that can be fetched from this video has been shown; answer from them."
            )
        found = finder.search(
            index, query, o.top_k, skip=seen, segments=o.rank == "segments", threshold=threshold
        )
        hits = tuple(hit for hit in found.hits if hit.score >= threshold)
        if not hits:
            return ToolResult(note=no_match(found.best, threshold, bool(seen)), curve=found.curve)
        frames = finder.retrieved(context.video, query, replace(found, hits=hits))
        # In order of time, as a person would watch them.
        frames.sort(key=lambda frame: frame.seconds)
        return ToolResult(tuple(frames), curve=found.curve)


def no_match(best: float, threshold: float, seen: bool) -> str:
    """Return the note to a model whose query no frame matches.

    Args:
        best: The best score of a frame.
        threshold: The score that is needed.
        seen: Whether frames that the model has seen were left out.
    """
    nothing = "nothing else" if seen else "nothing"
    scores = f"the closest scores {best:.2f}, {threshold:.2f} is needed"
    return f"No match: {nothing} in this video looks like that ({scores})."


def _is_all_shown(index: FrameIndex, seen: Sequence[float]) -> bool:
    """Whether the model has seen each frame of an index.

    Args:
        index: The index.
        seen: The times of the frames that it has seen, in seconds.
    """
    if not seen:
        return False
    nearest = np.abs(index.seconds[:, None] - np.asarray(seen)[None]).min(1)  # (frames,)
    return bool((nearest <= SAME_FRAME).all())
