"""The `retrieve` tool: the real frames that fit a query best.

Ranks frames, not segments (an option ranks segments), skips those that the model has already been shown, and
says "no match" with the best score where nothing is similar enough. The threshold is the one calibrated with
the encoder's weights unless `no_match` sets another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Literal

from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.frames import FrameRef, Retrieved
from act2see.tools.runtime.weights import Wanted, wanted_by


class Retrieve:
    """Finds frames by text."""

    class Options(ToolOptions):
        top_k: int = 1
        rank: Literal["frames", "segments"] = "frames"
        skip_shown: bool = True
        no_match: float | None = None
        usage: str = "a real frame of this video that shows what the query describes"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage

    @property
    def version(self) -> str:
        return f"retrieve {self.resources.finder.encoder.id}"

    def wanted(self) -> Iterator[Wanted]:
        """The weights that a call would load now."""
        return wanted_by(self.resources.finder.encoder)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        await self.resources.finder.ready(context.video)
        return await asyncio.to_thread(self._call, query, context)

    def _call(self, query: str, context: ToolContext) -> ToolResult:
        finder, o = self.resources.finder, self.options
        threshold = finder.encoder.no_match if o.no_match is None else o.no_match
        # Imagined frames carry their anchor's time but show something else: they hide nothing.
        seen = [f.seconds for f in context.shown if not f.imagined] if o.skip_shown else []
        found = finder.find(
            context.video, query, k=o.top_k, skip=seen, segments=o.rank == "segments", threshold=threshold
        )
        hits = [h for h in found.hits if h.score >= threshold]
        if not hits:
            best = f" (the closest scores {found.best:.2f}, {threshold:.2f} is needed)" if found.hits else ""
            return ToolResult(
                note=f"No match: nothing{' else' if seen else ''} in this video looks like that{best}.",
                curve=found.curve,
            )
        pictures = finder.clips.pictures(context.video, [h.frame for h in hits])
        frames = tuple(
            p.model_copy(
                update={
                    "provenance": Retrieved(query=query, score=round(h.score, 4), index_id=found.index_id)
                }
            )
            for p, h in zip(pictures, hits, strict=True)
        )
        return ToolResult(frames=_in_order(frames), curve=found.curve)


def _in_order(frames: tuple[FrameRef, ...]) -> tuple[FrameRef, ...]:
    """Several frames are shown in the order of time, as a person would watch them."""
    return tuple(sorted(frames, key=lambda f: f.seconds))
