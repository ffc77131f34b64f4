"""A vLLM server as a reasoner: `vllm serve` with act2see's template and tokenizer (`act2see serve vllm`).

The rollout goes to `/v1/chat/completions` as one message. Its parts are texts and frames, which the template
only concatenates: they contain the turn marks, the open thought and the text written so far, and no
generation prompt is added. `/v1/completions` accepts no pictures, and a model's own template would close the
thought or drop its frames.

A frame is sent once, as PNG, which is lossless. After that only its digest is sent, until the server reports
that it has forgotten the frame. An adapter is a separate model name. A request that fails before its first
word is sent again if that may help; after the first word nothing is sent again. Each request opens its own
connection, so nothing is tied to one event loop. Leaving a stream early closes the connection, and vLLM then
aborts the request.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import httpx
from cachetools import LRUCache

from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.reasoners.connection import (
    BACKOFF,
    ServerConnection,
    ServerOptions,
    StatusError,
    is_slow,
    is_unreachable,
    read_options,
)
from act2see.agent.reasoners.faults import Backoff, vllm_limit_error
from act2see.agent.reasoners.follow import Chunk, follow, is_regular, read_chunk, require_tokens
from act2see.agent.reasoners.pieces import FORBIDDEN, escape_pieces
from act2see.agent.reasoners.vllm.preflight import preflight
from act2see.agent.reasoners.vllm.wire import chunk_of, has_forgotten, has_no_room, image_part
from act2see.agent.rollout import Rollout
from act2see.errors import ReasonerError, SetupError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.text import first_line
from act2see.tools.video.store import FrameSource, frame_png

log = logging.getLogger(__name__)
_MAX_MISSES = 3  # a server that forgets frames this many times in a row keeps none: all are sent each time
_SET_URL = "set reasoner.options.url to the address of a vLLM server, with /v1"


class VLLMOptions(ServerOptions):
    """The keys of `reasoner.options`."""

    url: str = "http://localhost:8000/v1"
    """The address of the server, with `/v1`."""
    exact: bool = True
    """Whether the server has act2see's tokenizer."""


@dataclass(slots=True)
class _Attempts:
    """The state of one request over all attempts to send it."""

    body: dict[str, Any]
    """The JSON of the request, without the message."""
    rollout: Rollout
    rng: random.Random
    use_names: bool
    """Whether frames that the server should have are sent by name."""
    has_named: bool = False
    """Whether the last message had a frame that was sent by name."""
    failed: int = 0
    """The number of failed attempts, except those after which the request was changed."""
    began: bool = False
    """Whether text has arrived."""


class VLLMHTTPReasoner(Reasoner):
    """Continues rollouts on a vLLM server."""

    def __init__(
        self,
        url: str,
        model: str,
        frames: FrameSource,
        *,
        adapter: str | None = None,
        key: str | None = None,
        exact: bool = True,
        needs: Needs | None = None,
        backoff: Backoff = BACKOFF,
        connect: float = 5.0,
        kept: int = 4096,
    ) -> None:
        """
        Args:
            url: The address of the server (`http://host:8000/v1`).
            model: The server's name of the model.
            frames: Returns the pixels of a frame.
            adapter: The name of a LoRA that the server has loaded.
            key: The server's key.
            exact: Whether pieces are tokenised separately (`pieces.py`), which needs act2see's tokenizer.
            needs: The most that a run may send. It is compared with the server's limits before the first run.
            backoff: The rules for sending a failed request again.
            connect: The seconds that connecting may take.
            kept: The number of frames that the server is assumed to keep.
        """
        self.url = url.rstrip("/")
        self.model = model
        self.exact = exact
        self.needs = needs
        self.name: str = adapter or model
        self.backoff = backoff
        self._connection = ServerConnection(self.url, key=key, silence=backoff.silence, connect=connect)
        self._frames = frames
        self._sent: LRUCache[str, bool] = LRUCache(kept)  # digests of the frames that the server has read
        self._lock = Lock()
        self._is_checked = False
        self._misses = 0

    @classmethod
    def from_options(
        cls,
        model: str,
        frames: FrameSource,
        options: Mapping[str, Any],
        *,
        adapter: str | None = None,
        needs: Needs | None = None,
    ) -> VLLMHTTPReasoner:
        """Return a reasoner for a config's `reasoner.options`.

        Args:
            model: The server's name of the model.
            frames: Returns the pixels of a frame.
            options: The options, by the keys of `VLLMOptions`.
            adapter: The name of a LoRA that the server has loaded.
            needs: The most that a run may send.

        Raises:
            ConfigError: An option is wrong, or the variable with the key is not set.
        """
        given = read_options(VLLMOptions, options)
        return cls(
            given.url,
            model,
            frames,
            adapter=adapter,
            key=given.key,
            exact=given.exact,
            needs=needs,
            backoff=replace(BACKOFF, silence=given.silence, requests=given.requests),
        )

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return follow(lambda rollout, tokens: self._chunks(request, rollout, tokens), request)

    async def check(self) -> None:
        """Check that the server's limits meet `needs`, until one check has succeeded."""
        if self.needs is not None and not self._is_checked:
            await preflight(self, self.needs)
            self._is_checked = True

    async def get(self, path: str) -> dict[str, Any]:
        """Return the JSON at `path`. Raises `ReasonerError`."""
        return await self._fetch("GET", path)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send JSON to `path` and return the JSON of the reply. Raises `ReasonerError`."""
        return await self._fetch("POST", path, body)

    async def _chunks(self, request: Request, rollout: Rollout, tokens: int) -> AsyncGenerator[Chunk]:
        """Yield the chunks of a request. It is sent again if it fails before its first word."""
        rng = random.Random(request.sampling.seed)
        attempts = _Attempts(self._make_body(request, tokens), rollout, rng, self._misses < _MAX_MISSES)
        while True:
            content = await self._make_content(rollout, attempts.use_names)
            attempts.has_named = any(part.get("image_url", 0) is None for part in content)
            body = {**attempts.body, "messages": [{"role": "user", "content": content}]}
            try:
                async with aclosing(require_tokens(self._send(body))) as chunks:
                    async for chunk in chunks:
                        # The first chunk has the role and no text.
                        if not attempts.began and (chunk.text or chunk.finish):
                            self._mark_as_read(attempts)
                        yield chunk
                    return
            except (StatusError, OSError, httpx.TransportError) as e:
                wait = await self._prepare_retry(e, attempts)
            await asyncio.sleep(wait)

    def _make_body(self, request: Request, tokens: int) -> dict[str, Any]:
        return {
            "model": self.name,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "top_k": request.sampling.top_k,
            "min_p": request.sampling.min_p,
            "repetition_penalty": request.sampling.repetition_penalty,
            "presence_penalty": request.sampling.presence_penalty,
            "seed": request.sampling.seed,
            "max_tokens": tokens,
            "stop": list(request.stops),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "bad_words": list(FORBIDDEN),
            "add_generation_prompt": False,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }

    async def _make_content(self, rollout: Rollout, use_names: bool) -> list[dict[str, Any]]:
        """Return the parts of the message. With `use_names`, frames that the server has are sent by name."""
        parts: list[dict[str, Any]] = []
        for part in escape_pieces(rollout.pieces, self.exact):
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
            elif use_names and part.digest in self._sent:
                parts.append({"type": "image_url", "image_url": None, "uuid": part.digest})
            else:
                parts.append(await asyncio.to_thread(self._make_image, part))
        return parts

    def _make_image(self, frame: FrameRef) -> dict[str, Any]:
        return image_part(frame_png(frame, self._frames), frame.digest)

    def _mark_as_read(self, attempts: _Attempts) -> None:
        """Record that the server has read the message, and so has its frames."""
        attempts.began = True
        with self._lock:
            for frame in attempts.rollout.frames:
                self._sent[frame.digest] = True
        if attempts.has_named:
            self._misses = 0

    async def _prepare_retry(self, error: Exception, attempts: _Attempts) -> float:
        """Change the request if necessary. Return the seconds until it is sent again.

        Raises:
            ReasonerError: The request is given up.
        """
        if attempts.began or is_slow(error):
            raise self._to_reasoner_error(error, attempts.began) from error
        if isinstance(error, StatusError) and self._change_request(error, attempts):
            return 0.0
        attempts.failed += 1
        wait = self.backoff.wait(error, attempts.failed, attempts.rng)
        if wait is None and isinstance(error, StatusError):
            raise await self._explain_refusal(error, len(attempts.rollout.frames)) from error
        if wait is None:
            raise self._to_reasoner_error(error, began=False) from error
        words = f"status {error.status}" if isinstance(error, StatusError) else first_line(error)
        log.warning("%s: %s; request %d in %.1f s", self.name, words, attempts.failed + 1, wait)
        return wait

    def _change_request(self, error: StatusError, attempts: _Attempts) -> bool:
        """Change a request so that the server accepts it. Return False if that is not possible."""
        if attempts.has_named and has_forgotten(error):
            log.info("%s has forgotten a frame: all are sent again", self.name)
            with self._lock:
                self._sent.clear()
            self._misses += 1
            attempts.use_names = False
            return True
        if has_no_room(error) and "max_tokens" in attempts.body:
            # Some versions of vLLM refuse a limit above the free room. `follow` ends the text in time.
            del attempts.body["max_tokens"]
            return True
        return False

    async def _send(self, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        """Send the request once, and yield its server-sent events as chunks."""
        finished = False
        async with aclosing(self._connection.events("/chat/completions", body)) as events:
            async for data in events:
                chunk = read_chunk(chunk_of, data)
                if not is_regular(chunk.finish):
                    raise ConnectionError(f"the server aborted the request ({chunk.finish})")
                finished |= chunk.finish is not None
                yield chunk
        if not finished:
            raise ConnectionError("the stream ended without a finish reason")

    async def _fetch(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            data: dict[str, Any] = await self._connection.json(method, path, body)
            return data
        except StatusError as e:
            raise await self._explain_refusal(e, frames=0, ask=path != "/models") from e
        except ValueError as e:
            raise SetupError(f"{self.url} does not answer in JSON: {_SET_URL}") from e
        except (OSError, httpx.TransportError) as e:
            raise self._to_reasoner_error(e, began=False) from e

    async def _explain_refusal(self, e: StatusError, frames: int, ask: bool = True) -> ReasonerError:
        """Return the error for a request that the server refused.

        Args:
            e: The server's refusal.
            frames: The number of frames in the request.
            ask: Whether to ask the server for its models if it does not have this one.
        """
        if limit := vllm_limit_error(e.message, self.name, frames):
            return limit
        if e.status in (401, 403):
            return SetupError(
                f"{self.url}: status {e.status}: check the key (reasoner.options.key_env names its variable)"
            )
        if e.status != 404:
            return ReasonerError(f"{self.name} failed: status {e.status}, {e.message[:200]}")
        models = await self._list_models() if ask else []
        if models and self.name not in models:
            key = "reasoner.adapter" if self.name != self.model else "reasoner.weights"
            return SetupError(
                f"{self.url} does not serve {self.name}, it has {', '.join(models)}: set {key} to one of "
                "these, or serve it with `act2see serve vllm`"
            )
        return SetupError(f"{self.url} answers 404: {_SET_URL}")

    async def _list_models(self) -> list[str]:
        """Return the names of the server's models; empty if it does not answer."""
        try:
            cards = (await self.get("/models")).get("data", [])
        except ReasonerError:
            return []
        return [str(card.get("id")) for card in cards]

    def _to_reasoner_error(self, e: Exception, began: bool) -> ReasonerError:
        """Return the error for a connection that failed, or a stream that broke off."""
        line = first_line(e)
        if is_unreachable(e):
            return SetupError(
                f"no server answers at {self.url} ({line[:120]}): start it with `act2see serve vllm`, or set "
                "reasoner.options.url"
            )
        if is_slow(e):
            return ReasonerError(
                f"{self.name} sent nothing for {self.backoff.silence:g} s: check whether {self.url} is "
                "overloaded or hangs"
            )
        return ReasonerError(f"{self.name} {'broke off' if began else 'failed'}: {line}")
