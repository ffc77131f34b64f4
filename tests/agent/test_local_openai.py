"""The chat reasoner on local servers with OpenAI's protocol, such as LM Studio and MLX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.agent.openai_server import Reply, Server, openai_server
from tests.agent.test_chat import QUICK, black, write
from tests.graphs.doubles import clip_in, parts_in

from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import chat_model, provider_of
from act2see.errors import ConfigError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.run import aask

pytest.importorskip("langchain_openai", reason="needs the chat extra")


def reasoner(server: Server, **options: Any) -> ChatModelReasoner:
    given = {"base_url": server.url, "api_key": "none", "max_retries": 0, **options}
    return ChatModelReasoner(chat_model("openai:m", given, "test"), black, "m", QUICK)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_a_thought_in_a_field_of_its_own_is_kept(field: str) -> None:
    with openai_server(Reply(("The ", "ring."), thought=("I ", "look."), thought_field=field)) as server:
        text, done = await write(reasoner(server))
    assert text == "I look.</think>\n\nThe ring."
    assert (done.cached, done.decoded) == (40, 7)


async def test_a_thought_within_the_reply_is_unchanged() -> None:
    """LM Studio can keep the thought in the reply; the opening tag only repeats that of the prompt."""
    with openai_server(Reply(("<thi", "nk>\nI look.</think>", "\n\nThe ring."))) as server:
        text, _ = await write(reasoner(server))
    assert text == "I look.</think>\n\nThe ring."


@pytest.mark.parametrize(
    "pieces",
    [
        ("<think>\nI look. So <b>A</b>? No.\n</think>\n\nThe ring.",),
        ("<thi", "nk>I look.", "\nSo <b>A</b>? No.</thi", "nk>\n", "\nThe ring."),
        ("I look. So <b>A</b>? No.", "</think>", "The ring."),
        tuple("\n<think>I look. So <b>A</b>? No.\n\n</think>\nThe ring."),
    ],
)
async def test_a_thought_that_is_sent_twice_counts_once(pieces: tuple[str, ...]) -> None:
    with openai_server(Reply(pieces, thought=("I look. ", "So <b>A</b>? No."))) as server:
        text, _ = await write(reasoner(server))
    assert text == "I look. So <b>A</b>? No.</think>\n\nThe ring."


@pytest.mark.parametrize(
    "reply", ["I look", "I look.", "I look. Then I say: the ring.", "I look around.</think> The ring.", "I"]
)
async def test_a_reply_that_only_begins_like_the_thought_is_kept(reply: str) -> None:
    with openai_server(Reply(tuple(reply), thought=("I look.",))) as server:
        text, _ = await write(reasoner(server))
    assert text == f"I look.</think>\n\n{reply}"


async def test_a_thought_that_is_sent_in_both_fields_at_once_counts_once() -> None:
    twice = {"content": "I look."}
    with openai_server(Reply(("</think>", "The ring."), thought=("I look.",), beside=twice)) as server:
        text, _ = await write(reasoner(server))
    assert text == "I look.</think>\n\nThe ring."


@pytest.mark.parametrize("beside", [{"content": "\n"}, {"content": None}, {"reasoning_content": ""}])
async def test_what_comes_beside_a_thought_does_not_end_it(beside: dict[str, str | None]) -> None:
    reply = Reply(("The ring.",), thought=("I ", "look."), thought_field="reasoning", beside=beside)
    with openai_server(reply) as server:
        text, _ = await write(reasoner(server))
    assert "".join(text.split()) == "Ilook.</think>Thering."


async def test_a_call_within_the_thought_runs_the_tool(tmp_path: Path) -> None:
    replies = (
        Reply(("never",), thought=("I look. <retrieve>the ", "ring</retrieve> never")),
        Reply(("<answer>the ring</answer>",), thought=("It is lit.",)),
    )
    with openai_server(*replies) as server:
        _, parts = parts_in(tmp_path, reasoner(server))
        config = load_config(
            "micro", cache=str(tmp_path / "cache"), view={"guard": None}, reasoner={"prompt": "zero-shot"}
        )
        graph = create_act2see(config, parts=parts)
        trace = await aask(graph, clip_in(tmp_path), "What turns red?", ["the ring", "the cross"])
    assert [call.query for call in trace.calls] == ["the ring"]
    assert trace.choice == "the ring"


def test_only_other_addresses_get_the_client_that_keeps_thoughts() -> None:
    local: Any = chat_model("openai:m", {"base_url": "http://127.0.0.1:1/v1", "api_key": "none"}, "test")
    hosted: Any = chat_model("openai:m", {"api_key": "none"}, "test")
    assert (local.keeps_thought, getattr(hosted, "keeps_thought", False)) == (True, False)
    assert (provider_of(local), provider_of(hosted)) == ("openai", "openai")


def test_the_engine_of_a_preset_is_changed_by_one_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: laptop\nreasoner: {use: transformers}\n", encoding="utf-8")
    expected = load_config("laptop-transformers").reasoner
    assert load_config(file).reasoner == expected
    assert load_config("laptop", reasoner={"use": "transformers"}).reasoner == expected
    own = load_config("laptop", reasoner={"use": "transformers", "weights": "micro:vlm"}).reasoner
    assert (own.weights, own.prompt) == ("micro:vlm", "auto")


OF_OLLAMA = {"num_ctx": 40960, "num_predict": 100, "top_k": 20}


@pytest.mark.parametrize("address", [{}, {"base_url": "http://127.0.0.1:1/v1"}])
def test_unknown_options_are_named_before_a_run(address: dict[str, str]) -> None:
    with pytest.raises(
        ConfigError, match="openai does not know the options num_ctx, num_predict, top_k: remove"
    ):
        chat_model("openai:m", {**OF_OLLAMA, **address, "api_key": "none", "top_p": 0.9}, "test")


def test_known_options_are_accepted_by_any_name() -> None:
    options = {
        "api_key": "none",
        "timeout": 5,  # an alias of a field
        "extra_body": {"top_k": 20},
        "parallel_tool_calls": False,  # of the request
        "max_completion_tokens": 100,
        "model_provider": "openai",
    }
    model: Any = chat_model("m", options, "test")
    assert model.extra_body == {"top_k": 20}


def test_options_of_another_provider_are_named_for_each_package() -> None:
    pytest.importorskip("langchain_google_genai", reason="needs the package of Gemini")
    pytest.importorskip("langchain_ollama", reason="needs the package of Ollama")
    with pytest.raises(
        ConfigError, match="google_genai does not know the options num_ctx, num_predict: remove"
    ):
        chat_model("google_genai:gemini-flash-latest", {**OF_OLLAMA, "api_key": "none"}, "test")
    with pytest.raises(ConfigError, match="ollama does not know the options max_tokens: remove them"):
        chat_model("ollama:m", {**OF_OLLAMA, "max_tokens": 1}, "test")


def test_another_provider_drops_the_options_of_the_preset(tmp_path: Path) -> None:
    kept = load_config("ollama", reasoner={"weights": "ollama:other", "options": {"num_ctx": 8192}}).reasoner
    assert kept.options["num_ctx"] == 8192
    assert kept.options["top_k"] == 20
    file = tmp_path / "mine.yaml"
    file.write_text("preset: ollama\nreasoner: {weights: 'openai:m', options: {temperature: 1}}\n")
    assert load_config(file).reasoner.options == {"temperature": 1}
    assert load_config("ollama", reasoner={"weights": "openai:m"}).reasoner.options == {}
