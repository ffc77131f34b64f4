"""Asking the server before a run: everything that would fail in the middle is said at once, with what to
change."""

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
from act2see.agent.reasoners.vllm.preflight import Limits, preflight
from act2see.errors import ConfigError, SetupError
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import build_parts, reasoner_needs
from act2see.graphs.run import aask

NEEDS = Needs(images=6, side=192, tokens=600)


async def asked(server: Double, needs: Needs = NEEDS, **settings: Any) -> Limits:
    return await preflight(VLLMHTTPReasoner(server.url, MODEL, pixels, backoff=QUICK, **settings), needs)


async def test_a_server_started_by_us_has_room(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path) as server:
        assert await asked(server) == Limits(context=4096, frame_tokens=IMAGE_TOKENS)
        assert {r["max_tokens"] for r in server.requests} == {1}
        assert len(server.requests) == 4


async def test_its_image_limit_is_found_without_running_into_it(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path, images=1) as server, pytest.raises(SetupError) as caught:
        await asked(server)
    assert re.search(
        r"takes 1 images in a prompt and a run may show 6: .*--limit-mm-per-prompt '{\"image\": 6}'",
        str(caught.value),
    )


async def test_its_context_is_measured_in_frames(tmp_path: Path) -> None:
    needed = 6 * (IMAGE_TOKENS + FRAME_TEXT) + QUESTION + 600
    with (
        vllm_server(folder=tmp_path, context=needed - 1) as server,
        pytest.raises(SetupError, match=f"--max-model-len {needed}, or show at most 5 frames"),
    ):
        await asked(server)


async def test_all_that_is_wrong_is_said_at_once() -> None:
    with vllm_server(images=0, context=100) as server, pytest.raises(SetupError) as caught:
        await asked(server)
    said = str(caught.value)
    assert all(
        s in said
        for s in (
            "--tokenizer",
            "exact: false",
            "--limit-mm-per-prompt",
            "--max-model-len",
            "lower budget.tokens",
        )
    )


async def test_a_plain_tokenizer_serves_joined_pieces() -> None:
    with vllm_server() as server:
        assert (await asked(server, exact=False)).images is None


async def test_a_chat_template_of_the_model_is_noticed(tmp_path: Path) -> None:
    template = "<|im_start|>user\n{{ messages[0]['content'][0]['text'] }}<|im_end|>\n"
    with (
        vllm_server(folder=tmp_path, template=template) as server,
        pytest.raises(SetupError, match="its chat template is not ours"),
    ):
        await asked(server)


async def test_the_models_are_looked_through(tmp_path: Path) -> None:
    with vllm_server(folder=tmp_path, models=("other", "sft")) as server:
        with pytest.raises(
            SetupError, match=r"serves other, sft, and the config wants micro:vlm: set reasoner\.weights"
        ):
            await asked(server)
        with pytest.raises(SetupError, match=r"has not loaded the adapter mine .*--lora mine=FOLDER"):
            await asked(server, adapter="mine")


def config(server: Double, folder: Path, **reasoner: Any) -> Any:
    options = {"url": server.url, "requests": 1}
    section = {"use": "vllm-http", "weights": MODEL, "prompt": "short", "options": options, **reasoner}
    return load_config(
        {"preset": "micro", "reasoner": section, "cache": str(folder), "view": {"guard": None}}
    )


async def test_a_graph_asks_once_before_its_first_run(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        chosen = config(server, tmp_path)
        graph = create_act2see(chosen, parts=build_parts(chosen))
        clip = clip_in(tmp_path)
        for _ in range(2):
            assert (await aask(graph, clip, "What?", ["blue", "red"])).choice == "red"
        assert (len(server.requests), len(server.streamed)) == (6, 2)
    assert reasoner_needs(chosen) == Needs(images=12 + 4 * 16, side=192, tokens=600 + 64)


async def test_a_graph_says_what_to_change_before_it_runs(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path, images=1) as server:
        chosen = config(server, tmp_path)
        graph = create_act2see(chosen, parts=build_parts(chosen))
        with pytest.raises(SetupError, match="takes 1 images in a prompt and a run may show 76"):
            await aask(graph, clip_in(tmp_path), "What?")
        assert not server.streamed


def test_in_process_it_needs_vllm_here(tmp_path: Path) -> None:
    chosen = load_config(
        {"preset": "micro", "reasoner": {"use": "vllm", "weights": MODEL}, "cache": str(tmp_path)}
    )
    with pytest.raises(
        ConfigError,
        match=r"vLLM is not installed here.*act2see serve vllm --python.*reasoner\.use: vllm-http",
    ):
        build_parts(chosen)
