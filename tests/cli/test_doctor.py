"""`act2see doctor` and `act2see download` for the presets: output, files and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agent.gemini_server import gemini_server
from tests.agent.openai_server import openai_server
from tests.cli.helpers import Run
from tests.tools.hub_server import OLD, SHA, Hub, folder_files, hub_server

from act2see.errors import WeightsError
from act2see.graphs.config import PRESETS, load_config
from act2see.tools.runtime.catalogue import Known
from act2see.tools.runtime.weights import find_weights, resolve_weights


@pytest.mark.parametrize("preset", PRESETS)
def test_config_show_prints_a_loadable_preset(run: Run, preset: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(run("config", "show", "--preset", preset).stdout, encoding="utf-8")
    assert load_config(file) == load_config(preset)
    assert run("config", "show", preset).stdout == file.read_text(encoding="utf-8")
    run("config", "show", preset, "--preset", preset, code=2)


def test_gated_weights_need_a_login_before_the_download(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "act2see.graphs.machine.device_memory", lambda d: ("a GPU", 85e9) if d == "cuda" else ("CPU", 64e9)
    )
    monkeypatch.setattr("act2see.graphs.needs.pick_device", lambda _: "cuda")
    said = run("doctor", "--preset", "paper", code=1).stdout
    for part in (
        "Qwen/Qwen3-VL-8B-Thinking: not downloaded (about 17.5 GB in memory; Apache-2.0)",
        "stable-diffusion-3.5-large: not downloaded (about 27.6 GB in memory; "
        "Stability AI Community License, gated)",
        "49.8 GB to download",
        "a GPU, 85.0 GB; the weights take 47.5 GB",
        "a GPU, 85.0 GB; 80 GB needed",
    ):
        assert part in said
    after = said.split("Next:")[1]
    login, download = (
        after.index(f"  {what}") for what in ("hf auth login", "act2see download --preset paper")
    )
    assert login < download
    assert "--preset laptop" not in after


def test_offloaded_parts_count_as_cpu_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "act2see.graphs.machine.device_memory", lambda d: ("a GPU", 25.3e9) if d == "cuda" else ("CPU", 12e9)
    )
    monkeypatch.setattr("act2see.graphs.needs.pick_device", lambda _: "cuda")
    said = run("doctor", "--preset", "paper-24gb", code=1).stdout
    assert "about 4.9 GB in memory; 6.7 GB offloaded" in said
    assert "a GPU, 25.3 GB; the weights take 16.2 GB" in said
    assert "a GPU, 25.3 GB; 24 GB needed" in said
    assert "CPU, 12.0 GB; 16 GB needed" in said
    assert "act2see doctor --preset laptop (no GPU), or --preset api (a key)" in said


def test_preset_that_needs_a_gpu_without_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "act2see.graphs.machine.device_memory",
        lambda d: ("no CUDA device", None) if d == "cuda" else ("CPU", 64e9),
    )
    said = run("doctor", "--preset", "paper", code=1).stdout
    assert "no CUDA device; 80 GB needed" in said
    assert "act2see doctor --preset paper-24gb, --preset laptop (no GPU), or --preset api (a key)" in said


def test_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("act2see.tools.runtime.hub.free_space", lambda _: 2_000_000_000)
    said = run("doctor", "--preset", "laptop-transformers", code=1).stdout
    assert "2.0 GB free; 10.9 GB to download" in said
    assert "export HF_HOME=FOLDER (one with 10.9 GB free)" in said


def api_file(folder: Path, url: str, weights: str = "") -> Path:
    """Write the api preset with the address of a local server."""
    pytest.importorskip("langchain_google_genai", reason="the api preset's provider is not installed")
    reasoner: dict[str, Any] = {"options": {"base_url": url}}
    if weights:
        reasoner |= {"use": "chat", "weights": weights}
    file = folder / "mine.yaml"
    file.write_text(json.dumps({"preset": "api", "reasoner": reasoner}), encoding="utf-8")
    return file


def test_missing_key_is_named(run: Run) -> None:
    pytest.importorskip("langchain_google_genai", reason="the api preset's provider is not installed")
    said = run("doctor", "--preset", "api", code=1).stdout
    assert "google_genai:gemini-flash-latest: no key (GOOGLE_API_KEY)" in said
    assert "export GOOGLE_API_KEY=..." in said


def test_key_and_model_are_looked_up_at_the_provider(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "made-up")
    with gemini_server() as server:
        file = api_file(tmp_path, server.url)
        server.models = "gemini-3.8-flash", "gemini-flash-latest"
        said = run("doctor", "--config", file, code=1).stdout
        assert "gemini-flash-latest: its provider accepts the key and has the model" in said
        # An alias or an older model can be missing from the list.
        server.models, server.unlisted = ("gemini-3.8-flash",), ("gemini-flash-latest",)
        said += run("doctor", "--config", file, code=1).stdout
        assert said.count("its provider accepts the key and has the model") == 2
        server.key = "another"
        refused = run("doctor", "--config", file, code=1).stdout
        assert "refuses the key (status 400): export GOOGLE_API_KEY=... (a valid key)" in refused
        assert "made-up" not in said + refused


def test_model_that_the_provider_no_longer_has(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "made-up")
    with gemini_server() as server:
        server.models = "gemini-3.8-flash", "gemini-2.5-flash-lite", "gemini-pro-latest", "text-embedding-004"
        file = api_file(tmp_path, server.url, "google_genai:gemini-2.5-pro")
        said = run("doctor", "--config", file, code=1).stdout
    assert "google_genai:gemini-2.5-pro: its provider has no such model for this key" in said
    names = ("gemini-pro-latest", "gemini-2.5-flash-lite", "gemini-3.8-flash")
    assert f"such as {' or '.join(f'google_genai:{name}' for name in names)}" in said
    assert "text-embedding" not in said


def test_model_of_a_server_with_openais_protocol(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    with openai_server() as server:
        known, unknown = "openai:m", "openai:gpt-nosuch"
        said = run("doctor", "--config", api_file(tmp_path, server.url, known), code=1).stdout
        host = server.url.removesuffix("/v1")
        assert f"openai:m: its server has the model; frames are sent to {host}" in said
        said = run("doctor", "--config", api_file(tmp_path, server.url, unknown), code=1).stdout
        assert "openai:gpt-nosuch: its server does not list this model" in said
        server.models = 200, {"data": "?"}
        said = run("doctor", "--config", api_file(tmp_path, server.url, unknown), code=1).stdout
        assert "openai:gpt-nosuch: can be set up; its server does not list models" in said


@pytest.mark.parametrize("weights", ["openai:qwen3-vl:4b", "openai:publisher/model"])
def test_names_in_a_servers_list(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made-up")
    with openai_server() as server:
        listed = {"id": weights.removeprefix("openai:"), "name": "A name for people", "object": "model"}
        server.models = 200, {"data": [listed]}
        said = run("doctor", "--config", api_file(tmp_path, server.url, weights), code=1).stdout
    assert f"{weights}: its server has the model" in said


def test_provider_that_cannot_be_reached(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "made-up")
    said = run("doctor", "--config", api_file(tmp_path, f"http://127.0.0.1:{unused_tcp_port}"), code=1).stdout
    assert f"cannot be reached: http://127.0.0.1:{unused_tcp_port} does not answer" in said
    assert "check the connection" in said


def test_unknown_provider(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: api\nreasoner: {weights: 'nobody:model'}\n", encoding="utf-8")
    said = run("doctor", "--config", file, code=1).stdout
    assert "nobody:model: cannot be set up" in said
    assert "reasoner.weights 'nobody:model' cannot be set up" in said


@pytest.fixture
def hub(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub_server() as made:
        made.repos = {
            f"micro/{part}": folder_files(resolve_weights(f"micro:{part}"))
            for part in ("vlm", "encoder", "generator")
        }
        yield made


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    tools = "{generate: {options: {weights: micro/generator}}}"
    file.write_text(
        "preset: micro\n"
        "reasoner: {weights: micro/vlm}\n"
        "encoder: {weights: micro/encoder}\n"
        f"tools: {tools}\n",
        encoding="utf-8",
    )
    return file


def test_downloaded_preset_can_run(run: Run, hub: Hub, mine: Path) -> None:
    assert f"act2see download --config {mine}" in run("doctor", "--config", mine, code=1).stdout
    dry = run("download", "--config", mine, "--endpoint", hub.url, "--dry-run").stdout
    assert "  transformer/diffusion_pytorch_model.safetensors (" in dry
    assert {f for f in hub.sent if f.endswith(".safetensors")} == set()
    said = run("download", "--config", mine, "--endpoint", hub.url).stdout
    assert "micro/vlm: 6 files, " in said
    assert f"Next: act2see doctor --config {mine}" in said
    assert "It can run." in run("doctor", "--config", mine).stdout


def test_steps_to_the_laptop_preset(
    run: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """Install llama.cpp, download, serve, ask: doctor names the next ones, in this order."""
    name = "Qwen/Qwen3-VL-2B-Thinking-GGUF"
    hub.repos[name] = {
        "Qwen3VL-2B-Thinking-Q4_K_M.gguf": b"four",
        "Qwen3VL-2B-Thinking-Q8_0.gguf": b"eight bits",
        "mmproj-Qwen3VL-2B-Thinking-F16.gguf": b"eyes",
    }
    url = f"http://127.0.0.1:{unused_tcp_port}"
    file = tmp_path / "mine.yaml"
    reasoner = {"use": "llama-cpp", "weights": f"{name}:Q8_0", "options": {"url": url}}
    file.write_text(json.dumps({"preset": "micro", "reasoner": reasoner}), encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = run("doctor", "--config", file, code=1).stdout
    assert f"{name}:Q8_0: not downloaded (about 2.6 GB in memory; Apache-2.0)" in said
    after = said.split("Next:")[1]
    steps = (
        "install llama.cpp: `brew install",
        "act2see download --config",
        "act2see serve llama-cpp --config",
    )
    assert sorted(steps, key=after.index) == list(steps)

    said = run("download", "--config", file, "--endpoint", hub.url).stdout
    assert f"{name}:Q8_0: 2 files, " in said
    assert {f for f in hub.sent if f.endswith(".gguf")} == {
        "Qwen3VL-2B-Thinking-Q8_0.gguf",
        "mmproj-Qwen3VL-2B-Thinking-F16.gguf",
    }
    said = run("doctor", "--config", file, code=1).stdout
    assert "not downloaded" not in said
    printed = run("serve", "llama-cpp", "--config", file, "--print").stdout
    assert "Qwen3VL-2B-Thinking-Q8_0.gguf --mmproj" in printed
    assert "-hf" not in printed.split()


def test_download_of_a_revision(run: Run, hub: Hub, tmp_path: Path) -> None:
    """`--revision`, `NAME@REV` and `weights: NAME@REV` mean the same, and only that revision is loaded."""
    at = f"preset: micro\nreasoner: {{weights: micro/vlm@{OLD}}}\n"
    (tmp_path / "mine.yaml").write_text(at, encoding="utf-8")
    run("download", "micro/vlm", "--endpoint", hub.url)
    assert (
        f"micro/vlm@{OLD}: not downloaded" in run("doctor", "--config", tmp_path / "mine.yaml", code=1).stdout
    )
    said = run("download", "micro/vlm", "--revision", OLD, "--endpoint", hub.url).stdout
    assert f"commit {OLD}\n" in said
    assert f"to use it, set `weights: micro/vlm@{OLD}`" in " ".join(said.split())
    assert "It can run." in run("doctor", "--config", tmp_path / "mine.yaml").stdout
    assert find_weights(f"micro/vlm@{OLD}").name == OLD
    assert find_weights("micro/vlm").name == SHA
    run("download", "micro/encoder@v1", "--endpoint", hub.url)
    assert find_weights("micro/encoder@v1").name == OLD
    with pytest.raises(WeightsError, match="not downloaded"):
        find_weights("micro/encoder")


def test_vllm_gets_the_revision(run: Run, hub: Hub, tmp_path: Path) -> None:
    run("download", f"micro/vlm@{OLD}", "--endpoint", hub.url)
    at = f"preset: micro\nreasoner: {{use: vllm-http, weights: micro/vlm@{OLD}}}\n"
    (tmp_path / "mine.yaml").write_text(at, encoding="utf-8")
    said = run("serve", "vllm", "--config", tmp_path / "mine.yaml", "--print").stdout
    words = said.split()
    assert words[words.index("serve") + 1] == "micro/vlm"
    assert words[words.index("--revision") + 1] == OLD


def test_revisions_that_cannot_be_downloaded(run: Run, hub: Hub) -> None:
    said = run("download", "micro/vlm@v9", "--endpoint", hub.url, code=2).stderr
    assert "micro/vlm has no revision v9: name a commit, branch or tag" in said
    said = run("download", "micro/vlm", "micro/encoder", "--revision", "v1", code=2).stderr
    assert "--revision needs the name of one repository" in said
    assert "needs the name of one repository" in run("download", "--revision", "v1", code=2).stderr
    assert "leave out --revision" in run("download", "a/b@v1", "--revision", "v2", code=2).stderr


def test_revision_of_the_catalogue_is_downloaded_and_loaded(
    run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that revision, what was downloaded earlier is loaded."""
    known = Known(loads="", parts={}, stored="float32", licence="MIT")
    entries = {"micro/vlm": known}
    monkeypatch.setattr("act2see.tools.runtime.catalogue.catalogue", lambda: entries)
    said = run("download", "micro/vlm", "--endpoint", hub.url).stdout
    assert f"commit {SHA}, the newest" in said
    entries["micro/vlm"] = known.model_copy(update={"revision": OLD})
    assert find_weights("micro/vlm").name == SHA
    said = run("download", "micro/vlm", "--endpoint", hub.url).stdout
    assert f"commit {OLD}\n" in said
    assert find_weights("micro/vlm").name == OLD
    assert find_weights("micro/vlm@main").name == SHA


def test_unknown_quantisation(run: Run, hub: Hub) -> None:
    hub.repos["a/b-GGUF"] = {"B-Q4_K_M.gguf": b"", "mmproj-B-F16.gguf": b""}
    said = run("download", "a/b-GGUF:Q8_0", "--endpoint", hub.url, code=2).stderr
    assert "a/b-GGUF has no quantisation Q8_0: it has Q4_K_M" in said


def test_gated_repository_does_not_stop_the_other_downloads(run: Run, hub: Hub, mine: Path) -> None:
    hub.gated.add("micro/vlm")
    result = run("download", "--config", mine, "--endpoint", hub.url, code=2)
    assert "error: micro/vlm is gated: sign in at" in result.stderr
    assert "micro/generator: " in result.stdout
    said: Any = run("doctor", "--config", mine, code=1).stdout
    assert "micro/vlm: not downloaded" in said or "micro/vlm: incomplete" in said


def test_unreachable_hub_is_reported_once(run: Run, hub: Hub, mine: Path) -> None:
    result = run("download", "--config", mine, "--endpoint", "http://127.0.0.1:1", code=2)
    assert result.stderr.count("error:") == 1
    assert "cannot be reached: check the connection or the proxy" in " ".join(result.stderr.split())


def test_a_second_download_says_that_the_files_are_here(run: Run, hub: Hub) -> None:
    assert "already here" not in run("download", "micro/vlm", "--endpoint", hub.url).stdout
    said = run("download", "micro/vlm", "--endpoint", hub.url).stdout
    assert f"already here, in {find_weights('micro/vlm')}" in said.replace("\n", "")


def test_download_explains_how_gguf_models_are_named(run: Run) -> None:
    said = " ".join(run("download", "--help").stdout.split())
    assert "owner/name-GGUF:Q8_0" in said
    assert "GGUF model with its vision file" in said


def test_nothing_to_download(run: Run, hub: Hub) -> None:
    assert "nothing to download" in run("download", "--preset", "micro").stdout
    assert hub.sent == {}


def test_incomplete_repository_is_completed(run: Run, hub: Hub, mine: Path, tmp_path: Path) -> None:
    run("download", "--config", mine, "--endpoint", hub.url)
    shutil.rmtree(next((tmp_path / "hub" / "models--micro--generator" / "snapshots").glob("*/vae")))
    said = run("doctor", "--config", mine, code=1).stdout
    assert "micro/generator: incomplete: safetensors files are missing in" in said
    run("download", "--config", mine, "--endpoint", hub.url)
    run("doctor", "--config", mine)


@pytest.mark.parametrize(
    ("fast", "dtype", "gigabytes"),
    [(True, "auto", 16), (False, "auto", 32), (True, "float32", 32), (False, "bfloat16", 16)],
)
def test_declared_memory_follows_the_data_type(
    fast: bool, dtype: str, gigabytes: int, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("act2see.tools.runtime.weights.has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = tmp_path / "mine.yaml"
    file.write_text(f"preset: laptop-transformers\nreasoner: {{dtype: {dtype}}}\n", encoding="utf-8")
    assert f"; {gigabytes} GB needed" in run("doctor", "--config", file, code=1).stdout


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_on_a_cpu_without_its_instructions_is_named(
    fast: bool, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("act2see.tools.runtime.weights.has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    file = tmp_path / "mine.yaml"
    file.write_text("preset: laptop-transformers\nreasoner: {dtype: bfloat16}\n", encoding="utf-8")
    said = " ".join(run("doctor", "--config", file, code=1).stdout.split())
    assert ("bfloat16 is tens of times slower on this CPU" in said) == (not fast)
