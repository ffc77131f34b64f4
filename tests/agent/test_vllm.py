"""vLLM in process, with a double of its engine: prompts, the engine's thread, and aborted requests.

vLLM itself needs a separate environment; `benchmarks/parity/vllm.py` runs the reasoner there.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.agent.test_vllm_http import BEGIN, shown

from act2see.agent.packing import Packer
from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Request, Sampling
from act2see.agent.reasoners.pieces import FORBIDDEN
from act2see.agent.reasoners.vllm.engine import VLLMReasoner
from act2see.agent.rollout import Rollout, TextPiece
from act2see.errors import ContextError, ReasonerError, SetupError
from act2see.tools.runtime.weights import resolve_weights

CODEC = Packer.from_pretrained(resolve_weights("micro:vlm")).codec


class Engine:
    """The part of `AsyncLLM` that the reasoner uses.

    Its renderer accepts ids and pictures. `generate` streams deltas, and aborts when it is closed. The engine
    aborts the first `aborts` requests, as if a frame were missing.
    """

    def __init__(
        self,
        *deltas: tuple[str, str | None, str | None],
        fails: Exception | None = None,
        pace: float = 0.0,
        aborts: int = 0,
    ) -> None:
        self.deltas, self.fails, self.pace, self.aborts = deltas, fails, pace, aborts
        self.renderer = self
        self.prompts: list[dict[str, Any]] = []
        self.params: list[dict[str, Any]] = []
        self.loras: list[Any] = []
        self.threads: set[str] = set()
        self.began, self.aborted = threading.Event(), threading.Event()
        self.down = self.errored = False

    async def render_cmpl_async(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"type": "multimodal", **p} for p in prompts]

    async def generate(
        self, prompt: dict[str, Any], params: dict[str, Any], request_id: str, lora_request: Any
    ) -> AsyncIterator[Any]:
        assert prompt["type"] == "multimodal"
        self.prompts.append(prompt)
        self.began.set()
        self.params.append(params)
        self.loras.append(lora_request)
        self.threads.add(threading.current_thread().name)
        if self.fails:
            raise self.fails
        if len(self.prompts) <= self.aborts:
            one = SimpleNamespace(text="", token_ids=[], finish_reason="error", stop_reason=None)
            yield SimpleNamespace(
                outputs=[one], prompt_token_ids=prompt["prompt_token_ids"], num_cached_tokens=None
            )
            return
        try:
            for text, finish, at in self.deltas:
                await asyncio.sleep(self.pace)
                one = SimpleNamespace(text=text, token_ids=[1], finish_reason=finish, stop_reason=at)
                ids = prompt["prompt_token_ids"]
                yield SimpleNamespace(
                    outputs=[one], prompt_token_ids=ids, num_cached_tokens=4 * (len(self.prompts) - 1)
                )
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted.set()
            raise

    def shutdown(self) -> None:
        self.down = True


@pytest.fixture
def made() -> Iterator[Any]:
    engines: list[VLLMReasoner] = []

    def make(engine: Engine, **settings: Any) -> VLLMReasoner:
        reasoner = VLLMReasoner(
            lambda: engine,
            CODEC,
            lambda f: np.zeros((f.height, f.width, 3), np.uint8),
            params=dict,
            **settings,
        )
        engines.append(reasoner)
        return reasoner

    yield make
    for engine in engines:
        engine.close()


DRAWN = Sampling(0.5, 0.9, 3, top_k=20, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.4)


async def write(
    reasoner: VLLMReasoner, *pieces: Any, stop: str = "</answer>", tokens: int = 50
) -> tuple[str, Done]:
    heard, done = "", Done(StopReason.EOS)

    def until(text: str) -> bool:
        nonlocal heard
        heard += text
        return stop in heard

    rollout, stops = Rollout((BEGIN, *pieces)), ("</retrieve>", "</answer>")
    async for item in reasoner.stream(Request(rollout, tokens, until, stops, DRAWN)):
        if isinstance(item, Done):
            done = item
        else:
            assert isinstance(item, Delta)
    return heard, done


async def test_engine_gets_ids_pictures_and_their_names(made: Any) -> None:
    engine = Engine(("<answer>", None, None), ("B</answer>", "stop", "</answer>"))
    text, done = await write(made(engine, adapter="a LoRA"), shown("aa"), TextPiece("<|im_start|>"))
    assert (text, done) == (
        "<answer>B</answer>",
        Done(StopReason.UNTIL, len(engine.prompts[0]["prompt_token_ids"]), 0, 2),
    )
    pad = CODEC.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    (prompt,) = engine.prompts
    assert prompt["prompt_token_ids"] == [
        *CODEC.encode(BEGIN.text, "control"),
        pad,
        *CODEC.encode("<|im_start|>", "plain"),
    ]
    assert prompt["multi_modal_uuids"] == {"image": ["aa" * 16]}
    assert prompt["multi_modal_data"]["image"][0].size == (48, 48)
    assert engine.loras == ["a LoRA"]
    assert engine.params[0] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "max_tokens": 50,
        "stop": ["</retrieve>", "</answer>"],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "bad_words": list(FORBIDDEN),
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.4,
    }


async def test_end_of_turn_mark_is_left_out_of_the_text(made: Any) -> None:
    text, done = await write(made(Engine(("Hm.", None, None), ("<|im_end|>", "stop", None))))
    assert (text, done.stop) == ("Hm.", "eos")


async def test_text_continues_after_a_stop_string_that_is_not_its_end(made: Any) -> None:
    engine = Engine(("a</retrieve>", "stop", "</retrieve>"))
    text, done = await write(made(engine), tokens=2)
    assert (text, done.stop, done.decoded) == ("a</retrieve>" * 2, "length", 2)
    assert engine.prompts[1]["prompt_token_ids"] == engine.prompts[0]["prompt_token_ids"] + CODEC.encode(
        "a</retrieve>", "model"
    )
    assert [p["max_tokens"] for p in engine.params] == [2, 1]


async def test_leaving_early_aborts_the_request(made: Any) -> None:
    engine = Engine(*[("<frame>", None, None)] * 500, pace=0.005)
    _, done = await write(made(engine), stop="<frame>")
    assert done.stop == "until"
    assert await asyncio.to_thread(engine.aborted.wait, 5)


async def test_cancelled_run_aborts_its_request(made: Any) -> None:
    engine = Engine(*[("and ", None, None)] * 500, pace=0.005)
    run = asyncio.ensure_future(write(made(engine), tokens=500))
    assert await asyncio.to_thread(engine.began.wait, 5)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert await asyncio.to_thread(engine.aborted.wait, 5)


def test_one_engine_loop_serves_many_event_loops(made: Any) -> None:
    engine = Engine(("<answer>B</answer>", "stop", "</answer>"))
    reasoner = made(engine)
    assert [asyncio.run(write(reasoner))[0] for _ in range(2)] == ["<answer>B</answer>"] * 2
    assert engine.threads == {"act2see-vllm"}
    reasoner.close()
    assert engine.down


async def test_limits_raise_context_error(made: Any) -> None:
    long = ValueError("The decoder prompt (length 900) is longer than the maximum model length of 512.")
    with pytest.raises(
        ContextError, match=r"with 1 frames is longer than vllm takes .*length 900.*view\.max_frames"
    ):
        await write(made(Engine(fails=long)), shown("aa"))
    full = "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
    with pytest.raises(ContextError, match=r"takes \(max_tokens must be at least 1, got 0\): show fewer"):
        await write(made(Engine(fails=ValueError(full))))
    with pytest.raises(ReasonerError, match="vllm failed: EngineCore died"):
        await write(made(Engine(fails=RuntimeError("EngineCore died"))))


async def test_request_aborted_by_the_engine_is_repeated_once(made: Any) -> None:
    engine = Engine(("<answer>B</answer>", "stop", "</answer>"), aborts=1)
    assert (await write(made(engine), shown("aa")))[0] == "<answer>B</answer>"
    assert len(engine.prompts) == 2
    with pytest.raises(ReasonerError, match=r"vllm failed: the engine aborted the request \(error\)"):
        await write(made(Engine(aborts=2)))
    with pytest.raises(ReasonerError, match=r"vllm failed: the engine aborted the request \(abort\)"):
        await write(made(Engine(("Hm", None, None), ("", "abort", None))))


async def test_dead_engine_is_replaced_at_the_next_run() -> None:
    dead, alive = Engine(("Hm", None, None)), Engine(("</answer>", "stop", "</answer>"))
    dead.fails, dead.errored = RuntimeError("EngineCore died"), True
    engines = [dead, alive]
    reasoner = VLLMReasoner(
        lambda: engines.pop(0), CODEC, lambda f: np.zeros((1, 1, 3), np.uint8), params=dict
    )
    runs = await asyncio.gather(*(write(reasoner) for _ in range(3)), return_exceptions=True)
    assert {str(e) for e in runs if isinstance(e, ReasonerError)} <= {
        "vllm failed: EngineCore died",
        "vllm was closed",
    }
    assert dead.down
    assert (await write(reasoner))[0] == "</answer>"
    await asyncio.to_thread(reasoner.close)
    assert alive.down


async def test_question_for_a_closed_engine_raises() -> None:
    made = threading.Event()

    def make() -> Engine:
        made.set()
        return Engine(("</answer>", "stop", "</answer>"))

    reasoner = VLLMReasoner(make, CODEC, lambda f: np.zeros((1, 1, 3), np.uint8), params=dict)
    asked = asyncio.ensure_future(write(reasoner))
    # This loop is blocked from the moment at which the engine is made until it is closed. So the question has
    # looked up an engine that is closed before the question can use it.
    while not made.wait(0.001):  # noqa: ASYNC110  (an event of this loop would let the question continue)
        await asyncio.sleep(0)
    reasoner.close()
    with pytest.raises(ReasonerError, match="vllm was closed"):
        await asked


async def test_close_cancels_the_engines_tasks() -> None:
    left: list[asyncio.Task[None]] = []

    def make() -> Engine:
        left.append(asyncio.get_running_loop().create_task(asyncio.sleep(1000)))
        return Engine(("</answer>", "stop", "</answer>"))

    reasoner = VLLMReasoner(make, CODEC, lambda f: np.zeros((1, 1, 3), np.uint8), params=dict)
    await write(reasoner)
    await asyncio.to_thread(reasoner.close)
    assert left[0].cancelled()


async def test_engine_that_cannot_start_raises_setup_error() -> None:
    def make() -> Any:
        raise RuntimeError("no device\nand more")

    with pytest.raises(SetupError, match=r"vLLM cannot start vllm: no device$"):
        await write(VLLMReasoner(make, CODEC, lambda f: np.zeros((1, 1, 3), np.uint8), params=dict))
