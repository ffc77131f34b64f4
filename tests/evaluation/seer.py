"""A chat model of OpenAI's protocol that looks at the pictures it is sent, calls tools and answers.

It is a program: it reads the board of each picture from the pixels, calls a tool where no picture shows what
the question asks for, and answers from a board alone. So it is right only if the frame that a tool returned
came to it, and shows what it should. It calls `retrieve` and `generate` where it is offered them, and
`find_frames` and `ask_video` of our MCP server elsewhere.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from act2see.micro.world import Board, Edit, cell_name, read_board

_BORDER = 4  # pixels around an imagined picture, which has a strip below it
_OPTION = re.compile(r"^\(?([A-Z])[.)] (.+)$", re.MULTILINE)


@dataclass
class Sight:
    """What a request says and shows."""

    text: str
    """The question and what stands beside it."""
    boards: list[Board]
    calls: list[str]
    """The names of the calls that were made."""

    @property
    def options(self) -> dict[str, str]:
        """The letter of each option."""
        return {body: letter for letter, body in _OPTION.findall(self.text)}


@dataclass
class Call:
    """A wish: to find a frame, or to imagine one."""

    tag: str
    query: str


Policy = Callable[[Sight], "Call | str"]


def look(sight: Sight) -> Call | str:
    """Return the letter of the option that a board shows, or the call that may show it."""
    tip = re.search(r"tipped to the (left|right)", sight.text)
    blink = re.search(r"the (\w+) (?:blinks|turn when it blinks)", sight.text)
    away = re.search(r"the (\w+) is taken away", sight.text)
    shape = blink[1] if blink else None
    lit = [board for board in sight.boards if shape is None or (board.lit and board.lit.shape == shape)]
    if len(sight.calls) > 2:
        return "none: I have looked often enough"
    if tip is not None:
        seen = [board for board in lit if board.tipped == tip[1]]
        if not seen and not lit:
            return Call("retrieve", f"the {shape} blinks")
        edit = Edit("left" if tip[1] == "left" else "right", away[1] if away else None)
        query = f"{edit} when the {shape} blinks" if shape else str(edit)
        return _say(sight, seen[-1]) if seen else Call("generate", query)
    named = re.search(r"(?:is|does) the (\w+)", sight.text)
    assert named is not None, sight.text
    seen = [board for board in lit if board.find(named[1])]
    if not seen:
        return Call("retrieve", f"the {shape} blinks" if shape else f"the {named[1]}")
    return _say(sight, seen[-1])


def insist(sight: Sight) -> Call | str:
    """Retrieve one thing, whatever is asked, and answer A."""
    return "A" if sight.calls else Call("retrieve", "the triangle blinks")


def _say(sight: Sight, board: Board) -> str:
    """Return the letter of what a board shows."""
    if place := re.search(r"ends up at (\w+)", sight.text):
        said = next((piece.shape for piece in board.pieces if cell_name(piece.cell) == place[1]), "")
    elif colour := re.search(r"What colour (?:is|does) the (\w+)", sight.text):
        said = board.piece(colour[1]).colour
    else:
        asked = re.search(r"Where (?:is|does) the (\w+)", sight.text)
        assert asked is not None, sight.text
        said = cell_name(board.piece(asked[1]).cell)
    return sight.options.get(said, f"none: I see {said}")


def read_request(request: dict[str, Any]) -> Sight:
    """Return what a request says and shows."""
    texts, boards, calls = [], [], []
    for message in request["messages"]:
        calls += [call["function"]["name"] for call in message.get("tool_calls") or ()]
        content = message.get("content") or []
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "image_url":
                boards.append(read_picture(part["image_url"]["url"]))
            elif message["role"] == "user":
                texts.append(part["text"])
    return Sight("\n".join(texts), boards, calls)


def read_picture(url: str) -> Board:
    """Return the board of a picture, without the border of an imagined one."""
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    if image.height > image.width:
        side = image.width - _BORDER
        image = image.crop((_BORDER, _BORDER, side, side))
    return read_board(np.asarray(image))


def _write_call(call: Call, sight: Sight, tools: set[str]) -> dict[str, Any]:
    """Return a call of a tool that is offered."""
    if call.tag in tools:
        return {"name": call.tag, "arguments": json.dumps({"query": call.query})}
    video = re.search(r"video path: (.+)", sight.text)
    assert video is not None, sight.text
    if call.tag == "retrieve":
        arguments = {"video": video[1], "query": call.query, "k": 1}
        return {"name": "find_frames", "arguments": json.dumps(arguments)}
    question = sight.text.partition("\n")[0]
    arguments = {"video": video[1], "question": question, "options": list(sight.options)}
    return {"name": "ask_video", "arguments": json.dumps(arguments)}


@dataclass
class Seer:
    """A running model."""

    policy: Policy
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Return a message, and why it ends."""
        self.requests.append(request)
        sight = read_request(request)
        wish = self.policy(sight)
        if isinstance(wish, str):
            return {"role": "assistant", "content": f"I see it now. <answer>{wish}</answer>"}, "stop"
        tools = {tool["function"]["name"] for tool in request["tools"]}
        function = _write_call(wish, sight, tools)
        call = {"index": 0, "id": f"call{len(sight.calls)}", "type": "function", "function": function}
        return {"role": "assistant", "content": "I look. ", "tool_calls": [call]}, "tool_calls"

    def shown(self, mark: str) -> Sequence[tuple[str, Board]]:
        """Return the texts that begin with a mark in results of tools, each with the board after it."""
        found = {}
        for request in self.requests:
            for message in request["messages"]:
                parts = message.get("content") if message["role"] == "tool" else ()
                for text, picture in itertools.pairwise(parts) if isinstance(parts, list) else ():
                    if text.get("text", "").startswith(mark):
                        url = picture["image_url"]["url"]
                        found[text["text"], url] = text["text"], read_picture(url)
        return tuple(found.values())


@contextmanager
def serve_seer(policy: Policy) -> Iterator[Seer]:
    """Serve a model on this machine."""
    seer = Seer(policy)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            message, reason = seer.answer(request)
            about = {"id": "1", "created": 0, "model": "seer"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            if request.get("stream"):
                choice = {"index": 0, "delta": message, "finish_reason": reason}
                chunk = {**about, "object": "chat.completion.chunk", "choices": [choice], "usage": usage}
                kind, body = "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
            else:
                choice = {"index": 0, "message": message, "finish_reason": reason}
                kind = "application/json"
                body = json.dumps({**about, "object": "chat.completion", "choices": [choice], "usage": usage})
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seer.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield seer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
