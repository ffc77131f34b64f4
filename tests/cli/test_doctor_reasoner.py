"""`act2see doctor` on the reasoner: addresses of servers, local GGUF files, and what comes next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.agent.llama_server import llama_server
from tests.agent.ollama_server import ollama_server
from tests.agent.openai_server import openai_server
from tests.agent.vllm_server import MODEL, vllm_server
from tests.cli.helpers import Run


def config_in(folder: Path, preset: str, **reasoner: Any) -> Path:
    """Write a config whose tools are on this machine."""
    file = folder / "mine.yaml"
    tools = {"generate": {"use": "generate", "options": {"weights": "micro:generator"}}}
    data = {"preset": preset, "reasoner": reasoner, "encoder": {"weights": "micro:encoder"}, "tools": tools}
    file.write_text(json.dumps(data), encoding="utf-8")
    return file


def own(folder: Path, url: str, weights: str = "openai:m") -> Path:
    return config_in(folder, "api", weights=weights, options={"base_url": url, "api_key": "none"})


def steps(said: str) -> str:
    return " ".join(said.split("Next:")[1].split())


@pytest.mark.parametrize("path", ["", "/v1/v1", "/v1/chat/completions", "/api"])
def test_an_address_without_a_list_of_models(run: Run, tmp_path: Path, path: str) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server() as server:
        server.path = "/v1"
        root = server.url.removesuffix("/v1")
        said = run("doctor", "--config", own(tmp_path, f"{root}{path}"), code=1).stdout
        assert f"{root}{path}/models is no list of models (status 404)" in said
        assert steps(said) == f"set `reasoner.options.base_url: {server.url}`"
        assert "It can run." in run("doctor", "--config", own(tmp_path, server.url)).stdout


def test_a_server_that_answers_200_at_a_wrong_address(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server() as server:
        server.path = "/v1"
        server.elsewhere = 200, {"error": "Unexpected endpoint or method. (GET /models)"}
        said = run("doctor", "--config", own(tmp_path, server.url.removesuffix("/v1")), code=1).stdout
    assert steps(said) == f"set `reasoner.options.base_url: {server.url}`"


def test_the_address_of_another_server(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with llama_server() as server:  # it has no list of models
        said = run("doctor", "--config", own(tmp_path, f"{server.url}/v1"), code=1).stdout
    assert "is no list of models (status 404), with or without /v1" in said
    assert "set `reasoner.options.base_url` to the address of the server that has the model" in steps(said)


def test_ollamas_address_with_v1(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("langchain_ollama", reason="needs the ollama extra")
    with ollama_server() as server:
        name = f"ollama:{server.pulled[0]}"
        file = config_in(tmp_path, "ollama", weights=name, options={"base_url": f"{server.url}/v1"})
        said = run("doctor", "--config", file, code=1).stdout
        assert steps(said) == f"set `reasoner.options.base_url: {server.url}`"


def test_a_server_without_a_model(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server() as server:
        server.models = 200, {"object": "list", "data": []}
        said = run("doctor", "--config", own(tmp_path, server.url), code=1).stdout
    assert f"the server at {server.url} has no model" in said
    assert steps(said).startswith("load a model there (LM Studio: `lms load NAME`")


def test_models_of_ones_own_server_are_suggested(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server() as server:
        server.models = 200, {"data": [{"id": "qwen/qwen3-vl-4b"}]}
        for name in ("openai:zzz", "openai:zzz:4b"):
            said = run("doctor", "--config", own(tmp_path, server.url, name), code=1).stdout
            assert steps(said).endswith("such as openai:qwen/qwen3-vl-4b")


def test_a_server_that_is_not_running(run: Run, tmp_path: Path, unused_tcp_port: int) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    file = own(tmp_path, f"http://127.0.0.1:{unused_tcp_port}/v1")
    assert "start the server there (LM Studio:" in steps(run("doctor", "--config", file, code=1).stdout)


def test_a_name_of_another_engine(run: Run, tmp_path: Path) -> None:
    file = config_in(tmp_path, "laptop", weights="Qwen/Qwen3-VL-2B-Thinking")
    said = run("doctor", "--config", file, code=1).stdout
    assert "Qwen/Qwen3-VL-2B-Thinking: cannot be used with `use: llama-cpp`" in said
    assert "write `weights: Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0`" in steps(said)
    assert "download" not in steps(said)


def test_every_problem_of_a_server_has_a_next_step(run: Run, tmp_path: Path) -> None:
    with llama_server(vision=False) as server:
        file = config_in(tmp_path, "laptop", options={"url": server.url, "mmporj": "x"})
        assert "did you mean 'mmproj'?" in steps(run("doctor", "--config", file, code=1).stdout)
        file = config_in(tmp_path, "laptop", weights="micro", options={"url": server.url})
        assert "start the server with its --mmproj" in steps(run("doctor", "--config", file, code=1).stdout)
        file = config_in(tmp_path, "laptop", weights="a/b-GGUF:Q8_0", options={"url": server.url})
        assert "serves micro.gguf, and the config names" in steps(
            run("doctor", "--config", file, code=1).stdout
        )


def test_a_vllm_server(run: Run, tmp_path: Path, unused_tcp_port: int) -> None:
    options = {"url": f"http://127.0.0.1:{unused_tcp_port}/v1"}
    file = config_in(tmp_path, "micro", use="vllm-http", weights=MODEL, options=options)
    said = run("doctor", "--config", file, code=1).stdout
    assert f"no server answers at {options['url']}" in said
    assert steps(said).startswith(f"act2see serve vllm --config {file}")
    with vllm_server(folder=tmp_path, images=1) as server:
        file = config_in(tmp_path, "micro", use="vllm-http", weights=MODEL, options={"url": server.url})
        assert "accepts 1 image in a prompt" in steps(run("doctor", "--config", file, code=1).stdout)
    with vllm_server(folder=tmp_path, context=99_999) as server:
        file = config_in(tmp_path, "micro", use="vllm-http", weights=MODEL, options={"url": server.url})
        assert "has the model, and room for a run" in run("doctor", "--config", file).stdout


def test_local_gguf_files(run: Run, tmp_path: Path, unused_tcp_port: int) -> None:
    options = {"url": f"http://127.0.0.1:{unused_tcp_port}", "mmproj": "./eyes.gguf"}
    file = config_in(tmp_path, "laptop", weights="./micro.gguf", options=options)
    said = run("doctor", "--config", file, code=1).stdout
    assert f"{tmp_path}/micro.gguf: no such file" in said
    assert f"{tmp_path}/eyes.gguf: no such file" in said
    assert "set `reasoner.weights` to the model file" in steps(said)
    assert "set `reasoner.options.mmproj` to the vision file" in steps(said)
    assert "download" not in steps(said)
    (tmp_path / "micro.gguf").write_bytes(b"x" * 3000)
    (tmp_path / "eyes.gguf").write_bytes(b"x" * 2000)
    said = run("doctor", "--config", file, code=1).stdout
    assert f"{tmp_path}/micro.gguf: 3.0 kB in memory" in said
    assert f"{tmp_path}/eyes.gguf: 2.0 kB in memory" in said
    assert "no such file" not in said


def test_files_that_a_running_server_has_are_not_needed(run: Run, tmp_path: Path) -> None:
    with llama_server(context=99_999, slots=1) as server:
        file = config_in(tmp_path, "laptop", weights="./micro.gguf", options={"url": server.url})
        said = run("doctor", "--config", file).stdout
    assert "It can run." in said
    assert "micro.gguf: loaded by the server; no such file here" in said
