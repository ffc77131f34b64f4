"""A small server that speaks the OpenAI chat protocol, streaming: each request gets the next reply of its script."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal


@dataclass
class Reply:
    """Text in pieces, or an error; `cut` ends it after that many pieces, by `ends`: the connection is closed, or the body ended
    politely (as a proxy does), or an error sent as an event, or nothing more is said."""

    pieces: tuple[str, ...] = ()
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    ends: Literal["closed", "politely", "error", "silent"] = "closed"
    silent: float = 0.0
    error: dict[str, Any] = field(default_factory=lambda: {"message": "the script says so", "type": "scripted"})
    model: str = "m"


@dataclass
class Server:
    url: str
    replies: list[Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)


def says(*pieces: str, **rest: Any) -> Reply:
    return Reply(pieces, **rest)


@contextmanager
def openai_server(*replies: Reply) -> Iterator[Server]:
    """The last reply is given again and again. Stop strings end a reply and are cut off, as the real one does."""
    server: Server
    lock = threading.Lock()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # in chunks: an end without the last one is noticed

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                server.requests.append(body)
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            over.wait(reply.silent)
            if reply.status != 200:
                said = json.dumps({"error": reply.error}).encode()
                self.send_response(reply.status)
                for name, value in {**reply.headers, "content-length": str(len(said)), "connection": "close"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)
                return
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.send_header("connection", "close")  # or the client keeps a socket beyond the test's event loop
            self.end_headers()
            self.model = reply.model
            text = "".join(reply.pieces)
            end = min([i for s in body.get("stop") or [] if (i := text.find(s)) >= 0], default=len(text))
            sent = 0
            for n, piece in enumerate(reply.pieces):
                if n == reply.cut:
                    self.close_connection = True
                    if reply.ends == "silent":
                        over.wait()
                    elif reply.ends == "error":
                        self._chunk(f"data: {json.dumps({'error': reply.error})}\n\n".encode())
                    elif reply.ends == "politely":
                        self._chunk(b"")
                    return
                self._event({"content": text[sent : min(end, sent + len(piece))]})
                sent += len(piece)
            self._event({}, reply.finish)
            usage = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107, "prompt_tokens_details": {"cached_tokens": 40}}
            self._send({"choices": [], "usage": usage})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _event(self, delta: dict[str, Any], finish: str | None = None) -> None:
            self._send({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}]})

        def _send(self, data: dict[str, Any]) -> None:
            whole = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": self.model, **data}
            self._chunk(f"data: {json.dumps(whole)}\n\n".encode())

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1", list(replies))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            over.set()
            http.shutdown()
            thread.join()
