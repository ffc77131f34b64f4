"""The `generate` tool: imagine a frame.

Retrieve first with the same query: that real frame is the anchor. Then image-to-image from the anchor, with
the query as prompt, at the anchor's own aspect (the pipeline would squash it to a square), with a seed of its
own. The paper's pipeline is Stable Diffusion 3; any that diffusers knows as image-to-image for the weights
will do. What comes back carries its anchor and two similarities: of the result to the query, and of the
anchor to the query; a person sees whether imagining did anything.

With `best_of`, several seeds are tried and the frame most similar to the query is kept, with all the scores.
Frames of one size that are asked for at the same time, by one question or by many, are made in one call,
`batch` of them at the most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from act2see.errors import Act2SeeError, ToolError
from act2see.tools.base import Resources, ToolContext, ToolOptions, ToolResult
from act2see.tools.diffusion import LOADING, Diffuser, GenerationRequest, Pixels
from act2see.tools.frames import FrameRef, Generated
from act2see.tools.runtime.weights import Wanted, wanted_by
from act2see.tools.search.finder import Found
from act2see.tools.video.reader import split_part

log = logging.getLogger(__name__)
Count = Annotated[int, Field(ge=1)]


class Generate:
    """Imagines frames by image-to-image diffusion from a retrieved anchor."""

    class Options(ToolOptions):
        """`strength` is the share of the `steps` that is done, from noise of that strength; a distilled
        (Turbo) model takes few steps and a `guidance` of 0. `pixels` is the frame's area. Without
        `text_encoder_3` (T5) a prompt is cut at 77 tokens.

        Tools that load the same pipeline share it and its queue, whose `batch` and `waiting` are those of the
        first."""

        weights: str = "stabilityai/stable-diffusion-3.5-large"
        steps: Count = 28
        strength: Annotated[float, Field(gt=0, le=1, validate_default=True)] = 0.7
        guidance: Annotated[float, Field(ge=0)] = 4.5
        pixels: Count = 1024 * 1024
        text_tokens: Count = 256
        text_encoder_3: bool = True
        best_of: Annotated[int, Field(ge=1, le=16)] = 1
        batch: Count = 4
        waiting: Count = 64
        device: str = "auto"
        dtype: str = "bfloat16"
        quantise: Literal["none", "nf4"] = "none"
        offload: Literal["none", "model", "sequential"] = "none"
        usage: str = "an imagined frame: the video as it would look if the query were true"

        @field_validator("strength")
        @classmethod
        def _a_step(cls, strength: float, info: ValidationInfo) -> float:
            if (steps := info.data.get("steps")) and int(steps * strength) < 1:
                raise ValueError(
                    f"{steps} steps at this strength are none: steps x strength must be 1 or more"
                )
            return strength

    def __init__(self, tag: str, options: Options, resources: Resources) -> None:
        self.tag, self.options, self.resources = tag, options, resources
        self.usage = options.usage
        self.model = Path(options.weights).name if "/" in options.weights else options.weights
        self.diffuser = resources.shared.get(
            ("diffuser", options.model_dump_json(include=set(LOADING))), lambda: Diffuser(options)
        )

    @property
    def version(self) -> str:
        return f"generate {self.model}"

    def load_models(self) -> None:
        """Load the pipeline, if need be: a call's seconds count from then on."""
        self.diffuser.pipeline()

    def wanted(self) -> Iterator[Wanted]:
        """The weights that a call would load now: its own, and those that find the anchor."""
        yield from self.diffuser.wanted(self.tag)
        yield from wanted_by(self.resources.finder.encoder)

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        try:
            await self.resources.finder.ready(context.video)
            found, anchor, source = await asyncio.to_thread(self._anchor, query, context)
            how = await asyncio.to_thread(self.diffuser.how, source, self.options)
            jobs = [GenerationRequest(source, query, context.seed + i) for i in range(self.options.best_of)]
            # Parts of one long video take turns as one.
            pictures = await self.diffuser.queue.submit(how, jobs, owner=split_part(context.video)[0])
            return await asyncio.to_thread(self._best, query, context, found, anchor, pictures)
        except Act2SeeError:
            raise
        except (RuntimeError, ValueError) as e:
            # A prompt that the pipeline refuses, a device that fails: the model hears of it and goes on.
            raise ToolError(f"the frame could not be imagined: {(str(e) or repr(e)).splitlines()[0]}") from e

    def _anchor(self, query: str, context: ToolContext) -> tuple[Found, FrameRef, Pixels]:
        finder = self.resources.finder
        found = finder.find(context.video, query, k=1)
        anchor = finder.clips.pictures(context.video, [found.hits[0].frame])[0]
        return found, anchor, self.resources.store.get(anchor.digest)

    def _best(
        self, query: str, context: ToolContext, found: Found, anchor: FrameRef, pictures: list[Pixels]
    ) -> ToolResult:
        """Of the frames that were made, the one most similar to the query; the first of equals."""
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
        return ToolResult(
            frames=(self.resources.store.ref(pictures[best], anchor.seconds, provenance),), curve=found.curve
        )

    def imagine(self, source: Pixels, query: str, seed: int) -> Pixels:
        """The anchor as it would look if `query` were true: `(h, w, 3)` uint8."""
        [made] = self.diffuser.make(
            self.diffuser.how(source, self.options), [GenerationRequest(source, query, seed)]
        )
        if isinstance(made, Exception):
            raise made
        return made
