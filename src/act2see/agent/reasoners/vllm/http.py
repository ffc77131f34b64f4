"""A vLLM server as a reasoner: `vllm serve`, started with our template and tokenizer (`act2see serve vllm`).

The rollout goes to `/v1/chat/completions` as one message. Its parts are texts and frames in turn, which our
template only concatenates: turn marks, the open thought and the text written so far are all in it, and no
generation prompt is added. `/v1/completions` would take no pictures, and a model's own template would close
the thought or drop its frames.

A frame is sent once, as PNG, which is lossless. After that only its digest is sent, until the server says
that it has forgotten the frame. An adapter is a model name of its own. A request that fails before its first
word is sent again if that may help; after the first word nothing is sent again. Each request has a connection
of its own, so nothing is tied to one event loop. Leaving a stream early closes the connection, and vLLM then
aborts the request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Any

import httpx
from cachetools import LRUCache
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from act2see.agent.reasoners.base import Delta, Done, Needs, Reasoner, Request
from act2see.agent.reasoners.faults import Backoff, vllm_limit_error
from act2see.agent.reasoners.pieces import FORBIDDEN, escape_pieces
from act2see.agent.reasoners.vllm.follow import Chunk, follow, is_regular
from act2see.agent.reasoners.vllm.preflight import preflight
from act2see.agent.reasoners.vllm.wire import (
    StatusError,
    check_status,
    chunk_of,
    image_part,
    is_local,
    is_slow,
    stream_error,
)
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError, ReasonerError, SetupError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.forks import Lock
from act2see.tools.runtime.text import first_line, first_problem
from act2see.tools.video.store import FrameSource, frame_png

log = logging.getLogger(__name__)
_MISSES = 3  # a server that has forgotten frames so often in a row keeps none: all are sent each time
BACKOFF = Backoff(requests=4, first=0.5, longest=30.0, accepted=30.0, silence=300.0)


class ServerOptions(BaseModel):
    """The keys of `reasoner.options`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "http://localhost:8000/v1"
    """Where the server is, with `/v1`."""
    key_env: str | None = None
    """The environment variable that holds the server's key."""
    exact: bool = True
    """Whether the server has our tokenizer."""
    silence: Annotated[float, Field(gt=0)] = BACKOFF.silence
    """How many seconds the server may say nothing."""
    requests: Annotated[int, Field(ge=1)] = BACKOFF.requests
    """How often a request is sent at most."""


@dataclass(slots=True)
class _Sending:
    """One request that is sent until it is answered, or will not be."""

    body: dict[str, Any]
    """Without the message."""
    rollout: Rollout
    rng: random.Random
    known: bool
    """Whether frames that the server has had are sent by name alone."""
    named: bool = False
    """Whether a frame of the last message was."""
    sent: int = 0
    """How often it has been sent in vain, those times aside at which its message had to be changed."""
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
            url: Where the server is (`http://host:8000/v1`).
            model: The name that the server gives the model.
            frames: Gives the pixels of a frame.
            adapter: The name of a LoRA that the server has loaded.
            key: The server's key.
            exact: Whether pieces are kept apart (`pieces.py`), for which the server needs our tokenizer.
            needs: What a run may send; the server is asked for its limits before the first one.
            backoff: When to send a request again.
            connect: How many seconds connecting may take.
            kept: How many frames the server is taken to remember.
        """
        self.url, self.model, self.exact, self.needs = url.rstrip("/"), model, exact, needs
        self.name: str = adapter or model
        self.backoff, self.connect = backoff, connect
        self._frames, self._key = frames, key
        self._sent: LRUCache[str, bool] = LRUCache(kept)  # digests of the frames that the server has had
        self._lock = Lock()
        self._is_checked = False
        self._misses = 0
        self._ssl: ssl.SSLContext | None = None

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
        """From a config's `reasoner.options`; the other arguments are those of the constructor.

        Raises:
            ConfigError: An option is wrong, or the variable with the key is not set.
        """
        try:
            given = ServerOptions.model_validate(dict(options))
        except ValidationError as e:
            (wrong, problem), known = first_problem(e), ", ".join(ServerOptions.model_fields)
            raise ConfigError(f"reasoner.options.{wrong}: {problem}; known keys: {known}") from e
        if given.key_env and given.key_env not in os.environ:
            raise ConfigError(
                f"the variable {given.key_env}, which reasoner.options.key_env names, is not set"
            )
        return cls(
            given.url,
            model,
            frames,
            adapter=adapter,
            key=os.environ[given.key_env] if given.key_env else None,
            exact=given.exact,
            needs=needs,
            backoff=replace(BACKOFF, silence=given.silence, requests=given.requests),
        )

    def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        return follow(lambda rollout, tokens: self._chunks(request, rollout, tokens), request)

    async def check(self) -> None:
        """Ask the server for its limits, until it has met `needs` once."""
        if self.needs is not None and not self._is_checked:
            await preflight(self, self.needs)
            self._is_checked = True

    async def get(self, path: str) -> dict[str, Any]:
        """JSON from the server. Raises `ReasonerError`."""
        return await self._json("GET", path)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON from the server for JSON. Raises `ReasonerError`."""
        return await self._json("POST", path, body)

    async def _chunks(self, request: Request, rollout: Rollout, tokens: int) -> AsyncGenerator[Chunk]:
        """Stream one request, sent again if it fails before its first word and that may help."""
        sending = _Sending(
            self._body(request, tokens), rollout, random.Random(request.sampling.seed), self._misses < _MISSES
        )
        while True:
            content = await self._content(rollout, sending.known)
            sending.named = any(part.get("image_url", 0) is None for part in content)
            body = {**sending.body, "messages": [{"role": "user", "content": content}]}
            try:
                async with aclosing(self._events(body)) as chunks:
                    async for chunk in chunks:
                        # The first chunk names the role and holds no text.
                        if not sending.began and (chunk.text or chunk.finish):
                            self._begin(sending)
                        yield chunk
                    return
            except (StatusError, OSError, httpx.TransportError) as e:
                pause = await self._pause(e, sending)
            await asyncio.sleep(pause)

    def _body(self, request: Request, tokens: int) -> dict[str, Any]:
        return {
            "model": self.name,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
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

    async def _content(self, rollout: Rollout, known: bool) -> list[dict[str, Any]]:
        """The parts of the message. With `known`, frames that the server has had are sent by name alone."""
        parts: list[dict[str, Any]] = []
        for part in escape_pieces(rollout.pieces, self.exact):
            if isinstance(part, str):
                parts.append({"type": "text", "text": part})
            elif known and part.digest in self._sent:
                parts.append({"type": "image_url", "image_url": None, "uuid": part.digest})
            else:
                parts.append(await asyncio.to_thread(self._image, part))
        return parts

    def _image(self, frame: FrameRef) -> dict[str, Any]:
        return image_part(frame_png(frame, self._frames), frame.digest)

    def _begin(self, sending: _Sending) -> None:
        """The server has read the message, so it has the frames."""
        sending.began = True
        with self._lock:
            for frame in sending.rollout.frames:
                self._sent[frame.digest] = True
        if sending.named:
            self._misses = 0

    async def _pause(self, error: Exception, sending: _Sending) -> float:
        """Seconds until the request, changed if need be, is sent again.

        Raises:
            ReasonerError: It will not be.
        """
        if sending.began or is_slow(error):
            raise self._broken(error, sending.began) from error
        if isinstance(error, StatusError):
            if sending.named and error.has_forgotten:
                log.info("%s has forgotten a frame: all are sent again", self.name)
                with self._lock:
                    self._sent.clear()
                self._misses += 1
                sending.known = False
                return 0.0
            if error.has_no_room and "max_tokens" in sending.body:
                # Some versions cut the number of tokens to the room there is, others refuse it. `follow` ends
                # the text at the right token.
                del sending.body["max_tokens"]
                return 0.0
        sending.sent += 1
        wait = self.backoff.wait(error, sending.sent, sending.rng)
        if wait is None and isinstance(error, StatusError):
            raise await self._refused(error, len(sending.rollout.frames)) from error
        if wait is None:
            raise self._broken(error, began=False) from error
        words = f"status {error.status}" if isinstance(error, StatusError) else first_line(error)
        log.warning("%s: %s; request %d in %.1f s", self.name, words, sending.sent + 1, wait)
        return wait

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        """The server-sent events of one request, as chunks."""
        finished = False
        async with (
            self._client() as client,
            client.stream("POST", f"{self.url}/chat/completions", json=body) as response,
        ):
            await check_status(response)
            async for data in self._data(response):
                if error := data.get("error"):
                    raise stream_error(response, error)
                chunk = chunk_of(data)
                if not is_regular(chunk.finish):
                    raise ConnectionError(f"the server gave the request up ({chunk.finish})")
                finished |= chunk.finish is not None
                yield chunk
        if not finished:
            raise ConnectionError("the stream ended in the middle")

    async def _data(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
        """The data of the events, up to the last one."""
        lines = response.aiter_lines()
        while True:
            try:
                async with asyncio.timeout(self.backoff.silence):
                    line = await anext(lines, None)
            except TimeoutError:
                raise TimeoutError(f"said nothing for {self.backoff.silence:g} s") from None
            if line is None or line.strip() == "data: [DONE]":
                return
            if line.startswith("data:"):
                try:
                    yield json.loads(line[5:])
                except ValueError as e:
                    raise ConnectionError("sent a line that is not JSON") from e

    def _client(self) -> httpx.AsyncClient:
        # Made once: loading the certificates takes longer than a request.
        self._ssl = self._ssl or ssl.create_default_context()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Timeout(self.backoff.silence, connect=self.connect)
        return httpx.AsyncClient(
            headers=headers, timeout=limits, verify=self._ssl, trust_env=not is_local(self.url)
        )

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with self._client() as client:
                response = await client.request(method, f"{self.url}{path}", json=body)
                await check_status(response)
                data: dict[str, Any] = response.json()
                return data
        except StatusError as e:
            raise await self._refused(e, 0, ask=path != "/models") from e
        except ValueError as e:
            raise SetupError(
                f"{self.url} does not answer in JSON: reasoner.options.url must be that of a vLLM server, "
                "with /v1"
            ) from e
        except (OSError, httpx.TransportError) as e:
            raise self._broken(e, began=False) from e

    async def _refused(self, e: StatusError, frames: int, ask: bool = True) -> ReasonerError:
        """The error for a refusal of the server.

        Args:
            e: The refusal.
            frames: How many frames the request had.
            ask: Whether to ask the server for its models if it does not find this one.
        """
        if limit := vllm_limit_error(e.message, self.name, frames):
            return limit
        if e.status in (401, 403):
            return SetupError(
                f"{self.url}: status {e.status}: check the key (reasoner.options.key_env names its variable)"
            )
        if e.status != 404:
            return ReasonerError(f"{self.name} failed: status {e.status}, {e.message[:200]}")
        models = await self._models() if ask else []
        if models and self.name not in models:
            key = "reasoner.adapter" if self.name != self.model else "reasoner.weights"
            return SetupError(
                f"{self.url} does not serve {self.name}, it has {', '.join(models)}: set {key} to one, or "
                "serve it with `act2see serve vllm`"
            )
        return SetupError(
            f"{self.url} answers 404: reasoner.options.url must be that of a vLLM server, with /v1"
        )

    async def _models(self) -> list[str]:
        """The names that the server gives its models; empty if it cannot be asked."""
        try:
            return [str(card.get("id")) for card in (await self.get("/models")).get("data", [])]
        except ReasonerError:
            return []

    def _broken(self, e: Exception, began: bool) -> ReasonerError:
        """The error for a connection that failed, or a stream that broke off."""
        line = first_line(e)
        if isinstance(e, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            return SetupError(
                f"no server answers at {self.url} ({line[:120]}): start it with `act2see serve vllm`, or set "
                "reasoner.options.url"
            )
        if is_slow(e):
            return ReasonerError(
                f"{self.name} said nothing for {self.backoff.silence:g} s: is {self.url} overloaded, or has "
                "it hung?"
            )
        return ReasonerError(f"{self.name} {'broke off' if began else 'failed'}: {line}")
