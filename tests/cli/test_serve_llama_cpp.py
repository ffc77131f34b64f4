"""`act2see serve llama-cpp`: the command that it prints."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION
from act2see.cli.app import app
from act2see.cli.serve_llama_cpp import server_arguments
from act2see.errors import ConfigError
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts, reasoner_needs

REPOSITORY = "Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0"


def settings(tmp_path: Path, **reasoner: Any) -> Any:
    given = {"use": "llama-cpp", "weights": REPOSITORY, **reasoner}
    return load_config("laptop", reasoner=given, cache=str(tmp_path))


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_repository_is_downloaded_by_the_server(tmp_path: Path) -> None:
    config = settings(tmp_path)
    words = server_arguments(config, port=8123)
    assert words[:2] == ["-hf", REPOSITORY]
    named = dict(zip(words[::2], words[1::2], strict=True))
    assert (named["--alias"], named["--port"], named["--parallel"]) == (REPOSITORY, "8123", "1")


def test_a_downloaded_model_is_served_without_the_network(tmp_path: Path, hub_cache: Path) -> None:
    snapshot = hub_cache / "models--Qwen--Qwen3-VL-2B-Thinking-GGUF" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    for file in ("Qwen3VL-2B-Thinking-Q8_0.gguf", "mmproj-Qwen3VL-2B-Thinking-F16.gguf"):
        (snapshot / file).touch()
    assert server_arguments(settings(tmp_path))[:4] == [
        "-m",
        str(snapshot / "Qwen3VL-2B-Thinking-Q8_0.gguf"),
        "--mmproj",
        str(snapshot / "mmproj-Qwen3VL-2B-Thinking-F16.gguf"),
    ]
    # Another quantisation of the same repository is not there.
    other = settings(tmp_path, weights=REPOSITORY.replace("Q8_0", "Q4_K_M"))
    assert server_arguments(other)[:2] == ["-hf", REPOSITORY.replace("Q8_0", "Q4_K_M")]


def test_a_slot_holds_the_largest_run(tmp_path: Path) -> None:
    config = settings(tmp_path, context=None, rows=3)
    words = server_arguments(config)
    needs = reasoner_needs(config)
    frame = (config.view.max_side // 32) ** 2 + 2
    needed = needs.images * (frame + FRAME_TEXT) + QUESTION + needs.tokens
    assert words[words.index("--ctx-size") + 1] == str(3 * needed)


def test_local_files(tmp_path: Path) -> None:
    model, mmproj = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    model.touch()
    with pytest.raises(ConfigError, match="mmproj is missing"):
        server_arguments(settings(tmp_path, weights=str(model)))
    with pytest.raises(ConfigError, match=r"reasoner\.options\.mmproj: there is no file"):
        server_arguments(settings(tmp_path, weights=str(model), options={"mmproj": str(mmproj)}))
    mmproj.touch()
    words = server_arguments(settings(tmp_path, weights=str(model), options={"mmproj": str(mmproj)}))
    assert words[:4] == ["-m", str(model), "--mmproj", str(mmproj)]
    # The same config reaches the server.
    build_parts(settings(tmp_path, weights=str(model), options={"mmproj": str(mmproj)}))


def test_other_reasoners_are_refused_with_the_key_to_set() -> None:
    with pytest.raises(ConfigError, match="set `reasoner"):
        server_arguments(load_config("micro"))


def test_the_command_is_printed_or_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: laptop\nreasoner: {{use: llama-cpp, weights: '{REPOSITORY}'}}\n")
    run = CliRunner().invoke
    printed = run(app, ["serve", "llama-cpp", "--config", str(file), "--print", "--", "--no-webui"])
    words = shlex.split(printed.stdout)
    assert (words[0].endswith("llama-server"), words[-1]) == (True, "--no-webui")
    missing = run(app, ["serve", "llama-cpp", "--config", str(file), "--server", str(tmp_path / "none")])
    assert missing.exit_code == 2
    assert "install llama.cpp" in " ".join(missing.output.split())
    file.write_text(
        f"{file.read_text()}  # same\n".replace("}", ", options: {url: 'http://localhost:8099'}}")
    )
    words = shlex.split(run(app, ["serve", "llama-cpp", "--config", str(file), "--print"]).stdout)
    assert words[words.index("--port") + 1] == "8099"
    # Any program can stand for the server: this one fails, and its status is passed on.
    assert run(app, ["serve", "llama-cpp", "--config", str(file), "--server", "false"]).exit_code == 1


def test_what_cannot_be_served_is_said_before_the_program_is_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"

    def refused(text: str, *arguments: str) -> str:
        file.write_text(text)
        result = CliRunner().invoke(
            app, ["serve", "llama-cpp", "--config", str(file), "--server", str(tmp_path / "none"), *arguments]
        )
        assert result.exit_code == 2
        return " ".join(result.output.split())

    assert "use --preset laptop" in refused("preset: micro")
    assert "did you mean 'mmproj'?" in refused("preset: laptop\nreasoner: {options: {mmporj: x}}")
    assert "write `weights: Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0`" in refused(
        "preset: laptop\nreasoner: {weights: Qwen/Qwen3-VL-2B-Thinking}"
    )
    assert "names no model that llama.cpp can load" in refused("preset: laptop\nreasoner: {weights: mine}")
    assert "has no valid port" in refused("preset: laptop\nreasoner: {options: {url: 'http://h:99999'}}")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = ["serve", "llama-cpp", "--server", "false", "--preset", "laptop", "--port", str(port)]
        result = CliRunner().invoke(app, serve)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"cannot listen on 127.0.0.1, port {port} (Address already in use): stop the program" in said


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_server_ends_with_the_command(tmp_path: Path, number: signal.Signals) -> None:
    server, told = tmp_path / "server", tmp_path / "told"
    server.write_text(
        f"#!{sys.executable}\nimport os, pathlib, time\n"
        f"pathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    server.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", "llama-cpp", "--preset", "laptop", "--server", str(server), "--port", str(port)]
    # Under `nohup` the tests ignore SIGHUP, and so would the command.
    before = signal.signal(number, signal.SIG_DFL)
    command = subprocess.Popen([sys.executable, "-m", "act2see", *words], stderr=subprocess.DEVNULL)
    signal.signal(number, before)
    with command:
        while not (told.exists() and told.read_text()):
            assert command.poll() is None, "the command ended before its server began"
            time.sleep(0.05)
        command.send_signal(number)
        assert command.wait() == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
