"""A vLLM server as a reasoner: `vllm serve`, started with our template and tokenizer (`act2see serve vllm`).

The rollout goes to `/v1/chat/completions` as one message whose parts, texts and frames in turn, our template
only concatenates: turn marks, the open thought and what has been written are all in it, and no generation
prompt is added. `/v1/completions` would take no pictures, and a model's own template would close the thought
or drop its frames.

A frame is sent once, as PNG, which loses nothing; after that its digest alone is, until the server says that
it has forgotten. An adapter is a model name of its own. Requests that fail before the first word are sent
again while there is hope; after it nothing is. Each request has a connection of its own, so nothing is tied
to one event loop; leaving a stream early closes it, and vLLM then aborts the request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from act2see.agent.reasoners.base import Delta, Done, Sampling
from act2see.agent.reasoners.chat.reasoner import Backoff
from act2see.agent.reasoners.faults import retry_after
from act2see.agent.reasoners.pieces import FORBIDDEN, spelled_parts
from act2see.agent.reasoners.vllm.engine import Chunk, ended_well, follow
from act2see.agent.reasoners.vllm.wire import (
    StatusError,
    check,
    chunk_of,
    has_forgotten,
    has_no_room,
    image_part,
    in_stream,
    is_local,
    is_slow,
    lost,
)
from act2see.agent.reasoners.vllm_faults import limit_error
from act2see.agent.rollout import Rollout
from act2see.errors import ConfigError, ReasonerError, SetupError
from act2see.tools.frames import FrameRef
from act2see.tools.video.store import FrameSource, frame_png

if TYPE_CHECKING:
    import httpx

    from act2see.agent.reasoners.preflight import Needs

log = logging.getLogger(__name__)
_MISSES = 3  # a server that has forgotten so often in a row keeps no frames: all are sent each time
BACKOFF = Backoff(requests=4, first=0.5, longest=30.0, silence=300.0)


class ServerOptions(BaseModel):
    """What `reasoner.options` may hold: where the server is, the variable that holds its key, whether it has
    our tokenizer, how many seconds it may be silent, and how often a request is sent at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "http://localhost:8000/v1"
    key_env: str | None = None
    exact: bool = True
    silence: Annotated[float, Field(gt=0)] = BACKOFF.silence
    requests: Annotated[int, Field(ge=1)] = BACKOFF.requests


class VLLMHTTPReasoner:
    """Continues rollouts on a vLLM server at `url` (`http://host:8000/v1`).

    `model` is the name the server gives it, `adapter` that of a LoRA which the server has loaded. With
    `exact` pieces are kept apart (`pieces.py`), for which the server needs our tokenizer. With `needs`, the
    server is asked for its limits before the first run.
    """

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
        patience: Backoff = BACKOFF,
        connect: float = 5.0,
        kept: int = 4096,
    ) -> None:
        self.url, self.model, self.exact, self.needs = url.rstrip("/"), model, exact, needs
        self.name: str = adapter or model
        self.patience, self.connect, self.kept = patience, connect, kept
        self._frames, self._key = frames, key
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._asked = False
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
        """From a config's `reasoner.options`. Raises `ConfigError`, which names the key."""
        try:
            given = ServerOptions.model_validate(dict(options))
        except ValidationError as e:
            first = e.errors()[0]
            wrong, known = ".".join(map(str, first["loc"])), ", ".join(ServerOptions.model_fields)
            raise ConfigError(f"reasoner.options.{wrong}: {first['msg']}; known keys: {known}") from e
        if given.key_env and given.key_env not in os.environ:
            raise ConfigError(
                f"the variable {given.key_env}, which reasoner.options.key_env names, is not set"
            )
        key = os.environ[given.key_env] if given.key_env else None
        patience = replace(BACKOFF, silence=given.silence, requests=given.requests)
        return cls(
            given.url,
            model,
            frames,
            adapter=adapter,
            key=key,
            exact=given.exact,
            needs=needs,
            patience=patience,
        )

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
        """Before a run, once: ask the server for its limits. Raises `SetupError`, which says what to
        change."""
        if self.needs is not None and not self._asked:
            from act2see.agent.reasoners.preflight import preflight

            await preflight(self, self.needs)
            self._asked = True

    def forget(self, session: str) -> None:
        """The server's caches drop what was used longest ago."""

    async def get(self, path: str) -> dict[str, Any]:
        """JSON from the server. Raises `ReasonerError`."""
        return await self._json("GET", path)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """JSON from the server for JSON. Raises `ReasonerError`."""
        return await self._json("POST", path, body)

    async def content(self, rollout: Rollout, known: bool) -> list[dict[str, Any]]:
        """The message's parts. With `known`, frames that the server has had are named and not sent."""
        return [
            {"type": "text", "text": part} if isinstance(part, str) else await self._image(part, known)
            for part in spelled_parts(rollout.pieces, self.exact)
        ]

    async def _image(self, frame: FrameRef, known: bool) -> dict[str, Any]:
        if known and frame.digest in self._sent:
            return {"type": "image_url", "image_url": None, "uuid": frame.digest}
        return image_part(await asyncio.to_thread(frame_png, frame, self._frames), frame.digest)

    async def _chunks(
        self, rollout: Rollout, tokens: int, stops: Sequence[str], sampling: Sampling
    ) -> AsyncGenerator[Chunk]:
        """One request's stream, sent again where it fails before its first word and there is hope."""
        body: dict[str, Any] = {
            "model": self.name,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "max_tokens": tokens,
            "stop": list(stops),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "bad_words": list(FORBIDDEN),
            "add_generation_prompt": False,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        rng, known, request = random.Random(sampling.seed), self._misses < _MISSES, 0
        frames = {f.digest for f in rollout.frames}
        while True:
            content = await self.content(rollout, known)
            named = any(part.get("image_url", 0) is None for part in content)
            stream = self._events({**body, "messages": [{"role": "user", "content": content}]})
            began = False
            try:
                async for chunk in stream:
                    # The first chunk names the role and says nothing.
                    if not began and (chunk.text or chunk.finish):
                        self._remember(frames)
                        self._misses = 0 if named else self._misses
                        began = True
                    yield chunk
                return
            except StatusError as e:
                if began:
                    raise self._broken(e, began) from e
                if named and has_forgotten(e):
                    self._sent.clear()
                    self._misses += 1
                    known = False
                    log.info("%s has forgotten a frame: all are sent again", self.name)
                    continue
                if e.status == 400 and "max_tokens" in body and has_no_room(e.said):
                    # Some versions cut the number of tokens to the room there is, others refuse: `follow`
                    # keeps to the number.
                    del body["max_tokens"]
                    continue
                wait = self._wait(e, request, rng)
                if wait is None:
                    raise await self._refused(e, len(rollout.frames)) from e
                said = f"status {e.status}"
            except (OSError, TimeoutError, lost()) as e:
                wait = None if began or is_slow(e) else self._wait(e, request, rng)
                if wait is None:
                    raise self._broken(e, began) from e
                said = str(e) or type(e).__name__
            finally:
                await stream.aclose()
            request += 1
            log.warning("%s: %s; request %d in %.1f s", self.name, said, request + 1, wait)
            await asyncio.sleep(wait)

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[Chunk]:
        """The server-sent events of one request, as chunks."""
        finished = False
        async with (
            self._client() as client,
            client.stream("POST", f"{self.url}/chat/completions", json=body) as response,
        ):
            await check(response)
            lines = response.aiter_lines()
            while True:
                try:
                    async with asyncio.timeout(self.patience.silence):
                        line = await anext(lines, None)
                except TimeoutError:
                    raise TimeoutError(f"said nothing for {self.patience.silence:g} s") from None
                if line is None or line.strip() == "data: [DONE]":
                    break
                if not line.startswith("data:"):
                    continue
                try:
                    data = json.loads(line[5:])
                except ValueError as e:
                    raise ConnectionError("sent a line that is not JSON") from e
                if error := data.get("error"):
                    raise in_stream(response, error)
                chunk = chunk_of(data)
                if not ended_well(chunk.finish):
                    raise ConnectionError(f"the server gave the request up ({chunk.finish})")
                finished |= chunk.finish is not None
                yield chunk
        if not finished:
            raise ConnectionError("the stream ended in the middle")

    def _client(self) -> httpx.AsyncClient:
        import httpx

        # Made once: loading the certificates takes longer than a request.
        self._ssl = self._ssl or ssl.create_default_context()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Timeout(self.patience.silence, connect=self.connect)
        return httpx.AsyncClient(
            headers=headers, timeout=limits, verify=self._ssl, trust_env=not is_local(self.url)
        )

    async def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with self._client() as client:
                response = await client.request(method, f"{self.url}{path}", json=body)
                await check(response)
                data: dict[str, Any] = response.json()
                return data
        except StatusError as e:
            raise await self._refused(e, 0, ask=path != "/models") from e
        except ValueError as e:
            raise SetupError(
                f"{self.url} does not answer in JSON: reasoner.options.url must be that of a vLLM server, with /v1"
            ) from e
        except (OSError, TimeoutError, lost()) as e:
            raise self._broken(e, began=False) from e

    def _remember(self, frames: set[str]) -> None:
        for digest in frames:
            self._sent[digest] = None
            self._sent.move_to_end(digest)
        while len(self._sent) > self.kept:
            self._sent.popitem(last=False)

    def _wait(self, error: Exception, request: int, rng: random.Random) -> float | None:
        """Seconds until the next request, None where none would help."""
        if request + 1 >= self.patience.requests:
            return None
        if isinstance(error, StatusError):
            if error.status not in (408, 425, 429) and error.status < 500:
                return None
            if (asked := retry_after(error)) is not None:
                return asked if asked <= self.patience.longest else None
        return min(self.patience.longest, self.patience.first * 2.0**request) * rng.uniform(0.75, 1.25)

    async def _refused(self, e: StatusError, frames: int, ask: bool = True) -> ReasonerError:
        if known := limit_error(e.said, self.name, frames):
            return known
        if e.status in (401, 403):
            return SetupError(
                f"{self.url}: status {e.status}: check the key (reasoner.options.key_env names its variable)"
            )
        if e.status == 404:
            try:
                has = (
                    ", ".join(str(m.get("id")) for m in (await self.get("/models")).get("data", []))
                    if ask
                    else ""
                )
            except ReasonerError:
                has = ""
            if self.name not in has.split(", ") and has:
                what = "reasoner.adapter" if self.name != self.model else "reasoner.weights"
                return SetupError(
                    f"{self.url} does not serve {self.name}, it has {has}: set {what} to one, or serve it with `act2see serve vllm`"
                )
            return SetupError(
                f"{self.url} answers 404: reasoner.options.url must be that of a vLLM server, with /v1"
            )
        return ReasonerError(f"{self.name} failed: status {e.status}, {e.said[:200]}")

    def _broken(self, e: Exception, began: bool) -> ReasonerError:
        import httpx

        said = next(iter(str(e).splitlines()), "") or type(e).__name__
        if isinstance(e, httpx.ConnectError | httpx.ConnectTimeout | httpx.UnsupportedProtocol):
            return SetupError(
                f"no server answers at {self.url} ({said[:120]}): start it with `act2see serve vllm`, or set reasoner.options.url"
            )
        if is_slow(e):
            return ReasonerError(
                f"{self.name} said nothing for {self.patience.silence:g} s: is {self.url} overloaded, or has it hung?"
            )
        return ReasonerError(f"{self.name} {'broke off' if began else 'failed'}: {said[:200]}")
