"""A small server with the part of Gemini's Interactions and Files API that the agentic video mode needs.

The JSON is that of Google's page "Video understanding": the steps of its example reply, and the resumable
upload of its REST example. A file is prepared at the second look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.serving import Quiet, serving

USAGE = {
    "total_input_tokens": 120,
    "total_cached_tokens": 20,
    "total_output_tokens": 9,
    "total_thought_tokens": 300,
    "total_tool_use_tokens": 2000,
    "total_tokens": 2429,
}
Reply = tuple[int, dict[str, Any]]


def completed(text: str, **rest: Any) -> Reply:
    """Return the page's example of a reply, with this text."""
    summary = [{"type": "text", "text": "Loading visual frames to verify slide content..."}]
    steps = [
        {"type": "thought", "signature": "s1", "summary": summary},
        {"type": "processing_call", "id": "call_01", "signature": "s2"},
        {"type": "processing_result", "call_id": "call_01", "signature": "s3"},
        {"type": "thought", "signature": "s4"},
        {"type": "model_output", "content": [{"type": "text", "text": text}]},
    ]
    return 200, {
        "id": "i",
        "status": "completed",
        "model": "gemini-x",
        "steps": steps,
        "usage": USAGE,
        **rest,
    }


@dataclass
class InteractionsServer:
    """The server's address, and what it was sent."""

    replies: list[Reply]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    state: str = "ACTIVE"
    """The state of a file at the second look."""


@contextmanager
def interactions_server(*replies: Reply) -> Iterator[InteractionsServer]:
    """Run a server with these replies; the last one is repeated."""
    server = InteractionsServer(list(replies))

    class Handler(Quiet):
        def do_POST(self) -> None:
            self.note()
            if self.path == "/upload/v1beta/files":
                assert self.headers["x-goog-upload-command"] == "start"
                self.body()
                self.whole(200, {}, {"x-goog-upload-url": f"{server.url}/to?upload_id=1"})
            elif self.path.startswith("/to"):
                assert self.headers["x-goog-upload-command"] == "upload, finalize"
                server.files["files/1"] = self.rfile.read(int(self.headers["content-length"]))
                self.whole(200, {"file": {"name": "files/1", "uri": "https://at/1", "state": "PROCESSING"}})
            else:
                server.asked.append(self.body())
                self.whole(*(server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]))

        def do_GET(self) -> None:
            self.note()
            self.whole(200, {"name": "files/1", "uri": "https://at/1", "state": server.state})

        def do_DELETE(self) -> None:
            self.note()
            del server.files[self.path.removeprefix("/v1beta/")]
            self.whole(200, {})

        def note(self) -> None:
            server.calls.append(f"{self.command} {self.path}")
            server.keys.append(self.headers["x-goog-api-key"])

    with serving(Handler) as server.url:
        yield server
