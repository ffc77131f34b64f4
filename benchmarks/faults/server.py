"""Faults of model servers: a small llama-server and a small vLLM server, over real HTTP, that misbehave.

The model behind them reads the pictures of a request and writes what `scene.next_line` says. One request, or
each from then on, is refused, reset, cut, never answered, or answered with nonsense.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from act2see.agent.reasoners.base import Reasoner
from act2see.agent.reasoners.faults import Backoff
from act2see.tools.video.store import FrameSource
from benchmarks.faults.scene import colour_of, next_line
from benchmarks.faults.trial import Fault, Place, Reached

_BACKOFF = Backoff(requests=2, first=0.01, longest=0.02, accepted=0.05, silence=120.0)
_SILENCE = 5.0  # of a server that is silent on purpose; a busy machine must not pass for one
_MARKER, _PICTURE = "<__media__>", "<|image_pad|>"
_STATUSES = (204, 301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 501, 502, 503, 504)
_NONSENSE: dict[str, bytes] = {
    "broken JSON": b'data: {"content": "x',
    "null": b"data: null",
    "a list": b"data: []",
    "a number": b"data: 5",
    "a text": b'data: "x"',
    "an empty object": b"data: {}",
    "no UTF-8": b"data: \xff\xfe\xfd",
    "NaN": b'data: {"content": NaN, "choices": NaN}',
    "wrong types": b'data: {"content": 5, "stop": "no", "choices": {"a": 1}, "usage": "many", "timings": 3}',
    "no choices": b'data: {"choices": [null], "usage": []}',
    "odd choices": b'data: {"choices": [{"delta": "x", "finish_reason": 7}], "content": ["x"]}',
    "wrong counts": b'data: {"content": "", "tokens_predicted": "many", "tokens_evaluated": [1],'
    b' "choices": [{"delta": {"content": ""}}], "usage": {"prompt_tokens": "x", "completion_tokens": {}}}',
    "an error": b'data: {"error": {"message": "CUDA out of memory", "code": 500}}',
    "an odd error": b'data: {"error": [1, 2]}',
    "HTML": b"<html><body>504 Gateway Timeout</body></html>",
    "a long line": b"data: " + b"[" * 200_000,
}
"""Lines of a stream in which a model server should send JSON."""
_SILENT = ("silence", "stalls")
_WAYS = ("reset", "reset in mid-stream", "cut", "ends politely", "empty", "empty reply", "silence", "stalls")


@dataclass
class _Server:
    """The state of a server."""

    kind: str
    """What it does wrong; empty if nothing."""
    at: int
    lasting: bool
    reached: Callable[[], None]
    requests: int = 0
    url: str = ""
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Is set when the run with the fault has ended."""

    def is_wrong(self) -> bool:
        """Count a request, and return whether it is the one that fails."""
        self.requests += 1
        wrong = bool(self.kind) and (self.requests == self.at or (self.lasting and self.requests > self.at))
        if wrong:
            self.reached()
        return wrong


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.server_state.is_wrong():
            self._misbehave(b"")
        else:
            self._whole(
                {
                    "default_generation_settings": {"n_ctx": 32768},
                    "total_slots": 1,
                    "model_alias": "scripted",
                    "media_marker": _MARKER,
                    "modalities": {"vision": True},
                }
            )

    def do_POST(self) -> None:
        data: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/tokenize":
            self._whole({"tokens": [1, 2]})
            return
        text, pictures = _read_request(data)
        line = next_line(text, lambda: [_colour(picture) for picture in pictures])
        events = _llama_events(line) if "prompt" in data else _vllm_events(line)
        if self.server_state.is_wrong():
            self._misbehave(events[0])
            return
        self._begin(200, "text/event-stream")
        for event in events:
            self._chunk(b"data: " + event + b"\n\n")
        self._chunk(b"")

    def _misbehave(self, event: bytes) -> None:
        kind = self.server_state.kind
        if kind == "reset":
            self._reset()
        elif kind.startswith("status "):
            status = int(kind.removeprefix("status "))
            body = b"" if status in (204, 301) else b'{"error": {"message": "no", "code": 1}}'
            self._whole(body, status)
        elif kind == "empty":
            self._whole(b"")
        elif kind == "silence":
            self.server_state.hung_up.wait(_SILENCE + 1)
        else:
            self._begin(200, "text/event-stream")
            if kind == "empty reply":
                for end in (_llama_events("")[-1], _vllm_events("")[-1]):
                    self._chunk(b"data: " + end + b"\n\n")
                self._chunk(b"")
            elif kind in _NONSENSE:
                self._chunk(_NONSENSE[kind] + b"\n\n")
                self._chunk(b"")
            else:
                self._chunk(b"data: " + event + b"\n\n")
                if kind == "stalls":
                    self.server_state.hung_up.wait(_SILENCE + 1)
                elif kind == "reset in mid-stream":
                    self._reset()
                elif kind == "ends politely":
                    self._chunk(b"")
        self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _whole(self, data: Any, status: int = 200) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _read_request(data: dict[str, Any]) -> tuple[str, list[bytes]]:
    """Return a request's text, with `_PICTURE` for each picture, and the pictures."""
    if "prompt" in data:
        prompt = data["prompt"]
        return prompt["prompt_string"].replace(_MARKER, _PICTURE), [
            base64.b64decode(picture) for picture in prompt["multimodal_data"]
        ]
    text, pictures = "", []
    for part in data["messages"][0]["content"]:
        if part["type"] == "text":
            text += part["text"]
        else:
            text += _PICTURE
            uuid, url = part["uuid"], part["image_url"]
            if url:
                _KEPT[uuid] = base64.b64decode(url["url"].partition(",")[2])
            pictures.append(_KEPT[uuid])
    # Pieces are escaped, so that a tokenizer reads them apart.
    return re.sub("[\u2060\u200b]", "", text), pictures


_KEPT: dict[str, bytes] = {}


def _colour(png: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return colour_of(np.asarray(image.convert("RGB")))


def _llama_events(line: str) -> list[bytes]:
    pieces = [line[at : at + 8] for at in range(0, len(line), 8)]
    events: list[dict[str, Any]] = [
        {"content": piece, "stop": False, "tokens_predicted": n + 1} for n, piece in enumerate(pieces)
    ]
    count = len(pieces)
    events.append({"content": "", "stop": True, "stop_type": "eos", "tokens_predicted": count, "timings": {}})
    return [json.dumps(event).encode() for event in events]


def _vllm_events(line: str) -> list[bytes]:
    pieces = [line[at : at + 8] for at in range(0, len(line), 8)]
    events: list[dict[str, Any]] = [
        {
            "choices": [{"delta": {"content": piece}, "finish_reason": None}],
            "usage": {"completion_tokens": n + 1},
        }
        for n, piece in enumerate(pieces)
    ]
    events.append(
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": len(pieces)}}
    )
    return [json.dumps(event).encode() for event in events]


_STATE = _Server("", 0, False, lambda: None)
"""The server of this process: each trial has a process of its own."""


def _llama(source: FrameSource, backoff: Backoff = _BACKOFF) -> Reasoner:
    from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner

    return LlamaCppReasoner(_STATE.url, "scripted", source, backoff=backoff)


def _vllm(source: FrameSource, backoff: Backoff = _BACKOFF) -> Reasoner:
    from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner

    return VLLMHTTPReasoner(f"{_STATE.url}/v1", "scripted", source, exact=False, backoff=backoff)


def server_faults() -> Iterator[Fault]:
    """Yield faults of both servers at their first requests."""
    kinds = [*_WAYS, *_NONSENSE, *(f"status {status}" for status in _STATUSES)]
    impatient = replace(_BACKOFF, silence=_SILENCE)
    makers: dict[str, Callable[..., Reasoner]] = {"llama.cpp": _llama, "vLLM": _vllm}
    for name, make in makers.items():
        for kind in kinds:
            reasoner = partial(make, backoff=impatient) if kind in _SILENT else make
            for at in (1, 2, 3):
                for lasting in (False, True):
                    inject = partial(_misbehaving, kind=kind, at=at, lasting=lasting)
                    where = f"{name}: request {at}{' and on' * lasting}"
                    yield Fault(
                        "model server",
                        kind,
                        where,
                        inject,
                        warm=True,
                        reasoner=reasoner,
                        healed=make,
                        around=serving,
                    )


@contextmanager
def _misbehaving(place: Place, reached: Reached, kind: str, at: int, lasting: bool) -> Iterator[None]:
    _STATE.kind, _STATE.at, _STATE.lasting, _STATE.reached = kind, at, lasting, reached
    try:
        yield
    finally:
        _STATE.kind = ""
        _STATE.hung_up.set()


@contextmanager
def serving() -> Iterator[None]:
    """Run the server of this process."""
    handler = type("Handler", (_Handler,), {"server_state": _STATE})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        http.daemon_threads = True
        http.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client has hung up
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        _STATE.url = f"http://127.0.0.1:{http.server_address[1]}"
        try:
            yield
        finally:
            http.shutdown()
            thread.join()
