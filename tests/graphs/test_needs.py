"""Missing requirements are reported before any work, in one line with the command that fixes them."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
from act2see.agent.reasoners.chat.setup import KEYS, chat_model
from act2see.agent.reasoners.faults import Backoff
from act2see.cli.app import app
from act2see.errors import ConfigError, ReasonerError, SetupError, WeightsError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import Config, load_config
from act2see.graphs.needs import check_ready
from act2see.graphs.parts import build_parts
from act2see.graphs.run import aask
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.trace import Trace
from tests.agent.gemini_server import gemini_server, says as gemini_says
from tests.agent.openai_server import Reply, openai_server, says
from tests.agent.test_chat import black, write
from tests.graphs.doubles import Scripted, Shows, clip_in, parts_in

Ask = Callable[..., Result]
ANSWER = "A dog.</think>\n<answer>B</answer>"


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`act2see ask` on a machine with an empty hub cache and no keys."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in {v for known in KEYS.values() for v in known}:
        monkeypatch.delenv(variable, raising=False)
    clip = clip_in(tmp_path)

    def invoke(*arguments: object, code: int = 2) -> Result:
        result = CliRunner().invoke(
            app, ["ask", clip, "What?", "-o", "a cat", "-o", "a dog", *map(str, arguments)]
        )
        assert result.exit_code == code, result.output
        return result

    return invoke


def one_line(result: Result) -> str:
    [line] = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in result.output
    return line


def config_in(folder: Path, **changes: Any) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({"preset": "micro", "view": {"guard": None}, **changes}), encoding="utf-8")
    return file


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port without a listener, reserved so that no other process can listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("preset", ["laptop-transformers", "paper", "paper-24gb"])
def test_missing_weights_are_reported_before_any_work(ask: Ask, preset: str, tmp_path: Path) -> None:
    line = one_line(ask("--config", config_in(tmp_path, preset=preset, cache=str(tmp_path / "cache"))))
    assert line.endswith(f"are not downloaded; fetch them with: act2see download --preset {preset}")
    assert load_config(preset).reasoner.weights in line
    assert load_config(preset).encoder.weights in line
    assert not list((tmp_path / "cache").glob("frames/**/*.*"))  # the video has not been opened


def test_a_missing_llama_cpp_server_is_reported_with_the_missing_weights(
    ask: Ask, tmp_path: Path, unused_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    file = config_in(tmp_path, preset="laptop", reasoner={"options": {"url": url}})
    line = one_line(ask("--config", file))
    assert f"no server answers at {url}" in line
    assert "start it with `act2see serve llama-cpp` and the same --preset or --config" in line
    assert line.endswith("are not downloaded; fetch them with: act2see download --preset laptop")
    assert "GGUF" not in line  # only the server reads it, and can be on another machine


def test_a_model_that_the_provider_does_not_have_is_refused_before_any_work(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "good")
    with openai_server(says(ANSWER)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr("act2see.agent.reasoners.chat.check._OPENAI", "127.0.0.1")
        reasoner = {"use": "chat", "weights": "openai:gpt-5-mni"}
        file = config_in(tmp_path, reasoner=reasoner, cache=str(tmp_path / "cache"))
        line = one_line(ask("--config", file))
        assert "openai:gpt-5-mni: its provider has no such model for this key" in line
        assert server.requests == []
        assert not list((tmp_path / "cache").glob("frames/**/*.*"))  # the video has not been opened
        server.models = 500, {}
        ask("--config", file, code=0)  # a list that cannot be had stops nothing
        assert len(server.requests) == 1


def test_a_custom_config_names_its_missing_weights(ask: Ask, tmp_path: Path) -> None:
    file = config_in(tmp_path, encoder={"weights": "somebody/encoder"})
    line = one_line(ask("--config", file))
    assert "somebody/encoder is not downloaded; fetch it with: act2see download somebody/encoder" in line


def test_a_tool_that_is_not_allowed_needs_no_weights(ask: Ask, tmp_path: Path) -> None:
    file = config_in(tmp_path, encoder={"weights": "somebody/encoder"})
    assert Trace.from_json(ask("--config", file, "--no-tools", "--json", code=0).stdout).answer is not None


def test_incomplete_weights_are_reported(ask: Ask, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(resolve_weights("micro:encoder"), folder)
    next(folder.glob("*.safetensors")).unlink()
    line = one_line(ask("--config", config_in(tmp_path, encoder={"weights": str(folder)})))
    assert f"incomplete: safetensors files are missing in {folder}" in line
    assert "download" not in line  # a local folder cannot be downloaded


async def test_check_ready_raises_one_error(ask: Ask) -> None:
    with pytest.raises(WeightsError, match="act2see download --preset laptop"):
        await check_ready(load_config("laptop"))
    await check_ready("micro")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("google_genai:gemini-2.5-pro", "has no key: export GOOGLE_API_KEY=..."),
        ("openai:gpt-4o", "has no key: export OPENAI_API_KEY=..."),
        ("gpt-4o", "has no key: export OPENAI_API_KEY=..."),
        ("anthropic:claude", "has no key: export ANTHROPIC_API_KEY=...|pip install langchain-anthropic"),
        ("mistralai:pixtral", "has no key: export MISTRAL_API_KEY=...|pip install langchain-mistralai"),
        ("cohere:command", "has no key: export COHERE_API_KEY=...|pip install langchain-cohere"),
        ("nobody:model", "name it as provider:model"),
        ("llava", "name it as provider:model"),
        ("openai:", "names no model"),
    ],
)
def test_a_chat_model_that_cannot_be_set_up(ask: Ask, tmp_path: Path, name: str, words: str) -> None:
    pytest.importorskip("langchain_google_genai", reason="needs the chat extra")
    line = one_line(
        ask("--config", config_in(tmp_path, reasoner={"use": "chat", "weights": name, "prompt": "paper"}))
    )
    assert any(w in line for w in words.split("|"))
    assert "pydantic" not in line


@pytest.mark.parametrize("key", ["…", "a b", "key\nrest", "schlüssel"])
def test_a_key_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY holds") as e:
        chat_model("openai:m", {}, "reasoner.weights")
    assert key not in str(e.value)


def chat(kind: str, url: str, **options: Any) -> dict[str, Any]:
    return {"use": "chat", "weights": kind, "prompt": "paper", "options": {"base_url": url, **options}}


@pytest.mark.parametrize("kind", ["openai:m", "google_genai:gemini-2.5-flash"])
def test_a_wrong_key_is_reported_before_any_work(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip("langchain_google_genai", reason="needs the chat extra")
    variable = KEYS[kind.partition(":")[0]][0]
    monkeypatch.setenv(variable, "wrong")
    made: Any = openai_server(says(ANSWER)) if kind == "openai:m" else gemini_server(gemini_says(ANSWER))
    with made as server:
        server.key = "right"
        file = config_in(tmp_path, reasoner=chat(kind, server.url), encoder={"weights": "somebody/encoder"})
        line = one_line(ask("--config", file))
        assert f"refuses the key (status {401 if kind == 'openai:m' else 400}): export {variable}=..." in line
        assert "act2see download somebody/encoder" in line  # other problems are reported too
        assert server.requests == []
        monkeypatch.setenv(variable, "right")
        file = config_in(tmp_path, reasoner=chat(kind, server.url, max_retries=2))
        assert Trace.from_json(ask("--config", file, "--json", code=0).stdout).answer == "B"


@pytest.mark.parametrize("kind", ["openai:m", "google_genai:gemini-2.5-flash"])
@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_a_host_that_cannot_be_reached(
    ask: Ask, tmp_path: Path, unused_port: int, kind: str, host: str
) -> None:
    pytest.importorskip("langchain_google_genai", reason="needs the chat extra")
    file = config_in(tmp_path, reasoner=chat(kind, f"http://{host}:{unused_port}", api_key="none"))
    started = time.monotonic()
    assert f"{kind} cannot be reached: http://{host}:{unused_port} does not answer" in one_line(
        ask("--config", file)
    )
    assert time.monotonic() - started < 10


def test_a_vllm_server_that_cannot_be_reached(ask: Ask, tmp_path: Path, unused_port: int) -> None:
    reasoner = {"use": "vllm-http", "weights": "m", "options": {"url": f"http://127.0.0.1:{unused_port}/v1"}}
    assert "start it with `act2see serve vllm`" in one_line(
        ask("--config", config_in(tmp_path, reasoner=reasoner))
    )


async def test_a_server_without_a_list_of_models_is_used(tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server(says(ANSWER)) as server:
        config = _chat_config(tmp_path, server.url.removesuffix("/v1") + "/other")
        parts = build_parts(config)
        await check_ready(config, parts)
        assert (await write(parts.reasoner))[0].endswith("<answer>B</answer>")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "Missing scopes: api.model.read"), (401, "insufficient permissions"), (500, "oh")],
)
async def test_a_key_that_may_not_list_models_is_accepted(tmp_path: Path, status: int, said: str) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server(says(ANSWER)) as server:
        server.models = status, {"error": {"message": said}}
        config = _chat_config(tmp_path, server.url)
        parts = build_parts(config)
        await check_ready(config, parts)
        assert (await write(parts.reasoner))[0].endswith("<answer>B</answer>")  # type: ignore[arg-type]


async def test_only_a_server_that_has_answered_before_is_waited_for(unused_port: int) -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")

    def engine(url: str) -> ChatModelReasoner:
        options = {"base_url": url, "api_key": "none", "max_retries": 0}
        backoff = Backoff(requests=3, first=0.2, silence=5, absent=0.1)
        return ChatModelReasoner(chat_model("openai:m", options, "test"), black, "m", backoff)

    absent = engine(f"http://127.0.0.1:{unused_port}/v1")
    with pytest.raises(ReasonerError, match="cannot be reached"):
        await write(absent)
    # An overloaded server is always waited for, even if it has not answered before.
    with openai_server(Reply(status=503), Reply(status=503), says("Now.")) as server:
        assert (await write(engine(server.url)))[0] == "Now."
        assert len(server.requests) == 3


async def test_loading_does_not_count_against_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this test advances only during loading."""
    now = [0.0]

    class Loads(Scripted):
        async def prepare(self) -> None:
            now[0] += 100

    class Imagines(Shows):
        def load_models(self) -> None:
            now[0] += 1000

    config, parts = parts_in(
        tmp_path, Loads("Look. <generate> it </generate>", "So.</think><answer>B</answer>")
    )
    parts = replace(parts, tools={**parts.tools, "generate": Imagines("generate", parts.resources)})
    graph = create_act2see(config, parts=parts)
    monkeypatch.setattr("act2see.graphs.ask.time.perf_counter", lambda: now[0])
    trace = await aask(graph, clip_in(tmp_path), "What?")
    assert [c.tag for c in trace.calls] == ["generate"]
    assert now[0] >= 1100
    assert sum(trace.usage.node_seconds.values()) == 0


async def test_a_key_that_is_refused_later_ends_at_once() -> None:
    pytest.importorskip("langchain_openai", reason="needs the chat extra")
    with openai_server(says(ANSWER)) as server:
        server.key = "right"
        options = {"base_url": server.url, "api_key": "wrong", "max_retries": 0}
        with pytest.raises(SetupError, match="check the key"):
            await write(ChatModelReasoner(chat_model("openai:m", options, "test"), black, "m"))


def _chat_config(folder: Path, url: str) -> Config:
    return load_config(config_in(folder, reasoner=chat("openai:m", url, api_key="none")))
