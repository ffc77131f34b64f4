"""A local HTTP server for a test: what the doubles of other people's services share. What they say is their
own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Quiet(BaseHTTPRequestHandler):
    """Logs nothing. It ends each connection, or the client would keep a socket beyond the test's event
    loop."""

    protocol_version = "HTTP/1.1"  # in chunks: an end without the last one is noticed

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def body(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        return read

    def whole(self, status: int, data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """An answer in one piece of JSON."""
        said = json.dumps(data).encode()
        self.begin(
            status, {"content-type": "application/json", **(headers or {}), "content-length": str(len(said))}
        )
        self.wfile.write(said)

    def stream(self) -> None:
        """Begin a stream of events, whose parts are chunks; an empty one ends it."""
        self.begin(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on any free port, in threads, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
