"""The OpenAI-compatible server of `act2see serve openai`, for tests and for users without vLLM.

It offers the list of models and chat completions, whole or streamed, and its OpenAPI schema. `rollout.py`
converts chats into rollouts, `model.py` generates the answers. If a client disconnects, its answer is
cancelled.

Clients need a key only if one is set. The content type must be JSON, because a web page may not send JSON to
another origin without permission, and the host must be allowed by `serve/hosts.py`. Each 500 has an id, and
its traceback is logged under that id.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from act2see.agent.reasoners.base import Delta
from act2see.errors import Act2SeeError, ContextError
from act2see.serve.failures import LogFailures, failure_message, log_failure
from act2see.serve.heads import HEAD_SECONDS, bounded_http
from act2see.serve.hosts import AllowedHosts
from act2see.serve.openai.intake import Intake
from act2see.serve.openai.model import End, ServedModel
from act2see.serve.openai.rollout import ChatPrompt, build_prompt
from act2see.serve.openai.schema import openapi_schema
from act2see.serve.openai.wire import ChatRequest, ProtocolError, Reply, read_request

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

T = TypeVar("T")
STOP_SECONDS = 5
"""The time that requests have to end when the server stops."""
_DONE = b"data: [DONE]\n\n"


def build_app(
    served: ServedModel, hosts: frozenset[str] = frozenset(), intake: Intake | None = None
) -> Starlette:
    """Return the server as an ASGI app.

    Args:
        served: The model.
        hosts: The result of `allowed_hosts`. The server's own addresses are always allowed.
        intake: The limits on requests.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    endpoints = _Endpoints(served, intake or Intake())
    routes = [
        Route("/health", endpoints.health),
        Route("/openapi.json", endpoints.show_schema),
        Route("/v1/models", endpoints.list_models),
        Route("/v1/models/{name:path}", endpoints.show_model),
        Route("/v1/chat/completions", endpoints.complete_chat, methods=["POST"]),
    ]
    errors = (ProtocolError, Act2SeeError, HTTPException)
    return Starlette(
        routes=routes,
        middleware=[Middleware(AllowedHosts, hosts), Middleware(LogFailures)],
        exception_handlers={error: _error_response for error in errors},
    )


@dataclass(frozen=True, slots=True)
class _Endpoints:
    """The handlers of the server's routes."""

    served: ServedModel
    intake: Intake

    async def health(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok", "under_way": self.served.under_way})

    async def show_schema(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(openapi_schema(self.served.name))

    async def list_models(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        _check_key(self.served, request)
        return JSONResponse({"object": "list", "data": [self.served.card]})

    async def show_model(self, request: Request) -> Response:
        from starlette.responses import JSONResponse

        _check_key(self.served, request)
        _check_model(self.served, request.path_params["name"])
        return JSONResponse(self.served.card)

    async def complete_chat(self, request: Request) -> Response:
        from starlette.responses import JSONResponse, StreamingResponse

        _check_key(self.served, request)
        self.served.check_room()
        chat, prompt = await self._take_in(request)
        items = self.served.answer(chat, prompt)
        if chat.stream:
            # Wait for the first item: an error before it is an HTTP error, not an event in the stream.
            first = await _run_while_connected(request, anext(items))
            return StreamingResponse(
                _stream_events(chat, first, items),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache"},
            )
        return JSONResponse(await _run_while_connected(request, _whole_answer(chat, items)))

    async def _take_in(self, request: Request) -> tuple[ChatRequest, ChatPrompt]:
        """Return a request without its messages, and their prompt. The body is freed before the answer."""
        async with self.intake.body(request) as body:
            place = self.intake.place(body)
            await _run_while_connected(request, place.acquire())
            try:
                self.served.check_room()
                return await asyncio.to_thread(self._read, body)
            finally:
                place.release()

    def _read(self, body: bytes) -> tuple[ChatRequest, ChatPrompt]:
        chat = read_request(body)
        _check_model(self.served, chat.model)
        self.served.check_length(chat)
        prompt = build_prompt(chat, self.served.pictures)
        return chat.model_copy(update={"messages": []}), prompt


async def _error_response(request: Request, error: Exception) -> Response:
    from starlette.responses import JSONResponse

    e = to_protocol_error(error, f"{request.method} {request.url.path}")
    # The rest of a slow or large body is not read, so the connection cannot be used again.
    headers = {
        401: {"www-authenticate": "Bearer"},
        408: {"connection": "close"},
        413: {"connection": "close"},
        429: {"retry-after": "1"},
    }.get(e.status)
    return JSONResponse(e.body, e.status, headers)


async def _whole_answer(chat: ChatRequest, items: AsyncGenerator[Delta | End]) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    text = ""
    async with aclosing(items):
        async for item in items:
            if isinstance(item, End):
                return Reply(chat.model).whole(text, item.finish, item.stopped_by, item.done)
            text += item.text
    raise ProtocolError(500, "the model's answer has no end")


async def _stream_events(
    chat: ChatRequest, first: Delta | End, items: AsyncGenerator[Delta | End]
) -> AsyncIterator[bytes]:
    """Yield server-sent events: the text as it is decoded, the reason for its end, the token counts."""
    reply = Reply(chat.model)
    is_first = True
    async with aclosing(items):
        try:
            item: Delta | End | None = first
            while item is not None:
                if isinstance(item, Delta):
                    yield _event(reply.chunk(item.text, first=is_first))
                else:
                    yield _event(reply.chunk(None, item.finish, item.stopped_by, first=is_first))
                    if chat.stream_options and chat.stream_options.include_usage:
                        yield _event(reply.usage_chunk(item.done))
                is_first = False
                item = await anext(items, None)
        except Exception as e:  # the status was sent, so the error can only be an event
            yield _event(to_protocol_error(e, "a streamed answer").body)
            return  # no [DONE], because the answer is incomplete
    yield _DONE


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def _run_while_connected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`. Cancel it if the client disconnects."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ProtocolError(499, "the client disconnected")
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def _check_key(served: ServedModel, request: Request) -> None:
    if not served.key:
        return
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    is_right = secrets.compare_digest(key.strip().encode(), served.key.encode())
    if kind.lower() != "bearer" or not is_right:
        raise ProtocolError(
            401, "this server needs a key: send it as `Authorization: Bearer KEY`", "invalid_api_key"
        )


def _check_model(served: ServedModel, name: str) -> None:
    if name != served.name:
        raise ProtocolError(
            404, f"unknown model {name!r}; this server offers {served.name!r}", "model_not_found", "model"
        )


def to_protocol_error(error: Exception, operation: str) -> ProtocolError:
    """Convert any error into a `ProtocolError`. Errors of the server itself (500) are logged and get an id.

    Args:
        error: The error.
        operation: The operation that failed, for the log.
    """
    from starlette.exceptions import HTTPException

    if isinstance(error, HTTPException):
        return ProtocolError(error.status_code, str(error.detail))
    if isinstance(error, ContextError):
        return ProtocolError(400, str(error), "context_length_exceeded", "messages")
    if isinstance(error, ProtocolError) and error.status != 500:
        return error
    id = log_failure(operation, error)
    if isinstance(error, Act2SeeError | ProtocolError):
        return ProtocolError(500, f"{error} (error {id})")
    return ProtocolError(500, failure_message(id))


async def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve until the process receives a stop signal."""
    await _server(app).serve(sockets=[listening])


@contextmanager
def serving(
    app: Starlette, head_seconds: float = HEAD_SECONDS, stop_seconds: int = STOP_SECONDS
) -> Iterator[str]:
    """Serve in a thread, on a free port of this machine, within a `with` block. Yield the base URL.

    Args:
        app: The app.
        head_seconds: The time within which a request's head must come.
        stop_seconds: The time that requests have to end when the block ends.
    """
    server = _server(app, head_seconds, stop_seconds)
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


def _server(
    app: Starlette, head_seconds: float = HEAD_SECONDS, stop_seconds: int = STOP_SECONDS
) -> uvicorn.Server:
    import uvicorn

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=bounded_http(head_seconds),
            log_level="warning",
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=stop_seconds,
        )
    )
