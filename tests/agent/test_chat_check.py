"""A chat model is looked up in its server's list of models before the first run."""

from __future__ import annotations

from typing import Any

import pytest
from tests.agent.gemini_server import gemini_server
from tests.agent.ollama_server import ollama_server
from tests.agent.openai_server import openai_server
from tests.agent.test_chat import black

from act2see.agent.reasoners.chat.check import CheckedChatModel, find_model
from act2see.agent.reasoners.chat.setup import chat_model
from act2see.errors import ConfigError, SetupError

pytest.importorskip("langchain_openai", reason="needs the chat extra")


def reasoner(name: str, **options: Any) -> CheckedChatModel:
    return CheckedChatModel.from_options(name, black, options)


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The local server is OpenAI's service."""
    monkeypatch.setenv("OPENAI_API_KEY", "good")
    monkeypatch.setattr("act2see.agent.reasoners.chat.check._OPENAI", "127.0.0.1")
    return monkeypatch


async def test_a_model_that_the_provider_does_not_have(hosted: pytest.MonkeyPatch) -> None:
    with openai_server() as server:
        hosted.setenv("OPENAI_BASE_URL", server.url)
        server.models = 200, {"data": [{"id": "gpt-5-mini"}, {"id": "gpt-5"}, {"id": "whisper"}]}
        with pytest.raises(SetupError, match=r"no such model .* such as openai:gpt-5-mini or openai:gpt-5"):
            await reasoner("openai:gpt-5-mni").check()
        await reasoner("openai:gpt-5-mini").check()
        assert server.requests == []  # no question was asked


async def test_the_list_is_asked_for_once(hosted: pytest.MonkeyPatch) -> None:
    with openai_server() as server:
        hosted.setenv("OPENAI_BASE_URL", server.url)
        engine = reasoner("openai:m")
        await engine.check()
        asked = len(server.asked)
        await engine.check()
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    "models", [(500, {"error": "x"}), (404, {"error": "x"}), (200, {"data": "?"}), (403, {"error": "x"})]
)
async def test_a_list_that_cannot_be_had_stops_nothing(
    hosted: pytest.MonkeyPatch, models: tuple[int, dict[str, Any]]
) -> None:
    with openai_server() as server:
        hosted.setenv("OPENAI_BASE_URL", server.url)
        server.models = models
        await reasoner("openai:gpt-x").check()
        await reasoner("openai:gpt-x", base_url=server.url, api_key="none").check()


@pytest.mark.parametrize("name", ["openai:ft:gpt-5:org::id", "openai:gpt-5:free"])
async def test_a_variant_of_a_model_is_not_refused(hosted: pytest.MonkeyPatch, name: str) -> None:
    with openai_server() as server:
        hosted.setenv("OPENAI_BASE_URL", server.url)
        await reasoner(name).check()
        assert (await find_model(reasoner(name).model, name)).exists is None
        server.models = 200, {"data": [{"id": name.removeprefix("openai:")}]}
        assert (await find_model(reasoner(name).model, name)).exists


async def test_a_slow_list_stops_nothing(hosted: pytest.MonkeyPatch) -> None:
    with openai_server() as server:
        hosted.setenv("OPENAI_BASE_URL", server.url)
        hosted.setattr("act2see.agent.reasoners.chat.check._LONGEST", 0.0)
        await reasoner("openai:gpt-5-mni").check()


async def test_gemini() -> None:
    pytest.importorskip("langchain_google_genai", reason="needs the chat extra")
    with gemini_server() as server:
        given = {"base_url": server.url, "google_api_key": "good"}
        server.models, server.unlisted = ("gemini-3.8-flash",), ("gemini-flash-latest",)
        await reasoner("google_genai:gemini-flash-latest", **given).check()
        with pytest.raises(SetupError, match=r"no such model .* such as google_genai:gemini-3\.8-flash"):
            await reasoner("google_genai:gemini-2.5-pro", **given).check()


async def test_a_server_of_ones_own_may_have_models_that_it_does_not_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with openai_server() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        await reasoner("openai:another").check()
        await reasoner("openai:another", base_url=server.url, api_key="none").check()


@pytest.mark.parametrize("given", ["", "/v1/v1", "/v1/", "/v1/chat/completions"])
async def test_the_address_with_or_without_v1_is_named(given: str) -> None:
    with openai_server() as server:
        server.path = "/v1"
        root = server.url.removesuffix("/v1")
        engine = reasoner("openai:m", base_url=f"{root}{given}", api_key="none")
        if given == "/v1/":
            await engine.check()
            return
        with pytest.raises(SetupError) as refused:
            await engine.check()
    assert str(refused.value).endswith(f"set `reasoner.options.base_url: {server.url}`")


async def test_ollamas_address_has_no_v1() -> None:
    pytest.importorskip("langchain_ollama", reason="needs the ollama extra")
    with ollama_server() as server:
        name = f"ollama:{server.pulled[0]}"
        await reasoner(name, base_url=server.url).check()
        with pytest.raises(SetupError) as refused:
            await reasoner(name, base_url=f"{server.url}/v1").check()
    assert str(refused.value).endswith(f"set `reasoner.options.base_url: {server.url}`")


async def test_a_server_that_is_not_running(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    with pytest.raises(SetupError, match=r"cannot be reached: .*LM Studio: `lms server start`"):
        await reasoner("openai:m", base_url=url, api_key="none").check()


def test_misspelled_options_are_named() -> None:
    pytest.importorskip("langchain_ollama", reason="needs the ollama extra")
    with pytest.raises(
        ConfigError, match=r"know the options num_cxt \(did you mean num_ctx\?\), xyzzy: remove"
    ):
        chat_model("ollama:m", {"num_cxt": 40960, "xyzzy": 1}, "test")
    chat_model("ollama:m", {"num_ctx": 40960, "reasoning": True}, "test")
    chat_model("openai:m", {"api_key": "x", "base_url": "http://x"}, "test")
