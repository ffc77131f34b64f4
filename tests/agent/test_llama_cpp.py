"""The reasoner of a llama.cpp server, over real HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tests.agent.llama_server import IMAGE_TOKENS, MARKER, Double, Fault, llama_server
from tests.agent.test_vllm_http import BEGIN, DONE, LOOK, QUICK, pixels, shown
from tests.graphs.doubles import Scripted, clip_in, parts_in
from tokenizers import Tokenizer

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import FRAME_TEXT, QUESTION, Done, Needs, Request, Sampling
from act2see.agent.reasoners.llama_cpp.reasoner import LlamaCppReasoner
from act2see.agent.reasoners.llama_cpp.wire import prompt_text
from act2see.agent.reasoners.pieces import safe_texts
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece, Trust
from act2see.errors import ConfigError, ContextError, ReasonerError, SetupError
from act2see.graphs.ask import create_act2see
from act2see.graphs.run import aask
from act2see.tools.runtime.weights import resolve_weights
from act2see.trace.trace import Trace

NEEDS = Needs(images=6, side=192, tokens=600)


def reasoner(server: Double, **options: Any) -> LlamaCppReasoner:
    return LlamaCppReasoner(server.url, "micro", pixels, backoff=QUICK, **options)


async def write(
    engine: LlamaCppReasoner,
    *pieces: TextPiece | ImagePiece,
    session: str = "",
    stop: str = "</answer>",
    tokens: int = 99,
    sampling: Sampling = Sampling(seed=7),  # noqa: B008 - frozen
) -> tuple[str, Done]:
    heard, done = "", Done(StopReason.EOS)

    def until(text: str) -> bool:
        nonlocal heard
        heard += text
        return stop in heard

    rollout = Rollout((BEGIN, *pieces), session)
    request = Request(rollout, tokens, until, ("</retrieve>", "</answer>"), sampling)
    async for item in engine.stream(request):
        if isinstance(item, Done):
            done = item
    return heard, done


async def ask(folder: Path, server: Double) -> Trace:
    config, parts = parts_in(folder, None)
    engine = LlamaCppReasoner(server.url, "micro", parts.resources.store, backoff=QUICK)
    graph = create_act2see(config, parts=dataclasses.replace(parts, reasoner=engine))
    return await aask(graph, clip_in(folder), "What? <|im_start|>", ["blue", "red"])


async def test_question_through_the_graph(tmp_path: Path) -> None:
    with llama_server(LOOK, DONE) as server:
        trace = await ask(tmp_path, server)
    assert (trace.text, trace.choice) == (LOOK + DONE, "red")
    first, second = trace.usage.loops
    # The second step finds all that the first one read in the run's slot.
    assert (first.cached, second.cached) == (0, first.prefilled)


async def test_the_server_reads_the_rollout_that_the_graph_rendered(tmp_path: Path) -> None:
    with llama_server(LOOK, DONE) as server:
        await ask(tmp_path, server)
    scripted = Scripted(LOOK, DONE)
    config, parts = parts_in(tmp_path / "other", scripted)
    await aask(create_act2see(config, parts=parts), clip_in(tmp_path), "What? <|im_start|>", ["blue", "red"])
    read = [
        request["prompt"]["prompt_string"].replace(MARKER, "<|vision_start|><|image_pad|><|vision_end|>")
        for request in server.streamed
    ]
    assert [text.replace("< |im_start|>", "<|im_start|>") for text in read] == scripted.rollouts
    # The turn mark that the question spells out is plain text.
    assert server.ids[0].count(server.tokenizer.token_to_id("<|im_start|>")) == 2


async def test_request_body() -> None:
    with llama_server(DONE) as server:
        await write(reasoner(server), shown("aa"), sampling=Sampling(0.6, 0.95, seed=2**32 + 5))
        (body,) = server.requests
    assert body["n_predict"] == 99
    assert body["stop"] == ["</retrieve>", "</answer>"]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.6, 0.95, 0, 0.0)
    assert 0 <= body["seed"] < 2**32 - 1
    assert [server.tokenizer.token_to_id("<|im_start|>"), False] in body["logit_bias"]
    assert server.pictures[0].getpixel((0, 0)) == (0xAA,) * 3


async def test_a_stop_string_stays_in_the_text() -> None:
    with llama_server("See <retrieve>x</retrieve>") as server:
        text, done = await write(reasoner(server), stop="</retrieve>")
    assert (text, done.stop) == ("See <retrieve>x</retrieve>", StopReason.UNTIL)


async def test_token_limit_ends_the_text() -> None:
    with llama_server(DONE) as server:
        text, done = await write(reasoner(server), tokens=2)
    assert (text, done.stop, done.decoded) == (DONE[:6], StopReason.LENGTH, 2)


async def test_closing_a_stream_aborts_the_request() -> None:
    with llama_server(DONE * 40, pace=0.02) as server:
        stream = reasoner(server).stream(Request(Rollout((BEGIN,)), 999))
        await anext(stream)
        await stream.aclose()
        assert await asyncio.to_thread(server.aborted.wait, 30)


async def test_no_more_requests_than_slots_are_under_way() -> None:
    with llama_server(DONE, slots=2, pace=0.01) as server:
        engine = reasoner(server)
        await asyncio.gather(*(write(engine, session=str(n)) for n in range(6)))
        assert len(server.streamed) == 6
        assert server.most_at_once == 2


async def test_a_call_that_ends_with_the_last_token_is_kept() -> None:
    line = "See <retrieve>x</retrieve>"
    with llama_server(line) as server:
        tokens = len(line.removesuffix("</retrieve>")) // 3 + 1
        text, done = await write(reasoner(server), stop="</retrieve>", tokens=tokens + 1)
    assert (text, done.stop) == (line, StopReason.UNTIL)


async def test_a_restarted_server_is_asked_for_its_new_marker() -> None:
    with llama_server(DONE) as server:
        engine = reasoner(server)
        await write(engine, shown("aa"))
        server.marker = "<__media_an0ther__>"
        text, _ = await write(engine, shown("aa"))
        assert text == DONE
        assert server.asked.count("/props") == 2


async def test_the_marker_cannot_be_spelled_out() -> None:
    with llama_server(DONE) as server:
        text, _ = await write(reasoner(server), TextPiece(f"What is {MARKER}?"), shown("aa"))
    assert text == DONE


async def test_waits_while_the_model_loads() -> None:
    with llama_server(DONE, loading=1) as server:
        engine = reasoner(server, needs=NEEDS)
        await engine.check()
        assert engine.context == 4096


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"vision": False}, "reads no pictures: start the server with its --mmproj"),
        (
            {"context": 6 * (IMAGE_TOKENS + 2 + FRAME_TEXT) + QUESTION + 599},
            r"`act2see serve llama-cpp` .*`--parallel 1 --ctx-size 1786`; or show at most 5",
        ),
        ({"context": 300}, "lower budget.tokens"),
        ({"context": 300, "trained": 300}, r"written\): lower budget.tokens"),
        ({"context": 300, "trained": 4096}, r"written\): start it with .*; or lower budget.tokens"),
        ({"context": 8}, "refuses a frame of 192 x 192 pixels"),
        ({"key": "secret"}, "check the key"),
    ],
)
async def test_preflight_names_what_to_change(settings: dict[str, Any], says: str) -> None:
    with llama_server(**settings) as server, pytest.raises(SetupError, match=says):
        await reasoner(server, needs=NEEDS).check()


@pytest.mark.parametrize(
    ("configured", "served"),
    [
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0", "Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0"),
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0", "Qwen3VL-2B-Thinking-Q8_0.gguf"),
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0@main", "Qwen3VL-2B-Thinking-Q8_0-00001-of-00002.gguf"),
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF", "Qwen3VL-2B-Thinking-Q4_K_M.gguf"),
        ("/models/model.gguf", "model.gguf"),
        ("C:\\models\\model.gguf", "model.gguf"),
        ("mine", "mine"),
    ],
)
async def test_a_server_with_the_configured_model_is_used(configured: str, served: str) -> None:
    with llama_server(DONE, model=served) as server:
        await LlamaCppReasoner(server.url, configured, pixels, needs=NEEDS, backoff=QUICK).check()


@pytest.mark.parametrize(
    ("configured", "served"),
    [
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0", "Qwen3VL-2B-Thinking-Q4_K_M.gguf"),
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0", "Qwen3VL-2B-Instruct-Q8_0.gguf"),
        ("Qwen/Qwen3-VL-2B-Thinking-GGUF:Q8_0", "Qwen3VL-4B-Thinking-Q8_0.gguf"),
        ("/models/model.gguf", "gemma-3-4b-it-Q8_0.gguf"),
    ],
)
async def test_a_server_with_another_model_is_refused(configured: str, served: str) -> None:
    with llama_server(DONE, model=served) as server:
        engine = LlamaCppReasoner(server.url, configured, pixels, needs=NEEDS, backoff=QUICK)
        with pytest.raises(SetupError) as refused:
            await engine.check()
    said = str(refused.value)
    assert f"serves {served}, and the config names {configured}: " in said
    assert said.endswith(f"or set `reasoner.weights: {served}`")
    assert server.requests == []  # nothing was computed


async def test_a_server_without_a_model_is_named() -> None:
    with llama_server(router=True) as server, pytest.raises(SetupError, match="started without a model"):
        await reasoner(server, needs=NEEDS).check()


async def test_a_key_is_sent() -> None:
    with llama_server(DONE, key="secret") as server:
        assert (await write(reasoner(server, key="secret")))[0] == DONE


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (
            Fault(status=500, message="failed to decode"),
            ReasonerError,
            "failed: status 500, failed to decode",
        ),
        (
            Fault(400, "request (5000 tokens) exceeds the available context size (4096 tokens), try"),
            ContextError,
            "larger --ctx-size",
        ),
        (Fault(cut=2), ReasonerError, "broke off"),
        (Fault(error=2), ReasonerError, "the script says so"),
        (Fault(silent=30.0), ReasonerError, "sent nothing for"),
    ],
)
async def test_faults_are_told_apart(fault: Fault, error: type[Exception], says: str) -> None:
    with llama_server(DONE) as server:
        server.faults = [fault] * 4
        engine = reasoner(server)
        if fault.silent:
            engine = LlamaCppReasoner(
                server.url, "micro", pixels, backoff=dataclasses.replace(QUICK, silence=0.3)
            )
        with pytest.raises(error, match=says):
            await write(engine)


async def test_a_fault_before_the_first_word_is_tried_again() -> None:
    with llama_server(DONE) as server:
        server.faults = [Fault(status=500), Fault(status=503)]
        assert (await write(reasoner(server)))[0] == DONE


async def test_no_server_and_another_server() -> None:
    with pytest.raises(SetupError, match="act2see serve llama-cpp"):
        await LlamaCppReasoner("http://127.0.0.1:9", "micro", pixels, backoff=QUICK).check()
    with llama_server() as server, pytest.raises(SetupError, match="without a path"):
        await LlamaCppReasoner(f"{server.url}/v1", "micro", pixels, backoff=QUICK).check()


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"reasoner\.options\.port.*known keys: url"):
        LlamaCppReasoner.from_options("micro", pixels, {"port": 1})
    with pytest.raises(ConfigError, match=r"reasoner\.options\.mmporj: .*did you mean 'mmproj'"):
        LlamaCppReasoner.from_options("micro", pixels, {"mmporj": "x"})
    with pytest.raises(ConfigError, match=r"reasoner\.options\.base_url: .*did you mean 'url'"):
        LlamaCppReasoner.from_options("micro", pixels, {"base_url": "x"})
    with pytest.raises(ConfigError, match=r"reasoner\.options\.num_ctx: .*`reasoner.context` sets"):
        LlamaCppReasoner.from_options("micro", pixels, {"num_ctx": 4096})
    with pytest.raises(ConfigError, match=r"'localhost:8080' .* write http://localhost:8080"):
        LlamaCppReasoner.from_options("micro", pixels, {"url": "localhost:8080"})
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        LlamaCppReasoner.from_options("micro", pixels, {"key_env": "NO_SUCH_KEY"})


_SIGNS = ["<", "|", ">", "</", "im_start", "<|im_end|>", "<|im", "_start|>", "think>", "<think>", "</think>"]
_SIGNS += ["<tool_call>", "tool_response>", "<|vision_end|>", "<|vision_start|>", "<|image_pad|>", " x "]
_PIECES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(_SIGNS), max_size=6).map("".join), st.sampled_from(["plain", "model"])
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(_PIECES)
def test_no_author_can_spell_a_special_token(pieces: list[tuple[str, Trust]]) -> None:
    """Whatever others write, alone or together, the server parses the special tokens that we wrote."""
    tokenizer = Tokenizer.from_file(str(Path(resolve_weights("micro:vlm")) / "tokenizer.json"))
    written = [TextPiece(text, trust) for text, trust in pieces]
    head = TextPiece("<|im_start|>user\n", "control")
    tail = TextPiece("<|im_end|>\n", "control")
    (text,) = safe_texts([head, *written, tail])
    encoding = tokenizer.encode(text, add_special_tokens=False)
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items()}
    found = [tokenizer.id_to_token(i) for i in encoding.ids if i in special]
    assert (found[0], found[-1]) == ("<|im_start|>", "<|im_end|>")
    assert set(found[1:-1]) <= {"<think>", "</think>"}
    assert text.replace(" ", "") == "".join(p.text for p in [head, *written, tail]).replace(" ", "")


@given(_PIECES, st.integers(0, 6))
def test_a_frame_has_one_marker(pieces: list[tuple[str, Trust]], at: int) -> None:
    written: list[TextPiece | ImagePiece] = [TextPiece(text, trust) for text, trust in pieces]
    frame = [TextPiece("<|vision_start|>", "control"), shown("aa"), TextPiece("<|vision_end|>", "control")]
    text = prompt_text(Rollout((*written[:at], *frame, *written[at:])), MARKER)
    assert text.count(MARKER) == 1
    assert "<|vision_start|>" not in text
