"""Requests that are slow, large, many or never finished do not hold `serve openai`, on real connections."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import io
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from tests.serve.endless import assert_heads_are_bounded

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.serve.heads import MAX_HEAD
from act2see.serve.openai.intake import Intake
from act2see.serve.openai.model import ServedModel
from act2see.serve.openai.rollout import RequestPictures
from act2see.serve.openai.server import build_app, serving
from act2see.serve.openai.wire import MAX_VALUES, ChatRequest, ProtocolError, read_request

NO_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Brief(Reasoner):
    """Answers every chat with one word."""

    name = "brief"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        yield Delta("yes")
        yield Done(StopReason.EOS, decoded=1)


def model(**settings: Any) -> ServedModel:
    return ServedModel(Brief(), RequestPictures(), "brief", **settings)


def chat(*parts: Any) -> dict[str, Any]:
    return {"model": "brief", "messages": [{"role": "user", "content": list(parts)}]}


def picture(width: int, height: int) -> dict[str, Any]:
    """A white picture, which takes few bytes."""
    out = io.BytesIO()
    Image.new("1", (width, height), 1).save(out, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@contextmanager
def connection(url: str, sent: bytes) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as made:
        made.sendall(sent)
        yield made


def head(length: int) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % length
    )


def whole(made: socket.socket) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    read = b""
    while part := made.recv(65536):
        read += part
    return read


def wait_for(state: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not state() and time.monotonic() < until:
        time.sleep(0.005)
    assert state()


def post(url: str, body: Any) -> httpx.Response:
    return httpx.post(f"{url}/chat/completions", json=body, timeout=30)


def test_a_head_that_does_not_come_closes_the_connection() -> None:
    with serving(build_app(model()), head_seconds=0.3) as url:
        for sent in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc"):
            with connection(url, sent) as made:
                assert whole(made) == b""
        assert post(url, chat(text("?"))).json()["choices"][0]["message"]["content"] == "yes"


def test_a_head_without_end_closes_the_connection() -> None:
    with serving(build_app(model())) as url:
        assert_heads_are_bounded(url)
        with connection(url, b"GET / HTTP/1.1\r\nx: " + b"a" * MAX_HEAD) as made:
            assert whole(made).startswith(b"HTTP/1.1 431")


def test_a_body_that_does_not_come_is_an_error() -> None:
    intake = Intake(seconds=0.3)
    with serving(build_app(model(), intake=intake)) as url, connection(url, head(100) + b'{"mod') as made:
        answer = whole(made)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the request did not come within 0.3 s" in answer
    assert intake.held == 0


def test_large_bodies_are_refused_alone_and_together() -> None:
    intake = Intake(largest=1000, together=1500)
    with serving(build_app(model(), intake=intake)) as url:
        with connection(url, head(1001)) as made:  # before the body is sent
            assert whole(made).startswith(b"HTTP/1.1 413")
        with connection(url, head(900) + b" " * 800):
            wait_for(lambda: intake.held == 800)
            refused = post(url, chat(text("x" * 750)))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert post(url, chat(text("x" * 100))).status_code == 200
        assert post(url, chat(text("x" * 750))).status_code == 200
    assert intake.held == 0


def test_nothing_is_decoded_for_a_request_that_is_refused() -> None:
    with serving(build_app(model(waiting=0))) as url:
        assert post(url, chat(NO_PICTURE)).status_code == 429
    with serving(build_app(model(context=10))) as url:
        answer = post(url, chat(NO_PICTURE, text("x" * 1000)))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert json.loads(post(url, chat(NO_PICTURE)).text)["error"]["code"] == "invalid_image"


def test_many_small_values_are_refused_before_they_are_parsed() -> None:
    part = json.dumps(text(""))
    messages = f'[{{"role": "user", "content": [{",".join([part] * MAX_VALUES)}]}}]'
    with pytest.raises(ProtocolError, match="more than 250,000 values") as e:
        read_request(f'{{"model": "brief", "messages": {messages}}}'.encode())
    assert e.value.status == 413
    with serving(build_app(model(context=10))) as url:
        answer = post(url, chat(*[text("")] * 11)).json()["error"]
        assert answer["code"] == "context_length_exceeded"
        assert "12 messages and parts" in answer["message"]


def test_a_short_request_does_not_wait_behind_long_ones() -> None:
    intake = Intake()
    intake.long = asyncio.Semaphore(0)  # as if long ones were decoded for ever
    body = json.dumps(chat(text("x" * 70_000))).encode()
    with serving(build_app(model(), intake=intake)) as url:
        with connection(url, head(len(body)) + body):
            wait_for(lambda: intake.held == len(body))
            assert post(url, chat(text("?"))).status_code == 200
            assert intake.held == len(body)
        wait_for(lambda: intake.held == 0)  # a client that hangs up does not wait any longer


def test_large_pictures_are_refused_or_decoded_alone() -> None:
    served, intake = model(), Intake()
    with serving(build_app(served, intake=intake)) as url:
        for size, says in (((6001, 6000), "more than 36,000,000 pixels"), ((300, 1), "too narrow")):
            refused = post(url, chat(picture(*size))).json()["error"]
            assert refused["code"] == "invalid_image"
            assert says in refused["message"]
        body = json.dumps(chat(picture(2001, 2000))).encode()
        with contextlib.ExitStack() as stack:
            with served.pictures.alone:  # as if another were decoded
                made = stack.enter_context(connection(url, head(len(body)) + body))
                wait_for(lambda: intake.held == len(body))
                assert post(url, chat(picture(1999, 2000))).status_code == 200
                made.setblocking(False)
                with pytest.raises(BlockingIOError):
                    made.recv(1)
            made.settimeout(30)
            assert made.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_request_that_the_end_cancels_leaves_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    intake = Intake()
    with contextlib.ExitStack() as stack:
        with serving(build_app(model(), intake=intake), stop_seconds=0) as url:
            made = stack.enter_context(connection(url, head(100) + b'{"mod'))
            wait_for(lambda: intake.held == 5)
        assert whole(made).startswith(b"HTTP/1.1 503")
    logged = capsys.readouterr().err
    assert "Traceback" not in logged
    assert len(logged.splitlines()) <= 1


class Watched(Reasoner):
    """Tells what of a request is still held while it is answered."""

    name = "watched"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        held = [made for made in gc.get_objects() if type(made) is ChatRequest]
        yield Delta(f"{sum(len(chat.messages) for chat in held)} messages")
        yield Done(StopReason.EOS, decoded=1)


def test_a_request_is_freed_before_its_answer() -> None:
    with serving(build_app(ServedModel(Watched(), RequestPictures(), "brief"))) as url:
        assert post(url, chat(text("?"))).json()["choices"][0]["message"]["content"] == "0 messages"
