"""The check of a chat model's server before a run, for callers that give up and servers that answer oddly."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.agent.openai_server import openai_server
from tests.serving import Quiet, serving

from act2see.agent.reasoners.chat.probe import Listing, look_up, probe
from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import SetupError

pytest.importorskip("langchain_openai", reason="needs the chat extra")

MODELS = ("gpt-4o", "google/gemma-3-27b-it:free", "ft:gpt-4o-mini:org:x:abc")


@dataclass
class Slow:
    """A server that answers when it is told to."""

    address: str
    asked: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def slow_server(status: int = 200, trickles: bool = False) -> Iterator[Slow]:
    """Run a server that sends a list of models after `go_on`; until then nothing, or single spaces."""
    server: Slow

    class Handler(Quiet):
        def do_GET(self) -> None:
            server.asked.set()
            if not trickles:
                server.go_on.wait()
            with suppress(ConnectionError):  # the client may be gone
                self.begin(status, {"transfer-encoding": "chunked"})
                while not server.go_on.wait(0.02):
                    self.chunk(b" ")
                self.chunk(json.dumps({"data": [{"id": "m"}]}).encode())
                self.chunk(b"")

    with serving(Handler) as address:
        server = Slow(address)
        try:
            yield server
        finally:
            server.go_on.set()
            for thread in threading.enumerate():
                if thread.name == "act2see-probe":
                    thread.join()  # pytest reports an exception in it


def model(url: str, name: str = "m") -> Any:
    return chat_model(f"openai:{name}", {"base_url": url, "api_key": "none"}, "test")


@pytest.mark.parametrize("status", [200, 401])
async def test_an_answer_after_the_caller_was_cancelled_is_dropped(status: int) -> None:
    with slow_server(status) as server:
        asking = asyncio.create_task(probe(model(server.address), "openai:m"))
        await asyncio.to_thread(server.asked.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_server_that_was_reached_and_is_slow_is_no_certain_problem() -> None:
    with slow_server(trickles=True) as server:
        asking = look_up(model(server.address), "openai:m", seconds=1.5)
        assert await asking == Listing(exists=None)
        assert server.asked.is_set()


NO_LISTS = {
    "no JSON": b"<html>504</html>",
    "cut": b'{"models": [{"name": "m"',
    "nested too deep": b"[" * 200_000,
    "too long a number": b'{"models": [{"name": ' + b"7" * 5000 + b"}]}",
    "no list": b'{"models": 5}',
    "no UTF-8": b"\xff\xfe{",
}


@contextmanager
def odd_server(body: bytes) -> Iterator[str]:
    """Run a server that answers every request with the same text."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.begin(200, {"content-length": str(len(body))})
            self.wfile.write(body)

    with serving(Handler) as address:
        yield address


@pytest.mark.parametrize("body", NO_LISTS.values(), ids=NO_LISTS)
async def test_what_is_no_list_of_models_says_nothing_of_one(body: bytes) -> None:
    with odd_server(body) as address:
        assert await look_up(model(address), "openai:m") == Listing(exists=None)


@pytest.mark.parametrize("body", NO_LISTS.values(), ids=NO_LISTS)
async def test_what_sends_no_list_of_models_is_no_ollama(body: bytes) -> None:
    pytest.importorskip("langchain_ollama", reason="needs the chat extra")
    with odd_server(body) as address, pytest.raises(SetupError, match="is no Ollama server: check the addr"):
        await probe(chat_model("ollama:m", {"base_url": address}, "test"), "ollama:m")


@pytest.mark.parametrize("name", MODELS)
async def test_names_of_models_may_contain_colons(name: str) -> None:
    with openai_server() as server:
        server.models = (200, {"data": [{"id": one} for one in MODELS]})
        assert await look_up(model(server.url, name), f"openai:{name}") == Listing(exists=True)


@pytest.mark.parametrize(
    "listed",
    [
        {"data": [{"id": "gpt-4o", "name": "OpenAI: GPT-4o"}]},
        {"models": [{"name": "Pretty GPT-4o"}], "data": [{"id": "gpt-4o"}]},
        {"models": [], "data": [{"id": "gpt-4o"}]},
        [{"id": "gpt-4o", "display_name": "GPT"}],
    ],
)
async def test_ids_are_compared_and_not_titles(listed: Any) -> None:
    with openai_server() as server:
        server.models = (200, listed)
        assert await look_up(model(server.url, "gpt-4o"), "openai:gpt-4o") == Listing(exists=True)
        found = await look_up(model(server.url, "gpt-4p"), "openai:gpt-4p")
    assert found == Listing(exists=False, nearest=("gpt-4o",))
