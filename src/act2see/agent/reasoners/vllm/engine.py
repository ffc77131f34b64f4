"""Qwen3-VL with vLLM in this process.

vLLM pins its own torch and transformers, so this reasoner needs a separate environment; from other
environments vLLM's server is reached over HTTP (`http.py`). The engine gets token ids, piece by piece as at
training, with one image token for each frame. A frame's digest is its name in vLLM's caches, so that the
second loop finds both the prefix and the vision features.

An engine belongs to one event loop, but questions come from many loops: a thread with its own loop owns the
engine.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.reasoners.faults import vllm_limit_error, without_parameter
from act2see.agent.reasoners.follow import Chunk, follow, is_regular
from act2see.agent.reasoners.pieces import FORBIDDEN
from act2see.agent.reasoners.vllm.lora import lora_options
from act2see.agent.rollout import ImagePiece, Rollout, TextCodec
from act2see.errors import ConfigError, ReasonerError, SetupError, WeightsError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock, leak, renew_after_fork
from act2see.tools.runtime.text import first_line
from act2see.tools.runtime.weights import cached_folder

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

_NOT_INSTALLED = (
    "vLLM is not installed here. It pins its own torch and transformers, so install it in a separate "
    "environment (`python -m venv vllm-env; vllm-env/bin/pip install vllm`), start "
    "`act2see serve vllm --python vllm-env/bin/python`, and set `reasoner.use: vllm-http`"
)


class VLLMReasoner(Reasoner):
    """Continues rollouts with an engine in this process (`vllm.v1.engine.async_llm.AsyncLLM`)."""

    def __init__(
        self,
        make_engine: Callable[[], Any],
        codec: TextCodec,
        frames: FrameSource,
        *,
        params: Callable[..., Any],
        adapter: Any = None,
        name: str = "vllm",
        context: int | None = None,
    ) -> None:
        """
        Args:
            make_engine: Makes the engine; called once, in the thread that owns it.
            codec: The model's tokenizer.
            frames: Returns the pixels of a frame.
            params: Makes vLLM's `SamplingParams` from keyword arguments.
            adapter: vLLM's `LoRARequest`.
            name: The model's name in traces.
            context: The maximum number of tokens of a rollout; None if it is unknown.
        """
        self.name = name
        self.context = context
        self._make_engine = make_engine
        self._codec = codec
        self._frames = frames
        self._make_params = params
        self._adapter = adapter
        self._image = int(codec.tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        self._lock = Lock()
        renew_after_fork(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._engine: Any = None

    @classmethod
    def from_pretrained(
        cls,
        weights: str,
        frames: FrameSource,
        *,
        adapter: str | None = None,
        images: int = 64,
        **options: Any,
    ) -> VLLMReasoner:
        """Load a checkpoint.

        Args:
            weights: The checkpoint's folder or hub name.
            frames: Returns the pixels of a frame.
            adapter: The folder or hub name of a LoRA.
            images: The maximum number of images in a prompt.
            options: Arguments of vLLM's `AsyncEngineArgs`.

        Raises:
            ConfigError: vLLM is not installed, or does not know an option.
            WeightsError: The weights or the adapter cannot be loaded.
        """
        try:
            sampling = import_module("vllm.sampling_params")
            arguments = import_module("vllm.engine.arg_utils")
            engine = import_module("vllm.v1.engine.async_llm")
            requests = import_module("vllm.lora.request")
        except ImportError as e:
            is_missing = (e.name or "").partition(".")[0] == "vllm"
            raise ConfigError(_NOT_INSTALLED if is_missing else f"vLLM cannot be imported: {e}") from e
        from transformers import AutoTokenizer

        folder = cached_folder(adapter) if adapter else None
        given = {
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": images, "video": 0},
            "generation_config": "vllm",
            **lora_options([folder] if folder else []),
            **options,
        }
        try:
            args = arguments.AsyncEngineArgs(model=weights, **given)
            codec = TextCodec(AutoTokenizer.from_pretrained(weights))
        except TypeError as e:
            raise ConfigError(f"reasoner.options: {e}") from e
        except (OSError, ValueError) as e:
            raise WeightsError(f"the reasoner's weights {weights} cannot be loaded: {first_line(e)}") from e

        def params(**keywords: Any) -> Any:
            return sampling.SamplingParams(output_kind=sampling.RequestOutputKind.DELTA, **keywords)

        lora = requests.LoRARequest(_last_part(folder), 1, folder) if folder else None
        return cls(
            lambda: engine.AsyncLLM.from_engine_args(args),
            codec,
            frames,
            params=params,
            adapter=lora,
            name=_last_part(weights),
            context=given.get("max_model_len"),
        )

    def renew(self) -> None:
        """Start without an engine in a forked child, which neither uses nor ends the parent's engine."""
        leak((self._engine, self._loop))  # their destructors may wait for threads of the parent
        self._engine = self._loop = self._thread = None

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return follow(lambda rollout, tokens: self._chunks(request, rollout, tokens), request)

    async def prepare(self) -> None:
        await asyncio.to_thread(self._start)

    def close(self) -> None:
        """End the engine and its requests. The next run starts another engine."""
        self._end()

    def _end(self, only: Any = None) -> None:
        """End the engine. With `only`, do nothing if another engine has replaced that one."""
        with self._lock:
            if only not in (None, self._engine):
                return
            engine = self._engine
            loop = self._loop
            thread = self._thread
            self._loop = self._thread = self._engine = None
        if loop is None or thread is None:
            return

        async def end() -> None:
            with suppress(Exception):
                engine.shutdown()
            # The engine's own tasks wait for a process that has ended.
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _make_prompt(self, rollout: Rollout) -> dict[str, Any]:
        """Return the ids with one image token for each frame, the pictures, and the pictures' names."""
        ids: list[int] = []
        frames: list[FrameRef] = []
        for piece in rollout.pieces:
            if isinstance(piece, ImagePiece):
                ids.append(self._image)
                frames.append(piece.frame)
            else:
                ids += self._codec.encode(piece.text, piece.trust)
        if not frames:
            return {"prompt_token_ids": ids}
        from PIL import Image

        return {
            "prompt_token_ids": ids,
            "multi_modal_data": {"image": [Image.fromarray(self._frames(f)) for f in frames]},
            "multi_modal_uuids": {"image": [f.digest for f in frames]},
        }

    async def _chunks(self, request: Request, rollout: Rollout, tokens: int) -> AsyncGenerator[Chunk]:
        """Yield the chunks of one request, which runs on the engine's thread."""
        prompt = await asyncio.to_thread(self._make_prompt, rollout)
        params = self._sampling_params(request, tokens)
        engine, loop = await asyncio.to_thread(self._start)
        here = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | ReasonerError | None] = asyncio.Queue()

        def emit(item: Chunk | ReasonerError | None) -> None:
            if not here.is_closed():
                here.call_soon_threadsafe(arrived.put_nowait, item)

        def finish(work: Future[None]) -> None:
            # A callback of the future: a task that is cancelled before its first step runs none of its code.
            if work.cancelled():
                emit(ReasonerError(f"{self.name} was closed"))
            elif error := work.exception():
                emit(self._to_reasoner_error(error, rollout))
            else:
                emit(None)

        work = self._submit(lambda: self._generate(engine, prompt, params, emit), loop)
        work.add_done_callback(finish)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, ReasonerError):
                    if getattr(engine, "errored", False):
                        # The engine's process is dead; the next run starts another.
                        await asyncio.to_thread(self._end, engine)
                    raise item
                yield item
        finally:
            work.cancel()

    def _sampling_params(self, request: Request, tokens: int) -> Any:
        return self._make_params(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,
            min_p=request.sampling.min_p,
            repetition_penalty=request.sampling.repetition_penalty,
            presence_penalty=request.sampling.presence_penalty,
            seed=request.sampling.seed,
            max_tokens=tokens,
            stop=list(request.stops),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            bad_words=list(FORBIDDEN),
        )

    async def _generate(
        self, engine: Any, prompt: dict[str, Any], params: Any, emit: Callable[[Chunk], None]
    ) -> None:
        """Run a request on the engine's loop, twice if the engine aborts it before its first token.

        A frame whose first request was cancelled may be missing in the engine, which then aborts the request
        and needs the frame again.
        """
        for _ in range(2):
            finish = await self._generate_once(engine, prompt, params, emit)
            if is_regular(finish):
                return
        raise RuntimeError(f"the engine aborted the request ({finish})")

    async def _generate_once(
        self, engine: Any, prompt: dict[str, Any], params: Any, emit: Callable[[Chunk], None]
    ) -> str | None:
        """Run a request once. Return vLLM's finish reason."""
        # vLLM has deprecated ids and pictures that have not passed its renderer.
        if (renderer := getattr(engine, "renderer", None)) is not None:
            (prompt,) = await renderer.render_cmpl_async([prompt])
        decoded = 0
        finish = None
        id = uuid.uuid4().hex
        # A cancelled generator aborts its request in the engine.
        async for out in engine.generate(prompt, params, request_id=id, lora_request=self._adapter):
            one = out.outputs[0]
            decoded += len(one.token_ids)
            finish = one.finish_reason
            if not is_regular(finish):
                if decoded:
                    raise RuntimeError(f"the engine aborted the request ({finish})")
                return str(finish)
            emit(_make_chunk(out, decoded))
        return finish

    def _submit(
        self, run: Callable[[], Coroutine[Any, Any, None]], loop: asyncio.AbstractEventLoop
    ) -> Future[None]:
        """Schedule `run` on the engine's loop.

        This happens under the lock, so that `close` finds every task that it must cancel: nothing is
        scheduled on a loop that is being stopped.

        Raises:
            ReasonerError: The engine was closed after it was looked up.
        """
        with self._lock:
            if loop is not self._loop:
                raise ReasonerError(f"{self.name} was closed")
            return asyncio.run_coroutine_threadsafe(run(), loop)

    def _to_reasoner_error(self, e: BaseException, rollout: Rollout) -> ReasonerError:
        words = without_parameter(first_line(e, 1000))
        limit = vllm_limit_error(words, self.name, len(rollout.frames))
        return limit or ReasonerError(f"{self.name} failed: {words[:200]}")

    def _start(self) -> tuple[Any, asyncio.AbstractEventLoop]:
        """Return the engine and its loop. The first call makes them."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="act2see-vllm", daemon=True)
                thread.start()

                async def make() -> Any:
                    return self._make_engine()

                try:
                    self._engine = asyncio.run_coroutine_threadsafe(make(), loop).result()
                except Exception as e:
                    loop.call_soon_threadsafe(loop.stop)
                    thread.join()
                    loop.close()
                    raise SetupError(f"vLLM cannot start {self.name}: {first_line(e, 300)}") from e
                self._loop = loop
                self._thread = thread
            return self._engine, self._loop


def _make_chunk(out: Any, decoded: int) -> Chunk:
    """Return a chunk for an output of the engine; `decoded` is the number of the reply's tokens so far."""
    one = out.outputs[0]
    return Chunk(
        one.text,
        one.finish_reason,
        one.stop_reason if isinstance(one.stop_reason, str) else None,
        prompt=len(out.prompt_token_ids or ()),
        cached=out.num_cached_tokens or 0,
        decoded=decoded,
    )


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
