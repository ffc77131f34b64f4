"""A small server with Ollama's own protocol: `/api/chat` as lines of JSON, and `/api/tags`.

It follows Ollama's API documentation: pictures are bare base64 in a message's `images`, a thinking model's
thought comes as `message.thinking` before `message.content`, generation ends at a stop string, which is left
out, and the last line has the counts. A prompt that is longer than `num_ctx` loses its oldest messages
without an error. It has not been compared with the program itself.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.serving import Quiet, serving


@dataclass
class OllamaReply:
    """One turn of the model: its thought and its reply, in pieces."""

    thought: tuple[str, ...] = ()
    reply: tuple[str, ...] = ()
    done_reason: str = "stop"
    status: int = 200
    error: str = ""


@dataclass
class OllamaServer:
    """The state of the server, and the requests that it got."""

    url: str
    replies: list[OllamaReply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    pulled: tuple[str, ...] = ("m:latest",)
    """The models that it has."""


@contextmanager
def ollama_server(*replies: OllamaReply) -> Iterator[OllamaServer]:
    """Run a server with these replies; the last one is repeated."""
    server: OllamaServer
    lock = threading.Lock()

    class Handler(Quiet):
        def do_GET(self) -> None:
            if self.path != "/api/tags":
                self.whole(404, {"error": "not found"})
                return
            self.whole(200, {"models": [{"name": name, "model": name} for name in server.pulled]})

        def do_POST(self) -> None:
            body = self.body()
            with lock:
                server.requests.append(body)
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            if reply.status != 200:
                self.whole(reply.status, {"error": reply.error})
                return
            self.begin(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
            stops = (body.get("options") or {}).get("stop") or []
            count = 0
            for key, piece in _until_stop(reply, stops, bool(body.get("think"))):
                count += 1
                self._line({"message": {"role": "assistant", "content": "", key: piece}, "done": False})
            self._line(
                {
                    "message": {"role": "assistant", "content": ""},
                    "done": True,
                    "done_reason": reply.done_reason,
                    "prompt_eval_count": 100,
                    "eval_count": count,
                }
            )
            self.chunk(b"")

        def _line(self, data: dict[str, Any]) -> None:
            line = {"model": server.requests[-1]["model"], "created_at": "2026-11-27T00:00:00Z", **data}
            self.chunk(json.dumps(line).encode() + b"\n")

    with serving(Handler) as url:
        server = OllamaServer(url, list(replies) or [OllamaReply()])
        yield server


def _until_stop(reply: OllamaReply, stops: list[str], thinks: bool) -> Iterator[tuple[str, str]]:
    """Yield the pieces up to a stop string, which can end the thought as well as the reply."""
    pieces = [("thinking", piece) for piece in reply.thought if thinks]
    pieces += [("content", piece) for piece in reply.reply]
    written = ""
    for key, piece in pieces:
        found = [at for stop in stops if (at := (written + piece).find(stop)) >= 0]
        if found:
            if kept := piece[: min(found) - len(written)]:
                yield key, kept
            return
        written += piece
        yield key, piece
