"""A small server with OpenAI's chat protocol. Each request gets the next reply of a script."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.serving import Quiet, serving


@dataclass
class Reply:
    """Text in pieces, or an error."""

    pieces: tuple[str, ...] = ()
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The number of pieces after which the stream ends early."""
    ends: Literal["closed", "politely", "error", "silent"] = "closed"
    """The way in which it ends early: the connection is closed, the body is completed (as a proxy does), an
    error is sent as an event, or nothing more is sent."""
    silent: float = 0.0
    """The seconds before the server responds."""
    error: dict[str, Any] = field(
        default_factory=lambda: {"message": "the script says so", "type": "scripted"}
    )
    model: str = "m"
    thought: tuple[str, ...] = ()
    """The thought, which local servers send before the text, in a field of its own."""
    thought_field: str = "reasoning_content"
    beside: dict[str, Any] = field(default_factory=dict)
    """Other fields of each event of the thought."""


@dataclass
class Server:
    """The state of the server, and the requests that it got."""

    url: str
    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    key: str | None = None
    """The only accepted key; None accepts every key."""
    models: tuple[int, dict[str, Any]] = (200, {"object": "list", "data": [{"id": "m", "object": "model"}]})
    """The status and the JSON of the list of models."""
    path: str = ""
    """The path under which the server answers, such as `/v1`; empty for any."""
    elsewhere: tuple[int, dict[str, Any]] = (404, {"detail": "Not Found"})
    """The answer at other paths."""
    asked: list[str] = field(default_factory=list)
    """The paths of all requests for models."""


def says(*pieces: str, **rest: Any) -> Reply:
    return Reply(pieces, **rest)


@contextmanager
def openai_server(*replies: Reply) -> Iterator[Server]:
    """Run a server with these replies; the last one is repeated.

    Like the service, it ends a reply at a stop string and cuts the string off.
    """
    server: Server
    lock = threading.Lock()
    over = threading.Event()

    class Handler(Quiet):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            if server.path and not self.path.startswith(f"{server.path}/models"):
                self.whole(*server.elsewhere)
                return
            if self._refuse_key():
                return
            if self.path.endswith("/models"):
                self.whole(*server.models)
            else:
                name = self.path.rpartition("/")[2]
                error = {"message": f"The model '{name}' does not exist", "code": "model_not_found"}
                self.whole(404, {"error": error})

        def _refuse_key(self) -> bool:
            if server.key is None or self.headers.get("authorization") == f"Bearer {server.key}":
                return False
            self.whole(
                401, {"error": {"message": "Incorrect API key provided: x.", "code": "invalid_api_key"}}
            )
            return True

        def do_POST(self) -> None:
            body = self.body()
            if self._refuse_key():
                return
            with lock:
                server.requests.append(body)
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            over.wait(reply.silent)
            if reply.status != 200:
                self.whole(reply.status, {"error": reply.error}, reply.headers)
                return
            self.stream()
            self.model = reply.model
            for piece in reply.thought:
                self._event({**reply.beside, reply.thought_field: piece})
            text = "".join(reply.pieces)
            end = min([i for s in body.get("stop") or [] if (i := text.find(s)) >= 0], default=len(text))
            sent = 0
            for n, piece in enumerate(reply.pieces):
                if n == reply.cut:
                    self.close_connection = True
                    if reply.ends == "silent":
                        over.wait()
                    elif reply.ends == "error":
                        self.chunk(f"data: {json.dumps({'error': reply.error})}\n\n".encode())
                    elif reply.ends == "politely":
                        self.chunk(b"")
                    return
                self._event({"content": text[sent : min(end, sent + len(piece))]})
                sent += len(piece)
            self._event({}, reply.finish)
            usage = {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "total_tokens": 107,
                "prompt_tokens_details": {"cached_tokens": 40},
            }
            self._send({"choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

        def _event(self, delta: dict[str, Any], finish: str | None = None) -> None:
            self._send(
                {"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}]}
            )

        def _send(self, data: dict[str, Any]) -> None:
            whole = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": self.model, **data}
            self.chunk(f"data: {json.dumps(whole)}\n\n".encode())

    with serving(Handler) as address:
        server = Server(f"{address}/v1", list(replies))
        try:
            yield server
        finally:
            over.set()
