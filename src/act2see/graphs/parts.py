"""The working parts of a graph, built from its configuration: the reasoner, the tools, and what tools share.

Models are loaded when they are first needed, not when the graph is built. The graphs of one process share
them (`cached_parts`), whatever else differs in their configurations: docs/sharing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.reasoners.chat.setup import chat_model, reasoner_options
from act2see.errors import ConfigError
from act2see.graphs.config import Config, EncoderConfig, ReasonerConfig
from act2see.graphs.config_data import local_path
from act2see.graphs.state import AskState
from act2see.tools.base import FrameTool, Resources
from act2see.tools.plugins import make_tool
from act2see.tools.runtime.batching import MicroBatcher, Stop
from act2see.tools.runtime.forks import Lock, check_inherited, natively, renew_after_fork
from act2see.tools.runtime.local_modules import import_beside
from act2see.tools.runtime.memory import in_halves
from act2see.tools.runtime.sharing import Shared
from act2see.tools.runtime.weights import Wanted, local_weights, not_loaded, pick_device, resolve_weights
from act2see.tools.search.finder import Finder, FrameEncoder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore, default_cache


class Guard(Protocol):
    """Refuses videos that a model cannot understand: for models that know one world only."""

    async def refuses(self, frames: Sequence[NDArray[np.uint8]]) -> str | None:
        """Why the video is refused; None if it is not. `frames` are the initial ones, (height, width, 3)."""
        ...


NODES = ("view", "reason", "approve", "answer")  # names that no tag may have


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that nodes use. Each can be replaced: `dataclasses.replace(build_parts(config),
    reasoner=mine)`."""

    reasoner: Reasoner
    tools: Mapping[str, FrameTool]
    """The tools by their tags."""
    resources: Resources
    guard: Guard | None = None


def build_parts(config: Config, shared: Shared | None = None) -> Parts:
    """Build the parts of a configuration.

    Args:
        config: The configuration.
        shared: Models that other parts use as well; by default these parts have their own.

    Raises:
        ConfigError: A tag, a tool, a model or the guard cannot be used.
        WeightsError: A weight folder does not exist.
    """
    for tag in config.tools:
        if tag in NODES or tag in AskState.__annotations__:
            raise ConfigError(
                f"tool tag {tag!r} is taken: the graph has a node or a key of that name; choose another"
            )
    resources = build_resources(config, shared)
    tools = {
        tag: make_tool(t.use, tag, t.options, resources, config.folder) for tag, t in config.tools.items()
    }
    needs = reasoner_needs(config)
    # Sampling and prompt are chosen by each run, so models are shared whatever they are. The store is not: a
    # model reads the frames of one.
    model = config.reasoner.model_dump_json(exclude={"temperature", "top_p", "prompt"})
    needed = None if config.reasoner.use == "transformers" else needs
    reasoner = resources.shared.get(
        ("reasoner", model, resources.store.url, needed),
        lambda: build_reasoner(config.reasoner, resources.store, needs),
    )
    return Parts(reasoner, tools, resources, build_guard(config))


def reasoner_needs(config: Config) -> Needs:
    """The most that one run may send to the reasoner, for servers that are checked before it."""
    shown = min(config.view.frames or config.view.max_frames, config.view.max_frames)
    called = config.budget.calls * max((t.max_frames for t in config.tools.values()), default=0)
    return Needs(shown + called, config.view.max_side, config.budget.tokens + config.budget.answer_tokens)


def build_reasoner(config: ReasonerConfig, store: FrameStore, needs: Needs | None = None) -> Reasoner:
    """The reasoner that a config names.

    Args:
        config: The `reasoner` of a configuration.
        store: The store of the frames that it is shown.
        needs: The most that one run may send, which a server must allow.
    """
    if config.use == "transformers":
        return LazyReasoner(config, store)
    if config.use == "vllm-http":
        from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner

        return VLLMHTTPReasoner.from_options(
            config.weights,
            store,
            config.options,
            adapter=config.adapter,
            needs=needs,
        )
    if config.use == "llama-cpp":
        from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner

        return LlamaCppReasoner.from_options(config.weights, store, config.options, needs=needs)
    if config.use == "vllm":
        from act2see.agent.reasoners.vllm.engine import VLLMReasoner

        given = {
            "dtype": config.dtype,
            "max_model_len": config.context,
            **({"images": needs.images} if needs else {}),
            **config.options,
        }
        weights = local_weights("the reasoner's weights", config.weights)
        return VLLMReasoner.from_pretrained(weights, store, adapter=config.adapter, **given)
    from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner

    model = chat_model(config.weights, reasoner_options(config.weights, config.options), "reasoner.weights")
    return ChatModelReasoner(
        model,
        store,
        config.weights,
        continuation=config.continuation,
        in_background=True,
        ask_first=True,
    )


def storage(config: Config) -> tuple[Path, str]:
    """The places of a graph that is built now: the folder of its indexes, and the path or URL of its frames.

    They depend on `ACT2SEE_CACHE` if the configuration names no cache.
    """
    cache = Path(config.cache).expanduser().absolute() if config.cache else default_cache()
    return cache, local_path(config.store) if config.store else str(cache / "frames")


def build_resources(config: Config, shared: Shared | None = None) -> Resources:
    """The store and the finder, without models for reasoning or tools: enough to find frames."""
    shared = shared or Shared()
    cache, place = storage(config)
    store = FrameStore(place)
    clips = VideoLibrary(cache, store, config.view.max_side, config.video.decoder)
    e, i = config.encoder, config.index
    encoder = shared.get(("encoder", e.model_dump_json(exclude={"batch"})), lambda: LazyEncoder(e))
    return Resources(store, Finder(clips, encoder, cache, i.fps, e.batch, i.keep_frames, i.workers), shared)


_shared = Shared()


def cached_parts(config: Config) -> Parts:
    """The parts of this configuration in this process: models are loaded once, however many graphs use them.

    If the configuration leaves the cache to `ACT2SEE_CACHE`, that is read now, and another value gives other
    parts.
    """
    return _shared.get(parts_key(config), lambda: build_parts(config, _shared))


def parts_key(config: Config) -> tuple[str, ...]:
    """The key of a configuration's parts in this process."""
    return ("parts", config.model_dump_json(), *map(str, storage(config)))


def build_guard(config: Config) -> Guard | None:
    """The guard that `view.guard` names, if it names one.

    Raises:
        ConfigError: It cannot be imported.
    """
    if not config.view.guard:
        return None
    module, _, name = config.view.guard.partition(":")
    try:
        made: Guard = getattr(import_beside(module, config.folder), name)()
    except (ImportError, AttributeError, ValueError) as e:
        raise ConfigError(f"view.guard {config.view.guard!r} cannot be imported: {e}") from e
    return made


class LazyEncoder:
    """The configured encoder, loaded on first use.

    Callers that ask at the same time are encoded together (`tools/runtime/batching.py`). A frame's features
    do not depend on its batch, beyond the rounding of a larger matrix product.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        self._lock = Lock()
        self._made: FrameEncoder | None = None
        self._inherited = False  # from the process that this one was forked from
        renew_after_fork(self)
        self.queue: MicroBatcher[str, Sequence[Any], NDArray[Any]] = MicroBatcher(
            self._together, max_size=config.batch, size=len, gather=0, name="act2see-encoder"
        )
        resolve_weights(config.weights)  # raises now, not in the middle of a question

    def renew(self) -> None:
        """In a forked child: the model is inherited, and may be out of reach."""
        self._inherited = self._made is not None

    @natively
    def _encoder(self) -> FrameEncoder:
        with self._lock:
            if self._made is None:
                c = self.config
                weights, device = local_weights("the encoder's weights", c.weights), pick_device(c.device)
                try:
                    self._made = _encoders()[c.use](weights, device=device, dtype=_dtype(c.dtype, device))
                except OSError as e:
                    raise not_loaded("the encoder's weights", c.weights, e) from e
            return self._made

    def wanted(self) -> Iterator[Wanted]:
        """The weights that would be loaded now."""
        if self._made is None:
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

    def _together(
        self, kind: str, asked: Sequence[Sequence[Any]], stop: Stop
    ) -> list[NDArray[Any] | Exception]:
        """Encode the frames or phrases of several callers in one forward, or in halves if that fails."""
        if self._inherited:
            check_inherited("the encoder", pick_device(self.config.device))
        made = iter(in_halves(getattr(self._encoder(), kind), [one for some in asked for one in some]))
        out: list[NDArray[Any] | Exception] = []
        for some in asked:
            rows = [next(made) for _ in some]
            out.append(next((r for r in rows if isinstance(r, Exception)), None) or np.stack(rows))  # type: ignore[arg-type]
        return out


def _encoders() -> Mapping[str, Callable[..., FrameEncoder]]:
    """The classes of encoders by `encoder.use`."""
    from act2see.tools.search.blip2 import Blip2Encoder
    from act2see.tools.search.dual import DualEncoder, SentenceTransformersEncoder

    return {
        "blip2": Blip2Encoder,
        "transformers": DualEncoder,
        "sentence-transformers": SentenceTransformersEncoder,
    }


class LazyReasoner(Reasoner):
    """A `TransformersReasoner` that loads on first use."""

    def __init__(self, config: ReasonerConfig, store: FrameStore) -> None:
        self.config, self.store = config, store
        self.name = Path(resolve_weights(config.weights)).name
        self._lock = Lock()
        self._made: Reasoner | None = None

    @natively
    def reasoner(self) -> Reasoner:
        """The engine itself; loads it on the first call."""
        with self._lock:
            if self._made is None:
                from act2see.agent.reasoners.transformers import TransformersReasoner

                c = self.config
                local_weights("the reasoner's weights", c.weights)
                device = pick_device(c.device)
                self._made = TransformersReasoner.from_pretrained(
                    resolve_weights(c.weights),
                    self.store,
                    device=device,
                    dtype=_dtype(c.dtype, device),
                    adapter=c.adapter,
                    rows=c.rows,
                    context=c.context,
                )
            return self._made

    async def prepare(self) -> None:
        await asyncio.to_thread(self.reasoner)

    def wanted(self) -> Iterator[Wanted]:
        """The weights that would be loaded now."""
        if self._made is None:
            yield Wanted("reasoner", self.config.weights)
            if self.config.adapter:
                yield Wanted("adapter", self.config.adapter)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        engine = await asyncio.to_thread(self.reasoner)
        async for item in engine.stream(request):
            yield item

    def forget(self, session: str) -> None:
        if self._made is not None:
            self._made.forget(session)

    def close(self) -> None:
        """Free its memory, when no run is under way; the next run would load it again."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.close()


def _dtype(dtype: str, device: str) -> str:
    return dtype if dtype != "auto" else ("bfloat16" if device == "cuda" else "float32")
