"""A server that speaks llama-server's protocol as far as we use it, over real HTTP.

It parses special tokens and replaces its marker as the real one does, puts vision start and end around each
frame, withholds stop strings and names them, keeps prefixes, and refuses in llama-server's words
(llama.cpp b11434, tools/server). Its replies are the lines of a script, chosen by how many frames the thought
shows.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from tests.serving import Quiet, serving
from tokenizers import Tokenizer

from act2see.tools.runtime.weights import resolve_weights

MARKER = "<__media_r4nd0m__>"
IMAGE_TOKENS = 9


@dataclass
class Fault:
    """A fault of one streamed request: a status, or after how many pieces what happens."""

    status: int = 200
    message: str = "the script says so"
    cut: int | None = None
    error: int | None = None
    silent: float = 0.0


@dataclass
class Double:
    url: str
    lines: Sequence[str]
    tokenizer: Tokenizer
    marker: str = MARKER
    model: str = "micro.gguf"
    """The server's name for its model."""
    router: bool = False
    """Whether it was started without a model."""
    vision: bool = True
    context: int = 4096
    trained: int = 0
    """The context with which the model was trained; 0 for a server that lists no models."""
    slots: int = 2
    key: str = ""
    loading: int = 0
    """How many requests find the model loading."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    pictures: list[Image.Image] = field(default_factory=list)
    cached: list[list[Any]] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0
    asked: list[str] = field(default_factory=list)
    aborted: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)
    pace: float = 0.0

    @property
    def streamed(self) -> list[dict[str, Any]]:
        return [r for r in self.requests if r.get("stream")]


class _Refusal(Exception):
    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


def _read_prompt(server: Double, given: Any) -> tuple[str, list[Any]]:
    """The prompt with the marks of frames, and its tokens; a frame's are named by the picture's bytes."""
    text, data = (given, []) if isinstance(given, str) else (given["prompt_string"], given["multimodal_data"])
    if data and not server.vision:
        raise _Refusal(400, "Multimodal data provided, but model does not support multimodal requests.")
    parts = text.split(server.marker)
    if len(parts) - 1 != len(data):
        raise _Refusal(400, "Failed to tokenize prompt")
    tokens: list[Any] = []
    start, end = (server.tokenizer.token_to_id(f"<|vision_{which}|>") for which in ("start", "end"))
    for n, part in enumerate(parts):
        tokens += server.tokenizer.encode(part, add_special_tokens=False).ids
        if n < len(data):
            picture = base64.b64decode(data[n])
            server.pictures.append(Image.open(io.BytesIO(picture)).convert("RGB"))
            tokens += [start, *[hash(picture)] * IMAGE_TOKENS, end]
    shown = "<|vision_start|><|image_pad|><|vision_end|>".join(parts)
    server.ids.append(server.tokenizer.encode(shown, add_special_tokens=False).ids)
    if len(tokens) >= server.context:
        raise _Refusal(
            400,
            f"request ({len(tokens)} tokens) exceeds the available context size ({server.context} tokens), "
            "try increasing it",
            "exceed_context_size_error",
        )
    return shown, tokens


def _common_prefix(kept: list[Any], tokens: list[Any]) -> int:
    for n, (a, b) in enumerate(zip(kept, tokens, strict=False)):
        if a != b:
            return n
    return min(len(kept), len(tokens) - 1)


def _line(server: Double, prompt: str) -> str:
    turn = prompt.rpartition("<think>\n")[2]
    at = turn.count("</frame>") + len(re.findall(r"\n<answer>$", turn))
    return server.lines[min(at, len(server.lines) - 1)]


@contextmanager
def llama_server(*lines: str, **settings: Any) -> Iterator[Double]:
    """A server of the micro model's vocabulary."""
    server: Double
    lock = threading.Lock()
    over = threading.Event()

    class Handler(Quiet):
        is_counted = False  # among the requests under way

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.body())

        def _answer(self, body: dict[str, Any] | None) -> None:
            try:
                with lock:
                    server.asked.append(self.path)
                    if server.loading:
                        server.loading -= 1
                        raise _Refusal(503, "Loading model", "unavailable_error")
                    if server.key and self.headers.get("authorization") != f"Bearer {server.key}":
                        raise _Refusal(401, "Invalid API Key", "authentication_error")
                getattr(self, f"_{self.path.strip('/').replace('/', '_')}", self._missing)(body)
            except _Refusal as e:
                self.whole(e.status, {"error": {"code": e.status, "message": str(e), "type": e.kind}})

        def _missing(self, body: Any) -> None:
            raise _Refusal(404, "File Not Found", "not_found_error")

        def _props(self, body: Any) -> None:
            if server.router:
                settings = {"params": {}, "n_ctx": 0}
                props = {"role": "router", "model_alias": "llama-server", "model_path": "none"}
                self.whole(200, {**props, "default_generation_settings": settings})
                return
            self.whole(
                200,
                {
                    "default_generation_settings": {"n_ctx": server.context, "params": {}},
                    "total_slots": server.slots,
                    "model_alias": server.model,
                    "model_path": f"/models/{server.model}",
                    "modalities": {"vision": server.vision, "audio": False},
                    "media_marker": server.marker,
                    "build_info": "b11434",
                },
            )

        def _v1_models(self, body: Any) -> None:
            if not server.trained:
                self._missing(body)
            self.whole(200, {"data": [{"id": server.model, "meta": {"n_ctx_train": server.trained}}]})

        def _tokenize(self, body: dict[str, Any]) -> None:
            ids = server.tokenizer.encode(body["content"], add_special_tokens=False).ids
            self.whole(200, {"tokens": ids})

        def _completion(self, body: dict[str, Any]) -> None:
            with lock:
                server.requests.append(body)
                fault = server.faults.pop(0) if server.faults and body.get("stream") else Fault()
            over.wait(fault.silent)
            if body.get("repeat_last_n", 0) < 0:
                raise _Refusal(400, "Field 'repeat_last_n': Value must be between 0 <= value <= 2147483647")
            if fault.status != 200:
                raise _Refusal(fault.status, fault.message)
            with lock:
                prompt, tokens = _read_prompt(server, body["prompt"])
                cached = max((_common_prefix(kept, tokens) for kept in server.cached), default=0)
                if body.get("cache_prompt", True):
                    server.cached.append(tokens)
            counts = {"tokens_evaluated": len(tokens), "timings": {"cache_n": cached}}
            if not body.get("stream"):
                end = {"content": "x", "stop": True, "stop_type": "limit", "tokens_predicted": 1}
                self.whole(200, end | counts)
                return
            server.began.set()
            with lock:
                server.under_way += 1
                self.is_counted = True
                server.most_at_once = max(server.most_at_once, server.under_way)
            try:
                self._stream(body, counts, prompt, fault)
            except OSError:
                server.aborted.set()
            finally:
                self._count_end()

        def _count_end(self) -> None:
            with lock:
                server.under_way -= self.is_counted
                self.is_counted = False

        def _stream(self, body: dict[str, Any], counts: dict[str, Any], prompt: str, fault: Fault) -> None:
            line, stop = _line(server, prompt), ""
            for s in body["stop"]:
                if line.find(s) >= 0 and (not stop or line.find(s) < line.find(stop)):
                    stop = s
            said = line[: line.find(stop)] if stop else line
            pieces = [said[i : i + 3] for i in range(0, len(said), 3)]
            self.stream()
            for n, piece in enumerate(pieces[: body["n_predict"]], start=1):
                if n - 1 == fault.cut:
                    self.close_connection = True
                    return
                if n - 1 == fault.error:
                    error = {"code": 500, "message": fault.message, "type": "server_error"}
                    self._event({"error": error})
                    self.chunk(b"")
                    return
                self._event({"content": piece, "stop": False, "tokens_predicted": n, **counts})
                over.wait(server.pace)
            # The tokens of a stop string are withheld; the last one comes as an event without text.
            stop_tokens = 1 if stop else 0
            if stop and body["n_predict"] > len(pieces):
                self._event({"content": "", "stop": False, **counts, "tokens_predicted": len(pieces) + 1})
            cut = body["n_predict"] < len(pieces) + stop_tokens
            kind = "limit" if cut else "word" if stop else "eos"
            end = {"content": "", "stop": True, "stop_type": kind, "stopping_word": "" if cut else stop}
            predicted = min(body["n_predict"], len(pieces) + stop_tokens)
            # Before the client sees the end, since it may begin the next request at once.
            self._count_end()
            self._event(end | counts | {"tokens_predicted": predicted})
            self.chunk(b"")

        def _event(self, data: dict[str, Any]) -> None:
            self.chunk(f"data: {json.dumps(data)}\n\n".encode())

    tokenizer = Tokenizer.from_file(str(Path(resolve_weights("micro:vlm")) / "tokenizer.json"))
    with serving(Handler) as address:
        server = Double(address, lines or ("<answer>B</answer>",), tokenizer, **settings)
        try:
            yield server
        finally:
            over.set()
