"""A local HTTP server for tests, on which the doubles of external services are built."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing and closes each connection.

    Otherwise the client would keep a socket open after the end of the test's event loop.
    """

    protocol_version = "HTTP/1.1"  # allows chunks, so that a client notices a truncated stream

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> dict[str, Any]:
        """Return the request's JSON."""
        data: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return data

    def whole(self, status: int, data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Send a complete JSON response."""
        body = json.dumps(data).encode()
        length = {"content-length": str(len(body))}
        self.begin(status, {"content-type": "application/json", **(headers or {}), **length})
        self.wfile.write(body)

    def stream(self) -> None:
        """Start an event stream. Each part is a chunk; an empty chunk ends the stream."""
        self.begin(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        for name, value in {**headers, "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Send a chunk of a stream."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a threaded server on a free port until the block ends; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
