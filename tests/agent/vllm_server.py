"""A server with the part of vLLM's protocol that act2see uses, over real HTTP.

It renders the prompt with its template and counts tokens with its tokenizer, keeps pictures by their `uuid`,
refuses requests with vLLM's messages, stops on strings and reports how much of a prompt was cached. Its
replies are the lines of a script. The number of frames in the thought selects the line, as in
`tests/graphs/doubles.py`.
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
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from PIL import Image
from tests.serving import Quiet, serving
from tokenizers import Tokenizer

from act2see.agent.reasoners.pieces import write_tokenizer
from act2see.tools.runtime.weights import resolve_weights

MODEL = "micro:vlm"
TEMPLATE = files("act2see.agent.reasoners.vllm").joinpath("passthrough.jinja").read_text(encoding="utf-8")
BLOCK = 16
IMAGE_TOKENS = 9


@dataclass
class Fault:
    """A fault of one request: a status, or what happens in the stream."""

    status: int = 200
    message: str = "the script says so"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """The number of pieces after which the connection is closed."""
    polite: bool = False
    """Whether the connection is closed as if the stream were complete."""
    error: int | None = None
    """The number of pieces after which an error is sent as an event."""
    abort: int | None = None
    """The number of pieces after which the engine aborts the request."""
    silent: float = 0.0
    """The seconds before the server responds."""


@dataclass
class Double:
    """The state of the server, and the requests that it got."""

    url: str
    lines: Sequence[str]
    """The replies."""
    tokenizer: Tokenizer
    template: str = TEMPLATE
    models: tuple[str, ...] = (MODEL,)
    images: int = 999
    context: int = 4096
    ends: str = "eos"
    pace: float = 0.0
    keeps: bool = True
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    read: set[tuple[Any, ...]] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    began: threading.Event = field(default_factory=threading.Event)
    aborted: threading.Event = field(default_factory=threading.Event)

    @property
    def streamed(self) -> list[dict[str, Any]]:
        """The requests of runs; the preflight's requests are not streamed."""
        return [r for r in self.requests if r.get("stream")]


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _parts(server: Double, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts for the template, and store the pictures.

    Raises:
        _Refusal: vLLM would refuse the request; its checks are made in vLLM's order.
    """
    if body["model"] not in server.models:
        raise _Refusal(
            404, f"The model `{body['model']}` does not exist. Valid aliases: {', '.join(server.models)}."
        )
    if "chat_template" in body:
        raise _Refusal(
            400, "Chat template is passed with request, but --trust-request-chat-template is not set."
        )
    assert body["add_generation_prompt"] is False
    (message,) = body["messages"]
    shown = [p for p in message["content"] if p["type"] == "image_url"]
    if len(shown) > server.images:
        raise _Refusal(
            400, f"At most {server.images} image(s) may be provided in one prompt. (parameter=image)"
        )
    if (asked := body.get("max_tokens") or 1) > server.context:
        raise _Refusal(
            400,
            f"max_tokens={asked} cannot be greater than max_model_len={server.context}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={asked})",
        )
    texts = sum(
        len(server.tokenizer.encode(p["text"]).ids) for p in message["content"] if p["type"] == "text"
    )
    if texts + len(shown) > server.context:  # vLLM first counts a picture as one token
        raise _Refusal(
            400,
            f"This model's maximum context length is {server.context} tokens. However, your prompt contains "
            f"at least {server.context + 1} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={server.context + 1})",
        )
    for n, part in enumerate(shown):
        if part["image_url"] is not None:
            data = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
            server.pictures[part["uuid"]] = Image.open(io.BytesIO(data)).convert("RGB")
        elif part["uuid"] not in server.pictures:
            raise _Refusal(400, f"Cache miss for image at index {n} but data is not provided.")
    if (length := texts + IMAGE_TOKENS * len(shown)) > server.context:
        raise _Refusal(
            400, f"Input length ({length}) exceeds model's maximum context length ({server.context})."
        )
    if not server.keeps:
        server.pictures.clear()
    return [p if p["type"] == "text" else {"type": "image", "uuid": p["uuid"]} for p in message["content"]]


def _usage(server: Double, prompt: str, names: list[str]) -> dict[str, Any]:
    """Return the number of the prompt's tokens, and how many are in complete blocks that were read before."""
    ids = server.tokenizer.encode(prompt, add_special_tokens=False).ids
    pad, names = server.tokenizer.token_to_id("<|image_pad|>"), list(names)
    keys: list[Any] = []
    for i in ids:
        keys += [names.pop(0)] * IMAGE_TOKENS if i == pad else [i]
    blocks = [tuple(keys[:n]) for n in range(BLOCK, len(keys) + 1, BLOCK)]
    cached = BLOCK * sum(b in server.read for b in blocks)
    server.read.update(blocks)
    server.ids.append(ids)
    return {
        "prompt_tokens": len(keys),
        "completion_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _line(server: Double, prompt: str) -> str:
    turn = prompt.rpartition("<think>\n")[2]
    at = turn.count("</frame>") + len(re.findall(r"\n<answer>$", turn.replace("\ufdd0", "")))
    return server.lines[min(at, len(server.lines) - 1)]


def _split(line: str, stops: Sequence[str]) -> tuple[list[str], str | None]:
    """Return a reply up to its first stop string, in pieces of three characters, and the stop string."""
    stop = None
    for s in stops:
        if (at := line.find(s)) >= 0 and (stop is None or at < line.find(stop)):
            stop = s
    if stop is not None:
        line = line[: line.find(stop) + len(stop)]
    return [line[i : i + 3] for i in range(0, len(line), 3)], stop


@contextmanager
def vllm_server(*lines: str, folder: Path | None = None, **settings: Any) -> Iterator[Double]:
    """Run a server with act2see's tokenizer, written to `folder`, or by default with the model's own."""
    weights = Path(resolve_weights(MODEL))
    where = write_tokenizer(str(weights), folder / "tokenizer") if folder else weights
    server: Double
    lock = threading.Lock()
    over = threading.Event()

    class Handler(Quiet):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            cards = [
                {"id": m, "object": "model", "max_model_len": server.context if n == 0 else None}
                for n, m in enumerate(server.models)
            ]
            self.whole(200, {"object": "list", "data": cards})

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = self.body()
            with lock:
                server.requests.append(body)
                if key := self.headers.get("authorization"):
                    server.keys.append(key)
                fault = server.faults.pop(0) if server.faults and body.get("stream") else Fault()
            over.wait(fault.silent)
            try:
                if fault.status != 200:
                    raise _Refusal(fault.status, fault.message)
                with lock:
                    parts = _parts(server, body)
                    prompt = (
                        Environment()
                        .from_string(server.template)
                        .render(messages=[{"role": "user", "content": parts}])
                    )
                    usage = _usage(server, prompt, [p["uuid"] for p in parts if p["type"] == "image"])
            except _Refusal as e:
                self.whole(
                    e.status,
                    {"error": {"message": str(e), "type": "BadRequestError", "code": e.status}},
                    fault.headers,
                )
                return
            if not body.get("stream"):
                self.whole(
                    200,
                    {"choices": [{"message": {"content": "x"}, "finish_reason": "length"}], "usage": usage},
                )
                return
            server.prompts.append(prompt)
            server.began.set()
            try:
                self._stream(body, usage, prompt, fault)
            except OSError:
                server.aborted.set()

        def _stream(self, body: dict[str, Any], usage: dict[str, Any], prompt: str, fault: Fault) -> None:
            pieces, stop = _split(_line(server, prompt), body["stop"])
            finish = "stop"
            if stop is None and server.ends == "eos":
                pieces.append("<|im_end|>")  # vLLM sends it, since stop strings are kept
            elif stop is None:
                finish = "length"
            self.stream()
            most = min(body.get("max_tokens") or 10**6, server.context - usage["prompt_tokens"])
            counts = {k: v for k, v in usage.items() if k != "prompt_tokens_details"}
            opening = {"index": 0, "delta": {"role": "user", "content": ""}, "finish_reason": None}
            self._event({"choices": [opening], "usage": counts})
            for n, piece in enumerate(pieces[:most], start=1):
                if n - 1 == fault.cut:
                    self.close_connection = True
                    if fault.polite:
                        self.chunk(b"")
                    return
                if n - 1 == fault.error:
                    self._fail(fault.message)
                    return
                if n - 1 == fault.abort:
                    pieces, finish, stop = [*pieces[: n - 1], ""], "abort", None
                    most, piece = n, ""
                last = n == min(len(pieces), most)
                ended = {
                    "finish_reason": finish if n == len(pieces) else "length",
                    "stop_reason": stop if n == len(pieces) else None,
                }
                choice = {
                    "index": 0,
                    "delta": {"content": piece},
                    "finish_reason": None,
                    **(ended if last else {}),
                }
                self._event({"choices": [choice], "usage": {**counts, "completion_tokens": n}})
                over.wait(server.pace)
            self._event({"choices": [], "usage": {**usage, "completion_tokens": min(len(pieces), most)}})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

        def _fail(self, message: str) -> None:
            error = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
            self._event({"error": error})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")

        def _event(self, data: dict[str, Any]) -> None:
            self.chunk(f"data: {json.dumps(data)}\n\n".encode())

    with serving(Handler) as address:
        server = Double(
            f"{address}/v1",
            lines or ("<answer>B</answer>",),
            Tokenizer.from_file(str(where / "tokenizer.json")),
            **settings,
        )
        try:
            yield server
        finally:
            over.set()
