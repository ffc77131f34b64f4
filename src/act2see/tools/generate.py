"""The `generate` tool: imagine a frame.

Retrieve first with the same query: that real frame is the anchor. Then image-to-image from the anchor, with
the query as prompt, at the anchor's own aspect (the pipeline would squash it to a square), with a seed of its
own. The paper's pipeline is Stable Diffusion 3; any that diffusers knows as image-to-image for the weights
will do. The frame carries its anchor and two similarities: of the result to the query, and of the anchor to
the query. They show whether imagining did anything.

With `best_of`, several seeds are tried and the frame most similar to the query is kept, with all the scores.
Frames of one size that are asked for at the same time, by one question or by many, are made in one call, at
most `batch` of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from act2see.errors import Act2SeeError, ToolError
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.diffusion import LOADING, Diffuser, DiffusionOptions, GenerationRequest
from act2see.tools.frames import FrameRef, Generated
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import Wanted, wanted_by
from act2see.tools.search.finder import Found
from act2see.tools.search.index import FrameIndex
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import Window


class Generate:
    """Imagines frames by image-to-image diffusion from a retrieved anchor."""

    class Options(DiffusionOptions):
        best_of: Annotated[int, Field(ge=1, le=16)] = 1
        """How many seeds are tried."""
        usage: str = "an imagined frame: the video as it would look if the query were true"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage
        self.model = Path(options.weights).name if "/" in options.weights else options.weights
        loading = options.model_dump_json(include=set(LOADING))
        self.diffuser = resources.shared.get(("diffuser", loading), lambda: Diffuser(options))

    @property
    def version(self) -> str:
        return f"generate {self.model}"

    def load_models(self) -> None:
        """Load the pipeline, unless it is loaded: the seconds of a call count from then on."""
        self.diffuser.pipeline()

    def wanted(self) -> Iterator[Wanted]:
        """The weights that a call would load now: its own, and those that find the anchor."""
        yield from self.diffuser.wanted(self.tag)
        yield from wanted_by(self.resources.finder.encoder)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            index = await self.resources.finder.ready(context.video)
            found, anchor = await asyncio.to_thread(self._anchor, index, query, context)
            source = await asyncio.to_thread(self.resources.store, anchor)
            params = await asyncio.to_thread(self.diffuser.params, source, self.options)
            seeds = range(context.seed, context.seed + self.options.best_of)
            requests = [GenerationRequest(source, query, seed) for seed in seeds]
            # Parts of one long video take turns as one.
            owner = Window.parse(context.video).path
            pictures = await self.diffuser.queue.submit(params, requests, owner=owner)
            return await asyncio.to_thread(self._best, query, context, found, anchor, pictures)
        except Act2SeeError:
            raise
        except (RuntimeError, ValueError) as e:
            # A prompt that the pipeline refuses, a device that fails: the model hears of it and goes on.
            raise ToolError(f"the frame could not be imagined: {first_line(e)}") from e

    def _anchor(self, index: FrameIndex, query: str, context: ToolContext) -> tuple[Found, FrameRef]:
        finder = self.resources.finder
        found = finder.search(index, query)
        [anchor] = finder.library.pictures(context.video, [found.hits[0].frame])
        return found, anchor

    def _best(
        self, query: str, context: ToolContext, found: Found, anchor: FrameRef, pictures: list[Pixels]
    ) -> ToolResult:
        """The frame most similar to the query; the first of equals."""
        scores = [round(s, 4) for s in self.resources.finder.similarities(pictures, query)]
        best = scores.index(max(scores))
        provenance = Generated(
            prompt=query,
            anchor=anchor,
            seed=context.seed + best,
            strength=self.options.strength,
            model=self.model,
            faithfulness=scores[best],
            anchor_score=round(found.hits[0].score, 4),
            scores=tuple(scores) if len(scores) > 1 else (),
        )
        frame = self.resources.store.ref(pictures[best], anchor.seconds, provenance)
        return ToolResult((frame,), curve=found.curve)

    def imagine(self, source: Pixels, query: str, seed: int) -> Pixels:
        """The anchor as it would look if `query` were true.

        Args:
            source: The anchor, `(height, width, 3)` uint8.
            query: The prompt.
            seed: Of the noise.

        Returns:
            `(height, width, 3)` uint8.

        Raises:
            ToolError: There is no memory for the pipeline or a frame.
            WeightsError: The pipeline cannot be loaded.
        """
        params = self.diffuser.params(source, self.options)
        [made] = self.diffuser.make(params, [GenerationRequest(source, query, seed)])
        if isinstance(made, Exception):
            raise made
        return made
