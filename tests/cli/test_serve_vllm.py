"""`act2see serve vllm`: the command that it prints or runs, with a stand-in for the environment of vLLM."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.cli.serve_vllm import client_yaml, serve_arguments
from act2see.errors import ConfigError, WeightsError
from act2see.graphs.config import load_config


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["serve", "vllm", *arguments])
    return done.exit_code, done.stdout, done.stderr


def option_value(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.yaml"
    file.write_text(f"preset: micro\ncache: {tmp_path / 'cache'}\n", encoding="utf-8")
    return file


def test_the_printed_command_has_the_configs_limits(own: Path, tmp_path: Path) -> None:
    options = ["--print", "--port", "8123", "--python", "env/bin/python"]
    code, out, _ = run("--config", str(own), *options, "--", "--enforce-eager")
    assert code == 0
    command = shlex.split(out)
    assert command[:4] == ["env/bin/python", "-m", "vllm.entrypoints.cli.main", "serve"]
    assert Path(command[4], "model.safetensors").is_file()
    assert option_value(command, "--served-model-name") == "micro:vlm"
    assert json.loads(option_value(command, "--limit-mm-per-prompt")) == {"image": 12 + 4 * 16, "video": 0}
    # 76 frames of 9 tokens and their marks, a question and an answer: less than the model's limit of 4096.
    assert option_value(command, "--max-model-len") == str(76 * (9 + 16) + 1024 + 664)
    assert option_value(command, "--port") == "8123"
    assert {"--enable-prefix-caching", "--enable-prompt-tokens-details", "--enforce-eager"} <= set(command)
    assert not any("reasoning" in a or "tool-call" in a for a in command)
    assert (
        Path(option_value(command, "--chat-template")).read_text(encoding="utf-8").count("part['text']") == 1
    )
    tokenizer = Tokenizer.from_file(f"{option_value(command, '--tokenizer')}/tokenizer.json")
    assert len(tokenizer.encode(">\ufdd0<").ids) == 2


def test_adapters_keep_the_names_that_requests_use(own: Path, tmp_path: Path) -> None:
    for name, rank in (("sft", 12), ("other", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}), encoding="utf-8")
    config = load_config({"preset": "micro", "reasoner": {"adapter": str(tmp_path / "sft")}})
    command = serve_arguments(config, Path("t.jinja"), tmp_path / "cache", [f"mine={tmp_path / 'other'}"])
    assert option_value(command, "--max-lora-rank") == "32"
    at = command.index("--lora-modules")
    named = {m["name"]: m["path"] for m in map(json.loads, command[at + 1 : at + 3])}
    assert named == {str(tmp_path / "sft"): str(tmp_path / "sft"), "mine": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match="--lora mine: write NAME=DIR"):
        serve_arguments(config, Path("t.jinja"), tmp_path / "cache", ["mine"])
    (tmp_path / "other" / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no adapter_config\.json"):
        serve_arguments(config, Path("t.jinja"), tmp_path / "cache", [f"mine={tmp_path / 'other'}"])


def test_command_is_run_and_its_exit_code_returned(own: Path, tmp_path: Path) -> None:
    beside = tmp_path / "bin"
    beside.mkdir()
    (beside / "python").symlink_to(sys.executable)
    script = beside / "vllm"
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/given\nexit 3\n', encoding="utf-8")
    script.chmod(0o755)
    code, _, err = run("--config", str(own), "--python", str(beside / "python"))
    assert code == 3
    assert (tmp_path / "given").read_text(encoding="utf-8").startswith("serve\n")
    assert "use: vllm-http" in err


def test_missing_vllm_error_says_how_to_install_it(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code, _, err = run("--config", str(own))
    assert code == 2
    assert "vLLM is not in this environment" in err
    code, _, err = run("--config", str(own), "--python", "no/such/python")
    assert (code, "no Python interpreter at no/such/python" in err) == (2, True)


def test_client_yaml_is_a_loadable_config(tmp_path: Path) -> None:
    config = load_config("micro")
    section = yaml.safe_load(client_yaml(config, "0.0.0.0", 8000))
    chosen = load_config({"preset": "micro", **section})
    assert (chosen.reasoner.use, chosen.reasoner.weights, chosen.reasoner.prompt) == (
        "vllm-http",
        "micro:vlm",
        "short",
    )
    assert chosen.reasoner.options == {"url": "http://localhost:8000/v1"}


def test_chat_model_is_rejected() -> None:
    config = load_config({"preset": "micro", "reasoner": {"use": "chat", "weights": "openai:m"}})
    with pytest.raises(ConfigError, match="the chat model openai:m, which vLLM does not serve"):
        serve_arguments(config, Path("t.jinja"), Path("cache"))
