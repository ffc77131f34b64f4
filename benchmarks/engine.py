"""What rollouts are measured with: the real reasoner, watched, and a tool that costs nothing.

With the micro weights the model writes what it likes. Without them random ones do the same work, and a script
says which token comes next: the reference chain's.
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
from act2see.tools.base import Resources, ToolContext, ToolResult
from act2see.tools.frames import Curve, FrameRef, Retrieved
from act2see.tools.runtime.weights import resolve_weights
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.reader import frames_at
from act2see.tools.video.store import FrameStore, Pixels
from benchmarks import have


class Watched(TransformersReasoner):
    """Keeps what it wrote and each `Done`; tokens that stand in `script` are written instead of its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.script: deque[int] = deque()
        self.wrote: list[int] = []
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
        """The reference chain's ids, piece by piece as they are rendered."""
        pieces = [s if isinstance(s, str) else f"<{s.tag}>{s.query}</{s.tag}>" for s in item.chain] + [
            item.closing()
        ]
        return [i for p in pieces for i in self.packer.codec.encode(p, "model")]


class Event:
    """Stands for `retrieve`: shows the clip at a time, with a curve as long as they come."""

    tag, usage, version = "retrieve", "a real frame", "event"

    def __init__(self, resources: Resources, seconds: float) -> None:
        self.clips, self.seconds = resources.finder.clips, seconds

    async def call(self, query: str, context: ToolContext) -> ToolResult:
        frame = self.clips.pictures(
            context.video, frames_at(self.clips.clip(context.video).seconds, [self.seconds])
        )[0]
        curve = Curve(start=0.0, step=0.094, values=tuple(0.123 for _ in range(128)))
        return ToolResult(
            (frame.model_copy(update={"provenance": Retrieved(query=query, score=0.9123)}),), curve=curve
        )


def reasoner(store: FrameStore) -> Watched:
    """The micro VLM, or one of random weights."""

    def source(frame: FrameRef) -> Pixels:
        return store.get(frame.digest)

    if have("vlm"):
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


def house(folder: Path, **view: Any) -> tuple[Config, Resources]:
    """The micro preset and what its tools share, in a folder; nothing is indexed here, so there is no
    encoder."""
    config = load_config("micro", cache=str(folder), view={"guard": None, **view})
    store = FrameStore(str(folder / "frames"))
    return config, Resources(store, Finder(VideoLibrary(folder, store, config.view.max_side), None, folder))  # type: ignore[arg-type]
