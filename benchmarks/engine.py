"""Shared by the benchmarks of rollouts: the real reasoner, instrumented, and a tool that costs nothing.

With the micro weights the model writes its own text. Without them, random weights do the same work and the
tokens written are those of the reference chain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from act2see.agent.packing import Packer
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.graphs.config import Config, load_config
from act2see.micro.questions import Item, sentences
from act2see.micro.recipe.corpus import next_text
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.frames import Curve, FrameRef, Retrieved
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import frames_at
from act2see.tools.video.store import FrameStore, Pixels
from benchmarks import has_weights


class Watched(TransformersReasoner):
    """A reasoner that records the tokens that it writes and each `Done`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.script: deque[int] = deque()
        """Tokens to write instead of the sampled ones."""
        self.wrote: list[int] = []
        """The written tokens."""
        self.dones: list[Done] = []

    def _sample(self, logits: Any, job: Any) -> int:
        token = super()._sample(logits, job)
        self.wrote.append(self.script.popleft() if self.script else token)
        return self.wrote[-1]

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        async for item in super().stream(request):
            if isinstance(item, Done):
                self.dones.append(item)
            yield item

    def chain(self, item: Item) -> list[int]:
        """Return the token ids of the reference chain, encoded piece by piece as the renderer does."""
        pieces = []
        for number in range(len(item.needed) + 1):
            pieces.append(next_text(item, number))
        ids = []
        for piece in pieces:
            ids += self.packer.codec.encode(piece, "model")
        return ids


class Event:
    """A `retrieve` without a search, which returns the frame at a fixed time and a curve of 128 values."""

    tag, usage, version = "retrieve", "a real frame", "event"

    def __init__(self, resources: Resources, seconds: float) -> None:
        self.library, self.seconds = resources.finder.library, seconds

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        times = self.library.probe(context.video).seconds
        frame = self.library.pictures(context.video, frames_at(times, [self.seconds]))[0]
        found = frame.model_copy(update={"provenance": Retrieved(query=query, score=0.9123)})
        curve = Curve(start=0.0, step=0.094, values=(0.123,) * 128)
        return ToolResult((found,), curve=curve)


def build_engine(store: FrameStore) -> Watched:
    """Build the engine with the micro VLM or, if it is missing, with random weights."""

    def source(frame: FrameRef) -> Pixels:
        return store.get(frame.digest)

    if has_weights("vlm"):
        return Watched.from_pretrained(resolve_weights("micro:vlm"), source)  # type: ignore[return-value]
    import torch

    from act2see.micro.recipe.models import build_vlm, vlm_image_processor
    from act2see.micro.recipe.tokenizers import qwen_tokenizer

    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(sentences())
    return Watched(
        build_vlm(tokenizer),
        Packer(tokenizer, vlm_image_processor(), tokenizer.convert_tokens_to_ids("<|image_pad|>")),
        source,
    )


def micro_resources(folder: Path, **view: Any) -> tuple[Config, Resources]:
    """Return the micro preset and the resources of its tools, with the cache in a folder.

    The finder has no encoder, since the benchmarks that use this index nothing.
    """
    config = load_config("micro", cache=str(folder), view={"guard": None, **view})
    store = FrameStore(str(folder / "frames"))
    return config, Resources(store, Finder(VideoLibrary(folder, store, config.view.max_side), None, folder))  # type: ignore[arg-type]
