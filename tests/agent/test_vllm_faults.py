"""Faults of a vLLM server: each raises an error with a remedy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tests.agent.test_vllm_http import BEGIN, DONE, LOOK, QUICK, ask, pixels, reasoner, shown, write
from tests.agent.vllm_server import MODEL, Fault, vllm_server

from act2see.agent.reasoners.faults import Backoff
from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
from act2see.agent.rollout import TextPiece
from act2see.errors import ConfigError, ContextError, ReasonerError, SetupError

BRIEF = Backoff(requests=2, first=0.01, longest=1.0, silence=0.3)


@pytest.mark.parametrize(
    ("fault", "error", "sent"),
    [
        (Fault(status=503), "failed: status 503, the script says so", 3),
        (Fault(status=500, message="EngineCore encountered an issue"), "failed: status 500, EngineCore", 3),
        (Fault(status=400, message="stop: too many"), "failed: status 400, stop: too many", 1),
        (Fault(status=401, message="Unauthorized"), "check the key", 1),
        (Fault(status=429, headers={"Retry-After": "99999"}), "status 429", 1),
        (Fault(cut=2), "broke off: ", 1),
        (Fault(cut=2, polite=True), "broke off: the stream ended without a finish reason", 1),
        (
            Fault(error=2, message="EngineCore encountered an issue"),
            "broke off: EngineCore encountered an issue",
            1,
        ),
        (Fault(error=0, message="Internal server error"), "failed: status 500, Internal server error", 3),
        (Fault(abort=2), r"broke off: the server aborted the request \(abort\)", 1),
    ],
)
async def test_server_errors_and_retries(tmp_path: Path, fault: Fault, error: str, sent: int) -> None:
    """A transient fault is retried before the first word, and not after it."""
    with vllm_server(LOOK, DONE, folder=tmp_path, faults=[fault] * 3) as server:
        with pytest.raises(ReasonerError, match=error):
            await ask(tmp_path, server)
        assert len(server.requests) == sent


async def test_transient_faults_do_not_change_the_trace(tmp_path: Path) -> None:
    with vllm_server(
        LOOK, DONE, folder=tmp_path, faults=[Fault(status=503), Fault(cut=0), Fault(), Fault(error=0)]
    ) as server:
        trace = await ask(tmp_path, server)
        assert len(server.requests) == 5
    assert trace.text == LOOK + DONE


async def test_retry_after_header_sets_the_wait(tmp_path: Path) -> None:
    with vllm_server(
        DONE, folder=tmp_path, faults=[Fault(status=429, headers={"Retry-After": "0.4"})]
    ) as server:
        started = time.monotonic()
        assert (await write(reasoner(server)))[0] == DONE
        assert time.monotonic() - started >= 0.4


async def test_unreachable_server_raises_setup_error() -> None:
    with vllm_server() as server:
        pass
    with pytest.raises(SetupError, match=r"no server answers at .*: start it with `act2see serve vllm`"):
        await write(VLLMHTTPReasoner(server.url, MODEL, pixels, backoff=QUICK))


async def test_silence_limit_before_the_first_word(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path, faults=[Fault(silent=5)]) as server:
        started = time.monotonic()
        with pytest.raises(ReasonerError, match=r"sent nothing for 0\.3 s"):
            await write(reasoner(server, BRIEF))
        assert time.monotonic() - started < 3


async def test_silence_limit_in_mid_stream(tmp_path: Path) -> None:
    with (
        vllm_server(DONE, folder=tmp_path, pace=2.0) as server,
        pytest.raises(ReasonerError, match=r"sent nothing for 0\.3 s"),
    ):
        await write(reasoner(server, BRIEF))
    assert len(server.requests) == 1


async def test_server_without_the_configured_model(tmp_path: Path) -> None:
    with (
        vllm_server(DONE, folder=tmp_path, models=("Qwen/Qwen3-VL-8B-Thinking",)) as server,
        pytest.raises(
            SetupError,
            match=r"does not serve micro:vlm, it has Qwen/Qwen3-VL-8B-Thinking: set reasoner\.weights",
        ),
    ):
        await ask(tmp_path, server)


async def test_server_without_the_configured_adapter(tmp_path: Path) -> None:
    with (
        vllm_server(DONE, folder=tmp_path) as server,
        pytest.raises(
            SetupError, match=r"does not serve sft, it has micro:vlm: set reasoner\.adapter to one"
        ),
    ):
        await ask(tmp_path, server, adapter="sft")


async def test_rollout_over_the_image_limit(tmp_path: Path) -> None:
    with (
        vllm_server(LOOK, DONE, folder=tmp_path, images=1) as server,
        pytest.raises(
            SetupError,
            match=r"At most 1 image.*and this rollout has 3: start the server with `act2see serve vllm`",
        ),
    ):
        await ask(tmp_path, server)


async def test_rollout_over_the_context(tmp_path: Path) -> None:
    with (
        vllm_server(LOOK, DONE, folder=tmp_path, context=60) as server,
        pytest.raises(
            ContextError,
            match=r"with 3 frames is longer than micro:vlm takes .*60 tokens.*\(view\.max_frames\)",
        ),
    ):
        await ask(tmp_path, server)


async def test_rollout_whose_frames_exceed_the_context(tmp_path: Path) -> None:
    """vLLM counts a frame as one token at first. For the true number it has another message."""
    limit = r"Input length \(\d+\) exceeds .* \(100\)"
    with (
        vllm_server(LOOK, DONE, folder=tmp_path, context=100) as server,
        pytest.raises(
            ContextError, match=rf"with 12 frames is longer than micro:vlm takes \({limit}\): show"
        ),
    ):
        await write(reasoner(server), *[shown(f"{n:02x}") for n in range(12)])


async def test_forgotten_frames_are_sent_again(tmp_path: Path) -> None:
    """A cache miss although every frame was sent is an error: the request is not repeated forever."""
    fault = Fault(status=400, message="Cache miss for image at index 0 but data is not provided.")
    with vllm_server(DONE, folder=tmp_path, faults=[Fault(), fault, fault]) as server:
        engine = reasoner(server)
        await write(engine, shown("aa"))
        with pytest.raises(ReasonerError, match="Cache miss"):
            await write(engine, shown("aa"))
        assert len(server.requests) == 3


async def test_frames_are_sent_each_time_to_a_server_that_keeps_none(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path, keeps=False) as server:
        engine, asked = reasoner(server), []
        for _ in range(6):
            await write(engine, shown("aa"))
            asked.append(len(server.requests))
    assert asked == [1, 3, 5, 7, 8, 9]


async def test_malformed_url() -> None:
    engine = VLLMHTTPReasoner("ftp://nowhere", MODEL, pixels, backoff=QUICK)
    with pytest.raises(SetupError, match="no server answers at ftp://nowhere"):
        await engine.get("/models")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"uri": "x"}, r"reasoner\.options\.uri: unknown key; did you mean .url"),
        ({"silence": -1}, r"reasoner\.options\.silence: .*greater than 0"),
        (
            {"key_env": "ACT2SEE_NO_SUCH_KEY"},
            "ACT2SEE_NO_SUCH_KEY, which reasoner.options.key_env names, is not set",
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        VLLMHTTPReasoner.from_options(MODEL, pixels, options)


async def test_key_and_exact_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2SEE_TEST_KEY", "secret")
    with vllm_server(DONE) as server:
        options = {"url": server.url, "key_env": "ACT2SEE_TEST_KEY", "exact": False}
        engine = VLLMHTTPReasoner.from_options(MODEL, pixels, options)
        assert (await write(engine, TextPiece("a"), TextPiece("<|im_start|>")))[0] == DONE
        assert server.prompts == [f"{BEGIN.text}a< |im_start|>"]
        assert server.keys == ["Bearer secret"]
