"""A small server with Gemini's protocol: generateContent, and streamGenerateContent as server-sent events.

The JSON follows the API's documentation (`GenerateContentResponse`, `PromptFeedback`, and Google's error
model with `RetryInfo`); it has not been compared with the service itself. Each request gets the next reply of
a script.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.serving import Quiet, serving

USAGE = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 40,
    "candidatesTokenCount": 7,
    "totalTokenCount": 107,
}
RATINGS = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "NEGLIGIBLE"}]


@dataclass
class GeminiReply:
    """The responses of a stream, or an error."""

    responses: tuple[dict[str, Any], ...] = ()
    status: int = 200
    error: dict[str, Any] = field(default_factory=dict)
    cut: int | None = None
    """The number of responses after which the connection is closed."""
    politely: bool = False
    """Whether the connection is closed as if the stream were complete."""


@dataclass
class GeminiServer:
    """The state of the server, and the requests that it got."""

    url: str
    replies: list[GeminiReply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    """The path and the key of each call."""
    key: str | None = None
    """The only accepted key; None accepts every key."""
    models: tuple[str, ...] = ("gemini-2.5-flash",)
    """The listed models."""
    unlisted: tuple[str, ...] = ()
    """Models that the list leaves out, and that can be asked for."""


def says(*pieces: str, finish: str = "STOP", **rest: Any) -> GeminiReply:
    """Return a reply of text in pieces. Its last response has the finish reason and the token counts."""
    made = [response(piece) for piece in pieces[:-1]]
    return GeminiReply((*made, response(pieces[-1] if pieces else None, finish)), **rest)


def thinks(tokens: int, text: str) -> GeminiReply:
    """Return a reply for which the model has thought that many tokens without showing them."""
    made = response(text, "STOP")
    total = USAGE["totalTokenCount"] + tokens
    made["usageMetadata"] = {**USAGE, "thoughtsTokenCount": tokens, "totalTokenCount": total}
    return GeminiReply((made,))


def response(text: str | None, finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "safetyRatings": RATINGS}
    if text is not None:
        candidate["content"] = {"parts": [{"text": text}], "role": "model"}
    if finish:
        candidate["finishReason"] = finish
    usage = USAGE if finish else {"promptTokenCount": 100, "totalTokenCount": 100}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r",
    }


def blocked(reason: str) -> GeminiReply:
    """Return a reply that refuses the question itself, with a response without candidates."""
    refusal = {
        "promptFeedback": {"blockReason": reason},
        "usageMetadata": {"promptTokenCount": 100, "totalTokenCount": 100},
        "modelVersion": "gemini-2.5-flash",
    }
    return GeminiReply((refusal,))


def fails(status: int, name: str, message: str, *details: dict[str, Any]) -> GeminiReply:
    return GeminiReply(
        status=status,
        error={"error": {"code": status, "message": message, "status": name, "details": list(details)}},
    )


def retry_in(seconds: str) -> GeminiReply:
    """Return an error for an exceeded quota, with the delay after which to retry."""
    return fails(
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds},
    )


@contextmanager
def gemini_server(*replies: GeminiReply) -> Iterator[GeminiServer]:
    """Run a server with these replies; the last one is repeated.

    Like the service, it ends a text at a stop sequence and leaves the sequence out.
    """
    server: GeminiServer
    lock = threading.Lock()

    class Handler(Quiet):
        def do_GET(self) -> None:
            if server.key is not None and self.headers.get("x-goog-api-key") != server.key:
                self.whole(
                    400,
                    fails(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.").error,
                )
            elif self.path.partition("?")[0].endswith("/models"):
                self.whole(200, {"models": [{"name": f"models/{name}"} for name in server.models]})
            elif (name := self.path.rpartition("/")[2]) in (*server.models, *server.unlisted):
                self.whole(200, {"name": f"models/{name}"})
            else:
                self.whole(404, fails(404, "NOT_FOUND", f"models/{name} is not found for API version").error)

        def do_POST(self) -> None:
            body = self.body()
            with lock:
                server.requests.append(body)
                server.calls.append((self.path, self.headers.get("x-goog-api-key")))
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            if reply.status != 200:
                self.whole(reply.status, reply.error)
            elif ":streamGenerateContent" in self.path:
                self._stream(reply, (body.get("generationConfig") or {}).get("stopSequences") or [])
            else:
                self.whole(200, reply.responses[-1])

        def _stream(self, reply: GeminiReply, stops: list[str]) -> None:
            self.stream()
            left = "".join(_text(r) for r in reply.responses)
            left = left[: min([i for s in stops if (i := left.find(s)) >= 0], default=len(left))]
            for n, made in enumerate(reply.responses):
                if n == reply.cut:
                    break
                if text := _text(made):
                    kept, left = left[: len(text)], left[len(text) :]
                    made = json.loads(json.dumps(made))
                    made["candidates"][0]["content"]["parts"][0]["text"] = kept
                self.chunk(f"data: {json.dumps(made)}\r\n\r\n".encode())
            if reply.cut is None or reply.politely:
                self.chunk(b"")

    with serving(Handler) as address:
        server = GeminiServer(address, list(replies))
        yield server


def _text(made: dict[str, Any]) -> str:
    candidates = made.get("candidates") or [{}]
    return "".join(part.get("text", "") for part in candidates[0].get("content", {}).get("parts", []))
