"""The working parts of a graph, built from its configuration: the reasoner, the tools and their resources.

Models are loaded on first use, not when the graph is built. All graphs of a process share them
(`cached_parts`), even if other settings differ: docs/sharing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.errors import ConfigError
from act2see.graphs.config import Config, load_config
from act2see.graphs.config_data import local_path
from act2see.graphs.hooks import Guard as Guard, build_framer, build_guard as build_guard
from act2see.graphs.names import check_name
from act2see.graphs.sections import RUN_KEYS, EncoderConfig, ReasonerConfig
from act2see.graphs.state import AskState
from act2see.tools.base import FrameTool, Resources
from act2see.tools.plugins import make_tool
from act2see.tools.runtime.batching import MicroBatcher, Stop
from act2see.tools.runtime.forks import Lock, check_inherited, natively, renew_after_fork
from act2see.tools.runtime.memory import in_halves
from act2see.tools.runtime.sharing import Shared
from act2see.tools.runtime.weights import (
    Wanted,
    local_weights,
    not_loaded,
    pick_device,
    pick_dtype,
    resolve_weights,
)
from act2see.tools.search.encoder import FrameEncoder
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore, default_cache

NODES = ("view", "reason", "approve", "answer")
"""The names of the graph's own nodes, which no tag may have."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The objects that nodes use.

    Replace one with `dataclasses.replace(build_parts(config), reasoner=mine)`.
    """

    reasoner: Reasoner
    tools: Mapping[str, FrameTool]
    """The tools by tag."""
    resources: Resources
    guard: Guard | None = None
    """Checks each video before the first turn, if the configuration names a guard."""


def build_parts(config: Config | str, shared: Shared | None = None) -> Parts:
    """Build the parts of a configuration.

    Args:
        config: The configuration, or the name of a preset or a file.
        shared: The models that other parts use too; by default these parts have their own.

    Raises:
        ConfigError: A tag, a tool, a model or the guard cannot be used.
        WeightsError: A weight folder does not exist.
    """
    config = load_config(config)
    for tag in config.tools:
        if tag in NODES or tag in AskState.__annotations__:
            raise ConfigError(
                f"tool tag {tag!r} is reserved: the graph has a node or a key of this name; choose another"
            )
    resources = build_resources(config, shared)
    tools = {}
    for tag, settings in config.tools.items():
        tools[tag] = make_tool(settings.use, tag, settings.options, resources, config.folder)
    needs = reasoner_needs(config)
    # Each run has its own sampling and prompt, so they do not keep two configurations from sharing a model.
    # The store does, because a reasoner reads its frames from one store.
    model = config.reasoner.model_dump_json(exclude=set(RUN_KEYS))
    needed = None if config.reasoner.use == "transformers" else needs
    reasoner = resources.shared.get(
        ("reasoner", model, resources.store.url, needed),
        lambda: build_reasoner(config.reasoner, resources.store, needs),
    )
    return Parts(reasoner, tools, resources, build_guard(config))


def reasoner_needs(config: Config) -> Needs:
    """Return the most that one run may send to the reasoner. Servers are checked against it."""
    initial = min(config.view.frames or config.view.max_frames, config.view.max_frames)
    per_call = max((tool.max_frames for tool in config.tools.values()), default=0)
    images = initial + config.budget.calls * per_call
    return Needs(images, config.view.max_side, config.budget.tokens + config.budget.answer_tokens)


def build_reasoner(config: ReasonerConfig, store: FrameStore, needs: Needs | None = None) -> Reasoner:
    """Build the reasoner of a configuration.

    Args:
        config: The `reasoner` section of the configuration.
        store: The store from which the reasoner reads frames.
        needs: The most that one run may send, which a server must allow.

    Raises:
        ConfigError: The chat model or the server cannot be used.
        WeightsError: Weights are missing.
    """
    check_name(config)
    if config.use == "transformers":
        return LazyReasoner(config, store)
    if config.use == "vllm-http":
        from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner

        return VLLMHTTPReasoner.from_options(
            config.weights, store, config.options, adapter=config.adapter, needs=needs
        )
    if config.use == "llama-cpp":
        from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner

        return LlamaCppReasoner.from_options(config.weights, store, config.options, needs=needs)
    if config.use == "vllm":
        from act2see.agent.reasoners.vllm.engine import VLLMReasoner

        arguments: dict[str, Any] = {"dtype": config.dtype, "max_model_len": config.context}
        if needs:
            arguments["images"] = needs.images
        arguments |= config.options
        weights = local_weights("the reasoner's weights", config.weights)
        return VLLMReasoner.from_pretrained(weights, store, adapter=config.adapter, **arguments)
    from act2see.agent.reasoners.chat.check import CheckedChatModel

    return CheckedChatModel.from_options(
        config.weights, store, config.options, continuation=config.continuation
    )


def storage_of(config: Config) -> tuple[Path, str]:
    """Return the folder of the indexes, and the path or URL of the frame store.

    If the configuration sets no cache, they depend on the present value of `ACT2SEE_CACHE`.
    """
    cache = Path(config.cache).expanduser().absolute() if config.cache else default_cache()
    return cache, local_path(config.store) if config.store else str(cache / "frames")


def build_resources(config: Config, shared: Shared | None = None) -> Resources:
    """Build the store and the finder, which are enough to search for frames.

    Args:
        config: The configuration.
        shared: The models that other parts use too; by default these resources have their own.

    Raises:
        WeightsError: The encoder's weight folder does not exist.
    """
    shared = shared or Shared()
    cache, frames = storage_of(config)
    store = FrameStore(frames)
    library = VideoLibrary(cache, store, config.view.max_side, config.video.decoder, build_framer(config))
    # The batch size is the finder's, so it does not keep two configurations from sharing an encoder.
    key = ("encoder", config.encoder.model_dump_json(exclude={"batch"}))
    encoder = shared.get(key, lambda: LazyEncoder(config.encoder))
    index = config.index
    finder = Finder(
        library, encoder, cache, index.fps, config.encoder.batch, index.keep_frames, index.workers
    )
    return Resources(store, finder, shared)


_shared = Shared()


def cached_parts(config: Config) -> Parts:
    """Return the parts of a configuration, built once per process. All graphs share their models.

    If the configuration sets no cache, another value of `ACT2SEE_CACHE` leads to other parts.

    Raises:
        ConfigError: A tag, a tool, a model or the guard cannot be used.
        WeightsError: A weight folder does not exist.
    """
    return _shared.get(parts_key(config), lambda: build_parts(config, _shared))


def parts_key(config: Config) -> tuple[str, ...]:
    """Return the key under which `cached_parts` keeps the parts of a configuration."""
    return ("parts", config.model_dump_json(), *map(str, storage_of(config)))


class LazyEncoder:
    """The configured encoder, loaded on first use.

    Requests that arrive at the same time are encoded in one batch (`tools/runtime/batching.py`). The features
    of a frame depend on its batch only by the rounding of a larger matrix product.

    Raises:
        WeightsError: The weight folder does not exist.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        self._lock = Lock()
        self._loaded: FrameEncoder | None = None
        self._inherited = False
        """Whether the model was loaded before this process was forked from its parent."""
        renew_after_fork(self)
        self.queue: MicroBatcher[str, Sequence[Any], NDArray[Any]] = MicroBatcher(
            self._encode_batch, max_size=config.batch, size=len, gather=0, name="act2see-encoder"
        )
        resolve_weights(config.weights)  # fail here rather than during a question

    def renew(self) -> None:
        """Called in a forked child, where the inherited model may be unusable."""
        self._inherited = self._loaded is not None

    @natively
    def _encoder(self) -> FrameEncoder:
        with self._lock:
            if self._loaded is None:
                c = self.config
                weights = local_weights("the encoder's weights", c.weights)
                device = pick_device(c.device)
                make_encoder = _encoder_classes()[c.use]
                try:
                    self._loaded = make_encoder(weights, device=device, dtype=pick_dtype(c.dtype, device))
                except OSError as e:
                    raise not_loaded("the encoder's weights", c.weights, e) from e
            return self._loaded

    def wanted(self) -> Iterator[Wanted]:
        """Yield the weights that the next request would load."""
        if self._loaded is None:
            yield Wanted("encoder", self.config.weights)

    @property
    def id(self) -> str:
        return self._encoder().id

    @property
    def size(self) -> int:
        return self._encoder().size

    @property
    def no_match(self) -> float:
        return self._encoder().no_match

    def frames(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float16]:
        return self.queue.run("frames", pixels)

    def phrases(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.queue.run("phrases", texts)

    def _encode_batch(
        self, kind: str, requests: Sequence[Sequence[Any]], stop: Stop
    ) -> list[NDArray[Any] | Exception]:
        """Encode the frames or phrases of several requests in one forward, or in halves if that fails.

        Args:
            kind: `frames` or `phrases`.
            requests: The frames, each `(height, width, 3)`, or the phrases of each request.
            stop: Not used: a forward cannot be stopped.

        Returns:
            The vectors of each request, or the error of one of its items.
        """
        if self._inherited:
            check_inherited("the encoder", pick_device(self.config.device))
        encoder = self._encoder()
        encode: Any = encoder.frames if kind == "frames" else encoder.phrases
        items = [item for request in requests for item in request]
        vectors = iter(in_halves(encode, items))
        replies: list[NDArray[Any] | Exception] = []
        for request in requests:
            rows = [next(vectors) for _ in request]
            errors = [row for row in rows if isinstance(row, Exception)]
            replies.append(errors[0] if errors else np.stack(rows))  # type: ignore[arg-type]
        return replies


def _encoder_classes() -> Mapping[str, Callable[..., FrameEncoder]]:
    """Return the classes of encoders by `encoder.use`."""
    from act2see.tools.search.blip2 import Blip2Encoder
    from act2see.tools.search.dual import DualEncoder, SentenceTransformersEncoder

    return {
        "blip2": Blip2Encoder,
        "transformers": DualEncoder,
        "sentence-transformers": SentenceTransformersEncoder,
    }


class LazyReasoner(Reasoner):
    """A `TransformersReasoner` that is loaded on first use.

    Raises:
        WeightsError: The weight folder does not exist.
    """

    def __init__(self, config: ReasonerConfig, store: FrameStore) -> None:
        self.config = config
        self.store = store
        self.name = Path(resolve_weights(config.weights)).name
        self._lock = Lock()
        self._loaded: Reasoner | None = None

    @natively
    def reasoner(self) -> Reasoner:
        """Return the reasoner itself; the first call loads it.

        Raises:
            WeightsError: Weights are missing.
        """
        with self._lock:
            if self._loaded is None:
                from act2see.agent.reasoners.transformers import TransformersReasoner

                c = self.config
                local_weights("the reasoner's weights", c.weights)  # raises if a file is missing
                device = pick_device(c.device)
                self._loaded = TransformersReasoner.from_pretrained(
                    resolve_weights(c.weights),
                    self.store,
                    device=device,
                    dtype=pick_dtype(c.dtype, device),
                    adapter=c.adapter,
                    rows=c.rows,
                    context=c.context,
                )
            return self._loaded

    async def prepare(self) -> None:
        await asyncio.to_thread(self.reasoner)

    def wanted(self) -> Iterator[Wanted]:
        """Yield the weights that the next request would load."""
        if self._loaded is None:
            yield Wanted("reasoner", self.config.weights)
            if self.config.adapter:
                yield Wanted("adapter", self.config.adapter)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        engine = await asyncio.to_thread(self.reasoner)
        async for item in engine.stream(request):
            yield item

    def forget(self, session: str) -> None:
        if self._loaded is not None:
            self._loaded.forget(session)

    def close(self) -> None:
        """Free the memory. Call it only while no run is in progress; the next run loads the model again."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.close()
