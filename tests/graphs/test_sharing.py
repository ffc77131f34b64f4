"""Sharing of models by the graphs of a process, fair turns beside a long video, and cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from act2see.agent.reasoners.base import Delta, Done, Request, Sampling
from act2see.agent.rollout import ImagePiece, Rollout, TextPiece
from act2see.graphs.ask import create_act2see
from act2see.graphs.config import load_config
from act2see.graphs.parts import Parts, build_parts
from act2see.micro.questions import make_item
from act2see.micro.world import write_clip
from act2see.tools.base import Resources
from act2see.tools.generate import Generate
from act2see.tools.retrieve import Retrieve
from act2see.tools.runtime.sharing import KeyedLocks, Shared
from act2see.tools.search.blip2 import Blip2Encoder
from act2see.tools.search.finder import Finder
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore
from tests.graphs.doubles import Scripted, Slow, reached


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video of a minute: 180 frames to index."""
    return str(
        write_clip(make_item("blink", 0, seconds=60).clip, tmp_path_factory.mktemp("film") / "film.mp4", 96)
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A video of six seconds: 18 frames to index."""
    return str(
        write_clip(make_item("blink", 1, seconds=6).clip, tmp_path_factory.mktemp("clip") / "clip.mp4", 96)
    )


@pytest.fixture
def slow(tmp_path: Path) -> Finder:
    store = FrameStore(tmp_path / "frames")
    return Finder(VideoLibrary(tmp_path, store, 96), Slow(), tmp_path, batch=8, workers=1)


def test_configurations_of_the_same_models_share_them(tmp_path: Path) -> None:
    shared = Shared()

    def made(**changes: Any) -> Parts:
        return build_parts(load_config("micro", cache=str(tmp_path), **changes), shared)

    one, other = (
        made(),
        made(budget={"calls": 1}, reasoner={"temperature": 0.5}, index={"fps": 1}, view={"max_frames": 4}),
    )
    assert other.reasoner is one.reasoner
    assert other.resources.finder.encoder is one.resources.finder.encoder
    few = made(tools={"generate": {"options": {"steps": 4, "strength": 0.9}}})
    generate, fewer = one.tools["generate"], few.tools["generate"]
    assert isinstance(generate, Generate)
    assert isinstance(fewer, Generate)
    assert fewer.diffuser is generate.diffuser
    source = np.zeros((48, 48, 3), np.uint8)
    assert fewer.diffuser.params(source, fewer.options).steps == 4
    assert generate.diffuser.params(source, generate.options).steps == generate.options.steps != 4
    # Other weights mean another model.
    assert made(reasoner={"weights": "micro:base"}).reasoner is not one.reasoner
    assert made(reasoner={"rows": 2}).reasoner is not one.reasoner
    assert made(encoder={"dtype": "bfloat16"}).resources.finder.encoder is not one.resources.finder.encoder
    assert made(store=str(tmp_path / "other")).reasoner is not one.reasoner  # it reads frames from its store
    assert build_parts(load_config("micro", cache=str(tmp_path))).reasoner is not one.reasoner


async def test_two_graphs_at_once_answer_as_each_alone(clip: str, tmp_path: Path) -> None:
    shared = Shared()
    config = load_config("micro", cache=str(tmp_path), view={"guard": None})
    graphs = [
        create_act2see(c, parts=build_parts(c, shared))
        for c in (config, load_config(config, budget={"calls": 1}))
    ]
    item = make_item("blink", 1, seconds=6)
    given: Any = {"video": clip, "question": item.text, "options": list(item.options)}
    alone = [(await g.ainvoke(given))["answer"] for g in graphs]
    at_once = await asyncio.gather(*(g.ainvoke(given) for g in graphs))
    assert [a["answer"] for a in at_once] == alone


async def test_a_clip_does_not_wait_for_a_film(slow: Finder, film: str, clip: str) -> None:
    encoder: Any = slow.encoder
    long = asyncio.create_task(slow.ready(film))
    encoder.permits.release(2)
    await reached(lambda: len(encoder.batches) == 2)
    short = asyncio.create_task(slow.ready(clip))
    await asyncio.sleep(0.05)
    encoder.permits.release(8)
    assert len(await short) == 18
    assert not long.done()
    assert len(encoder.batches) <= 10  # three of them the clip's, of the film's twenty-three
    # Facts, pictures and indexes of other videos stay available.
    assert (await slow.ready(clip)).id == slow.index_id(clip)
    assert len(await asyncio.to_thread(slow.library.pictures, film, [3])) == 1
    encoder.let_all = True
    encoder.permits.release(1)
    assert len(await long) == 180


async def test_many_films_do_not_use_up_the_threads(
    slow: Finder, film: str, clip: str, tmp_path: Path
) -> None:
    """More videos wait than asyncio has threads (cores + 4), and other work in threads is still done."""
    encoder: Any = slow.encoder
    parts = [asyncio.create_task(slow.ready(f"{film}#t={n},{n + 9}")) for n in range(40)]
    await reached(lambda: slow.building == 40)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 1 + 1), 10) == 2
    for task in parts[1:]:
        task.cancel()
    await asyncio.gather(*parts[1:], return_exceptions=True)
    encoder.let_all = True
    encoder.permits.release(1)
    assert len(await parts[0]) == 27
    await reached(lambda: not slow.building)
    assert sum(encoder.batches) <= 27 + 8  # and the batch under way, if it was another's


async def test_an_index_that_nobody_awaits_is_dropped(slow: Finder, film: str, tmp_path: Path) -> None:
    encoder: Any = slow.encoder
    one, two = (asyncio.create_task(slow.ready(film)) for _ in range(2))
    encoder.permits.release(1)
    await reached(lambda: len(encoder.batches) == 1)
    one.cancel()
    encoder.permits.release(1)
    await reached(lambda: len(encoder.batches) == 2)
    two.cancel()
    await asyncio.gather(one, two, return_exceptions=True)
    encoder.let_all = True
    encoder.permits.release(1)
    await reached(lambda: not slow.building)
    assert len(encoder.batches) <= 4
    # What is done is saved when the construction is dropped, after the request has gone.
    await reached(lambda: {p.suffix for p in (tmp_path / "indexes").iterdir()} == {".lock", ".parts"})
    assert len(await slow.ready(film)) == 180
    assert sum(encoder.batches) == 180  # nothing was encoded twice


async def test_a_cancelled_run_frees_what_its_tools_use(slow: Finder, film: str, tmp_path: Path) -> None:
    encoder: Any = slow.encoder
    config = load_config("micro", cache=str(tmp_path), view={"guard": None}, tools={"generate": None})
    parts = build_parts(config)
    tool = Retrieve("retrieve", Retrieve.Options(), Resources(parts.resources.store, slow))
    graph = create_act2see(
        config,
        parts=replace(parts, reasoner=Scripted("<retrieve>the circle</retrieve>"), tools={"retrieve": tool}),
    )
    given: Any = {"video": film, "question": "What?"}
    run = asyncio.create_task(graph.ainvoke(given))
    encoder.permits.release(1)
    await reached(lambda: len(encoder.batches) == 1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    encoder.let_all = True
    encoder.permits.release(1)
    await reached(lambda: not slow.building)
    assert len(encoder.batches) <= 3


async def test_the_encoder_batches_waiting_queries(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = build_parts(load_config("micro", cache=str(tmp_path)))
    finder: Any = parts.resources.finder
    await finder.ready(clip)
    queries = [f"the {colour} circle" for colour in ("red", "blue", "green", "black")] * 4
    alone = [finder.find(clip, q).hits for q in queries]
    gate, encode = threading.Event(), Blip2Encoder.phrases

    def gated(encoder: Blip2Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
        assert gate.wait(30)
        return encode(encoder, texts)

    monkeypatch.setattr(Blip2Encoder, "phrases", gated)
    queue = finder.encoder.queue
    before = len(queue.batches)
    pool = [threading.Thread(target=finder.find, args=(clip, q)) for q in queries]
    pool[0].start()
    await reached(lambda: len(queue.batches) > before)
    # The first query is being encoded: the others wait together.
    for thread in pool[1:]:
        thread.start()
    await reached(lambda: queue.queued == len(queries) - 1)
    gate.set()
    for thread in pool:
        await asyncio.to_thread(thread.join)
    assert queue.batches[before:] == [1, len(queries) - 1]
    assert [finder.find(clip, q).hits for q in queries] == alone


async def test_a_long_video_leaves_reasoner_rows_to_other_runs(film: str, tmp_path: Path) -> None:
    config = load_config("micro", cache=str(tmp_path), reasoner={"rows": 2}, view={"guard": None})
    parts = build_parts(config)
    order: list[str] = []

    async def read(name: str, owner: str) -> None:
        frame = parts.resources.finder.library.pictures(film, [0])[0]
        pieces = (
            TextPiece("<|im_start|>user\n<|vision_start|>", "control"),
            ImagePiece(frame),
            TextPiece("<|vision_end|>", "control"),
            TextPiece("What is there?"),
            TextPiece("<|im_end|>\n<|im_start|>assistant\n<think>\n", "control"),
        )
        request = Request(Rollout(pieces, name, owner), 24, sampling=Sampling(temperature=1.0))
        async for item in parts.reasoner.stream(request):
            if isinstance(item, Delta) and name not in order:
                order.append(name)
            assert isinstance(item, Delta | Done)

    await read("warm", "warm")
    order.clear()
    film_parts = [asyncio.create_task(read(f"part {n}", "film")) for n in range(12)]
    await reached(lambda: len(order) >= 1)
    other = asyncio.create_task(read("clip", "clip"))
    await asyncio.gather(other, *film_parts)
    assert order.index("clip") <= 4
    assert [n for n in order if n != "clip"] == [f"part {n}" for n in range(12)]


def test_keyed_locks_are_independent() -> None:
    locks = KeyedLocks()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locks("film"), locks("film"):
            inside.set()
            assert leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    with locks("clip"):
        pass
    order: list[str] = []

    def follow() -> None:
        with locks("film"):
            order.append("taken")

    taken = threading.Thread(target=follow)
    taken.start()
    time.sleep(0.05)
    order.append("left")
    leave.set()
    thread.join(30)
    taken.join(30)
    assert order == ["left", "taken"]


def test_a_keyed_lock_is_removed_after_use() -> None:
    class Key:
        pass

    locks, key = KeyedLocks(), Key()
    held = weakref.ref(key)
    with locks(key):
        pass
    del key
    gc.collect()
    assert held() is None
