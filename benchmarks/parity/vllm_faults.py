"""python -m benchmarks.parity.vllm_faults --python vllm-env/bin/python: faults of a real vLLM server, and the
errors that act2see reports for them.

The server has the micro checkpoint, two adapters with random weights (one for the language model, one for the
vision tower), and room for one image and 1,024 tokens. For each case this prints the error's type and
message, or the text. The last cases end the server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from act2see.agent.reasoners.base import Delta, Needs, Reasoner, Request
from act2see.agent.reasoners.connection import BACKOFF
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.reasoners.vllm.http import VLLMHTTPReasoner
from act2see.agent.reasoners.vllm.preflight import preflight
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.errors import Act2SeeError
from act2see.tools.frames import FrameRef
from act2see.tools.runtime.weights import resolve_weights
from benchmarks.parity.vllm import FLAGS, serve

MODEL, CONTEXT = "micro:vlm", 1024
LIMITS = ("--limit-mm-per-prompt", '{"image": 1, "video": 0}', "--max-model-len", str(CONTEXT))
BEGIN = TextPiece("<|im_start|>user\n", "control")
OPEN = TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control")
AROUND = 17  # tokens of BEGIN and OPEN together


def pixels(frame: FrameRef) -> np.ndarray:
    """Return noise that depends only on the frame's digest."""
    return np.random.default_rng(int(frame.digest[:2], 16)).integers(
        0, 256, (frame.height, frame.width, 3), np.uint8
    )


def make_rollout(frames: Sequence[int], text: str) -> Rollout:
    """Return a rollout with these frames (by number) and this text."""
    pieces: list[TextPiece | ImagePiece] = [BEGIN]
    for n in frames:
        frame = ImagePiece(FrameRef(digest=f"{n:02x}" * 16, width=48, height=48, seconds=1.0))
        pieces += [TextPiece("<|vision_start|>", "control"), frame, TextPiece("<|vision_end|>", "control")]
    return Rollout((*pieces, TextPiece(text), OPEN))


async def write(
    engine: Reasoner, rollout: Rollout, tokens: int = 24, after: Callable[[], None] | None = None
) -> str:
    """Return the written text, or the type and message of the error.

    Args:
        engine: The reasoner.
        rollout: The rollout to continue.
        tokens: The maximum number of tokens.
        after: Called after the fifth piece of text.
    """
    text, pieces = "", 0
    try:
        async for item in engine.stream(Request(rollout, tokens, stops=("</answer>",))):
            if isinstance(item, Delta):
                text, pieces = text + item.text, pieces + 1
                if after and pieces == 5:
                    after()
    except Act2SeeError as e:
        return f"{type(e).__name__}: {e}"
    return repr(text)


def write_adapter(folder: Path, vision: bool) -> None:
    """Write an adapter as `act2see sft` does, but with weights that change the text."""
    import torch
    from peft import get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    from act2see.training.sft.settings import SftSettings
    from act2see.training.sft.trainer import lora_config

    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration.from_pretrained(resolve_weights(MODEL), dtype=torch.float32)
    settings = SftSettings(base=MODEL, lora_rank=20, freeze_vision=not vision)
    adapted = get_peft_model(model, lora_config(model, settings))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            # In the adapter for vision, the part of the language model is zero, so that only vision changes.
            torch.nn.init.normal_(parameter, std=0.1 if (".visual." in name) == vision else 0.0)
    adapted.save_pretrained(folder)


async def compare_adapters(url: str, folder: Path) -> None:
    """Compare each adapter on the server, requested by name, with transformers using the same adapter."""
    plain: list[str] = []
    for name in (None, "language", "vision"):
        local = TransformersReasoner.from_pretrained(
            resolve_weights(MODEL), pixels, adapter=str(folder / name) if name else None
        )
        there = VLLMHTTPReasoner(url, MODEL, pixels, adapter=name)
        rollouts = [make_rollout([40 + n], f"What blinks at second {n}?") for n in range(10)]
        texts = [await write(local, r) for r in rollouts]
        equal = sum([await write(there, r) == t for r, t in zip(rollouts, texts, strict=True)])
        plain = plain or texts
        changed = sum(map(str.__ne__, texts, plain))
        print(f"adapter {name}: {equal} of 10 texts as in transformers, {changed} changed by it", flush=True)
        local.close()


def kill_engine(server: int) -> None:
    """Kill the engine of a server with this process group.

    Raises:
        RuntimeError: If the server has no engine process.
    """
    command = ["ps", "-eo", "pid,pgid,args"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines()[1:]:
        pid, group, args = line.split(None, 2)
        if int(group) == server and "EngineCore" in args:
            os.kill(int(pid), signal.SIGKILL)
            return
    raise RuntimeError("the server has no engine process")


async def try_cases(url: str, folder: Path, server: int) -> None:
    """Cause each fault and print act2see's report; `server` is the server's process group."""

    def engine(**settings: object) -> VLLMHTTPReasoner:
        return VLLMHTTPReasoner(url, **{"model": MODEL, "frames": pixels, **settings})  # type: ignore[arg-type]

    def show(case: str, result: str) -> None:
        print(f"{case}: {result}", flush=True)

    async def checked(what: str, needs: Needs, **settings: object) -> None:
        try:
            show(what, str(await preflight(engine(**settings), needs)))
        except Act2SeeError as e:
            show(what, f"{type(e).__name__}: {e}")

    await checked("preflight, micro's needs", Needs(76, 192, 664))
    await checked("preflight, a context too small", Needs(1, 192, 664))
    await checked("preflight, another model", Needs(1, 192, 64), model="other")
    await checked("preflight, a missing adapter", Needs(1, 192, 64), adapter="missing")
    show("two frames", await write(engine(), make_rollout([1, 2], "What?")))
    show("a text too long", await write(engine(), make_rollout([], " ring" * CONTEXT)))
    show(
        "frame and text too long", await write(engine(), make_rollout([1], " ring" * (CONTEXT - AROUND - 5)))
    )
    show("a frame whose first request was refused", await write(engine(), make_rollout([1], "What?")))
    show(
        "a prompt that fills the context",
        await write(engine(), make_rollout([], " ring" * (CONTEXT - AROUND))),
    )
    show("room for one token", await write(engine(), make_rollout([], " ring" * (CONTEXT - AROUND - 1))))
    show("another model", await write(engine(model="other"), make_rollout([], "What?")))
    show("a missing adapter", await write(engine(adapter="missing"), make_rollout([], "What?")))
    forgetful = engine()
    forgetful._sent["ee" * 16] = True  # the reasoner believes that the server has this frame
    show("a frame that the server does not have", await write(forgetful, make_rollout([0xEE], "What?")))
    for n in range(20):
        # Cancel a request with a new frame, a little later each time.
        run = asyncio.ensure_future(write(engine(), make_rollout([100 + n], "What?"), 400))
        await asyncio.sleep(0.02 + 0.01 * n)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    after = [await write(engine(), make_rollout([100 + n], "What?"), 2) for n in range(20)]
    show(
        "frames of requests that were cancelled", f"{sum('Error' not in t for t in after)} of 20 are answered"
    )
    await compare_adapters(url, folder)

    started = time.perf_counter()
    result = await write(engine(), make_rollout([1], "What?"), 900, partial(kill_engine, server))
    show(f"its engine is killed in mid-stream ({time.perf_counter() - started:.1f} s)", result)
    os.killpg(server, signal.SIGKILL)
    show("no server", await write(engine(backoff=replace(BACKOFF, first=0.1)), make_rollout([1], "What?")))


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.parity.vllm_faults", description=(__doc__ or "").partition("\n\n")[0]
    )
    options.add_argument("--python", type=Path, required=True, help="the interpreter of vLLM's environment")
    given = options.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("language", "vision"):
            write_adapter(folder / name, name == "vision")
        server, url = serve(
            given.python,
            folder,
            [f"{name}={folder / name}" for name in ("language", "vision")],
            (*FLAGS, *LIMITS),
        )
        try:
            asyncio.run(try_cases(url, folder, server.pid))
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


if __name__ == "__main__":
    main()
