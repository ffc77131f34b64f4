"""Whether the name of a reasoner's weights fits its engine, by the name alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.errors import ConfigError
from act2see.graphs.config import PRESETS, load_config
from act2see.graphs.names import check_name
from act2see.graphs.sections import ReasonerConfig

GGUF = "Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0"
OWN = {"base_url": "http://localhost:1234/v1", "api_key": "none"}


def named(use: Any, weights: str, **options: Any) -> str | None:
    return check_name(ReasonerConfig(use=use, weights=weights, options=options))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit(preset: str) -> None:
    assert check_name(load_config(preset).reasoner) is None


@pytest.mark.parametrize(
    ("use", "weights", "write"),
    [
        ("transformers", GGUF, "write `use: llama-cpp`, or `weights: Qwen/Qwen3-VL-2B-Thinking`"),
        ("transformers", "/models/model-Q8_0.gguf", "write `use: llama-cpp`"),
        ("vllm", "a/b:Q4_K_M", "write `use: llama-cpp`, or `weights: a/b`"),
        ("vllm", "a/b-GGUF", "write `use: llama-cpp`, or `weights: a/b`"),
        ("llama-cpp", "Qwen/Qwen3-VL-2B-Thinking", f"write `weights: {GGUF}`"),
        ("llama-cpp", "/models/qwen", "name a file"),
        ("llama-cpp", "micro:vlm", "write `use: transformers`"),
        ("llama-cpp", f"hf.co/{GGUF}", f"write `weights: {GGUF}`"),
        ("transformers", "https://huggingface.co/a/b/tree/main", "write `weights: a/b`"),
    ],
)
def test_weights_of_another_engine_are_refused(use: str, weights: str, write: str) -> None:
    with pytest.raises(ConfigError) as refused:
        named(use, weights)
    assert repr(weights) in str(refused.value)
    assert write in str(refused.value)


@pytest.mark.parametrize(
    ("use", "weights"),
    [("llama-cpp", GGUF), ("llama-cpp", "~/m.gguf"), ("llama-cpp", "mine"), ("vllm-http", "mine"),
     ("transformers", "a/b"), ("transformers", "a/b@main"), ("transformers", "micro:vlm")],
)  # fmt: skip
def test_usual_names_have_no_warning(use: str, weights: str) -> None:
    assert named(use, weights) is None


def test_names_that_may_be_right_have_a_warning() -> None:
    assert "does not look like a repository of GGUF files" in str(
        named("llama-cpp", "somebody/qwen-quantised")
    )
    assert "is a GGUF model" in str(named("vllm-http", GGUF))


@pytest.mark.parametrize(
    ("weights", "options", "write"),
    [
        ("gemini:gemini-flash-latest", {}, "google_genai:gemini-flash-latest"),
        ("google-genai:gemini-flash-latest", {}, "google_genai:gemini-flash-latest"),
        ("gemini-flash-latest", {}, "google_genai:gemini-flash-latest"),
        ("gemini/gemini-flash-latest", {}, "google_genai:gemini-flash-latest"),
        ("claude:claude-x", {}, "anthropic:claude-x"),
        ("opanai:gpt-x", {}, "openai:gpt-x"),
        ("qwen3-vl:8b", {}, "ollama:qwen3-vl:8b"),
        ("ollama/qwen3-vl:4b-thinking", {}, "ollama:qwen3-vl:4b-thinking"),
        ("qwen/qwen3-vl-4b", OWN, "openai:qwen/qwen3-vl-4b"),
        ("lmstudio:qwen/qwen3-vl-4b", OWN, "openai:qwen/qwen3-vl-4b"),
        ("openai/gpt-oss-20b", OWN, "openai:openai/gpt-oss-20b"),
        (GGUF, {}, "use: llama-cpp"),
    ],
)
def test_a_chat_model_without_a_known_provider(weights: str, options: dict[str, Any], write: str) -> None:
    pytest.importorskip("langchain", reason="needs the chat extra")
    with pytest.raises(ConfigError, match="names no provider that LangChain knows") as refused:
        named("chat", weights, **options)
    assert f"write `{write}`" in str(refused.value)


def test_another_provider_is_left_to_langchain() -> None:
    pytest.importorskip("langchain", reason="needs the chat extra")
    for weights in ("google_vertexai:gemini-x", "nobody:model", "gpt-x"):
        assert named("chat", weights) is None
    assert named("chat", "gpt-x", **OWN) is None
    assert named("chat", "gemini-x", model_provider="google_vertexai") is None


def test_the_extra_of_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain", reason="needs the chat extra")
    for package in ("langchain_ollama", "langchain_openai"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"pip install 'act2see\[ollama\]'"):
        named("chat", "ollama:qwen3-vl:4b")
    with pytest.raises(ConfigError, match=r"pip install 'act2see\[chat\]'"):
        named("chat", "openai:m", **OWN)


def test_addresses_and_keys_of_own_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"base_url 'localhost:1234/v1' .* write http://localhost:1234/v1"):
        named("chat", "openai:m", base_url="localhost:1234/v1", api_key="none")
    with pytest.raises(ConfigError, match="add `api_key: none`"):
        named("chat", "openai:m", base_url="http://localhost:1234/v1")
    assert named("chat", "openai:m", **OWN) is None


@pytest.mark.parametrize(
    ("reasoner", "says"),
    [
        ({"use": "ollama"}, "write `use: chat` and `weights: ollama:NAME`"),
        ({"use": "LM-Studio"}, "write `use: chat` and `weights: openai:NAME`"),
        ({"use": "llamacpp"}, "did you mean 'llama-cpp'?"),
        ({"use": "magic"}, "Input should be 'transformers', 'chat'"),
        ({"model": "x"}, "unknown key 'reasoner.model'; did you mean 'weights'?"),
        ({"base_url": "x"}, "it belongs to options: `options: {base_url: ...}`"),
    ],
)
def test_keys_and_values_that_newcomers_try(reasoner: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config("ollama", reasoner=reasoner)
    assert says in str(refused.value)


def test_config_check_refuses_or_warns(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: laptop-transformers\nreasoner: {{weights: '{GGUF}'}}\n")
    refused = CliRunner().invoke(app, ["config", "check", str(file)])
    assert (refused.exit_code, "write `use: llama-cpp`" in " ".join(refused.stderr.split())) == (2, True)
    file.write_text("preset: laptop\nreasoner: {weights: somebody/qwen-quantised}\n")
    warned = CliRunner().invoke(app, ["config", "check", str(file)])
    assert warned.exit_code == 0, warned.output
    assert "warning: reasoner.weights 'somebody/qwen-quantised'" in " ".join(warned.stderr.split())


def test_local_files_of_llama_cpp_are_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "eyes.gguf").touch()
    file = tmp_path / "mine.yaml"
    file.write_text(
        "preset: laptop\nreasoner: {weights: ./m.gguf, options: {mmproj: eyes.gguf}}\n", encoding="utf-8"
    )
    reasoner = load_config(file).reasoner
    assert (reasoner.weights, reasoner.options) == (
        str(tmp_path / "m.gguf"),
        {"mmproj": str(tmp_path / "eyes.gguf")},
    )
    # This is the model's name on a server.
    file.write_text("preset: laptop\nreasoner: {weights: m.gguf}\n", encoding="utf-8")
    assert load_config(file).reasoner.weights == "m.gguf"
