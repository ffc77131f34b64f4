"""The reasoner of a vLLM server, over real HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from tests.agent.vllm_server import MODEL, Double, vllm_server
from tests.graphs.doubles import Scripted, clip_in, parts_in

from act2see.agent.packing import Packer
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Done, Request, Sampling
from act2see.agent.reasoners.faults import Backoff
from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.trace import Trace

QUICK = Backoff(requests=3, first=0.01, longest=1.0, silence=5.0)
LOOK = "I look again. <retrieve>the circle blinks</retrieve>"
DONE = "So it is red.</think>\n<answer>B</answer>"
BEGIN = TextPiece("<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n<think>\n", "control")


def pixels(frame: FrameRef) -> Any:
    return np.full((frame.height, frame.width, 3), int(frame.digest[:2], 16), np.uint8)


def shown(name: str) -> ImagePiece:
    return ImagePiece(FrameRef(digest=name * 16, width=48, height=48, seconds=0.0))


def reasoner(server: Double, backoff: Backoff = QUICK, **settings: Any) -> VLLMHTTPReasoner:
    return VLLMHTTPReasoner(server.url, MODEL, pixels, backoff=backoff, **settings)


async def write(
    engine: VLLMHTTPReasoner, *pieces: TextPiece | ImagePiece, stop: str = "</answer>", tokens: int = 99
) -> tuple[str, Done]:
    heard, done = "", Done(StopReason.EOS)

    def until(text: str) -> bool:
        nonlocal heard
        heard += text
        return stop in heard

    rollout = Rollout((BEGIN, *pieces))
    stops = "</retrieve>", "</answer>"
    async for item in engine.stream(Request(rollout, tokens, until, stops, Sampling(seed=7))):
        if isinstance(item, Done):
            done = item
    return heard, done


async def ask(folder: Path, server: Double, **settings: Any) -> Trace:
    config, parts = parts_in(folder, None)
    engine = VLLMHTTPReasoner(server.url, MODEL, parts.resources.store, backoff=QUICK, **settings)
    graph = create_act2see(config, parts=dataclasses.replace(parts, reasoner=engine))
    return await aask(graph, clip_in(folder), "What? <|im_start|>", ["blue", "red"])


async def test_question_through_the_graph(tmp_path: Path) -> None:
    with vllm_server(LOOK, DONE, folder=tmp_path) as server:
        trace = await ask(tmp_path, server)
    assert trace.text == LOOK + DONE
    assert trace.choice == "red"
    # Loop 2 reads only new tokens: the prefix is in the cache, except its last block.
    first, second = trace.usage.loops
    assert (first.cached, second.cached) == (0, first.prefilled // 16 * 16)
    assert second.decoded == len(DONE) // 3 + 1


async def test_server_reads_the_rendered_rollout(tmp_path: Path) -> None:
    with vllm_server(LOOK, DONE, folder=tmp_path) as server:
        await ask(tmp_path, server)
    scripted = Scripted(LOOK, DONE)
    config, parts = parts_in(tmp_path / "other", scripted)
    await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "What? <|im_start|>", ["blue", "red"])
    assert [p.replace("\ufdd0", "") for p in server.prompts] == scripted.rollouts
    packer = Packer.from_pretrained(resolve_weights(MODEL))
    user = server.ids[0]
    look = packer.codec.encode(LOOK, "model")
    assert server.ids[1][: len(user) + len(look)] == user + look  # the same prefix
    # The mark that is spelled out in the question is plain text.
    assert user.count(packer.codec.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2


async def test_request_body(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        await write(reasoner(server, key="secret"), shown("aa"))
        (body,) = server.requests
    assert {k: body[k] for k in ("temperature", "top_p", "seed", "max_tokens", "model")} == {
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 7,
        "max_tokens": 99,
        "model": MODEL,
    }
    assert body["add_generation_prompt"] is False
    assert body["include_stop_str_in_output"] is True
    assert body["skip_special_tokens"] is False
    assert body["stop"] == ["</retrieve>", "</answer>"]
    assert "<|vision_start|>" in body["bad_words"]
    (message,) = body["messages"]
    text, image = message["content"]
    assert text == {"type": "text", "text": BEGIN.text}
    assert image["uuid"] == "aa" * 16
    assert server.pictures["aa" * 16].getpixel((0, 0)) == (0xAA,) * 3  # PNG is lossless


async def test_frame_is_sent_once_until_forgotten(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        engine = reasoner(server)
        await write(engine, shown("aa"))
        await write(engine, shown("aa"), shown("bb"))
        sent = [
            [p["image_url"] is not None for p in r["messages"][0]["content"] if "uuid" in p]
            for r in server.requests
        ]
        assert sent == [[True], [False, True]]
        server.pictures.clear()  # restarted
        assert (await write(engine, shown("aa"), shown("bb")))[0] == DONE
        sent = [
            [p["image_url"] is not None for p in r["messages"][0]["content"] if "uuid" in p]
            for r in server.requests[2:]
        ]
        assert sent == [[False, False], [True, True]]
        await write(engine, shown("bb"))
        assert server.requests[-1]["messages"][0]["content"][-1]["image_url"] is None


async def test_end_of_turn_mark_is_left_out_of_the_text(tmp_path: Path) -> None:
    with vllm_server("A dog.", folder=tmp_path) as server:
        text, done = await write(reasoner(server))
    assert (text, done.stop) == ("A dog.", "eos")


async def test_text_continues_after_a_stop_string_that_is_not_its_end(tmp_path: Path) -> None:
    """vLLM stops at `</retrieve>` in plain words, but the grammar does not."""
    with vllm_server("So </retrieve>", folder=tmp_path) as server:
        text, done = await write(reasoner(server), tokens=12)
        assert text == "So </retrieve>" * 2 + "So </r"
        assert [r["max_tokens"] for r in server.requests] == [12, 7, 2]
        assert server.prompts[1].replace("\ufdd0", "") == server.prompts[0] + "So </retrieve>"
    assert (done.stop, done.decoded) == ("length", 12)


async def test_request_is_aborted_when_until_ends_the_text(tmp_path: Path) -> None:
    with vllm_server("Hm <frame> " + "and so on " * 400, folder=tmp_path, pace=0.01) as server:
        text, done = await write(reasoner(server), stop="<frame>", tokens=4000)
        assert (text[:10], done.stop) == ("Hm <frame>", "until")
        assert await asyncio.to_thread(server.aborted.wait, 5)


async def test_cancelled_run_aborts_its_request(tmp_path: Path) -> None:
    with vllm_server("and so on " * 400, folder=tmp_path, pace=0.01) as server:
        run = asyncio.ensure_future(write(reasoner(server), tokens=4000))
        assert await asyncio.to_thread(server.began.wait, 5)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert await asyncio.to_thread(server.aborted.wait, 5)


async def test_token_limit_larger_than_the_room_is_cut(tmp_path: Path) -> None:
    with vllm_server("word " * 6, folder=tmp_path, context=200, ends="length") as server:
        text, done = await write(reasoner(server), tokens=250)
        assert "max_tokens" not in server.requests[-1]
    assert (text, done.stop) == ("word " * 6, "length")


async def test_adapter_is_sent_as_the_model(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path, models=(MODEL, "sft")) as server:
        engine = reasoner(server, adapter="sft")
        await write(engine)
        assert (server.requests[0]["model"], engine.name) == ("sft", "sft")


async def test_many_questions_at_once(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        engine = reasoner(server)
        texts = await asyncio.gather(*(write(engine, shown(f"{n:02x}")) for n in range(16)))
    assert {text for text, _ in texts} == {DONE}


def test_requests_from_several_event_loops(tmp_path: Path) -> None:
    with vllm_server(DONE, folder=tmp_path) as server:
        engine = reasoner(server)
        assert [asyncio.run(write(engine))[0] for _ in range(2)] == [DONE, DONE]
