"""The `generate` tool: imagine a frame.

The tool first retrieves the frame that matches the query best, its anchor. Image-to-image diffusion then
changes the anchor, at the video's own size up to `pixels`, with the query as the prompt and a seed for each
call. The size keeps the anchor's aspect ratio; the pipeline alone would squash it to a square. The model is
shown the result at the size of a real frame, since a larger one would cost it many times the tokens. The
paper uses Stable Diffusion 3; any image-to-image pipeline of diffusers works. The frame records its anchor
and two similarities to the query, its own and the anchor's, which show whether imagining helped.

With `best_of`, several seeds are tried, and the frame most similar to the query is kept with all the scores.
Frames of the same size that are requested at the same time, for one question or for several, share a call of
the pipeline, at most `batch` of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from act2see.errors import Act2SeeError, ToolError
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.diffusion import LOADING, Diffuser, DiffusionOptions, GenerationRequest
from act2see.tools.frames import FrameRef, Generated
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import Wanted, wanted_by
from act2see.tools.search.finder import Finder
from act2see.tools.search.index import FrameIndex
from act2see.tools.search.ranking import Found
from act2see.tools.video.store import Pixels
from act2see.tools.video.window import Window


class Generate:
    """Imagines frames by image-to-image diffusion from a retrieved anchor."""

    class Options(DiffusionOptions):
        best_of: Annotated[int, Field(ge=1, le=16)] = 1
        """Number of seeds to try."""
        usage: str = "an imagined frame: the video as it would look if the query were true"

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag = tag
        self.options = options
        self.resources = resources
        self.usage = options.usage
        self.model = Path(options.weights).name if "/" in options.weights else options.weights
        loading = options.model_dump_json(include=set(LOADING))
        self.diffuser = resources.shared.get(("diffuser", loading), lambda: Diffuser(options))

    @property
    def version(self) -> str:
        return f"generate {self.model}"

    def load_models(self) -> None:
        """Load the pipeline, unless it is loaded."""
        self.diffuser.pipeline()

    @property
    def index_of(self) -> Finder:
        """The finder whose index of the video a call needs."""
        return self.resources.finder

    def wanted(self) -> Iterator[Wanted]:
        """Yield the weights that a call would load now: the pipeline's, and those that find the anchor."""
        yield from self.diffuser.wanted(self.tag)
        yield from wanted_by(self.resources.finder.encoder)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            index = await self.resources.finder.ready(context.video)
            found, anchor = await asyncio.to_thread(self._find_anchor, index, query, context)
            source = await asyncio.to_thread(self._source, context.video, found, anchor)
            params = await asyncio.to_thread(self.diffuser.params, source, self.options)
            seeds = range(context.seed, context.seed + self.options.best_of)
            requests = [GenerationRequest(source, query, seed) for seed in seeds]
            # Parts of one long video share the turns of one owner.
            owner = Window.parse(context.video).path
            pictures = await self.diffuser.queue.submit(params, requests, owner=owner)
            return await asyncio.to_thread(self._choose_best, query, context, found, anchor, pictures)
        except Act2SeeError:
            raise
        except (RuntimeError, ValueError) as e:
            # The pipeline rejects the prompt, or the device fails: the model is informed and continues.
            raise ToolError(f"the frame could not be imagined: {first_line(e)}") from e

    def _find_anchor(self, index: FrameIndex, query: str, context: ToolContext) -> tuple[Found, FrameRef]:
        """Return the result of the search and the best frame."""
        finder = self.resources.finder
        found = finder.search(index, query)
        [anchor] = finder.library.pictures(context.video, [found.hits[0].frame])
        return found, anchor

    def _source(self, video: str, found: Found, anchor: FrameRef) -> Pixels:
        """Return the anchor's pixels at the video's own size: the model's view of it may be smaller."""
        library = self.resources.finder.library
        info = library.probe(video).info
        if (info.width, info.height) == (anchor.width, anchor.height):
            return self.resources.store(anchor)
        [(_, _, pixels)] = library.decode(video, [found.hits[0].frame], None)
        return pixels

    def _choose_best(
        self, query: str, context: ToolContext, found: Found, anchor: FrameRef, pictures: list[Pixels]
    ) -> ToolResult:
        """Return the picture most similar to the query; of equals, that of the lowest seed."""
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
        picture = shrink_to(pictures[best], anchor.width, anchor.height)
        frame = self.resources.store.ref(picture, anchor.seconds, provenance)
        return ToolResult((frame,), curve=found.curve)

    def imagine(self, source: Pixels, query: str, seed: int) -> Pixels:
        """Return the anchor as it would look if `query` were true.

        Args:
            source: The anchor, `(height, width, 3)` uint8.
            query: The prompt.
            seed: Seed of the noise.

        Returns:
            The imagined picture, `(height, width, 3)` uint8.

        Raises:
            ToolError: Memory is insufficient for the pipeline or the frame.
            WeightsError: The pipeline cannot be loaded.
        """
        params = self.diffuser.params(source, self.options)
        [made] = self.diffuser.make(params, [GenerationRequest(source, query, seed)])
        if isinstance(made, Exception):
            raise made
        return made


def shrink_to(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return a picture of at most this size, in its own aspect ratio; a smaller one is not enlarged.

    Args:
        pixels: The picture, `(height, width, 3)` uint8.
        width: The largest width.
        height: The largest height.
    """
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    if scale >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
