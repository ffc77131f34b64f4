"""A local checkpoint as an OpenAI-compatible server: `act2see serve openai`, for tests and for users without
vLLM.

`TransformersReasoner` writes; this is the protocol around it: models, chat completions (whole or streamed),
pictures in data URLs, stop strings, usage with the tokens that the cache served. Concurrent requests are
decoded together, in the reasoner's rows. Requests beyond those wait; beyond `waiting` they are refused with
429, after which clients try again. If a client hangs up, its row is free after the next token.

`serve/openai/rollout.py` turns a chat into a rollout, and an assistant's turn into one to be continued.

Clients need no key unless one is set. Requests must say that they are JSON, which a page in a browser cannot
do to another address without being allowed to, and must be for a host of the list in `serve/hosts.py`. Each
500 has an id, under which the log has its traceback.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from act2see.agent.grammar import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request as ReasonerRequest, Sampling
from act2see.agent.rollout import Rollout, TextPiece
from act2see.errors import Act2SeeError, ConfigError, ContextError
from act2see.graphs.config import ReasonerConfig
from act2see.graphs.parts import LazyReasoner, build_reasoner
from act2see.serve.failures import LogFailures, failure_message, log_failure
from act2see.serve.hosts import AllowedHosts
from act2see.serve.openai.rollout import ChatPrompt, RequestPictures, build_prompt
from act2see.serve.openai.wire import ChatRequest, ProtocolError, Reply, StopStrings, read_request
from act2see.tools.runtime.text import format_bytes

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response

T = TypeVar("T")
MAX_BODY = 128 << 20
"""Bytes of a request."""
PORT = 8000
_MAX_CHARACTERS = 16  # of a token, in any text that people write
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class End:
    """The end of an answer."""

    done: Done
    stopped_by: str | None
    """The stop string that ended it."""

    @property
    def finish(self) -> str:
        """OpenAI's reason for the end."""
        return "length" if self.stopped_by is None and self.done.stop == StopReason.LENGTH else "stop"


@dataclass(slots=True)
class Served:
    """A reasoner that is served under a name."""

    reasoner: Reasoner
    pictures: RequestPictures
    """Where the reasoner finds its frames."""
    name: str
    context: int | None = None
    """The most tokens that a chat and its answer may have together."""
    sampling: Sampling = field(default_factory=Sampling)
    """The sampling of requests that do not set their own."""
    key: str | None = None
    """The key that clients must send; None if they need none."""
    waiting: int = 256
    """The most requests that may be under way, those that wait included."""
    under_way: int = field(default=0, init=False)
    started: int = field(default_factory=lambda: int(time.time()), init=False)

    @classmethod
    def load(cls, config: ReasonerConfig, name: str, *, key: str | None = None, waiting: int = 256) -> Served:
        """Load the weights of a configuration.

        Args:
            config: The reasoner's configuration.
            name: The model's name, by which clients ask for it.
            key: The key that clients must send.
            waiting: The most requests that may be under way, those that wait included.

        Raises:
            WeightsError: The weights cannot be loaded.
            ConfigError: The weights are not local, or the name is not text that a client could send.
        """
        if not name.isprintable():
            raise ConfigError(f"clients cannot send the model name {name!r}: give it another with --name")
        pictures = RequestPictures()
        store: Any = pictures
        lazy = build_reasoner(config, store) if config.use == "transformers" else None
        if not isinstance(lazy, LazyReasoner):
            raise ConfigError(
                "only a local checkpoint can be served (reasoner.use: transformers), "
                f"and this one is {config.use!r}"
            )
        engine: Any = lazy.reasoner()
        sampling = Sampling(config.temperature, config.top_p)
        return cls(engine, pictures, name, engine.context, sampling, key, waiting)

    @property
    def model(self) -> dict[str, Any]:
        """The model's entry in OpenAI's list of models."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.started,
            "owned_by": "act2see",
            "max_model_len": self.context,
        }

    def _check_length(self, rollout: Rollout) -> None:
        """Raise `ProtocolError` for text that is far longer than the context.

        This happens before it is cut into tokens, for which other requests have to wait.
        """
        characters = sum(len(piece.text) for piece in rollout.pieces if isinstance(piece, TextPiece))
        if self.context and characters > self.context * _MAX_CHARACTERS:
            raise ProtocolError(
                400,
                f"the chat has {characters:,} characters, and this model's context is "
                f"{self.context:,} tokens: send less",
                "context_length_exceeded",
                "messages",
            )

    async def answer(self, chat: ChatRequest, given: ChatPrompt) -> AsyncGenerator[Delta | End]:
        """The text that the model writes, up to a stop string, then its end.

        Raises:
            ProtocolError: The chat is too long (400), or too many requests are under way (429).
        """
        self._check_length(given.rollout)
        if self.under_way >= self.waiting:
            raise ProtocolError(
                429, f"{self.under_way} requests are under way: try again in a second", "server_busy"
            )
        self.under_way += 1
        hears, says = StopStrings(chat.stops), StopStrings(chat.stops, bool(chat.include_stop_str_in_output))

        def until(piece: str) -> bool:
            hears.feed(piece)
            return hears.found is not None

        own = self.sampling
        sampling = Sampling(
            own.temperature if chat.temperature is None else chat.temperature,
            own.top_p if chat.top_p is None else chat.top_p,
            own.seed if chat.seed is None else chat.seed % 2**63,
        )
        limit = chat.max_completion_tokens or chat.max_tokens or self.context or 4096
        stream = self.reasoner.stream(ReasonerRequest(given.rollout, limit, until, chat.stops, sampling))
        try:
            async for item in stream:
                if isinstance(item, Delta):
                    if text := says.feed(item.text):
                        yield Delta(text)
                else:
                    if text := says.rest():
                        yield Delta(text)
                    yield End(item, says.found)
        finally:
            self.under_way -= 1
            del given  # the pictures go now, and not when the traceback of a cancelled request does
            await stream.aclose()


def build_app(served: Served, hosts: frozenset[str] = frozenset()) -> Starlette:
    """The server as an ASGI app.

    Args:
        served: The model.
        hosts: The result of `allowed_hosts`: the hosts that it answers to, beside its own addresses.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route

    async def failed(request: Request, error: Exception) -> JSONResponse:
        e = to_protocol_error(error, f"{request.method} {request.url.path}")
        headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(e.status)
        return JSONResponse(e.body, e.status, headers)

    async def models(request: Request) -> JSONResponse:
        _check_key(served, request)
        return JSONResponse({"object": "list", "data": [served.model]})

    async def model(request: Request) -> JSONResponse:
        _check_key(served, request)
        _check_model(served, request.path_params["name"])
        return JSONResponse(served.model)

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "under_way": served.under_way})

    async def completions(request: Request) -> Response:
        _check_key(served, request)
        body = await _body(request)
        chat = await asyncio.to_thread(read_request, body)
        _check_model(served, chat.model)
        given = await asyncio.to_thread(build_prompt, chat, served.pictures)
        items = served.answer(chat, given)
        if chat.stream:
            # An error before the first word is an HTTP error, not an event in the stream.
            first = await _unless_gone(request, anext(items))
            return StreamingResponse(
                _events(chat, first, items),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache"},
            )
        return JSONResponse(await _unless_gone(request, _whole(chat, items)))

    routes = [
        Route("/health", health),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/chat/completions", completions, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(AllowedHosts, hosts), Middleware(LogFailures)],
        exception_handlers={ProtocolError: failed, Act2SeeError: failed, HTTPException: failed},
    )


async def _whole(chat: ChatRequest, items: AsyncGenerator[Delta | End]) -> dict[str, Any]:
    text = ""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, End):
                return Reply(chat.model).whole(text, item.finish, item.stopped_by, item.done)
            text += item.text
    raise ProtocolError(500, "the model ended without an end")


async def _events(
    chat: ChatRequest, first: Delta | End, items: AsyncGenerator[Delta | End]
) -> AsyncIterator[bytes]:
    """Server-sent events: the text as it is decoded, why it ended, its tokens."""
    reply, begins = Reply(chat.model), True
    async with aclosing(items):
        try:
            item: Delta | End | None = first
            while item is not None:
                if isinstance(item, Delta):
                    yield _event(reply.chunk(item.text, first=begins))
                else:
                    yield _event(reply.chunk(None, item.finish, item.stopped_by, first=begins))
                    if chat.stream_options and chat.stream_options.include_usage:
                        yield _event(reply.usage_chunk(item.done))
                begins = False
                item = await anext(items, None)
        except Exception as e:  # the status has been sent: the error is an event
            yield _event(to_protocol_error(e, "a streamed answer").body)
            return  # without [DONE]: the answer is not whole
    yield _DONE


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client hangs up."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ProtocolError(499, "the client hung up")
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProtocolError(415, "the request must be application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            largest = format_bytes(MAX_BODY, binary=True)
            raise ProtocolError(413, f"the request is larger than {largest}: send fewer or smaller pictures")
    return bytes(body)


def _check_key(served: Served, request: Request) -> None:
    if not served.key:
        return
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    same = secrets.compare_digest(given.strip().encode(), served.key.encode())
    if kind.lower() != "bearer" or not same:
        raise ProtocolError(
            401, "this server asks for a key: send it as `Authorization: Bearer KEY`", "invalid_api_key"
        )


def _check_model(served: Served, name: str) -> None:
    if name != served.name:
        raise ProtocolError(
            404,
            f"there is no model {name!r} here; this server has {served.name!r}",
            "model_not_found",
            "model",
        )


def to_protocol_error(error: Exception, what: str) -> ProtocolError:
    """Turn any error into the protocol's. The server's own errors (500) are logged and get an id.

    Args:
        what: What failed, for the log.
    """
    from starlette.exceptions import HTTPException

    if isinstance(error, HTTPException):
        return ProtocolError(error.status_code, str(error.detail))
    if isinstance(error, ContextError):
        return ProtocolError(400, str(error), "context_length_exceeded", "messages")
    if isinstance(error, ProtocolError) and error.status != 500:
        return error
    id = log_failure(what, error)
    if isinstance(error, Act2SeeError | ProtocolError):
        return ProtocolError(500, f"{error} (error {id})")
    return ProtocolError(500, failure_message(id))


async def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until the process is told to stop."""
    await _server(app).serve(sockets=[listening])


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve from a thread, on a free port of this machine, until the block ends. Yields the base URL."""
    server = _server(app)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listening])), name="act2see-openai"
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def _server(app: Starlette) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", ws="none", lifespan="off", timeout_graceful_shutdown=5)
    )
