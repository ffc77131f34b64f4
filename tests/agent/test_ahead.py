"""While a long prompt is packed, other rollouts get their tokens. A gate holds the packing, not a clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act2see.agent.packing import Packer
from act2see.agent.reasoners.base import Delta, Done, Request
from act2see.agent.reasoners.transformers import TransformersReasoner
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.errors import ContextError, ReasonerError
from act2see.tools.frames import FrameRef

BEGIN = TextPiece("<|im_start|>user\n", "control")
END = TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control")
LONG = Rollout((BEGIN, TextPiece("red ring " * 1000), END), "long")
FITS = Rollout((BEGIN, *[TextPiece("ring")] * 1000, END), "fits")
SHORT = Rollout((BEGIN, TextPiece("red ring"), END), "short")


class Gate:
    """Stands before a callable, and holds calls with a certain argument until it is opened."""

    def __init__(self, behind: Callable[..., Any], holds: Callable[[Any], bool]) -> None:
        self.behind, self.holds = behind, holds
        self.reached, self.opened = threading.Semaphore(0), threading.Event()

    def __call__(self, first: Any, *rest: Any) -> Any:
        if self.holds(first):
            self.reached.release()
            assert self.opened.wait(60), "nobody opened the gate"
        return self.behind(first, *rest)


@pytest.fixture
def engine(vlm_folder: Path) -> Iterator[TransformersReasoner]:
    picture = np.full((1500, 1500, 3), 90, np.uint8)
    made = TransformersReasoner.from_pretrained(vlm_folder, lambda frame: picture, rows=4)
    yield made
    made.close()


async def write(engine: TransformersReasoner, rollout: Rollout, tokens: int = 3) -> Done:
    stream: AsyncGenerator[Delta | Done] = engine.stream(Request(rollout, tokens))
    async for item in stream:
        if isinstance(item, Done):
            return item
    raise AssertionError("the stream has no end")


async def reach(gate: Gate) -> None:
    """Wait until one more call is held."""
    assert await asyncio.to_thread(gate.reached.acquire, True, 60)


def picture(n: int) -> Rollout:
    frame = FrameRef(digest=f"{n:064x}"[::-1], width=1500, height=1500, seconds=0.0)
    return Rollout((BEGIN, ImagePiece(frame), TextPiece("What?"), END), f"picture {n}")


@pytest.mark.parametrize("rollout", [LONG, FITS, picture(1)], ids=["long", "pieces", "picture"])
async def test_tokens_go_on_while_a_long_prompt_is_packed(
    engine: TransformersReasoner, monkeypatch: pytest.MonkeyPatch, rollout: Rollout
) -> None:
    if rollout.frames:
        gate = Gate(engine.packer.make_patches, lambda frames: True)
        monkeypatch.setattr(engine.packer, "make_patches", gate)
    else:
        gate = Gate(engine.packer.pack, lambda packed: packed == rollout)
        monkeypatch.setattr(engine.packer, "pack", gate)
    expected = len(Packer.pack(engine.packer, rollout).ids)
    running = engine.stream(Request(SHORT, 40))
    assert isinstance(await anext(running), Delta)
    held = asyncio.ensure_future(write(engine, rollout))
    await reach(gate)
    # A rollout that was being decoded ends, and a new one begins and ends.
    assert [item async for item in running][-1].decoded == 40  # type: ignore[union-attr]
    assert (await write(engine, SHORT)).cached > 0
    assert not held.done()
    gate.opened.set()
    if expected >= engine.context:
        with pytest.raises(ContextError, match=f"{expected} tokens"):
            await held
    else:
        assert (await held).prefilled == expected


async def test_a_failure_ahead_is_the_requests_own(
    engine: TransformersReasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError("no such picture")

    monkeypatch.setattr(engine.packer, "make_patches", fail)
    with pytest.raises(ReasonerError, match="no such picture"):
        await write(engine, picture(2))
    assert (await write(engine, SHORT)).decoded == 3


async def test_frames_that_the_model_has_read_are_not_made_again(
    engine: TransformersReasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.packer.cache_bytes = 0
    first = await write(engine, picture(3))
    monkeypatch.setattr(engine.packer, "make_patches", None)  # must not be called
    again = await write(engine, picture(3).extend("So "))
    assert again.cached == first.prefilled


async def test_a_cancelled_prompt_is_not_packed(
    engine: TransformersReasoner, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(engine.packer.pack, lambda packed: packed == FITS)
    monkeypatch.setattr(engine.packer, "pack", gate)
    held = [asyncio.ensure_future(write(engine, FITS)) for _ in range(2)]  # as many as there are threads
    for _ in held:
        await reach(gate)
    packed: list[Rollout] = []

    def note(rollout: Rollout) -> bool:
        packed.append(rollout)
        return False

    gate.holds = note
    hung_up = asyncio.ensure_future(write(engine, LONG))
    await asyncio.sleep(0)
    hung_up.cancel()
    await asyncio.gather(hung_up, return_exceptions=True)
    gate.opened.set()
    await asyncio.gather(*held)
    await write(engine, SHORT)
    assert LONG not in packed
