"""The check of a vLLM server before a run: one error lists all problems, each with its remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.agent.test_vllm_http import DONE, QUICK, pixels
from tests.agent.vllm_server import IMAGE_TOKENS, MODEL, Double, vllm_server
from tests.graphs.doubles import clip_in

from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION, Needs
from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
from act2see.agent.reasoners.vllm.preflight import ServerLimits, preflight
from act2see.errors import ConfigError, SetupError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts, reasoner_needs
from act2see.graphs.run import aask

NEEDS = Needs(images=6, side=192, tokens=600)


async def run_preflight(server: Double, needs: Needs = NEEDS, **settings: Any) -> ServerLimits:
    return await preflight(VLLMHTTPReasoner(server.url, MODEL, pixels, backoff=QUICK, **settings), needs)


async def test_limits_of_a_server_with_room(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path) as server:
        assert await run_preflight(server) == ServerLimits(context=4096, frame_tokens=IMAGE_TOKENS)
        assert {r["max_tokens"] for r in server.requests} == {1}
        assert len(server.requests) == 4


async def test_image_limit_too_low(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path, images=1) as server, pytest.raises(SetupError) as caught:
        await run_preflight(server)
    assert re.search(
        r"accepts 1 image in a prompt, and a run may show 6: .*--limit-mm-per-prompt '{\"image\": 6}'",
        str(caught.value),
    )


async def test_context_too_short(tmp_path: Path) -> None:
    needed = 6 * (IMAGE_TOKENS + FRAME_TEXT) + QUESTION + 600
    with (
        vllm_server(folder=tmp_path, context=needed - 1) as server,
        pytest.raises(SetupError, match=f"`--max-model-len {needed}`, or show at most 5 frames"),
    ):
        await run_preflight(server)


async def test_all_problems_are_in_one_error() -> None:
    with vllm_server(images=0, context=100) as server, pytest.raises(SetupError) as caught:
        await run_preflight(server)
    message = str(caught.value)
    assert "--tokenizer" in message
    assert "exact: false" in message
    assert "--limit-mm-per-prompt" in message
    assert "--max-model-len" in message
    assert "lower budget.tokens" in message


async def test_exact_false_accepts_the_plain_tokenizer() -> None:
    with vllm_server() as server:
        assert (await run_preflight(server, exact=False)).images is None


async def test_models_own_chat_template_is_refused(tmp_path: Path) -> None:
    template = "<|im_start|>user\n{{ messages[0]['content'][0]['text'] }}<|im_end|>\n"
    with (
        vllm_server(folder=tmp_path, template=template) as server,
        pytest.raises(SetupError, match="does not use act2see's chat template"),
    ):
        await run_preflight(server)


async def test_missing_model_or_adapter(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path, models=("other", "sft")) as server:
        with pytest.raises(
            SetupError, match=r"serves other, sft, and the config names micro:vlm: set reasoner\.weights"
        ):
            await run_preflight(server)
        with pytest.raises(
            SetupError, match=r"has not loaded the adapter mine .*`act2see serve vllm --lora mine=FOLDER`"
        ):
            await run_preflight(server, adapter="mine")


def config(server: Double, folder: Path, **reasoner: Any) -> Any:
    options = {"url": server.url, "requests": 1}
    section = {"use": "vllm-http", "weights": MODEL, "prompt": "short", "options": options, **reasoner}
    return load_config(
        {"preset": "micro", "reasoner": section, "cache": str(folder), "view": {"guard": None}}
    )


async def test_graph_asks_the_server_once(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        chosen = config(server, tmp_path)
        graph = create_act2see(chosen, parts=build_parts(chosen))
        clip = clip_in(tmp_path)
        for _ in range(2):
            assert (await aask(graph, clip, "What?", ["blue", "red"])).choice == "red"
        assert (len(server.requests), len(server.streamed)) == (6, 2)
    assert reasoner_needs(chosen) == Needs(images=12 + 4 * 16, side=192, tokens=600 + 64)


async def test_graph_raises_preflight_errors(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path, images=1) as server:
        chosen = config(server, tmp_path)
        graph = create_act2see(chosen, parts=build_parts(chosen))
        with pytest.raises(SetupError, match="accepts 1 image in a prompt, and a run may show 76"):
            await aask(graph, clip_in(tmp_path), "What?")
        assert not server.streamed


def test_missing_vllm_package_raises_config_error(tmp_path: Path) -> None:
    chosen = load_config(
        {"preset": "micro", "reasoner": {"use": "vllm", "weights": MODEL}, "cache": str(tmp_path)}
    )
    with pytest.raises(
        ConfigError,
        match=r"vLLM is not installed here.*act2see serve vllm --python.*reasoner\.use: vllm-http",
    ):
        build_parts(chosen)
