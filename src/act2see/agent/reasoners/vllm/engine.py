"""Qwen3-VL by vLLM in this process, and what both of vLLM's ways have in common.

vLLM pins its own torch and transformers, so this runs in an environment of its own; from any other, its
server is reached over HTTP (`http.py`). What is sent are token ids, piece by piece as at training, with one
image token for each frame; a frame's digest is its name in vLLM's caches, so that loop 2 finds both the
prefix and the vision features.

An engine belongs to one event loop, and questions come from many: a thread with a loop of its own owns it.

vLLM stops on strings, and the grammar decides: where a string was no end (`</retrieve>` in plain words) the
rollout is sent again with what was written, which the prefix cache makes cheap. Where the grammar ends first,
the rest is aborted.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from act2see.agent.reasoners.base import Delta, Done, Sampling, Stop
from act2see.agent.reasoners.pieces import ENDS, FORBIDDEN
from act2see.agent.reasoners.vllm.lora import lora_options
from act2see.agent.reasoners.vllm_faults import bare, limit_error
from act2see.agent.rollout import ImagePiece, Rollout, TextCodec, TextPiece
from act2see.errors import ConfigError, ReasonerError, SetupError, WeightsError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock, leak, renew_after_fork
from act2see.tools.runtime.weights import resolve_weights

if TYPE_CHECKING:
    from act2see.tools.video.store import FrameSource

_DRAIN = 8  # chunks read after the end of a call, for the token counts that come last
_NOT_HERE = (
    "vLLM is not installed here. It pins its own torch and transformers, so give it an environment of its own "
    "(python -m venv vllm-env; vllm-env/bin/pip install vllm), start `act2see serve vllm --python vllm-env/bin/python`, "
    "and set reasoner.use: vllm-http"
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a continuation. Counts are of the whole so far; `finish` is `stop` or `length`, `at` the
    stop string."""

    text: str = ""
    finish: str | None = None
    at: str | None = None
    prompt: int = 0
    cached: int = 0
    decoded: int = 0


Send = Callable[[Rollout, int], AsyncGenerator[Chunk]]


async def follow(
    send: Send, rollout: Rollout, until: Callable[[str], bool], stops: Sequence[str], max_tokens: int
) -> AsyncGenerator[Delta | Done]:
    """One continuation from as many requests as it takes; `send` streams one of at most so many tokens."""
    done = Done("eos")
    while True:
        said, ended, after, last = "", False, 0, Chunk()
        chunks = send(rollout, max_tokens - done.decoded)
        try:
            async for chunk in chunks:
                last = Chunk(
                    "",
                    chunk.finish or last.finish,
                    chunk.at or last.at,
                    chunk.prompt or last.prompt,
                    chunk.cached or last.cached,
                    max(chunk.decoded, last.decoded),
                )
                if ended:
                    after += 1
                elif text := _without_end(chunk):
                    said += text
                    yield Delta(text)
                    ended = until(text)
                # At a stop string the engine has ended too, and its counts are coming; elsewhere it must be
                # told.
                if ended and (after >= _DRAIN or not (last.finish or said.endswith(tuple(stops)))):
                    break
                if not ended and done.decoded + last.decoded >= max_tokens and last.finish is None:
                    last = replace(last, finish="length")
                    break
        finally:
            await chunks.aclose()
        done = Done(
            "eos",
            done.prefilled + last.prompt - last.cached,
            done.cached or last.cached,
            done.decoded + (last.decoded or bool(said)),
        )
        goes_on = not ended and last.finish == "stop" and last.at in stops and done.decoded < max_tokens
        if not goes_on:
            stop: Stop = (
                "until" if ended else "length" if last.finish == "length" or last.at in stops else "eos"
            )
            yield replace(done, stop=stop)
            return
        rollout = replace(rollout, pieces=(*rollout.pieces, TextPiece(said, "model")))


def ended_well(finish: str | None) -> bool:
    """False where the engine has given a request up (`abort`, `error`), which is no end of a text."""
    return finish in (None, "stop", "length")


def _without_end(chunk: Chunk) -> str:
    """Kept stop strings bring the end of the turn along, which is a mark and not text."""
    text = chunk.text
    if chunk.finish == "stop" and chunk.at is None:
        for mark in ENDS:
            text = text.removesuffix(mark)
    return text


class VLLMReasoner:
    """Continues rollouts with an engine of this process (`vllm.v1.engine.async_llm.AsyncLLM`).

    `make_engine` is called once, in the thread that owns it. `params` makes vLLM's `SamplingParams` of
    keywords.
    """

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
        self.name, self.context = name, context
        self._make, self._codec, self._frames, self._params, self._adapter = (
            make_engine,
            codec,
            frames,
            params,
            adapter,
        )
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
        """Load a checkpoint folder or hub name; `options` are `AsyncEngineArgs`. Raises `ConfigError` where
        vLLM is not installed."""
        try:
            sampling, arguments = (
                import_module("vllm.sampling_params"),
                import_module("vllm.engine.arg_utils"),
            )
            engine, requests = import_module("vllm.v1.engine.async_llm"), import_module("vllm.lora.request")
        except ImportError as e:
            raise ConfigError(
                _NOT_HERE if (e.name or "").partition(".")[0] == "vllm" else f"vLLM cannot be imported: {e}"
            ) from e
        from transformers import AutoTokenizer

        folder = resolve_weights(adapter) if adapter else None
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
            raise WeightsError(
                f"the reasoner's weights {weights} cannot be loaded: {str(e).splitlines()[0]}"
            ) from e

        def params(**keywords: Any) -> Any:
            return sampling.SamplingParams(output_kind=sampling.RequestOutputKind.DELTA, **keywords)

        lora = requests.LoRARequest(folder.rstrip("/").rpartition("/")[2], 1, folder) if folder else None
        return cls(
            lambda: engine.AsyncLLM.from_engine_args(args),
            codec,
            frames,
            params=params,
            adapter=lora,
            name=weights.rstrip("/").rpartition("/")[2],
            context=given.get("max_model_len"),
        )

    def renew(self) -> None:
        """In a forked child: no engine yet. The one of the parent is neither used nor ended here."""
        leak((self._engine, self._loop))
        self._engine = self._loop = self._thread = None

    def stream(
        self,
        rollout: Rollout,
        *,
        until: Callable[[str], bool],
        stops: Sequence[str],
        max_tokens: int,
        sampling: Sampling,
    ) -> AsyncIterator[Delta | Done]:
        """Text as it is decoded, then `Done`. Leaving the iterator early aborts the request."""
        return follow(
            lambda rollout, tokens: self._chunks(rollout, tokens, stops, sampling),
            rollout,
            until,
            stops,
            max_tokens,
        )

    async def prepare(self) -> None:
        """Load the model, if need be."""
        await asyncio.to_thread(self._start)

    def forget(self, session: str) -> None:
        """vLLM's caches drop what was used longest ago."""

    def close(self, only: Any = None) -> None:
        """End the engine, and what runs on it; the next run would start another. With `only`, if it is still
        that one."""
        with self._lock:
            if only not in (None, self._engine):
                return
            loop, thread, engine = self._loop, self._thread, self._engine
            self._loop = self._thread = self._engine = None
        if loop is not None and thread is not None:

            async def end() -> None:
                with suppress(Exception):
                    engine.shutdown()
                # The engine's own tasks wait for a process that is gone.
                left = asyncio.all_tasks() - {asyncio.current_task()}
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

            asyncio.run_coroutine_threadsafe(end(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _prompt(self, rollout: Rollout) -> dict[str, Any]:
        """Ids with one image token for each frame, the pixels, and names for them."""
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

    async def _chunks(
        self, rollout: Rollout, tokens: int, stops: Sequence[str], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        prompt = await asyncio.to_thread(self._prompt, rollout)
        params = self._params(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            max_tokens=tokens,
            stop=list(stops),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            bad_words=list(FORBIDDEN),
        )
        engine, loop = await asyncio.to_thread(self._start)
        here = asyncio.get_running_loop()
        arrived: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue()

        def emit(item: Chunk | BaseException | None) -> None:
            if not here.is_closed():
                here.call_soon_threadsafe(arrived.put_nowait, item)

        async def ask() -> str | None:
            """Why the engine gave the request up before its first token; None where it did not."""
            decoded, given = 0, prompt
            # Ids and pictures as they are, vLLM takes no more one day.
            if (renderer := getattr(engine, "renderer", None)) is not None:
                (given,) = await renderer.render_cmpl_async([prompt])
            # Cancelled, the generator aborts its request in the engine.
            async for out in engine.generate(
                given, params, request_id=uuid.uuid4().hex, lora_request=self._adapter
            ):
                one = out.outputs[0]
                decoded += len(one.token_ids)
                if not ended_well(one.finish_reason):
                    if decoded:
                        raise RuntimeError(f"the engine gave the request up ({one.finish_reason})")
                    return str(one.finish_reason)
                at = one.stop_reason if isinstance(one.stop_reason, str) else None
                emit(
                    Chunk(
                        one.text,
                        one.finish_reason,
                        at,
                        len(out.prompt_token_ids or ()),
                        out.num_cached_tokens or 0,
                        decoded,
                    )
                )
            return None

        async def run() -> None:
            # A frame whose first run was cancelled may be missing in the engine, which asks for it again by
            # an error.
            if await ask() and (why := await ask()):
                raise RuntimeError(f"the engine gave the request up ({why})")

        def finish(work: Future[None]) -> None:
            # Of the future, not within `run`: a task that is cancelled before its first step runs none of its
            # lines.
            if work.cancelled():
                emit(ReasonerError(f"{self.name} was closed"))
            elif error := work.exception():
                emit(self._told(error, rollout))
            else:
                emit(None)

        work = self._submit(run, loop)
        work.add_done_callback(finish)
        try:
            while (item := await arrived.get()) is not None:
                if isinstance(item, BaseException):
                    if getattr(engine, "errored", False):  # its process is dead, and it will not come back
                        await asyncio.to_thread(self.close, engine)
                    raise item
                yield item
        finally:
            work.cancel()

    def _submit(
        self, run: Callable[[], Coroutine[Any, Any, None]], loop: asyncio.AbstractEventLoop
    ) -> Future[None]:
        """Schedule `run` on the engine's loop. Raises `ReasonerError` if the engine was closed since it was
        looked up.

        Under the lock, so that `close` finds every task that it must cancel: none is scheduled on a loop that
        is being stopped.
        """
        with self._lock:
            if loop is not self._loop:
                raise ReasonerError(f"{self.name} was closed")
            return asyncio.run_coroutine_threadsafe(run(), loop)

    def _told(self, e: BaseException, rollout: Rollout) -> ReasonerError:
        said = bare(next(iter(str(e).splitlines()), "") or type(e).__name__)
        return limit_error(said, self.name, len(rollout.frames)) or ReasonerError(
            f"{self.name} failed: {said[:200]}"
        )

    def _start(self) -> tuple[Any, asyncio.AbstractEventLoop]:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=loop.run_forever, name="act2see-vllm", daemon=True)
                thread.start()

                async def make() -> Any:
                    return self._make()

                try:
                    self._engine = asyncio.run_coroutine_threadsafe(make(), loop).result()
                except Exception as e:
                    loop.call_soon_threadsafe(loop.stop)
                    thread.join()
                    loop.close()
                    raise SetupError(
                        f"vLLM cannot start {self.name}: {(str(e) or repr(e)).splitlines()[0][:300]}"
                    ) from e
                self._loop, self._thread = loop, thread
            return self._engine, self._loop
