"""The OpenAI-compatible server over HTTP, with the micro checkpoint."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("langchain_openai", reason="the OpenAI client is not installed")

from openai import AsyncOpenAI, BadRequestError

from act2see import aask, create_act2see, load_config
from act2see.agent.reasoners.base import Delta, Reasoner
from act2see.errors import ConfigError, ReasonerError
from act2see.graphs.config import Config
from act2see.graphs.parts import build_parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.serve.hosts import allowed_hosts
from act2see.serve.openai.model import ServedModel
from act2see.serve.openai.rollout import RequestPictures
from act2see.serve.openai.server import build_app, serving

CLOSE = {"connection": "close"}  # otherwise clients keep sockets open after the test's event loop has ended


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return load_config("micro", cache=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def served(config: Config) -> ServedModel:
    return ServedModel.load(config.reasoner, "micro", waiting=8)


@pytest.fixture(scope="module")
def url(served: ServedModel) -> Iterator[str]:
    with serving(build_app(served)) as address:
        yield address


def over_http(config: Config, url: str) -> Config:
    """Return the configuration that docs/models.md shows, with the address of this server."""
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    [shown] = [yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", text, re.S) if "continuation" in b]
    shown["reasoner"]["options"] |= {"base_url": url, "default_headers": CLOSE}
    return load_config(shown, cache=config.cache)


@pytest.fixture
async def client(url: str) -> Any:
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, default_headers=CLOSE) as made:
        yield made


def data_url(pixels: Any, kind: str = "PNG") -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def chat(text: str = "Tools: none.", url: str | None = None) -> list[dict[str, Any]]:
    """Return the messages of a chat with one picture."""
    picture = url or data_url(np.full((192, 192, 3), 200, np.uint8))
    return [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": text}],
        }
    ]


TEXT_ONLY: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": ""}],
    [{"role": "user", "content": []}],
    [{"role": "user", "content": [{"type": "text", "text": ""}]}],
    [{"role": "user", "content": "a\x00b"}],
    [{"role": "system", "content": "Be brief."}],
    [{"role": "developer", "content": "Be brief."}],
    [{"role": "assistant", "content": "I am"}],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "a"},
    ],
]


@pytest.mark.parametrize("messages", TEXT_ONLY)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_without_a_picture_is_answered(
    url: str, messages: list[dict[str, Any]], stream: bool
) -> None:
    # Each request is sent twice: the second one is served from the cache.
    variants: list[dict[str, Any]] = [{}, {}]
    if messages[-1]["role"] == "assistant":
        variants += [{"continue_final_message": True}] * 2
    async with httpx.AsyncClient(headers=CLOSE) as http:
        for more in variants:
            asked = {"model": "micro", "messages": messages, "max_tokens": 4, "stream": stream, **more}
            reply = await http.post(f"{url}/chat/completions", json=asked, timeout=60)
            assert reply.status_code == 200, reply.text
            if stream:
                assert reply.text.endswith("data: [DONE]\n\n")
                assert "error" not in reply.text
            else:
                assert reply.json()["usage"]["completion_tokens"] >= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (4, 4), (4, 100), (3, 7)])
async def test_tiny_pictures_are_read(client: AsyncOpenAI, size: tuple[int, int]) -> None:
    picture = data_url(np.full((*size, 3), 200, np.uint8))
    reply = await client.chat.completions.create(model="micro", max_tokens=3, messages=chat(url=picture))  # type: ignore[arg-type]
    assert reply.choices[0].message.content


@pytest.mark.parametrize("temperature", [1e-320, 1e-38, 1e-5, 0.0])
async def test_a_temperature_near_zero_is_greedy(client: AsyncOpenAI, temperature: float) -> None:
    asked: Any = {"model": "micro", "max_tokens": 8, "messages": chat()}
    cold = await client.chat.completions.create(**asked, temperature=temperature)
    greedy = await client.chat.completions.create(**asked, temperature=0)
    assert cold.choices[0].message.content == greedy.choices[0].message.content


async def test_a_text_of_megabytes_is_refused_before_tokenizing(
    served: ServedModel, client: AsyncOpenAI, monkeypatch: Any
) -> None:
    asked: Any = {
        "model": "micro",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "word " * 1_000_000}],
    }
    monkeypatch.setattr(served.reasoner, "stream", None)  # the model must not be called
    with pytest.raises(BadRequestError, match=r"5,000,\d+ characters"):
        await client.chat.completions.create(**asked)


async def test_pictures_and_texts_alternate_in_one_session(
    client: AsyncOpenAI,
) -> None:
    begin = [{"role": "user", "content": "Look."}, *chat()]
    turns: list[list[dict[str, Any]]] = [
        begin[:1],
        begin,
        [*begin, {"role": "user", "content": "And?"}],
        begin[:1],
    ]
    for messages in turns:
        made = await client.chat.completions.create(model="micro", messages=messages, max_tokens=4)  # type: ignore[arg-type]
        assert made.usage
        assert made.usage.completion_tokens


class Broken(Reasoner):
    """A reasoner that fails before or after its first word."""

    name = "broken"

    def __init__(self, error: Exception, words: int = 0) -> None:
        self.error, self.words = error, words

    async def stream(self, request: Any) -> Any:
        for _n in range(self.words):
            yield Delta("word ")
        raise self.error


@pytest.mark.parametrize("words", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("error", [ReasonerError("out of memory"), KeyError("a secret of the server")])
async def test_every_500_is_logged_under_the_clients_error_id(
    caplog: pytest.LogCaptureFixture, error: Exception, stream: bool, words: int
) -> None:
    broken: Any = Broken(error, words)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with serving(build_app(ServedModel(broken, RequestPictures(), "m"))) as url:
        async with httpx.AsyncClient(headers=CLOSE) as http:
            reply = await http.post(f"{url}/chat/completions", json=body)
    if stream and words:
        assert reply.status_code == 200  # the response had started
        said = json.loads(reply.text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    else:
        assert reply.status_code == 500
        said = reply.json()["error"]
    assert said["type"] == "server_error"
    assert ("out of memory" in said["message"]) == isinstance(error, ReasonerError)
    assert "secret" not in said["message"]
    id = re.search(r"error ([0-9a-f]{12})", said["message"])
    assert id
    (record,) = [r for r in caplog.records if id[1] in r.getMessage()]
    assert record.exc_info
    assert record.exc_info[1] is error


async def test_other_hosts_and_origins_are_refused(served: ServedModel) -> None:
    with serving(build_app(served, allowed_hosts("video.example.org"))) as url:
        own = url.removesuffix("/v1")
        async with httpx.AsyncClient(headers=CLOSE) as http:
            for headers, status in (
                ({}, 200),
                ({"host": "video.example.org"}, 200),
                ({"host": "rebound.example"}, 421),
                ({"origin": own}, 200),
                ({"origin": "https://evil.example"}, 403),
                ({"origin": "null"}, 403),
            ):
                body = {"model": "micro", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                reply = await http.post(f"{url}/chat/completions", json=body, headers=headers)
                assert reply.status_code == status, (headers, reply.text)
                assert (await http.get(f"{url}/models", headers=headers)).status_code == status
                assert (await http.get(f"{own}/health", headers=headers)).status_code == status
            preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
            reply = await http.options(f"{url}/chat/completions", headers=preflight)
            assert "access-control-allow-origin" not in reply.headers


ODD = [
    rb'{"model": "micro", "messages": [{"role": "user", "content": "a\ud800b"}]}',
    rb'{"model": "\udfff", "messages": [{"role": "user", "content": "a"}]}',
    rb'{"model": "micro", "stop": ["\ud800"], "messages": [{"role": "user", "content": "a"}]}',
    rb'{"model": "micro", "\ud800": 1, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "micro", "messages": [{"role": "user", "content": "\xff"}]}',
    b'{"model": "micro", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "micro", "top_p": NaN, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "micro", "max_tokens": 1e999, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": "micro", "seed": ' + b"9" * 10_000 + b', "messages": [{"role": "user", "content": "a"}]}',
    b"\xff\xfe",
    b"[" * 100_000,
    b"",
]


async def test_invalid_unicode_and_numbers_are_refused(url: str) -> None:
    async with httpx.AsyncClient(headers={**CLOSE, "content-type": "application/json"}) as http:
        for body in ODD:
            reply = await http.post(f"{url}/chat/completions", content=body)
            kind = reply.json()["error"]["type"]
            assert (reply.status_code, kind) == (400, "invalid_request_error"), body[:80]
        for name in ("%00", "%ff", "%ed%a0%80", "a%0Ab", "..%2f..%2fetc"):
            assert (await http.get(f"{url}/models/{name}")).status_code == 404
        asked = {"model": "a\x00", "messages": chat()}
        assert (await http.post(f"{url}/chat/completions", json=asked)).status_code == 404


def test_an_unprintable_model_name_is_refused(config: Config) -> None:
    for name in ("\udcff", "a\x00", "a\nb"):
        with pytest.raises(ConfigError, match="choose another with --name"):
            ServedModel.load(config.reasoner, name)


@pytest.mark.parametrize(("family", "index"), [("blink", 0), ("both", 3)])
async def test_a_question_over_http_gives_the_text_of_one_in_process(
    config: Config, url: str, tmp_path: Path, family: Any, index: int
) -> None:
    item = make_item(family, index, "validation")
    clip = write_clip(item.clip, tmp_path / "clip.mp4")
    local = await aask(create_act2see(config), clip, item.text, item.options)
    remote_config = over_http(config, url)
    remote = await aask(
        create_act2see(remote_config, parts=build_parts(remote_config)), clip, item.text, item.options
    )
    assert remote.text == local.text
    assert (remote.answer, [c.tag for c in remote.calls]) == (local.answer, [c.tag for c in local.calls])
    assert len(remote.usage.loops) > 1
    for one, other in zip(remote.usage.loops, local.usage.loops, strict=True):
        # The tokens before a tool call come from the cache, over HTTP as in this process.
        assert (one.cached, one.prefilled, one.decoded) == (other.cached, other.prefilled, other.decoded)
    assert remote.usage.loops[1].cached > remote.usage.loops[1].prefilled


async def test_stream_and_whole_answer_have_the_same_text_and_usage(client: AsyncOpenAI, url: str) -> None:
    assert [m.id async for m in await client.models.list()] == ["micro"]
    assert (await client.models.retrieve("micro")).model_dump()["max_model_len"] > 1000
    asked: dict[str, Any] = {"model": "micro", "messages": chat(), "max_tokens": 24}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(c.delta.content or "" for c in choices) == whole.choices[0].message.content
    assert choices[-1].finish_reason == whole.choices[0].finish_reason == "length"
    first, second = whole.usage, chunks[-1].usage
    assert first
    assert second
    assert (first.completion_tokens, second.completion_tokens) == (24, 24)
    assert first.prompt_tokens == second.prompt_tokens > 16
    assert second.prompt_tokens_details
    assert second.prompt_tokens_details.cached_tokens == second.prompt_tokens - 1


async def test_stop_strings_end_the_text_and_are_kept_on_request(client: AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "micro", "messages": chat(), "max_tokens": 40}
    text = (await client.chat.completions.create(**asked)).choices[0].message.content or ""
    stop = text[10:14]
    end = text.index(stop)
    for keep in (False, True):
        whole = await client.chat.completions.create(
            **asked, stop=["never there", stop], extra_body={"include_stop_str_in_output": keep}
        )
        expected = text[: end + len(stop)] if keep else text[:end]
        choice = whole.choices[0]
        assert choice.message.content == expected
        assert (choice.finish_reason, choice.model_dump()["stop_reason"]) == ("stop", stop)
        stream = await client.chat.completions.create(
            **asked, stop=stop, stream=True, extra_body={"include_stop_str_in_output": keep}
        )
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == expected


async def test_a_seed_gives_the_same_draw(client: AsyncOpenAI) -> None:
    async def draw(seed: int) -> str | None:
        made = await client.chat.completions.create(
            model="micro",
            messages=chat(),
            max_tokens=24,
            temperature=2.0,
            seed=seed,  # type: ignore[arg-type]
        )
        return made.choices[0].message.content

    assert await draw(1) == await draw(1) != await draw(2)


async def test_concurrent_requests_are_decoded_together(client: AsyncOpenAI, served: ServedModel) -> None:
    engine: Any = served.reasoner
    before = engine.forwards
    asked = [
        client.chat.completions.create(model="micro", messages=chat(f"{n}"), max_tokens=40) for n in range(6)
    ]  # type: ignore[arg-type]
    made = await asyncio.gather(*asked)
    decoded = sum(m.usage.completion_tokens for m in made if m.usage)
    assert engine.forwards - before < decoded / 2


async def test_requests_beyond_the_limit_get_429(client: AsyncOpenAI, url: str, served: ServedModel) -> None:
    asked = {"model": "micro", "messages": chat(), "max_tokens": 60}
    async with httpx.AsyncClient(headers=CLOSE) as http:
        replies = await asyncio.gather(
            *(http.post(f"{url}/chat/completions", json=asked, timeout=60) for _ in range(24))
        )
    refused = [r for r in replies if r.status_code == 429]
    assert {r.status_code for r in replies} == {200, 429}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["code"] == "server_busy"
    assert served.under_way == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_hanging_up_frees_the_row_and_the_pictures(url: str, served: ServedModel, stream: bool) -> None:
    engine: Any = served.reasoner
    # All tokens are likely at this temperature, so the turn does not end soon.
    asked = {
        "model": "micro",
        "messages": chat(),
        "max_tokens": 3000,
        "temperature": 2.0,
        "seed": 3,
        "stream": stream,
    }
    body = json.dumps(asked).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    address = url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head.encode() + body)
    await (reader.readuntil(b"content") if stream else wait_until(lambda: engine.active == 1))
    assert served.under_way == 1
    writer.close()
    await wait_until(lambda: served.under_way == 0 and engine.active == 0)
    await wait_until(lambda: len(served.pictures) == 0)


async def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


PNG = data_url(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"messages": []}, 400, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": chat(url="http://127.0.0.1:1/x.png")}, 400, "fetches nothing"),
        ({"messages": chat(url="file:///etc/hostname")}, 400, "opens no files"),
        ({"messages": chat(url=PNG[:-9] + "!")}, 400, "base64 is invalid"),
        ({"messages": chat(url="data:image/png;base64,AAAA")}, 400, "cannot be read"),
        ({"messages": chat(url=data_url(np.zeros((1, 400, 3), np.uint8)))}, 400, "too narrow"),
        ({"model": "other"}, 404, "unknown model 'other'"),
        ({"tools": [{"type": "function"}]}, 400, "tools is not supported"),
        ({"n": 2}, 400, "n: Input should be 1"),
        ({"continue_final_message": True}, 400, "needs an assistant message at the end"),
        ({"add_generation_prompt": False}, 400, "needs continue_final_message=true"),
        ({"messages": chat("word " * 6000)}, 400, "show fewer initial frames"),
    ],
)
async def test_wrong_requests_get_openai_errors(
    url: str, change: dict[str, Any], status: int, words: str
) -> None:
    async with httpx.AsyncClient(headers=CLOSE) as http:
        for stream in (False, True):
            asked = {"model": "micro", "messages": chat(), "max_tokens": 1, "stream": stream, **change}
            reply = await http.post(f"{url}/chat/completions", json=asked)
            error = reply.json()["error"]
            assert (reply.status_code, error["type"]) == (status, "invalid_request_error")
            assert words in error["message"]


async def test_an_exceeded_context_has_openais_code(client: AsyncOpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        await client.chat.completions.create(model="micro", messages=chat("word " * 6000))  # type: ignore[arg-type]
    assert caught.value.code == "context_length_exceeded"


async def test_a_key_and_the_json_content_type_are_required(served: ServedModel) -> None:
    locked = ServedModel(served.reasoner, served.pictures, "micro", key="right")
    body = json.dumps({"model": "micro", "messages": chat(), "max_tokens": 1})
    with serving(build_app(locked)) as url:
        async with httpx.AsyncClient(headers=CLOSE) as http:
            for key, status in (("short", 401), ("wrong", 401), ("right", 200)):
                headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
                reply = await http.post(f"{url}/chat/completions", content=body, headers=headers)
                assert reply.status_code == status
                assert (await http.get(f"{url}/models", headers=headers)).status_code == status
            headers = {"authorization": "Bearer right", "content-type": "text/plain"}
            reply = await http.post(f"{url}/chat/completions", content=body, headers=headers)
            assert reply.status_code == 415
